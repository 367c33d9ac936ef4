# SPDX-License-Identifier: Apache-2.0
"""Optical frames of cameras, and images that name the camera's body frame in place of it (REP 103).

Simulators and some drivers put the body frame (x forward, z up) into the header of images, whose pixels belong to the
optical frame (z forward, x right, y down). Taken literally, such a camera looks at the sky, and driving forward moves
it sideways.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.geometry.rotations import FloatArray

# Optical frame in a body frame (REP 103): z forward, x right, y down in x forward, y left, z up.
FORWARD_OPTICAL = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
FARTHEST_MOUNTING = 100.0  # metres of a camera from its base: no vehicle is longer
UPWARD = 0.8  # cosine of the angle between the camera's z axis and the base's, within which it looks at the sky

LEVEL = 0.5  # cosine of the tilt beyond which no vehicle drives
SENSORS = ("cam", "optical", "imu", "lidar", "laser", "livox", "velodyne", "sensor", "body")  # mounted in any pose
OVERTURNED = (
    "the vehicle lies on its side or back: give quaternions in the order x, y, z, w, and poses of a frame with z up"
    " (REP 103)"
)


def is_overturned(poses: FloatArray, frame: str) -> NDArray[np.bool_]:
    """Which poses T_world_frame (..., 4, 4) of a vehicle have it on its side or back; of sensors' frames, none.

    REP 103: z is up. Quaternions in the order w, x, y, z look so.
    """
    known = not any(word in frame.lower() for word in SENSORS)
    return np.asarray((poses[..., 2, 2] < LEVEL) & known)


def optical_mounting(mounting: FloatArray, base: str, camera: str) -> tuple[FloatArray, str]:
    """T_base_camera of the images' optical frame, and a warning where `camera` is a body frame, far or tilted.

    mounting: T_base_camera (4, 4) of the frame that the images name. A frame whose z axis points up in a base that is
    no camera itself is one of a camera's body, unless its name says optical.
    """
    distance = float(np.linalg.norm(mounting[:3, 3]))
    if distance > FARTHEST_MOUNTING:
        return mounting, f"the camera {camera!r} is {distance:.0f} m away from {base!r}: tf must be in metres"
    x_up, y_up, _ = mounting[2, :3]
    if (y_up > UPWARD or abs(x_up) > UPWARD) and not any(word in base.lower() for word in SENSORS):
        return mounting, (
            f"the camera {camera!r} is mounted {'upside down' if y_up > UPWARD else 'on its side'} in {base!r}, whose z"
            " is up: give upright images, with their K and their frame turned as well, or correct the mounting"
        )
    if camera == base or mounting[2, 2] < UPWARD or "optical" in camera.lower() or "cam" in base.lower():
        return mounting, ""
    if "optical" in base.lower():
        return mounting, ""
    return mounting @ FORWARD_OPTICAL, (
        f"the images' frame {camera!r} has its z axis up, so it is taken for the camera's body frame, looking along x:"
        " set frame_id to its optical frame (z forward)"
    )
