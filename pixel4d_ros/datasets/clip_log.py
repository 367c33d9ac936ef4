# SPDX-License-Identifier: Apache-2.0
"""Clips as driving logs: images, calibration, depth, odometry, tf and the plan in one MCAP file."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.geometry.optical import FORWARD_OPTICAL
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse, rotation_vector
from pixel4d_ros.logs.messages import BASE, ODOM, Messages
from pixel4d_ros.logs.writer import LogWriter

PLAN = 3.0  # seconds of the planned path
EPOCH = 1_700_000_000  # start of clips whose times are no dates: in ROS, a stamp of 0 means "no stamp"
DATES = 1e9  # seconds: earlier times are no dates
MAX_DEPTH = 65.534  # metres: 16 bits of millimetres, of which the largest means unknown
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Drive:
    """Poses of the base: times (N,) in the clip's seconds, and T_odom_base (N, 4, 4)."""

    times: FloatArray
    base: FloatArray


def write_clip(
    log: LogWriter,
    clip: Clip,
    T_base_camera: FloatArray = FORWARD_OPTICAL,
    drive: Drive | None = None,
    progress: bool = True,
) -> None:
    """Write a clip into a log, with the topics of this project's driving logs.

    T_base_camera places base_link, by default at the camera with x forward and z up in the picture. odom is base_link
    at the first image. The plan of each image is the path driven in the next PLAN seconds, from `drive` (None: the
    clip). Times that are no dates begin at EPOCH. Depth beyond MAX_DEPTH is omitted. A stereo partner becomes the right
    camera. Boxes and masks have no topic. Raises LogError if the log cannot be written.
    """
    if drive is None:
        base = clip.poses @ rigid_inverse(T_base_camera)
        drive = Drive(clip.times, rigid_inverse(base[0]) @ base)
    shift = EPOCH if clip.times[0] < DATES else 0
    stamps = [shift * 10**9 + round(t * 1e9) for t in drive.times]
    places = np.searchsorted(drive.times, clip.times - 1e-6)
    cameras = [("left", clip, T_base_camera)]
    if clip.stereo is not None:
        T_left_right = rigid_inverse(clip.poses[0]) @ clip.stereo.poses[0]
        cameras.append(("right", clip.stereo, T_base_camera @ T_left_right))
    make = Messages()
    first = stamps[places[0]]
    log.write("/tf_static", first, make.tf(first, [(BASE, _frame(side), T) for side, _, T in cameras]))
    for i in tqdm(range(len(clip)), desc=log.path.name, unit="frame", disable=not progress):
        now = stamps[places[i]]
        _write_motion(log, make, now, int(places[i]), drive, stamps)
        for side, images, _ in cameras:
            _write_camera(log, make, now, side, images, i)


def _frame(side: str) -> str:
    return f"camera_{side}_optical"


def _write_motion(log: LogWriter, make: Messages, now: int, at: int, drive: Drive, stamps: list[int]) -> None:
    """tf, odometry and plan where the base is at drive.times[at]."""
    base = drive.base
    log.write("/tf", now, make.tf(now, [(ODOM, BASE, base[at])]))
    log.write("/odometry", now, make.odometry(now, base[at], _twist(drive, at)))
    end = int(np.searchsorted(drive.times, drive.times[at] + PLAN + 1e-6))
    log.write("/planned_path", now, make.path(now, stamps[at:end], base[at:end]))


def _twist(drive: Drive, at: int) -> tuple[FloatArray, FloatArray]:
    """Linear and angular velocity in the base's frame, by differences over the neighbouring poses."""
    i, j = max(at - 1, 0), min(at + 1, len(drive.times) - 1)
    if i == j:
        return np.zeros(3), np.zeros(3)
    step = drive.times[j] - drive.times[i]
    before, now, after = drive.base[i], drive.base[at], drive.base[j]
    linear = now[:3, :3].T @ (after[:3, 3] - before[:3, 3]) / step
    return linear, rotation_vector(before[:3, :3].T @ after[:3, :3]) / step


def _write_camera(log: LogWriter, make: Messages, now: int, side: str, clip: Clip, i: int) -> None:
    """Calibration, image and depth of frame i."""
    frame, topic = _frame(side), f"/camera/{side}"
    height, width = clip.images.shape[1:3]
    log.write(f"{topic}/camera_info", now, make.camera_info(now, frame, clip.K, width, height))
    jpeg = cv2.imencode(".jpg", clip.images[i][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    image = make.compressed(now, frame, "bgr8; jpeg compressed bgr8", np.asarray(jpeg))
    log.write(f"{topic}/image_raw/compressed", now, image)
    if clip.depth is not None:
        depth = make.compressed(now, frame, "16UC1; png compressed", _millimetres(clip.depth[i]))
        log.write(f"{topic}/depth/compressed", now, depth)


def _millimetres(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    known = np.where(depth <= MAX_DEPTH, depth, 0)
    return np.asarray(cv2.imencode(".png", np.round(known * 1000).astype(np.uint16))[1])
