# SPDX-License-Identifier: Apache-2.0
"""EWA projection of 3D Gaussians to the image plane (Zwicker et al. 2001), as gsplat 1.5 does it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pixel4d_ros.geometry.quaternions import quaternion_to_matrix
from pixel4d_ros.rendering.types import EPS2D


@dataclass(frozen=True)
class ProjectedGaussians:
    """N Gaussians seen by one camera."""

    means: Tensor  # (N, 2) pixels
    depths: Tensor  # (N,) metres along z
    covariances: Tensor  # (N, 3) square pixels: xx, xy, yy
    conics: Tensor  # (N, 3) their inverses


def project(
    means: Tensor, quaternions: Tensor, scales: Tensor, T_camera_world: Tensor, K: Tensor, size: tuple[int, int]
) -> ProjectedGaussians:
    """Project Gaussians (N, ...) into one camera: T_camera_world (4, 4), K (3, 3), size (width, height).

    Differentiable. As in gsplat, the linearisation point is clamped to 1.3 times the field of view.
    """
    width, height = size
    R = T_camera_world[:3, :3]
    p = means @ R.T + T_camera_world[:3, 3]
    z = p[:, 2]
    safe_z = torch.where(z.abs() < 1e-6, torch.full_like(z, 1e-6), z)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    tx = (p[:, 0] / safe_z).clamp(-(cx / fx + margin_x), (width - cx) / fx + margin_x)
    ty = (p[:, 1] / safe_z).clamp(-(cy / fy + margin_y), (height - cy) / fy + margin_y)
    axes = R @ (
        quaternion_to_matrix(torch.nn.functional.normalize(quaternions, dim=-1)) * scales[:, None, :]
    )  # (N, 3, 3): columns are the scaled axes
    u = (fx / safe_z)[:, None] * (axes[:, 0] - tx[:, None] * axes[:, 2])
    v = (fy / safe_z)[:, None] * (axes[:, 1] - ty[:, None] * axes[:, 2])
    xx = (u * u).sum(-1) + EPS2D
    xy = (u * v).sum(-1)
    yy = (v * v).sum(-1) + EPS2D
    determinant = xx * yy - xy * xy
    return ProjectedGaussians(
        means=torch.stack((fx * p[:, 0] / safe_z + K[0, 2], fy * p[:, 1] / safe_z + K[1, 2]), -1),
        depths=z,
        covariances=torch.stack((xx, xy, yy), -1),
        conics=torch.stack((yy, -xy, xx), -1) / determinant[:, None],
    )
