"""The CUDA rasterizer: gsplat."""

from __future__ import annotations

import torch
from torch import Tensor

from pixel4d_ros.rendering.rasterizer import EPS2D, NEAR, Rendering, depth_from_inverse


def rasterize_gsplat(
    means: Tensor,
    quaternions: Tensor,
    scales: Tensor,
    opacities: Tensor,
    features: Tensor,
    T_camera_world: Tensor,
    K: Tensor,
    size: tuple[int, int],
) -> Rendering:
    """Render on CUDA, differentiable; see `rasterize` for the shapes."""
    from gsplat import rasterization

    # gsplat puts pixel centres at half integers.
    K = K.clone()
    K[:, :2, 2] += 0.5
    # gsplat's own depth is the mean of depths; the inverse goes along as one more channel.
    depths = (means @ T_camera_world[:, 2, :3, None])[..., 0] + T_camera_world[:, 2, 3:]
    inverse = 1 / depths.clamp(min=NEAR)
    rendered, alpha, _ = rasterization(
        means.contiguous(),
        quaternions.contiguous(),
        scales.contiguous(),
        opacities.contiguous(),
        torch.cat((features, inverse[..., None]), -1),
        T_camera_world[:, None].contiguous(),
        K[:, None].contiguous(),
        width=size[0],
        height=size[1],
        near_plane=NEAR,
        eps2d=EPS2D,
        packed=False,
    )
    seen = alpha[:, 0, ..., 0]
    return Rendering(rendered[:, 0, ..., :-1], depth_from_inverse(seen, rendered[:, 0, ..., -1]), seen)
