# SPDX-License-Identifier: Apache-2.0
"""The predictor's parts: input view, lifting, and the grouping of pixels into objects."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pixel4d_ros import Camera
from pixel4d_ros.geometry.rotations import rigid, rotation_matrix
from pixel4d_ros.predictor.background import Background, background_layer
from pixel4d_ros.predictor.decoders import sensor_pyramid
from pixel4d_ros.predictor.heads import (
    MAX_DEPTH,
    MIN_DEPTH,
    NetworkInput,
    decode_depth,
    encode_sensor,
    encode_speed,
    known_speed,
)
from pixel4d_ros.predictor.input_constants import InputConstants
from pixel4d_ros.predictor.input_view import (
    CANONICAL_FOCAL,
    MAX_HEIGHT,
    MAX_WIDTH,
    MIN_PIXELS,
    STRIDE,
    InputView,
    mirror,
    reflected,
    resize,
)
from pixel4d_ros.predictor.latent import Later, static_flow
from pixel4d_ros.predictor.lifting import VisibleGrid, surface_gaussians
from pixel4d_ros.predictor.network import Network, choose_motion
from pixel4d_ros.rendering import GaussianViews, rasterize

often = settings(max_examples=40, deadline=None)


def camera(width: int, height: int, fx: float, fy: float | None = None) -> Camera:
    K = np.array([[fx, 0, 0.48 * width], [0, fy or fx, 0.53 * height], [0, 0, 1]])
    return Camera(K, width, height)


def rays(camera: Camera) -> Tensor:
    """x / z and y / z at every pixel (1, 2, H, W)."""
    x = (torch.arange(camera.width, dtype=torch.float32) - camera.K[0, 2]) / camera.K[0, 0]
    y = (torch.arange(camera.height, dtype=torch.float32) - camera.K[1, 2]) / camera.K[1, 1]
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))[None].float()


# InputView


@often
@given(st.integers(64, 2000), st.floats(0.1, 3), st.floats(0.15, 2.5), st.floats(0.8, 1.25))
def test_the_input_view_of_any_camera(width: int, aspect: float, zoom: float, squeeze: float) -> None:
    source = camera(width, round(width * aspect), zoom * width, zoom * width * squeeze)
    view = InputView.of(source)
    assert view.width % STRIDE == 0 and view.height % STRIDE == 0
    right, bottom = view.width - view.left - view.inner.width, view.height - view.top - view.inner.height
    assert min(view.left, view.top, right, bottom) >= 16
    assert view.inner.width <= MAX_WIDTH and view.inner.height <= MAX_HEIGHT
    largest = view.inner.width == MAX_WIDTH or view.inner.height == MAX_HEIGHT
    assert largest or view.inner.width * view.inner.height > 0.99 * MIN_PIXELS
    # Square pixels, at the canonical focal length unless that would make the input view too small or too large.
    fx, fy = view.inner.K[0, 0], view.inner.K[1, 1]
    assert fy == pytest.approx(fx, rel=0.02)
    assert view.depth_scale == pytest.approx(fx / CANONICAL_FOCAL)
    assert largest or fx > 0.99 * CANONICAL_FOCAL
    usual = (source.width * CANONICAL_FOCAL / source.K[0, 0], source.height * CANONICAL_FOCAL / source.K[1, 1])
    if usual[0] < MAX_WIDTH and usual[1] < MAX_HEIGHT and usual[0] * usual[1] > MIN_PIXELS:
        assert fx == pytest.approx(CANONICAL_FOCAL, rel=0.01)


@pytest.mark.parametrize(
    ("source", "inner"),
    [
        (camera(1242, 375, 721.0), (420, 127)),  # KITTI's: many enough as they are
        (camera(640, 480, 1200.0), (263, 197)),  # a long lens: 130 x 98 would be few
        (camera(480, 640, 1200.0), (197, 263)),  # and whichever side is up
        (camera(2000, 100, 4000.0), (640, 32)),  # no wider for the sake of more pixels
        (camera(100, 2000, 200.0), (64, 1280)),  # nor higher
    ],
    ids=lambda value: f"{value.width}x{value.height}" if isinstance(value, Camera) else None,
)
def test_a_narrow_view_is_enlarged_to_the_pixels_of_training(source: Camera, inner: tuple[int, int]) -> None:
    view = InputView.of(source)
    assert (view.inner.width, view.inner.height) == inner


def test_the_image_lies_within_the_drawn_input_view() -> None:
    source = camera(400, 120, 241.0)
    view, image = InputView.of(source), torch.rand(1, 3, 120, 400)
    drawn = view.draw(image)
    assert drawn.shape == (1, 3, view.height, view.width)
    inner = drawn[..., view.top : view.top + view.inner.height, view.left : view.left + view.inner.width]
    torch.testing.assert_close(inner, resize(image, view.inner.width, view.inner.height))


@often
@given(st.integers(1, 9), st.integers(1, 9), *[st.integers(0, 30)] * 4)
def test_mirroring_is_numpys(height: int, width: int, left: int, right: int, top: int, bottom: int) -> None:
    image = torch.arange(2 * height * width, dtype=torch.float32).view(1, 2, height, width)
    expected = np.pad(image.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), "reflect")
    indices = mirror(width, height, (left, right, top, bottom), image.device)
    np.testing.assert_array_equal(reflected(image, indices).numpy(), expected)


# Lifting


@pytest.mark.parametrize(
    "source",
    [camera(400, 120, 241.0), camera(1242, 375, 721.0), camera(640, 480, 500.0, 520.0), camera(97, 61, 80.0)],
    ids=lambda c: f"{c.width}x{c.height}",
)
def test_input_view_and_full_resolution_see_along_the_same_rays(source: Camera) -> None:
    view = InputView.of(source)
    grid = VisibleGrid.of(source, view)
    sampled = grid.sample(rays(view.camera))
    # A linear ramp stays one under bilinear sampling, but for half a pixel at the input view's border.
    wide, high = (1 + grid.inner.width // view.inner.width), (1 + grid.inner.height // view.inner.height)
    middle = (..., slice(high, -high), slice(wide, -wide))
    torch.testing.assert_close(sampled[middle], rays(grid.camera)[middle], atol=1e-4, rtol=0)


def test_labels_are_sampled_whole() -> None:
    source = camera(1242, 375, 721.0)
    view = InputView.of(source)
    grid, labels = VisibleGrid.of(source, view), torch.zeros(view.height, view.width, dtype=torch.long)
    labels[view.top : view.top + view.inner.height, view.left : view.left + view.inner.width] = 7
    fine = grid.sample_nearest(labels)
    assert fine.unique().tolist() == [0, 7]
    inside = grid.inside(torch.device("cpu")) > 0
    assert (fine[inside] == 7).all()
    assert (fine[~inside] == 0).float().mean() > 0.95


def test_which_of_a_scenes_gaussians_the_camera_saw() -> None:
    constants = InputConstants(camera(640, 480, 500.0), torch.device("cpu"))
    seen = constants.seen.flatten()[constants.pixels]
    assert constants.observed.shape == constants.pixels.shape
    assert constants.observed.sum() == 640 * 480
    # Nothing guessed belongs to an object, and of the visible layer at most a rim that is narrower than one pixel.
    guessed = constants.observed == 0
    assert not seen[constants.grid.camera.width * constants.grid.camera.height :].any()
    assert seen[~guessed].float().mean() > 0.99 and seen[guessed].float().mean() < 0.01


def test_very_large_images_are_lifted_from_a_smaller_copy() -> None:
    source = camera(4000, 3000, 3000.0)
    grid = VisibleGrid.of(source, InputView.of(source))
    assert 1_500_000 < grid.inner.width * grid.inner.height < 1_700_000
    np.testing.assert_allclose(grid.inner.K[0] / grid.inner.width, source.K[0] / source.width, atol=1e-3)


@often
@given(st.floats(-20, 20))
def test_depth_lies_within_its_limits(logit: float) -> None:
    depth = decode_depth(torch.tensor(logit)).item()
    assert MIN_DEPTH * 0.999 <= depth <= MAX_DEPTH * 1.001


def road(source: Camera, height_above_ground: float) -> Tensor:
    """Inverse depth (1, H, W) of a flat road: every pixel must look below the horizon."""
    return rays(source)[:, 1] / height_above_ground


def test_gaussians_lie_on_the_surface() -> None:
    source = Camera(np.array([[121.0, 0, 104], [0, 121, -8], [0, 0, 1]]), 208, 64)
    pixels = torch.full((1, 64, 208), 0.6)
    K = torch.from_numpy(source.K).float()[None]
    means, quaternions, scales = surface_gaussians(road(source, 1.6), K, pixels)
    torch.testing.assert_close(means[..., 1], torch.full_like(means[..., 1], 1.6))
    torch.testing.assert_close(quaternions.norm(dim=-1), torch.ones(1, 64 * 208))
    # Thin across the road: the third axis is the road's normal, up to where the slant is limited.
    assert (scales[..., 2] < scales[..., :2].amin(-1)).all()


@pytest.mark.parametrize("ahead", [0.0, 1.0, 3.0, 6.0])
def test_a_road_stays_closed_when_the_camera_drives_over_it(ahead: float) -> None:
    source = Camera(np.array([[121.0, 0, 104], [0, 121, -8], [0, 0, 1]]), 208, 64)
    K = torch.from_numpy(source.K).float()[None]
    means, quaternions, scales = surface_gaussians(road(source, 1.6), K, torch.full((1, 64, 208), 0.6))
    T_camera_source = torch.eye(4)[None].clone()
    T_camera_source[0, 2, 3] = -ahead
    opacities = torch.full(means.shape[:2], 0.999)
    view = rasterize(
        GaussianViews(means, quaternions, scales, opacities, torch.ones_like(means), T_camera_source, K, (208, 64))
    )
    # The first rows look beyond the farthest Gaussian of the source view, the more so the further the camera drives.
    seen = view.alpha[0, 8:]
    assert seen.min() > 0.8
    distance = (1 / road(source, 1.6))[0, 8:]
    assert ((view.depth[0, 8:] / distance - 1).abs() < 0.1).float().mean() > 0.95


# What surrounds the view


def test_the_background_surrounds_the_camera() -> None:
    torch.manual_seed(0)
    drawn = torch.rand(1, 3, 64, 128)
    K = torch.tensor([[[CANONICAL_FOCAL, 0, 64], [0, CANONICAL_FOCAL, 32], [0, 0, 1]]])
    background = background_layer(drawn, Background.of(K, drawn.shape[3], drawn.shape[2], torch.ones(1)))
    assert background.colors.min() >= 0 and background.colors.max() <= 1
    wide = torch.tensor([[[40.0, 0, 32], [0, 40, 32], [0, 0, 1]]])
    for turn in ([0.0, 0, 0], [0, 0.8, 0], [0, 3.1, 0], [1.2, 0, 0], [-1.5, 0, 0]):
        T = torch.from_numpy(rigid(rotation_matrix(turn), np.zeros(3))).float()[None]
        view = rasterize(
            GaussianViews(
                background.means,
                background.quaternions,
                background.scales,
                background.opacities,
                background.colors,
                T,
                wide,
                (64, 64),
            )
        )
        assert view.alpha.min() > 0.9  # no view has a hole


# Measured depth


def test_measured_depth_falls_on_its_place_in_the_input_view_and_the_nearest_hides_the_rest() -> None:
    view = InputView.of(camera(440, 120, 244))
    depth = torch.zeros(240, 880)
    depth[100, 300], depth[101, 301], depth[7, 9] = 8.0, 5.0, torch.nan
    placed = view.place(depth)
    assert placed.shape == (view.height, view.width) and (placed > 0).sum() == 1
    assert placed[view.top + 50, view.left + 150] == 5.0


def test_depth_spreads_over_the_levels_of_the_network() -> None:
    depth = torch.zeros(1, 64, 64)
    depth[0, 5, 9] = 12.0
    sensor = encode_sensor(depth, torch.ones(1))
    assert sensor[0, 1].sum() == 1 and sensor[0, 0, 5, 9] == pytest.approx((math.log(12) - 2.5) / 1.3, abs=1e-4)
    for stride, level in zip((2, 4, 8, 16, 32), sensor_pyramid(sensor)):
        cell = 5 // stride, 9 // stride
        assert level[0, 1].sum() == 1 and level[0, 1][cell] == 1
        torch.testing.assert_close(level[0, 0][cell], sensor[0, 0, 5, 9])


def test_an_unknown_speed_is_not_zero() -> None:
    speeds = encode_speed(torch.tensor([5.0, 0.0, torch.nan]))
    assert speeds.tolist() == [[0.5, 1], [0, 1], [0, 0]]
    assert torch.equal(torch.cat([known_speed(speed) for speed in (5.0, 0.0, None)]), speeds)


# Motion


@often
@given(st.floats(1, 80), st.floats(-2, 3), st.floats(-0.2, 0.2))
def test_what_stands_still_has_no_motion_in_the_posteriors_eyes(distance: float, forward: float, turn: float) -> None:
    K = torch.tensor([[[CANONICAL_FOCAL, 0, 64.0], [0, CANONICAL_FOCAL, 32], [0, 0, 1]]])
    T = torch.from_numpy(rigid(rotation_matrix([0, turn, 0]), [0.1, 0, -min(forward, 0.8 * distance)])).float()[None]
    later = Later(torch.zeros(1, 2, 64, 128), torch.tensor([0.2]), T, K)
    flow = static_flow(torch.full((1, 16, 32), distance), later)
    point = torch.linalg.inv(K[0]) @ torch.tensor([4 * 20 + 2.0, 4 * 3 + 2.0, 1.0]) * distance
    seen = K[0] @ (T[0, :3, :3] @ point + T[0, :3, 3])
    expected = seen[:2] / seen[2] - torch.tensor([82.0, 14.0])
    torch.testing.assert_close(flow[0, :, 3, 20], expected, atol=2e-2, rtol=1e-3)


def test_the_latent_chooses_motion_within_its_spread() -> None:
    mode, spread = torch.full((1, 12, 16, 16), 2.0), torch.full((1, 12, 16, 16), 0.5)
    z = torch.stack((torch.zeros(12, 2, 2), torch.full((12, 2, 2), -1.0)))[None]
    chosen = choose_motion(mode, spread, z)
    torch.testing.assert_close(chosen, torch.stack((mode, mode - 2**0.5 * spread), 1))


def test_what_moves_is_said_by_both_branches() -> None:
    torch.manual_seed(0)
    network = Network().eval()
    source = NetworkInput(
        torch.rand(1, 3, 64, 96), torch.ones(1, 1, 64, 96), torch.rand(1, 2, 64, 96), None, known_speed(3)
    )
    with torch.no_grad():
        before = network(source, source)[0]
        network.dynamic.objects.bias[-1] += 2  # mobility, the last of OBJECT_MAPS
        after = network(source, source)[0]
    assert after.objects["mobility"].shape == (1, 1, 16, 24)
    torch.testing.assert_close(after.static["mobility"], before.static["mobility"] + 2)
    assert all(torch.equal(after.static[name], before.static[name]) for name in before.static if name != "mobility")
