# SPDX-License-Identifier: Apache-2.0
"""Triton kernels against the torch code they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.gaussian_views import SIZE, random_splats
from torch.nn import functional as F

from pixel4d_ros.geometry.quaternions import quaternion_to_matrix
from pixel4d_ros.predictor import fused_operations
from pixel4d_ros.predictor.lifting import surface_gaussians
from pixel4d_ros.rendering import Rendering, gsplat_rasterizer, moved_scene, triton_kernels
from pixel4d_ros.rendering.tiles import pixels_of, radii_within, tile_grid, touched_tiles
from pixel4d_ros.rendering.types import NEAR, depth_from_inverses
from pixel4d_ros.scene import MOTION_FIELDS, DynamicGaussians

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU with Triton")


def test_on_the_cpu_torch_does_the_steps() -> None:
    assert not triton_kernels.is_available(torch.device("cpu"))


@pytest.fixture
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.gpu
@needs_gpu
def test_training_and_double_precision_take_the_steps_of_torch() -> None:
    tensor = torch.ones(1, device="cuda")
    assert not triton_kernels.can_use(tensor)
    with torch.no_grad():
        assert triton_kernels.can_use(tensor) and not triton_kernels.can_use(tensor.double())


def covariances(quaternions: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    axes = quaternion_to_matrix(quaternions) * scales[..., None, :]
    return axes @ axes.transpose(-1, -2)


@pytest.mark.gpu
@needs_gpu
def test_gaussians_are_those_of_torch() -> None:
    torch.manual_seed(0)
    inverse = 1 / (torch.rand(2, 23, 37) * 20 + 3)
    inverse[0, 5:9, 7:20] = 0.02  # a plane that faces the camera, with edges around it
    inverse[1] = torch.linspace(0.01, 0.3, 23)[:, None]  # a road
    K = torch.tensor([[[120.0, 0, 18], [0, 130, 11], [0, 0, 1]], [[90, 0, 18], [0, 90, 3], [0, 0, 1]]])
    given = [t.cuda() for t in (inverse, K, torch.rand(2, 23, 37) * 0.4 + 0.4)]
    assert triton_kernels.is_available(given[0].device)
    with torch.enable_grad():
        means, quaternions, scales = surface_gaussians(*given)  # with gradients it is torch's own steps
    with torch.no_grad():
        quick = surface_gaussians(*given)
    torch.testing.assert_close(quick[0], means)
    torch.testing.assert_close(quick[2], scales, rtol=1e-4, atol=1e-6)
    # Not the quaternions themselves: a round patch has no long axis.
    wanted, found = covariances(quaternions, scales), covariances(quick[1], quick[2])
    assert ((wanted - found).abs().amax((-1, -2)) < 1e-4 * wanted.abs().amax((-1, -2))).all()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("samples", "count"), [(1, 1000), (4, 777), (1, 1), (2, 0)])
def test_rows_are_those_of_torch(samples: int, count: int) -> None:
    torch.manual_seed(0)
    table, index = torch.randn(7, 12 * samples).cuda(), torch.randint(7, (count,)).cuda()
    torch.testing.assert_close(fused_operations.rows(table, index), table.index_select(0, index), rtol=0, atol=0)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("channels", "height", "width"), [(48, 13, 29), (64, 40, 60), (192, 3, 5)])
def test_normalised_features_are_those_of_torch(channels: int, height: int, width: int) -> None:
    torch.manual_seed(0)
    x = (torch.randn(1, channels, height, width, device="cuda") * 2 + 1).half()
    x = x.contiguous(memory_format=torch.channels_last)
    weight, bias = torch.rand(channels, device="cuda").half() + 0.5, torch.randn(channels, device="cuda").half()
    wanted = F.silu(F.group_norm(x.float(), 8, weight.float(), bias.float(), 1e-5))
    found = fused_operations.group_norm_silu(x, 8, weight, bias, 1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.float(), wanted, rtol=2e-3, atol=5e-3)


def moving_scene(count: int, objects: int, turns: float) -> DynamicGaussians:
    """Gaussians on the GPU that belong to the background or an object, and turn by about so many radians a second."""
    motion = torch.randn(count, 4, 3)
    motion[:, 2:] *= turns
    tensors = {
        "means": torch.randn(count, 3) * 20,
        "quaternions": F.normalize(torch.randn(count, 4), dim=-1),
        "scales": torch.rand(count, 3),
        "opacities": torch.rand(count),
        "colors": torch.rand(count, 3),
        "object_ids": torch.randint(0, objects + 1, (count,)),
        "centroids": torch.randn(objects + 1, 3) * 20,
    }
    given = {name: tensor.cuda() for name, tensor in tensors.items()}
    return DynamicGaussians(**given, **dict(zip(MOTION_FIELDS, motion.cuda().unbind(1))))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.usefixtures("without_gradients")
@pytest.mark.parametrize(("moving", "instants"), [(333, 5), (256, 1), (1, 3), (0, 2)])
@pytest.mark.parametrize("turns", [2.0, 1e-3, 1e-7, 0.0])
def test_what_moves_goes_where_torch_moves_it(
    moving: int, instants: int, turns: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    scene = moving_scene(1000, 16, turns)
    index = torch.randint(0, 1000, (moving,), device="cuda")  # some of them more than once
    t = torch.linspace(0, 1.9, instants, device="cuda")[:, None, None]
    written_out = replace(scene, velocities=scene.velocities.contiguous())  # whose strides are not the others'
    found = [moved_scene.move_to(given, index, t) for given in (scene, written_out)]
    monkeypatch.setattr(triton_kernels, "is_available", lambda device: False)
    wanted = moved_scene.move_to(scene, index, t)
    assert wanted.means.shape == (instants, moving, 3)
    for moved in found:
        torch.testing.assert_close(moved.means, wanted.means, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(moved.quaternions, wanted.quaternions, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("count", "channels", "width"), [(777, 4, 8), (513, 3, 5), (1, 1, 3), (300, 6, 9), (0, 4, 8)])
def test_blended_channels_are_those_of_torch(count: int, channels: int, width: int, shared: bool) -> None:
    torch.manual_seed(0)
    features = torch.rand(1 if shared else 3, count, channels, device="cuda").expand(3, -1, -1)
    depths = torch.randn(3, count, device="cuda") * 10  # some of them behind the camera
    inverse = 1 / depths.clamp(min=NEAR)
    spare = torch.zeros(3, count, width - channels - 2, device="cuda")
    wanted = torch.cat((features, torch.stack((inverse, inverse.square()), -1), spare), -1)
    found = triton_kernels.operations.blended_channels(features, depths, width, NEAR)
    assert found.is_contiguous() and torch.equal(found[..., :channels], features)
    torch.testing.assert_close(found, wanted)
    turned = features.mT.contiguous().mT  # the same with other strides
    assert torch.equal(triton_kernels.operations.blended_channels(turned, depths, width, NEAR), found)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("shape", [(3, 13, 29), (1, 1, 1), (2, 64, 64)])
def test_depth_is_that_of_torch(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    rendered = torch.rand(*shape, 8, device="cuda") * (torch.rand(*shape, 1, device="cuda") > 0.3)
    for given in (rendered, rendered.transpose(1, 2)):
        inverse, square = given[..., 4], given[..., 5]
        with torch.enable_grad():
            wanted = depth_from_inverses(inverse, square)
        torch.testing.assert_close(triton_kernels.operations.depth_from_inverses(inverse, square), wanted)


def rendered_pixels(shape: tuple[int, int, int], width: int) -> torch.Tensor:
    """Blended features (V, H, W, width) on the GPU, within 0..1 and beyond, many of them halfway between two bytes."""
    features = torch.randn(*shape, width, device="cuda") * 0.6 + 0.5
    halves = (torch.arange(features[..., 0].numel(), device="cuda") % 256 + 0.5) / 255
    features[..., 0] = halves.view(shape)
    features[0, 0, 0, 1:4] = torch.tensor([torch.inf, -torch.inf, moved_scene.SEEN])
    return features


@pytest.mark.gpu
@needs_gpu
@pytest.mark.usefixtures("without_gradients")
@pytest.mark.parametrize(("shape", "width"), [((3, 13, 29), 8), ((1, 1, 1), 4), ((2, 64, 64), 8), ((5, 7, 11), 5)])
def test_pictures_are_those_of_torch(shape: tuple[int, int, int], width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    features = rendered_pixels(shape, width)[..., :4]
    rendering = Rendering(features, features[..., 0], features[..., 0])
    found, again = (moved_scene.rendered_views(rendering, True) for _ in range(2))
    monkeypatch.setattr(triton_kernels, "is_available", lambda device: False)
    wanted = moved_scene.rendered_views(rendering, True)
    assert torch.equal(found.frames, wanted.frames)
    torch.testing.assert_close(found.confidence, wanted.confidence)
    assert torch.equal(found.confidence, again.confidence)
    counted = (features[..., 3] > moved_scene.SEEN).flatten(1).sum(1).cpu().numpy() / np.float32(shape[1] * shape[2])
    np.testing.assert_allclose(found.confidence.cpu().numpy(), counted, rtol=1e-7)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.usefixtures("without_gradients")
@pytest.mark.parametrize(("views", "count"), [(3, 20), (1, 1), (2, 700), (2, 0)])
def test_tiles_and_the_splats_in_them_are_those_of_torch(
    views: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    means, radii = (t.cuda() for t in random_splats(count, views, count))
    few = [t[:, :10].contiguous() for t in (means, radii)]
    touched = touched_tiles(*few, SIZE)
    found = radii_within(means, radii, touched)
    monkeypatch.setattr(triton_kernels, "is_available", lambda device: False)
    assert torch.equal(touched_tiles(*few, SIZE), touched)
    assert torch.equal(radii_within(means, radii, touched), found)
    if count > 20:
        assert found.any() and (found != radii).any()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.usefixtures("without_gradients")
@pytest.mark.parametrize(("size", "channels", "width"), [(SIZE, 4, 8), ((8, 8), 3, 5), ((200, 64), 5, 8)])
def test_changed_tiles_are_put_where_torch_puts_them(
    size: tuple[int, int], channels: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    shape = (2, size[1], size[0])
    seen = torch.rand(*shape, 1, device="cuda") > 0.3
    blended, before = (torch.rand(*shape, width, device="cuda") * seen for _ in range(2))
    tiles = torch.rand(2, *reversed(tile_grid(size)), device="cuda") < 0.4
    blended[~pixels_of(tiles, size)] = torch.nan  # undefined
    given = SimpleNamespace(features=torch.rand(2, 1, channels, device="cuda"), size=size)
    for features in (before[..., :channels], before[..., :channels].contiguous()):
        old = Rendering(features, 1 / before[..., 0], before[..., 1])
        found = gsplat_rasterizer.with_changed_tiles(tiles, blended, blended[..., 0], old, given, True)
        with monkeypatch.context() as patch:
            patch.setattr(triton_kernels, "is_available", lambda device: False)
            wanted = gsplat_rasterizer.with_changed_tiles(tiles, blended, blended[..., 0], old, given, True)
        assert torch.equal(found.features, wanted.features) and torch.equal(found.alpha, wanted.alpha)
        torch.testing.assert_close(found.depth, wanted.depth)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("samples", [2, 4, 16])
def test_the_spread_of_colors_is_that_of_torch(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    levels = torch.randint(0, 256, (samples, 3, 13, 29, 3), dtype=torch.uint8, device="cuda")
    levels[:, 0, :, :9] = levels[0, 0, :, :9]  # where all agree
    levels[: samples // 2, 1], levels[samples // 2 :, 1] = 0, 255  # where they cannot be further apart
    futures = [moved_scene.RenderedViews(frames, frames[:, 0, 0, 0], None) for frames in levels]
    found = moved_scene.color_spread(futures)
    monkeypatch.setattr(triton_kernels, "is_available", lambda device: False)
    assert torch.equal(moved_scene.color_spread(futures), found)
