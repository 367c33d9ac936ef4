# SPDX-License-Identifier: Apache-2.0
"""The tiles in which gsplat renders: tiles that splats reach, and splats that reach given tiles."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pixel4d_ros.rendering import triton_kernels
from pixel4d_ros.rendering.types import Rendering

TILE = 8  # pixels: with gsplat's 16, most of a tile's pixels would be far from most of its small Gaussians


def tile_grid(size: tuple[int, int]) -> tuple[int, int]:
    """Columns and rows of tiles that an image of this size (width, height) has."""
    return math.ceil(size[0] / TILE), math.ceil(size[1] / TILE)


def touched_tiles(means: Tensor, radii: Tensor, size: tuple[int, int]) -> Tensor:
    """Tiles (V, h, w), bool, that any of V x N splats reaches: means (V, N, 2) and whole radii (V, N, 2) in pixels."""
    columns, rows = tile_grid(size)
    if triton_kernels.can_use(means):
        return triton_kernels.operations.touched_tiles(means, radii, columns, rows, TILE)
    x0, x1, y0, y1, drawn = _rectangles(means, radii, columns, rows)
    # Each rectangle adds one at its corner and takes it back beyond its sides: summed up, the tiles it covers.
    counts = drawn.new_zeros(len(means), (rows + 1) * (columns + 1), dtype=torch.int32)
    for y, x, sign in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
        counts.scatter_add_(1, y * (columns + 1) + x, sign * drawn.int())
    covered = counts.view(-1, rows + 1, columns + 1).cumsum(1).cumsum(2)
    return covered[:, :rows, :columns] > 0


def radii_within(means: Tensor, radii: Tensor, tiles: Tensor) -> Tensor:
    """The radii (V, N, 2), but 0 (not drawn) for splats that reach none of the tiles (V, h, w)."""
    sums = tiles.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
    if triton_kernels.can_use(means):
        return triton_kernels.operations.radii_within(means, radii, sums, TILE)
    rows, columns = tiles.shape[1:]
    x0, x1, y0, y1, drawn = _rectangles(means, radii, columns, rows)
    padded = torch.nn.functional.pad(sums, (1, 0, 1, 0)).flatten(1)
    a, b, c, d = (padded.gather(1, y * (columns + 1) + x) for y, x in ((y1, x1), (y0, x1), (y1, x0), (y0, x0)))
    return torch.where((drawn & (a - b - c + d > 0))[..., None], radii, 0)


def pixels_of(tiles: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels (V, H, W) that lie in tiles (V, h, w)."""
    return tiles.repeat_interleave(TILE, 1).repeat_interleave(TILE, 2)[:, : size[1], : size[0]]


def within(tiles: Tensor, new: Rendering, old: Rendering, size: tuple[int, int]) -> Rendering:
    """The new rendering in tiles (V, h, w), the old one elsewhere."""
    pixels = pixels_of(tiles, size)
    return Rendering(
        torch.where(pixels[..., None], new.features, old.features),
        torch.where(pixels, new.depth, old.depth),
        torch.where(pixels, new.alpha, old.alpha),
    )


def _rectangles(means: Tensor, radii: Tensor, columns: int, rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Tiles x0 <= x < x1, y0 <= y < y1 that splats reach, as gsplat counts them, and whether they are drawn (V, N)."""
    # Limited as whole numbers, which the means of splats that are not drawn, left as memory was, become too.
    low, high = torch.floor((means - radii) / TILE).long(), torch.ceil((means + radii) / TILE).long()
    x0, x1 = (t[..., 0].clamp(0, columns) for t in (low, high))
    y0, y1 = (t[..., 1].clamp(0, rows) for t in (low, high))
    return x0, x1, y0, y1, (radii > 0).all(-1)
