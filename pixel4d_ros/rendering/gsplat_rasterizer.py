"""The CUDA rasterizer: gsplat's kernels (Ye et al. 2025), called one by one.

Called so, what all views share is projected without being copied for each view, and of a second future only the
tiles are rendered in which it differs from the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros import fused
from pixel4d_ros.rendering.rasterizer import EPS2D, NEAR, GaussianViews, Rendering, depth_from_inverses

TILE = 8  # pixels: with gsplat's 16, most of a tile's pixels would be far from most of its small Gaussians
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
    """Render on CUDA. Differentiable but in what is moved."""
    if torch.is_grad_enabled() and views.moved is not None:
        views = views.placed()
    splats = _project(views)
    if views.moved is not None:
        _replace(splats, views.moved.index, _project_moved(views))
    return _blend(splats, _channels(splats, views, with_depth), views, with_depth)


def rasterize_gsplat_futures(futures: Sequence[GaussianViews], with_depth: bool = True) -> list[Rendering]:
    """Render futures that differ in `moved` only; after the first, only tiles that something moving touches."""
    if len(futures) == 1 or any(views.moved is None for views in futures):
        return [rasterize_gsplat(views, with_depth) for views in futures]
    splats, found = _project(futures[0]), list[Rendering]()
    channels = touched_first = torch.empty(0)
    for views in futures:
        assert views.moved is not None
        moving = _project_moved(views)
        _replace(splats, views.moved.index, moving)
        touched = _touched_tiles(moving, views.size)
        if not found:
            channels, touched_first = _channels(splats, views, with_depth), touched
            found.append(_blend(splats, channels, views, with_depth))
            continue
        if with_depth:
            c = views.features.shape[-1]
            channels[..., c : c + 2].index_copy_(1, views.moved.index, _inverse_depths(moving))
        tiles = touched | touched_first
        found.append(_where(tiles, _blend(splats, channels, views, with_depth, tiles), found[0]))
    return found


def _project(views: GaussianViews) -> _Splats:
    """Project all but what is moved. Once for all views what is the same in all of them."""
    gaussians = (views.means, views.quaternions, views.scales, views.opacities)
    T, K = views.T_camera_world, _gsplat_intrinsics(views.K)
    if all(len(t) == 1 or t.stride(0) == 0 for t in gaussians):
        means, quaternions, scales, opacities = (t[0] for t in gaussians)
        return _projection(means, quaternions, scales, opacities, T, K, views.size)
    parts = _projection(*gaussians, T[:, None], K[:, None], views.size)
    return _Splats(*(t.squeeze(1) for t in parts.tensors()))


def _project_moved(views: GaussianViews) -> _Splats:
    """Project what is moved (V, M)."""
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
    from gsplat.cuda._wrapper import fully_fused_projection

    radii, means2d, depths, conics, _ = fully_fused_projection(
        means, None, quaternions, scales, T, K, size[0], size[1], eps2d=EPS2D, near_plane=NEAR, opacities=opacities
    )
    return _Splats(radii, means2d, depths, conics)


def _gsplat_intrinsics(K: Tensor) -> Tensor:
    """Intrinsics for pixel centres at half integers."""
    return K + F.pad(torch.full_like(K[..., :2, :1], 0.5), (2, 0, 0, 1))


def _replace(splats: _Splats, index: Tensor, moving: _Splats) -> None:
    """Overwrite the splats at index (M,) by what is moving (V, M)."""
    for all_of_them, some in zip(splats.tensors(), moving.tensors()):
        all_of_them.index_copy_(1, index, some)


def _inverse_depths(splats: _Splats) -> Tensor:
    """Inverse depth and its square (V, N, 2)."""
    inverse = 1 / splats.depths.clamp(min=NEAR)
    return torch.stack((inverse, inverse.square()), -1)


def _channels(splats: _Splats, views: GaussianViews, with_depth: bool) -> Tensor:
    """What is blended (V, N, at least C or C + 2): features, and what depth is made of, as gsplat has no such mean."""
    if not with_depth:
        return views.features
    wanted = views.features.shape[-1] + 2
    width = next((width for width in WIDTHS if width >= wanted), wanted)
    if fused.applicable(views.features):
        return fused.rendering.blended_channels(views.features, splats.depths, width, NEAR)
    spare = splats.depths.new_zeros(()).expand(*splats.depths.shape, width - wanted)
    return torch.cat((views.features, _inverse_depths(splats), spare), -1)


def _tiles(size: tuple[int, int]) -> tuple[int, int]:
    return math.ceil(size[0] / TILE), math.ceil(size[1] / TILE)


def _blend(
    splats: _Splats, channels: Tensor, views: GaussianViews, with_depth: bool, tiles: Tensor | None = None
) -> Rendering:
    """Blend splats front to back; where tiles (V, h, w) are given and false the result is undefined."""
    from gsplat.cuda._wrapper import isect_offset_encode, isect_tiles, rasterize_to_pixels

    v, (width, height), (columns, rows) = len(splats.depths), views.size, _tiles(views.size)
    _, intersections, flat = isect_tiles(splats.means, splats.radii, splats.depths, TILE, columns, rows)
    rendered, alpha = rasterize_to_pixels(
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
    seen = alpha[..., 0]
    if not with_depth:
        return Rendering(rendered, torch.full_like(seen, torch.nan), seen)
    c = views.features.shape[-1]
    return Rendering(rendered[..., :c], depth_from_inverses(rendered[..., c], rendered[..., c + 1]), seen)


def _touched_tiles(splats: _Splats, size: tuple[int, int]) -> Tensor:
    """Tiles (V, h, w) that any of the splats reaches, as gsplat counts them."""
    columns, rows = _tiles(size)
    low = torch.floor((splats.means - splats.radii) / TILE).long()
    high = torch.ceil((splats.means + splats.radii) / TILE).long()
    x0, x1 = (t[..., 0].clamp(0, columns) for t in (low, high))
    y0, y1 = (t[..., 1].clamp(0, rows) for t in (low, high))
    inside = (splats.radii > 0).all(-1).int()
    # Each rectangle adds one at its corner and takes it back beyond its sides: summed up, the tiles it covers.
    v = len(low)
    counts = inside.new_zeros(v, (rows + 1) * (columns + 1))
    for y, x, sign in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
        counts.scatter_add_(1, y * (columns + 1) + x, sign * inside)
    covered = counts.view(v, rows + 1, columns + 1).cumsum(1).cumsum(2)
    return covered[:, :rows, :columns] > 0


def _where(tiles: Tensor, new: Rendering, old: Rendering) -> Rendering:
    """The new rendering in tiles (V, h, w), the old one elsewhere."""
    height, width = new.alpha.shape[1:]
    pixels = tiles.repeat_interleave(TILE, 1).repeat_interleave(TILE, 2)[:, :height, :width]
    return Rendering(
        torch.where(pixels[..., None], new.features, old.features),
        torch.where(pixels, new.depth, old.depth),
        torch.where(pixels, new.alpha, old.alpha),
    )
