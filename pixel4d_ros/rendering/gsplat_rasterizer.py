# SPDX-License-Identifier: Apache-2.0
"""The CUDA rasterizer: gsplat's kernels (Ye et al. 2025), called one by one.

Calling them one by one projects shared Gaussians without copies per view, and renders only those tiles of a second
future that differ from the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.rendering import triton_kernels
from pixel4d_ros.rendering.tiles import TILE, radii_within, tile_grid, touched_tiles, within
from pixel4d_ros.rendering.types import EPS2D, NEAR, GaussianViews, Rendering, depth_from_inverses

WIDTHS = (*range(1, 6), 8, 9, 16, 17, 32)  # channels for which gsplat has kernels; in between it copies to pad


@dataclass(frozen=True)
class _Splats:
    """V x N Gaussians as seen by V cameras."""

    radii: Tensor  # (V, N, 2) int32 pixels, 0 where not in view
    means: Tensor  # (V, N, 2) pixels, pixel centres at half integers
    depths: Tensor  # (V, N) metres
    conics: Tensor  # (V, N, 3)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.radii, self.means, self.depths, self.conics


def rasterize_gsplat(views: GaussianViews, with_depth: bool = True) -> Rendering:
    """Render on CUDA. Differentiable except in views.moved."""
    if torch.is_grad_enabled() and views.moved is not None:
        views = views.placed()
    splats = _project(views)
    if views.moved is not None:
        _replace(splats, views.moved.index, _project_moved(views))
    return _rendering(*_blend(splats, _channels(splats, views, with_depth), views), views, with_depth)


def rasterize_gsplat_futures(futures: Sequence[GaussianViews], with_depth: bool = True) -> Iterator[Rendering]:
    """Render futures that differ only in where the same Gaussians moved; after the first, only tiles these touch."""
    first, *others = futures
    if not others or first.moved is None or any(views.moved is None for views in others):
        yield from (rasterize_gsplat(views, with_depth) for views in futures)
        return
    index, splats, moving = first.moved.index, _project(first), _project_moved(first)
    _replace(splats, index, moving)
    channels = _channels(splats, first, with_depth)
    rendering = _rendering(*_blend(splats, channels, first), first, with_depth)
    yield rendering
    touched_first = touched_tiles(moving.means, moving.radii, first.size)
    for views in others:
        moving = _project_moved(views)
        _replace(splats, index, moving)
        if with_depth:
            c = views.features.shape[-1]
            channels[..., c : c + 2].index_copy_(1, index, _inverse_depths(moving))
        tiles = touched_first | touched_tiles(moving.means, moving.radii, views.size)
        # Most splats are in no such tile and need not be sorted; the rest keep their order, and each tile its sum.
        near = replace(splats, radii=radii_within(splats.means, splats.radii, tiles))
        yield with_changed_tiles(tiles, *_blend(near, channels, views, tiles), rendering, views, with_depth)


def _project(views: GaussianViews) -> _Splats:
    """Project all Gaussians, moved ones at their old place; once for all views if these share them."""
    gaussians = (views.means, views.quaternions, views.scales, views.opacities)
    T, K = views.T_camera_world, _gsplat_intrinsics(views.K)
    if all(len(t) == 1 or t.stride(0) == 0 for t in gaussians):
        means, quaternions, scales, opacities = (t[0] for t in gaussians)
        return _projection(means, quaternions, scales, opacities, T, K, views.size)
    parts = _projection(*gaussians, T[:, None], K[:, None], views.size)
    return _Splats(*(t.squeeze(1) for t in parts.tensors()))


def _project_moved(views: GaussianViews) -> _Splats:
    """Project the moved Gaussians (V, M)."""
    assert views.moved is not None
    index = views.moved.index
    parts = _projection(
        views.moved.means,
        views.moved.quaternions,
        views.scales[:, index],
        views.opacities[:, index],
        views.T_camera_world[:, None],
        _gsplat_intrinsics(views.K)[:, None],
        views.size,
    )
    return _Splats(*(t.squeeze(1) for t in parts.tensors()))


def _projection(
    means: Tensor,
    quaternions: Tensor,
    scales: Tensor,
    opacities: Tensor,
    T: Tensor,
    K: Tensor,
    size: tuple[int, int],
) -> _Splats:
    from gsplat import fully_fused_projection

    radii, means2d, depths, conics, _ = fully_fused_projection(
        means, None, quaternions, scales, T, K, size[0], size[1], eps2d=EPS2D, near_plane=NEAR, opacities=opacities
    )
    return _Splats(radii, means2d, depths, conics)


def _gsplat_intrinsics(K: Tensor) -> Tensor:
    """Intrinsics for pixel centres at half integers."""
    return K + F.pad(torch.full_like(K[..., :2, :1], 0.5), (2, 0, 0, 1))


def _replace(splats: _Splats, index: Tensor, moving: _Splats) -> None:
    """Overwrite the splats at index (M,) by moving (V, M)."""
    for all_of_them, some in zip(splats.tensors(), moving.tensors()):
        all_of_them.index_copy_(1, index, some)


def _inverse_depths(splats: _Splats) -> Tensor:
    """Inverse depth and its square (V, N, 2)."""
    inverse = 1 / splats.depths.clamp(min=NEAR)
    return torch.stack((inverse, inverse.square()), -1)


def _channels(splats: _Splats, views: GaussianViews, with_depth: bool) -> Tensor:
    """Blended channels (V, N, at least C or C + 2): features, and 1/z and 1/z^2 for the depth, a mean gsplat lacks."""
    if not with_depth:
        return views.features
    wanted = views.features.shape[-1] + 2
    width = next((width for width in WIDTHS if width >= wanted), wanted)
    if triton_kernels.can_use(views.features):
        return triton_kernels.operations.blended_channels(views.features, splats.depths, width, NEAR)
    spare = splats.depths.new_zeros(()).expand(*splats.depths.shape, width - wanted)
    return torch.cat((views.features, _inverse_depths(splats), spare), -1)


def _blend(
    splats: _Splats, channels: Tensor, views: GaussianViews, tiles: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Blended channels (V, H, W, at least C) and alpha (V, H, W); undefined where tiles (V, h, w) are false."""
    from gsplat import isect_offset_encode, isect_tiles, rasterize_to_pixels

    v, (width, height), (columns, rows) = len(splats.depths), views.size, tile_grid(views.size)
    _, intersections, flat = isect_tiles(splats.means, splats.radii, splats.depths, TILE, columns, rows)
    blended, alpha = rasterize_to_pixels(
        splats.means,
        splats.conics,
        channels,
        views.opacities,
        width,
        height,
        TILE,
        isect_offset_encode(intersections, v, columns, rows),
        flat,
        masks=tiles,
    )
    return blended, alpha[..., 0]


def _rendering(blended: Tensor, alpha: Tensor, views: GaussianViews, with_depth: bool) -> Rendering:
    """What _blend gives, with depth in metres."""
    if not with_depth:
        return Rendering(blended, torch.full_like(alpha, torch.nan), alpha)
    c = views.features.shape[-1]
    return Rendering(blended[..., :c], depth_from_inverses(blended[..., c], blended[..., c + 1]), alpha)


def with_changed_tiles(
    tiles: Tensor, blended: Tensor, alpha: Tensor, old: Rendering, views: GaussianViews, with_depth: bool
) -> Rendering:
    """What _blend gave in tiles (V, h, w), the old rendering elsewhere."""
    if with_depth and triton_kernels.can_use(blended):
        return Rendering(
            *triton_kernels.operations.changed_tiles(tiles, blended, alpha, old.features, old.depth, old.alpha, TILE)
        )
    return within(tiles, _rendering(blended, alpha, views, with_depth), old, views.size)
