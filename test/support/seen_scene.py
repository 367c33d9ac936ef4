# SPDX-License-Identifier: Apache-2.0
"""Scenes as a camera sees them: a flat road and boxes on it, one Gaussian per pixel, made by casting rays."""

from __future__ import annotations

import numpy as np
import torch

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rotations import FloatArray, rigid
from pixel4d_ros.predictor.lifting import surface_gaussians
from pixel4d_ros.scene import DynamicGaussians

# The camera looks ahead, 1.5 m above the road and above the base's origin: base x is the scene's z.
T_BASE_SCENE = rigid([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0, 0, 1.5])
CAMERA = Camera(np.array([[150.0, 0, 150], [0, 150.0, 40], [0, 0, 1]]), 301, 121)
SKY = 200.0  # metres
Box = tuple[tuple[float, float, float], tuple[float, float, float]]  # center and size in the base's frame, metres


def seen_scene(*boxes: Box, blur: int = 0, velocities: tuple[tuple[float, float, float], ...] = ()) -> DynamicGaussians:
    """The road and boxes, the first of which move with velocities (m/s, base's frame).

    blur: pixels over which the inverse depth of outlines is averaged, as a network's is: flying pixels.
    """
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width]
    rays = np.stack((u, v, np.ones_like(u)), -1) @ np.linalg.inv(CAMERA.K).T @ T_BASE_SCENE[:3, :3].T
    eye, depth, ids = T_BASE_SCENE[:3, 3], np.full(u.shape, SKY), np.zeros(u.shape, int)
    with np.errstate(divide="ignore", invalid="ignore"):
        road = -eye[2] / rays[..., 2]
        depth = np.where((road > 0) & (road < SKY), road, depth)
        for k, (center, size) in enumerate(boxes, 1):
            low, high = np.array(center) - np.array(size) / 2, np.array(center) + np.array(size) / 2
            a, b = (low - eye) / rays, (high - eye) / rays
            enter, leave = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
            hit = (enter < leave) & (enter > 0) & (enter < depth)
            depth, ids = np.where(hit, enter, depth), np.where(hit, k if k <= len(velocities) else 0, ids)
    inverse = 1 / depth
    if blur:
        kernel = np.ones(2 * blur + 1) / (2 * blur + 1)
        padded = np.pad(inverse, ((0, 0), (blur, blur)), mode="edge")
        inverse = np.stack([np.convolve(row, kernel, mode="valid") for row in padded])
    K = torch.tensor(CAMERA.K, dtype=torch.float32)[None]
    means, quaternions, scales = surface_gaussians(
        torch.tensor(inverse, dtype=torch.float32)[None], K, torch.full((1, *inverse.shape), 0.6)
    )
    flat = torch.tensor(ids.ravel())
    n, zero = len(flat), torch.zeros(len(flat), 3)
    speeds = np.array([(0.0, 0.0, 0.0), *velocities]) @ T_BASE_SCENE[:3, :3]
    centers = np.array([(0.0, 0.0, 0.0), *(c for c, _ in boxes[: len(velocities)])])
    centers[1:] = (centers[1:] - T_BASE_SCENE[:3, 3]) @ T_BASE_SCENE[:3, :3]
    return DynamicGaussians(
        means[0], quaternions[0], scales[0], torch.full((n,), 0.8), torch.full((n, 3), 0.5),
        torch.tensor(speeds, dtype=torch.float32)[flat], zero, zero, zero, flat,
        torch.tensor(centers, dtype=torch.float32), observed=torch.ones(n), camera=CAMERA,
    )  # fmt: skip


def at_mounting(height: float, yaw: float = 0.0, ahead: float = 0.0) -> FloatArray:
    """T_base_scene of a base whose origin is `height` below the camera, turned by yaw (rad) and `ahead` of it."""
    c, s = np.cos(yaw), np.sin(yaw)
    turned: FloatArray = rigid([[c, s, 0], [-s, c, 0], [0, 0, 1]], [0, 0, 0]) @ rigid(
        T_BASE_SCENE[:3, :3], [-ahead, 0, height]
    )
    return turned
