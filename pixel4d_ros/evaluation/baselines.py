# SPDX-License-Identifier: Apache-2.0
"""Baselines of a forecast: the image repeated, the image on a flat ground, the same scene without motion."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import unproject
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.scene import DynamicGaussians

FAR = 1000.0  # metres: where everything above the ground's horizon is taken to be
KNOWN_HEIGHTS = {"kitti": 1.65}  # metres from the ground to the camera, by what a clip's name contains
LEAST_DRIVE = 1.0  # metres of travel from which the ground's slope is taken


def without_motion(scene: DynamicGaussians) -> DynamicGaussians:
    """The scene with all motion set to zero, and without sampled futures."""
    still = scene.velocities.new_zeros(scene.velocities.shape)
    return replace(
        scene, velocities=still, accelerations=still, angular_velocities=still, angular_accelerations=still, futures=()
    )


def known_height(name: str) -> float | None:
    """Height of the camera above the ground in metres, for data sets recognised by a clip's name; None for others."""
    return next((height for word, height in KNOWN_HEIGHTS.items() if word in name.lower()), None)


def on_flat_ground(image: NDArray[np.uint8], K: FloatArray, poses: FloatArray, height: float) -> NDArray[np.uint8]:
    """The image (H, W, 3) seen from poses (T, 4, 4) T_source_camera, as if all of it lay on the ground or far away.

    The ground is a plane `height` metres below the source camera, level across, and parallel to the direction of
    travel: the homography that a plane induces (R. Hartley and A. Zisserman, "Multiple View Geometry", section 13.1)
    below its horizon, the one of the plane at infinity above. Pixels outside the image take its border's colour.
    """
    rows, columns = image.shape[:2]
    u, v = np.meshgrid(np.arange(columns, dtype=np.float64), np.arange(rows, dtype=np.float64))
    rays = unproject(np.stack((u, v), -1), np.ones_like(u), K)
    down = _down(poses)
    frames = np.empty((len(poses), *image.shape), np.uint8)
    for frame, pose in zip(frames, poses):
        directions = rays @ pose[:3, :3].T
        slope = directions @ down
        with np.errstate(divide="ignore"):
            reach = np.where(slope > 0, (height - pose[:3, 3] @ down) / slope, np.inf)
        points = pose[:3, 3] + directions * np.clip(reach, 0, FAR)[..., None]
        pixels = points @ K.T
        # What lies behind the source camera cannot have been seen; the border's colour is as good as any.
        ahead = np.maximum(pixels[..., 2:], 1e-3)
        at = (pixels[..., :2] / ahead).clip(-1e4, 1e4).astype(np.float32)
        frame[:] = cv2.remap(image, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return frames


def _down(poses: FloatArray) -> FloatArray:
    """The ground's unit normal (3,) in the source camera's frame, pointing down."""
    down = np.array([0.0, 1.0, 0.0])
    travel = poses[-1, :3, 3]
    length = float(np.linalg.norm(travel))
    if length >= LEAST_DRIVE:
        ahead = travel / length
        down = down - (down @ ahead) * ahead
    return np.asarray(down / np.linalg.norm(down), np.float64)
