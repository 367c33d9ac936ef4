# SPDX-License-Identifier: Apache-2.0
"""Which tiles splats reach, by the torch code that stands for the kernels of a GPU."""

from __future__ import annotations

import math

import pytest
import torch
from support.gaussian_views import SIZE, random_splats
from torch import Tensor

from pixel4d_ros.rendering.tiles import TILE, radii_within, tile_grid, touched_tiles


def tiles_of(mean: Tensor, radius: Tensor) -> set[tuple[int, int]]:
    """Rows and columns of the tiles that gsplat gives one splat to."""
    if (radius <= 0).any():
        return set()
    (columns, rows), (low, high) = tile_grid(SIZE), ((mean - radius) / TILE, (mean + radius) / TILE)
    x, y = (range(max(0, math.floor(a)), min(n, math.ceil(b))) for a, b, n in zip(low, high, (columns, rows)))
    return {(row, column) for row in y for column in x}


@pytest.mark.parametrize("seed", range(3))
def test_touched_tiles_are_those_of_any_splat(seed: int) -> None:
    means, radii = random_splats(seed, 3, 20)
    touched = touched_tiles(means, radii, SIZE)
    assert touched.shape == (3, 6, 11) and touched.any() and not touched.all()
    for view in range(3):
        expected = set().union(*(tiles_of(mean, radius) for mean, radius in zip(means[view], radii[view])))
        assert {(row, column) for row, column in touched[view].nonzero().tolist()} == expected


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_splats_that_reach_none_of_the_tiles_are_not_drawn(share: float) -> None:
    means, radii = random_splats(7, 2, 300)
    tiles = torch.rand(2, 6, 11, generator=torch.Generator().manual_seed(1)) < share
    kept = radii_within(means, radii, tiles)
    assert kept.dtype == radii.dtype and kept.is_contiguous()
    for view in range(2):
        marked = {(row, column) for row, column in tiles[view].nonzero().tolist()}
        for mean, radius, found in zip(means[view], radii[view], kept[view]):
            reaches = bool(tiles_of(mean, radius) & marked)
            assert torch.equal(found, radius if reaches else torch.zeros_like(radius))
