"""The CUDA rasterizer: gsplat."""

from __future__ import annotations

from torch import Tensor

from pixel4d_ros.rendering.rasterizer import EPS2D, NEAR, Rendering


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
    rendered, alpha, _ = rasterization(
        means.contiguous(),
        quaternions.contiguous(),
        scales.contiguous(),
        opacities.contiguous(),
        features.contiguous(),
        T_camera_world[:, None].contiguous(),
        K[:, None].contiguous(),
        width=size[0],
        height=size[1],
        near_plane=NEAR,
        eps2d=EPS2D,
        packed=False,
        render_mode="RGB+ED",
    )
    return Rendering(rendered[:, 0, ..., :-1], rendered[:, 0, ..., -1], alpha[:, 0, ..., 0])
