# SPDX-License-Identifier: Apache-2.0
"""The synthetic street as a driving log, with the topics of a real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pixel4d_ros.datasets.clip_log import PLAN, Drive, write_clip
from pixel4d_ros.geometry.rotations import rigid, rigid_inverse
from pixel4d_ros.logs.writer import LogWriter
from pixel4d_ros.synthetic.motion import BODY_OPTICAL
from pixel4d_ros.synthetic.views import clip_layout, street_clip

STEP = 0.1  # seconds between frames
BASE_CAMERA = rigid(BODY_OPTICAL, (1.08, 0.0, 0.73))  # T_base_camera: the camera ahead of and above the inertial unit


def write_street_log(
    path: Path, seed: int = 0, frames: int = 100, size: tuple[int, int] = (416, 128), progress: bool = True
) -> None:
    """Write `frames` images at 10 Hz with CameraInfo, depth, odometry, tf and the plan of the next 3 s to an MCAP file.

    size is (width, height). Poses are of base_link in odom, where base_link is at time 0. Raises LogError when the path
    cannot be written.
    """
    with LogWriter(path) as log:
        clip = street_clip(seed, frames, STEP, size, progress=progress)
        # From one step before the first frame, for its velocity, to the end of the last frame's plan.
        steps = np.arange(-1, frames + round(PLAN / STEP) + 1, dtype=np.float64)
        base = clip_layout(seed, float(clip.times[-1])).camera(steps * STEP) @ rigid_inverse(BASE_CAMERA)
        drive = Drive(steps * STEP, rigid_inverse(base[1]) @ base)
        write_clip(log, clip, BASE_CAMERA, drive, progress=False)
