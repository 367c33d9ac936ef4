# SPDX-License-Identifier: Apache-2.0
"""The CUDA rasterizer, gsplat's kernels, against the torch reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.gaussian_views import converted, futures_of, one_gaussian, psnr, random_views, with_movers
from torch import Tensor

from pixel4d_ros.rendering import GaussianViews, Moved, Rendering, rasterize, rasterize_futures
from pixel4d_ros.rendering.torch_rasterizer import rasterize_torch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


def weighted_sum(view: Rendering, seed: int) -> Tensor:
    """One number that depends on every pixel, for gradients."""
    generator = torch.Generator().manual_seed(seed)
    colors = torch.rand(view.features.shape, generator=generator).to(view.features.device)
    alphas = torch.rand(view.alpha.shape, generator=generator).to(view.features.device)
    return (view.features * colors).sum() + (view.alpha * alphas).sum()


BOTH_WAYS = pytest.mark.parametrize("gradients", [True, False])  # with torch's steps around gsplat, or fused ones


@BOTH_WAYS
@pytest.mark.parametrize("seed", range(3))
def test_gsplat_agrees_with_the_reference(seed: int, gradients: bool) -> None:
    views = converted(random_views(seed, 2000, 2, (160, 96)), torch.float32)
    with torch.set_grad_enabled(gradients):
        fast, reference = rasterize(converted(views, "cuda")), rasterize_torch(views)
    assert psnr(fast.features, reference.features) >= 40
    assert psnr(fast.alpha, reference.alpha) >= 40
    assert psnr(1 / fast.depth, 1 / reference.depth) >= 40


@BOTH_WAYS
def test_where_gsplat_sees_nothing_depth_is_infinite(gradients: bool) -> None:
    with torch.set_grad_enabled(gradients):
        view = rasterize(converted(converted(one_gaussian(-5.0), torch.float32), "cuda"))
    assert torch.isposinf(view.depth).all()


def test_gradients_of_gsplat_agree_with_the_reference() -> None:
    views = converted(random_views(9, 300, 1, (96, 64)), torch.float32)
    gradients = []
    for device in ("cuda", "cpu"):
        moved = converted(views, device)
        tensors = [t.clone().requires_grad_() for t in moved.tensors()[:5]]
        weighted_sum(rasterize(GaussianViews(*tensors, moved.T_camera_world, moved.K, moved.size)), 0).backward()
        gradients.append([t.grad.cpu() for t in tensors])  # type: ignore[union-attr]
    for name, fast, reference in zip(("means", "quaternions", "scales", "opacities", "features"), *gradients):
        assert (fast - reference).norm() < 1e-2 * reference.norm(), name


@BOTH_WAYS
@pytest.mark.parametrize("seed", range(4))
def test_gsplat_renders_what_moves_and_futures_as_the_reference_does(seed: int, gradients: bool) -> None:
    futures = futures_of(with_movers(seed))
    on_gpu = [
        replace(converted(f, "cuda"), moved=f.moved and Moved(*(t.cuda() for t in vars(f.moved).values())))
        for f in futures
    ]
    with torch.set_grad_enabled(gradients):
        # Two that move, of which the second is drawn where it differs; and all three, which are drawn one by one.
        together = [*rasterize_futures(on_gpu[:2]), *rasterize_futures(on_gpu)]
        one_by_one = [rasterize(views) for views in on_gpu]
    for fast, alone, views in zip(together, one_by_one[:2] + one_by_one, futures[:2] + futures):
        reference = rasterize_torch(views.placed())
        assert psnr(fast.features, reference.features) > 60
        assert psnr(alone.features, reference.features) > 60
        assert torch.equal(fast.features, alone.features) and torch.equal(fast.alpha, alone.alpha)
        torch.testing.assert_close(fast.depth, alone.depth)
