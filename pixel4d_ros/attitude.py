"""How far the camera's attitude may be off in a forecast.

A vehicle pitches and sways by tenths of a degree, of which no planned path tells, and odometry drifts. The frame to
expect is the mean of all that the camera may then see: the frame for the planned pose, blurred by as much.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.rotations import FloatArray

ATTITUDE_WALK = 0.06  # degrees per square root of a metre driven
LARGEST_SPREAD = 1 / 8  # of the image's width: nothing is left to see, and wider blur would take its time


def attitude_spread(T_source_camera: FloatArray, camera: Camera, walk: float = ATTITUDE_WALK) -> NDArray[np.float32]:
    """Standard deviation (V,) in pixels of where distant points appear, for poses (V, 4, 4) in metres.

    A random walk of `walk` degrees per square root of a metre: none in the source view, and growing with the square
    root of the distance from there, up to LARGEST_SPREAD.
    """
    focal = math.sqrt(camera.K[0, 0] * camera.K[1, 1])
    distance = np.linalg.norm(T_source_camera[:, :3, 3], axis=1)
    spread = math.radians(walk) * focal * np.sqrt(distance)
    return np.minimum(spread, LARGEST_SPREAD * camera.width).astype(np.float32)
