"""The CUDA rasterizer: gsplat."""

from __future__ import annotations

import torch

from pixel4d_ros.rendering.rasterizer import EPS2D, NEAR, GaussianViews, Rendering, depth_from_inverse


def rasterize_gsplat(views: GaussianViews) -> Rendering:
    """Render on CUDA, differentiable."""
    from gsplat import rasterization

    # gsplat puts pixel centres at half integers.
    K = views.K.clone()
    K[:, :2, 2] += 0.5
    # gsplat's own depth is the mean of depths; the inverse goes along as one more channel.
    T = views.T_camera_world
    depths = (views.means @ T[:, 2, :3, None])[..., 0] + T[:, 2, 3:]
    inverse = 1 / depths.clamp(min=NEAR)
    rendered, alpha, _ = rasterization(
        views.means.contiguous(),
        views.quaternions.contiguous(),
        views.scales.contiguous(),
        views.opacities.contiguous(),
        torch.cat((views.features, inverse[..., None]), -1),
        T[:, None].contiguous(),
        K[:, None].contiguous(),
        width=views.size[0],
        height=views.size[1],
        near_plane=NEAR,
        eps2d=EPS2D,
        packed=False,
    )
    seen = alpha[:, 0, ..., 0]
    return Rendering(rendered[:, 0, ..., :-1], depth_from_inverse(seen, rendered[:, 0, ..., -1]), seen)
