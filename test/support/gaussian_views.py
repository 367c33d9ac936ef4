# SPDX-License-Identifier: Apache-2.0
"""Gaussians and cameras for tests of rasterizers and of their tiles."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from pixel4d_ros.geometry.quaternions import axis_angle_to_quaternion, quaternion_to_matrix
from pixel4d_ros.rendering import GaussianViews, Moved


def converted(views: GaussianViews, target: torch.dtype | str) -> GaussianViews:
    """The same in another precision, or on another device."""
    return GaussianViews(*(t.to(target) for t in views.tensors()), views.size)


def random_views(
    seed: int, n: int, views: int = 1, size: tuple[int, int] = (64, 48), channels: int = 3
) -> GaussianViews:
    """Gaussians of all shapes in front of, beside and behind cameras that look about; float64."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    depth = torch.exp(uniform(math.log(1.0), math.log(40), views, n, 1)) * torch.sign(uniform(-0.1, 1, views, n, 1))
    spread = torch.cat((uniform(-0.9, 0.9, views, n, 1), uniform(-0.7, 0.7, views, n, 1)), -1)
    T = torch.eye(4, dtype=torch.float64).repeat(views, 1, 1)
    T[:, :3, :3] = quaternion_to_matrix(axis_angle_to_quaternion(uniform(-0.1, 0.1, views, 3)))
    T[:, :3, 3] = uniform(-0.3, 0.3, views, 3)
    width, height = size
    K = torch.tensor([[width * 0.8, 0, width * 0.52], [0, width * 0.75, height * 0.47], [0, 0, 1]], dtype=torch.float64)
    return GaussianViews(
        torch.cat((spread * depth, depth), -1),
        torch.nn.functional.normalize(uniform(-1, 1, views, n, 4), dim=-1),
        torch.exp(uniform(math.log(0.003), math.log(0.1), views, n, 3)) * depth.abs(),
        uniform(0.0, 1.0, views, n),
        uniform(0, 1, views, n, channels),
        T,
        K.repeat(views, 1, 1),
        size,
    )


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10(((a.cpu() - b.cpu()) ** 2).mean().clamp(min=1e-12)))


def one_gaussian(z: float, opacity: float = 0.9, size: tuple[int, int] = (9, 7)) -> GaussianViews:
    """A small round Gaussian on the optical axis of a camera whose principal point is a pixel's centre."""
    f64 = {"dtype": torch.float64}
    K = torch.tensor([[[10.0, 0, 4], [0, 10, 3], [0, 0, 1]]], **f64)
    return GaussianViews(
        torch.tensor([[[0.0, 0, z]]], **f64), torch.tensor([[[1.0, 0, 0, 0]]], **f64),
        torch.full((1, 1, 3), 0.1 * abs(z), **f64), torch.full((1, 1), opacity, **f64),
        torch.tensor([[[0.2, 0.4, 0.8]]], **f64), torch.eye(4, **f64)[None], K, size,
    )  # fmt: skip


def with_movers(seed: int, count: int = 40) -> GaussianViews:
    """Three views of shared Gaussians, some of which are elsewhere in each view; float32."""
    views = converted(random_views(seed, 300, channels=4), torch.float32)
    T = torch.eye(4).repeat(3, 1, 1)
    T[:, 2, 3] = torch.tensor([0.0, -0.5, -1.0])
    index = torch.arange(0, 7 * count, 7)
    shift = torch.tensor([[0.0, 0, 0], [1.0, 0.2, 0], [2.0, 0.4, 0.5]])[:, None]
    moved = Moved(index, views.means[:, index] + shift, views.quaternions[:, index].expand(3, -1, -1))
    shared = (t.expand(3, *t.shape[1:]) for t in views.tensors()[:5])
    return GaussianViews(*shared, T, views.K.expand(3, 3, 3), views.size, moved)


def futures_of(views: GaussianViews) -> list[GaussianViews]:
    """The views, a future in which the movers go the other way, and one in which nothing moves."""
    assert views.moved is not None
    start = views.means[:, views.moved.index]
    other = replace(views.moved, means=2 * start - views.moved.means)
    return [views, replace(views, moved=other), replace(views, moved=None)]


SIZE = (83, 41)  # pixels, no multiple of the tiles


def random_splats(seed: int, views: int, count: int) -> tuple[Tensor, Tensor]:
    """Means and radii of splats within and beyond the image; some reach a tile's very edge, some are not drawn."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.rand(views, count, 2, generator=generator) * 160 - 40
    means[:, ::3] = means[:, ::3].round()
    radii = torch.randint(0, 9, (views, count, 2), generator=generator, dtype=torch.int32)
    radii[:, 5::17] *= 4
    means[(radii == 0).any(-1)] = torch.nan  # gsplat leaves them as memory was
    return means, radii
