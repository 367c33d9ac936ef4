# SPDX-License-Identifier: Apache-2.0
"""Rasterizers on the CPU: the torch reference against a plain double loop, and the fast one against the reference."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.gaussian_views import converted, futures_of, one_gaussian, psnr, random_views, with_movers
from support.paths import SUPPORT
from torch import Tensor

from pixel4d_ros.geometry.quaternions import quaternion_to_matrix
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.rendering import GaussianViews, rasterize, rasterize_futures
from pixel4d_ros.rendering.numba_rasterizer import rasterize_numba
from pixel4d_ros.rendering.torch_rasterizer import rasterize_torch
from pixel4d_ros.rendering.types import EPS2D, MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, NEAR


def layered(views: list[GaussianViews]) -> GaussianViews:
    """All Gaussians of several, seen by the first one's cameras."""
    parts = (torch.cat(tensors, 1) for tensors in zip(*(v.tensors()[:5] for v in views)))
    return GaussianViews(*parts, *views[0].tensors()[5:], views[0].size)


def rasterize_slowly(views: GaussianViews) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Colours (H, W, C), depth and alpha (H, W) of view 0 by the definition: every Gaussian at every pixel."""
    means, quaternions, scales, opacities, features, T, K = (t[0].numpy() for t in views.tensors())
    (width, height), (fx, fy, cx, cy) = views.size, (K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    rotations = quaternion_to_matrix(torch.from_numpy(quaternions)).numpy()
    points = means @ T[:3, :3].T + T[:3, 3]
    colors = np.zeros((height, width, features.shape[1]))
    inverse, square, alpha = np.zeros((3, height, width))
    through, opaque = np.ones((height, width)), np.zeros((height, width), bool)
    for g in np.argsort(points[:, 2]):
        x, y, z = points[g]
        if z <= NEAR:
            continue
        # The Jacobian of the projection, taken no further out than 0.15 image widths beyond the border.
        tx = np.clip(x / z, (-0.5 - cx - 0.15 * width) / fx, (width - 0.5 - cx + 0.15 * width) / fx)
        ty = np.clip(y / z, (-0.5 - cy - 0.15 * height) / fy, (height - 0.5 - cy + 0.15 * height) / fy)
        J = np.array([[fx / z, 0, -fx * tx / z], [0, fy / z, -fy * ty / z]])
        M = J @ T[:3, :3] @ rotations[g] @ np.diag(scales[g])
        conic = np.linalg.inv(M @ M.T + EPS2D * np.eye(2))
        for row in range(height):
            for column in range(width):
                d = np.array([column - (fx * x / z + cx), row - (fy * y / z + cy)])
                a = min(MAX_ALPHA, opacities[g] * math.exp(-0.5 * d @ conic @ d))
                if a < MIN_ALPHA or opaque[row, column]:
                    continue
                if through[row, column] * (1 - a) <= MIN_TRANSMITTANCE:
                    opaque[row, column] = True
                    continue
                weight = a * through[row, column]
                through[row, column] *= 1 - a
                colors[row, column] += weight * features[g]
                inverse[row, column] += weight / z
                square[row, column] += weight / z**2
                alpha[row, column] += weight
    with np.errstate(divide="ignore", invalid="ignore"):
        return colors, np.where(alpha > 0, inverse / square, np.inf), alpha


CPU_RASTERIZERS = pytest.mark.parametrize("rasterizer", [rasterize_torch, rasterize_numba])


@CPU_RASTERIZERS
def test_one_gaussian_is_where_it_should_be(rasterizer) -> None:
    view = rasterizer(one_gaussian(5.0))
    assert view.alpha[0, 3, 4].item() == pytest.approx(0.9, abs=1e-6)
    assert view.depth[0, 3, 4].item() == pytest.approx(5.0, abs=1e-5)
    assert view.features[0, 3, 4].tolist() == pytest.approx([0.18, 0.36, 0.72], abs=1e-6)
    # One pixel beside the centre: standard deviation 0.1 * 10 pixels.
    assert view.alpha[0, 3, 5].item() == pytest.approx(0.9 * math.exp(-0.5 / (1 + EPS2D)), abs=1e-5)


@CPU_RASTERIZERS
@pytest.mark.parametrize(("z", "opacity"), [(-5.0, 0.9), (0.9 * NEAR, 0.9), (5.0, 0.0), (5.0, 0.9 * MIN_ALPHA)])
def test_where_nothing_is_seen_depth_is_infinite(rasterizer, z: float, opacity: float) -> None:
    view = rasterizer(one_gaussian(z, opacity))
    assert not view.alpha.any() and not view.features.any()
    assert torch.isposinf(view.depth).all()


@CPU_RASTERIZERS
def test_what_shines_through_a_near_surface_hardly_counts_in_depth(rasterizer) -> None:
    near, far = one_gaussian(2.0, 0.5), one_gaussian(400.0, 0.999)
    both = GaussianViews(
        *(torch.cat(pair, 1) for pair in zip(far.tensors()[:5], near.tensors()[:5])), *far.tensors()[5:], far.size
    )
    view = rasterizer(both)
    weights = np.array([0.5, 0.5 * 0.999])
    expected = (weights / [2.0, 400.0]).sum() / (weights / [2.0**2, 400.0**2]).sum()
    assert view.depth[0, 3, 4].item() == pytest.approx(expected, rel=1e-4)
    assert 2 < expected < 2.02


@pytest.mark.parametrize("seed", range(3))
def test_the_reference_follows_the_definition(seed: int) -> None:
    views = random_views(seed, 15, size=(24, 18))
    colors, depth, alpha = rasterize_slowly(views)
    view = rasterize_torch(views)
    assert (alpha > 0.1).sum() > 10 and np.isinf(depth).any()
    np.testing.assert_allclose(view.features[0], colors, atol=1e-9)
    np.testing.assert_allclose(view.alpha[0], alpha, atol=1e-9)
    np.testing.assert_allclose(view.depth[0], depth, rtol=1e-9)


def test_many_opaque_layers_end_at_the_smallest_transmittance() -> None:
    layers = [one_gaussian(2.0 + k, 0.95) for k in range(6)]
    stack = layered(layers)
    colors, _, alpha = rasterize_slowly(stack)
    for rasterizer in (rasterize_torch, rasterize_numba):
        view = rasterizer(stack)
        np.testing.assert_allclose(view.features[0], colors, atol=1e-5)
        np.testing.assert_allclose(view.alpha[0], alpha, atol=1e-5)


@pytest.mark.parametrize(("seed", "n", "size"), [(0, 2000, (64, 48)), (1, 300, (97, 61)), (2, 1, (16, 16))])
def test_the_compiled_rasterizer_agrees_with_the_reference(seed: int, n: int, size: tuple[int, int]) -> None:
    views = converted(random_views(seed, n, 3, size, channels=4), torch.float32)
    fast, reference = rasterize_numba(views), rasterize_torch(views)
    assert fast.features.shape == (3, size[1], size[0], 4)
    assert psnr(fast.features, reference.features) >= 60
    assert psnr(fast.alpha, reference.alpha) >= 60
    assert psnr(1 / fast.depth, 1 / reference.depth) >= 60


@pytest.mark.parametrize("seed", range(3))
def test_of_gaussians_at_one_depth_the_first_is_in_front(seed: int) -> None:
    """As on walls that face the camera: else their colours would depend on whatever else there is to sort."""
    views = converted(random_views(seed, 2000, 1, (64, 48)), torch.float32)
    means = torch.where(torch.arange(2000)[:, None] < 1500, views.means * (5 / views.means[..., 2:]), views.means)
    views = replace(views, means=means, T_camera_world=torch.eye(4)[None])
    assert psnr(rasterize_numba(views).features, rasterize_torch(views).features) >= 60


def test_a_mean_behind_a_slanted_camera_does_not_show() -> None:
    views = random_views(5, 200)
    behind = replace(views, means=-views.means.abs() * torch.tensor([1.0, 1, 1]) - torch.tensor([0.0, 0, 5]))
    for rasterizer in (rasterize_torch, rasterize_numba):
        assert not rasterizer(behind).alpha.any()


def test_views_may_share_their_gaussians_through_expanded_tensors() -> None:
    views = converted(random_views(6, 100), torch.float32)
    shared = GaussianViews(*(t.expand(3, *t.shape[1:]) for t in views.tensors()), views.size)
    alone, three = rasterize(views), rasterize(shared)
    for v in range(3):
        assert torch.equal(three.features[v], alone.features[0])


def test_the_reference_renders_where_gradients_are_wanted() -> None:
    views = converted(random_views(7, 20), torch.float32)
    wanted = replace(views, features=views.features.requires_grad_())
    assert rasterize(wanted).features.requires_grad
    with torch.no_grad():
        assert not rasterize(wanted).features.requires_grad


def test_gradients_of_the_reference_match_finite_differences() -> None:
    views = random_views(8, 6, size=(12, 9))

    def rendered(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        view = rasterize_torch(GaussianViews(*tensors, views.T_camera_world, views.K, views.size))
        return view.features, view.alpha, 1 / view.depth

    tensors = [t.clone().requires_grad_() for t in views.tensors()[:5]]
    # Half of the alphas jump at 1/255, and none of them within a step this small.
    assert torch.autograd.gradcheck(rendered, tensors, eps=1e-7, atol=1e-4, rtol=1e-3)


def test_gradients_of_depth_are_finite_where_nothing_is_seen() -> None:
    views = one_gaussian(5.0)
    means = views.means.clone().requires_grad_()
    depth = rasterize_torch(replace(views, means=means)).depth
    depth[torch.isfinite(depth)].mean().backward()
    assert means.grad is not None
    assert means.grad[0, 0, 2].item() == pytest.approx(1.0, abs=1e-6)


def test_moved_gaussians_are_drawn_where_they_are() -> None:
    views = with_movers(5)
    assert views.moved is not None
    placed = views.placed()
    assert torch.equal(placed.means[1, 7], views.moved.means[1, 1]) and torch.equal(
        placed.means[1, 8], views.means[0, 8]
    )
    for one, other in zip(rasterize(views).features, rasterize_torch(placed).features):
        assert psnr(one, other) > 60
    still = rasterize(replace(views, moved=None)).features
    assert psnr(still[2], rasterize(views).features[2]) < 40


@pytest.mark.parametrize(("seed", "movers"), [(6, 40), (7, 3), (8, 1)])
def test_futures_are_rendered_like_views(seed: int, movers: int) -> None:
    first, second, still = futures_of(with_movers(seed, movers))
    for futures in ([first], [first, second, first], [first, second, still]):
        for one, views in zip(rasterize_futures(futures), futures, strict=True):
            alone = rasterize(views)
            assert torch.equal(one.features, alone.features)
            assert torch.equal(one.depth, alone.depth) and torch.equal(one.alpha, alone.alpha)


def test_the_first_rendering_leaves_torchs_number_of_threads() -> None:
    """numba starts its threads then. With another number the network adds in another order."""
    code = """
import torch
from support.gaussian_views import converted, random_views
from pixel4d_ros.rendering import rasterize
rasterize(converted(random_views(0, 1), torch.float32))
assert torch.get_num_threads() == 1, torch.get_num_threads()
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SUPPORT.parent, env=environment)
