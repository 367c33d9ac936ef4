# SPDX-License-Identifier: Apache-2.0
"""The surface branch: depth as a distribution, structure and detail, what is hidden, and the losses of all that."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batch_samples import sample_batch
from torch.nn import functional as F

from pixel4d_ros.camera import Camera
from pixel4d_ros.predictor.heads import (
    MAX_DEPTH,
    MIN_DEPTH,
    SURFACE_MAPS,
    SURFACE_STARTS,
    DepthCorrection,
    DepthModes,
    NetworkInput,
)
from pixel4d_ros.predictor.input_view import InputView
from pixel4d_ros.predictor.lifting import VisibleGrid
from pixel4d_ros.predictor.surface import SurfaceNetwork, blend_structure, hidden_behind, structure, surface_maps
from pixel4d_ros.training import surface_losses as losses
from pixel4d_ros.training.batch import Batch, halved, rescaled

NO_VEHICLES = torch.zeros(1, 1, 16, 32)
often = settings(max_examples=40, deadline=None)


def camera(width: int, height: int, focal: float) -> Camera:
    return Camera(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]), width, height)


# Depth as a distribution


def two_modes(near: float, far: float, choice: float) -> DepthModes:
    """One pixel whose log depth is near or far; choice is the logit of near."""
    maps = {
        "depth": torch.tensor([near, far]).view(1, 2, 1, 1),
        "depth_spread": torch.full((1, 2, 1, 1), -3.0),
        "depth_choice": torch.full((1, 1, 1, 1), choice, requires_grad=True),
    }
    return DepthModes.of(maps)


def test_at_an_edge_depth_is_that_of_one_side() -> None:
    for choice, mode in ((0.2, 0), (-0.2, 1)):
        modes = two_modes(-1.0, 1.0, choice)
        log_depth, _ = modes.most_likely()
        assert log_depth.item() == pytest.approx(modes.log_depth[0, mode].item())
        # Yet a deeper truth makes the farther mode likelier.
        (gradient,) = torch.autograd.grad(log_depth.sum(), modes.log_weight)
        assert gradient[0, 0].item() < 0 < gradient[0, 1].item()


def test_a_truth_at_either_mode_is_likely_and_between_them_is_not() -> None:
    modes = two_modes(-1.0, 1.0, 0.0)
    near, far = (modes.log_depth[:, i] for i in (0, 1))
    ends, middle = modes.log_density(near), modes.log_density((near + far) / 2)
    torch.testing.assert_close(ends, modes.log_density(far))
    assert ends.item() > middle.item() + 5


# Structure and detail


def raw_maps(height: int, width: int) -> dict[str, torch.Tensor]:
    """Maps as an untrained head answers: the same everywhere."""
    return {
        name: torch.tensor(starts).view(1, -1, 1, 1).repeat(1, 1, height, width)
        for name, starts in SURFACE_STARTS.items()
    }


@pytest.mark.parametrize("factor", [1, 2])
def test_the_surface_has_the_structure_of_the_static_branch(factor: int) -> None:
    slope = torch.linspace(math.log(4), math.log(40), 128)
    log_depth = slope.expand(1, 1, 64, 128)
    surface = surface_maps(raw_maps(64 * factor, 128 * factor), log_depth, NO_VEHICLES)
    expected = F.interpolate(log_depth, scale_factor=factor, mode="bilinear") if factor > 1 else log_depth
    inner = (..., slice(32 * factor, 96 * factor))
    torch.testing.assert_close(surface.depth.log()[inner], expected[inner], atol=0.02, rtol=0)
    assert surface.hidden_depth.shape == (1, 1, 64, 128)
    assert (surface.hidden_depth > F.max_pool2d(surface.depth, factor)).all()


def test_vehicles_are_moved_where_neither_a_laser_nor_a_reference_image_tells_more() -> None:
    maps, log_depth = raw_maps(64, 128), torch.full((1, 1, 64, 128), math.log(20))
    vehicles = torch.zeros(1, 1, 16, 32)
    vehicles[..., 4:12, 8:24] = 0.1
    before, after = (surface_maps(maps, log_depth, v).depth for v in (NO_VEHICLES, vehicles))
    ratio = torch.log(after / before)[0, 0]
    assert ratio[32, 64].item() == pytest.approx(0.1, abs=1e-4)
    assert ratio[2, 2].item() == 0
    sensor = torch.cat((torch.zeros_like(log_depth), torch.ones_like(log_depth)), 1)
    measured = [surface_maps(maps, log_depth, v, sensor).depth for v in (NO_VEHICLES, vehicles)]
    torch.testing.assert_close(*measured)


def test_a_sure_correction_of_a_car_moves_neither_the_road_beside_it_nor_its_rim_by_halves() -> None:
    maps, log_depth = raw_maps(64, 128), torch.full((1, 1, 64, 128), math.log(20))
    shift = torch.zeros(1, 1, 16, 32)
    shift[..., 12:20] = -0.5  # columns 48 to 79
    correction = DepthCorrection(torch.zeros_like(shift), shift, torch.full_like(shift, 0.01))
    before, after = (surface_maps(maps, log_depth, NO_VEHICLES, None, c).depth for c in (None, correction))
    moved = torch.log(after / before)[0, 0, 32]
    assert moved[54:74].sub(-0.5).abs().max() < 0.05
    assert moved[:42].abs().max() < 0.05 and moved[86:].abs().max() < 0.05


def test_the_surface_keeps_the_detail_of_its_branch() -> None:
    maps = raw_maps(128, 256)
    maps["depth"][:, :, :, 130:134] -= 0.5  # a pole
    surface = surface_maps(maps, torch.full((1, 1, 64, 128), math.log(20)), NO_VEHICLES)
    across = surface.depth[0, 0, 64].log()
    step = across[128] - across[131]
    raw = DepthModes.of(maps).log_depth[0, 0, 64]
    torch.testing.assert_close(step, raw[128] - raw[131], atol=0.02, rtol=0)
    assert across[:60].sub(math.log(20)).abs().max() < 1e-3  # and elsewhere nothing changed


@pytest.mark.parametrize(("factor", "share"), [(1, 1.0), (2, 1.0), (2, 0.5), (2, 0.0)])
def test_a_share_of_the_large_structure_is_the_surface_branchs(factor: int, share: float) -> None:
    maps, coarse = raw_maps(64 * factor, 128 * factor), torch.full((1, 1, 64, 128), math.log(20))
    own = DepthModes.of(maps).most_likely()[0].mean().item()  # the same everywhere
    blended = blend_structure(coarse, maps, None, torch.full((1, 1, 1, 1), share))
    expected = share * own + (1 - share) * math.log(20)
    torch.testing.assert_close(blended, torch.full_like(blended, expected), atol=1e-4, rtol=0)
    surface = surface_maps(maps, blended, NO_VEHICLES)
    torch.testing.assert_close(surface.depth.log().mean().item(), expected, atol=1e-4, rtol=0)


def test_the_structure_of_what_is_far_is_the_static_branchs_alone() -> None:
    maps = raw_maps(64, 128)
    own = DepthModes.of(maps).most_likely()[0].mean().item()
    for metres, share in ((5.0, 0.5), (14.0, 0.5), (27.5, 0.25), (41.0, 0.0), (200.0, 0.0)):
        blended = blend_structure(torch.full((1, 1, 64, 128), math.log(metres)), maps, None).mean().item()
        assert blended == pytest.approx(share * own + (1 - share) * math.log(metres), abs=1e-4)


def test_near_measured_depth_the_large_structure_stays_the_static_branchs() -> None:
    maps, coarse = raw_maps(64, 128), torch.full((1, 1, 64, 128), math.log(20))
    sensor = torch.zeros(1, 2, 64, 128)
    sensor[:, 1, 30, 20] = 1  # one pixel
    blended = blend_structure(coarse, maps, sensor, torch.full((1, 1, 1, 1), 0.5))[0, 0]
    assert blended[30, 20].item() == pytest.approx(math.log(20))
    assert abs(blended[30, 120].item() - math.log(20)) > 0.1


def test_structure_is_a_blur_of_means() -> None:
    values = torch.zeros(1, 1, 64, 64)
    values[..., 32:48, 16:32] = 16.0
    means = structure(values, 16)
    assert means.shape == (1, 1, 4, 4) and means.sum() == pytest.approx(16)
    assert means[0, 0, 2].tolist() == pytest.approx([2, 4, 2, 0])


@often
@given(st.floats(0, 5), st.floats(0, 5))
def test_the_hidden_surface_lies_behind_the_visible_one(visible: float, hidden: float) -> None:
    found = hidden_behind(torch.tensor(visible), torch.tensor(hidden)).item()
    assert found > visible + 0.019 and found >= hidden - 1e-5 and found < max(visible + 0.02, hidden) + 0.05


def test_the_branch_answers_at_the_resolution_of_its_input() -> None:
    torch.manual_seed(0)
    network = SurfaceNetwork().eval()
    source = NetworkInput(
        torch.rand(1, 3, 64, 96), torch.ones(1, 1, 64, 96), torch.rand(1, 2, 64, 96), None, torch.zeros(1, 2)
    )
    with torch.no_grad():
        maps, _ = network(source)
    assert {name: tuple(m.shape) for name, m in maps.items()} == {n: (1, c, 64, 96) for n, c in SURFACE_MAPS.items()}


# What it sees


@pytest.mark.parametrize(
    ("source", "inner"),
    [
        (camera(832, 256, 488.0), (832, 256)),
        (camera(1242, 375, 721.0), (840, 254)),
        (camera(400, 120, 232.0), (421, 126)),
    ],
    ids=lambda value: f"{value.width}x{value.height}" if isinstance(value, Camera) else None,
)
def test_an_image_of_few_pixels_is_not_enlarged_twice(source: Camera, inner: tuple[int, int]) -> None:
    view = InputView.of(source)
    fine = view.finer(source)
    assert (fine.inner.width, fine.inner.height) == inner
    factor = fine.width // view.width
    assert (fine.width, fine.height, fine.left, fine.top) == tuple(
        factor * n for n in (view.width, view.height, view.left, view.top)
    )


def test_no_visible_gaussian_lies_between_the_sides_of_an_edge() -> None:
    source = camera(1242, 375, 721.0)
    view = InputView.of(source)
    depth = torch.full((1, 1, view.height, view.width), 30.0)
    depth[..., : view.width // 2] = 8.0
    inverse = VisibleGrid.of(source, view).sample_depth(depth)
    assert {round(1 / value, 3) for value in inverse.unique().tolist()} == {8.0, 30.0}


# Losses


def certain(depth: torch.Tensor) -> DepthModes:
    """A distribution whose first mode is exactly at depth (B, H, W), and certain."""
    log_depth = torch.log(depth.clamp(MIN_DEPTH, MAX_DEPTH))[:, None]
    both = torch.cat((log_depth, log_depth + 1), 1)
    weight = torch.tensor([0.0, -20.0]).view(1, 2, 1, 1).expand_as(both)
    return DepthModes(both, torch.full_like(both, 0.1), weight)


def test_depth_is_judged_where_it_is_known() -> None:
    truth = torch.rand(2, 16, 24) * 30 + 1
    truth[0, :4], truth[1, 5] = torch.inf, 0
    trust = (truth > 0).float()
    right = torch.where(truth == 0, 77.0, truth)
    best = math.log(2 * 0.1)  # a Laplace distribution at its mode
    assert losses.mixture_loss(certain(right), truth, trust).item() == pytest.approx(best, abs=1e-3)
    # Ten percent too far everywhere: the relative error counts, by the mode's scale.
    wrong = losses.mixture_loss(certain(right * 1.1), truth, trust).item()
    known = torch.isfinite(truth) & (truth > 0)
    expected = math.log(1.1) / 0.1 * (known.sum() / trust.sum()).item()
    assert wrong - best == pytest.approx(expected, rel=0.02)
    nothing = torch.zeros(2, 16, 24)
    assert losses.mixture_loss(certain(right), nothing, nothing).item() == 0


def test_a_sure_road_does_not_outweigh_unsure_trees() -> None:
    truth = torch.full((1, 1, 2), 10.0)
    modes = certain(1.1 * truth)
    scale = torch.tensor([0.04, 0.36]).expand_as(modes.scale)  # the road's, and the trees'
    log_depth = modes.log_depth.clone().requires_grad_()
    losses.mixture_loss(replace(modes, log_depth=log_depth, scale=scale), truth, torch.ones_like(truth)).backward()
    assert log_depth.grad is not None
    road, trees = log_depth.grad[0, 0, 0].tolist()
    assert road / trees == pytest.approx(3, rel=1e-3)  # 9 by the likelihood alone


def test_an_edge_of_any_height_costs_what_it_is_off() -> None:
    limit = torch.full((1, 1, 1), 250.0)
    truth = torch.full((1, 16, 24), 8.0)
    truth[..., 12:] = 80.0
    assert losses.gradient_loss(truth, truth, limit).item() == pytest.approx(0, abs=1e-6)
    assert losses.gradient_loss(truth * 1.1, truth, limit).item() == pytest.approx(0, abs=1e-5)
    flat = torch.full_like(truth, 8.0)
    half = torch.where(truth > 8, 25.3, truth)  # half of the step in log depth
    costs = [losses.gradient_loss(depth, truth, limit).item() for depth in (flat, half)]
    assert costs[0] == pytest.approx(2 * costs[1], rel=0.01)
    assert losses.gradient_loss(flat, torch.zeros_like(truth), limit).item() == 0


def test_a_plane_has_the_normals_of_a_plane() -> None:
    K = torch.tensor([[60.0, 0, 12], [0, 60, -8], [0, 0, 1]])[None]
    row = torch.arange(16.0)[None, :, None].expand(1, 16, 24)
    road = 1.6 * 60 / (row + 8)
    assert losses.normal_loss(road, road, K).item() == pytest.approx(0, abs=1e-5)
    assert losses.normal_loss(2 * road, road, K).item() == pytest.approx(0, abs=1e-5)
    assert losses.normal_loss(torch.full_like(road, 8.0), road, K).item() > 0.5


def test_the_surface_behind_is_judged_where_it_is_known_and_bends_little() -> None:
    flat, known = torch.full((1, 16, 24), math.log(20.0)), torch.zeros(1, 16, 24)
    assert losses.behind_loss(flat, known).item() == pytest.approx(0, abs=1e-6)
    known[:, :8] = 100.0
    assert losses.behind_loss(flat, known).item() == pytest.approx(math.log(5), rel=1e-4)
    assert losses.behind_loss(torch.randn(1, 16, 24), torch.zeros(1, 16, 24)) > 0.01


def test_depth_of_what_moves_counts_more_and_matched_depth_less() -> None:
    batch = sample_batch()
    measured = batch.depth.clone()
    measured[:, :, 60:] = 0
    matched = torch.where(measured > 0, 0.0, 5.0)
    matched[:, 16:] = 0
    truth, trust = losses.known_depth(replace(batch, depth=measured, matched=matched), 0.2)
    mover, road, wall, unknown = (0, 10, 25), (0, 28, 10), (0, 3, 62), (0, 30, 62)
    assert [truth[place].item() for place in (mover, road, wall, unknown)] == [8, 8, 5, 0]
    assert [trust[place].item() for place in (mover, road, wall, unknown)] == pytest.approx([3, 1, 0.2, 0])
    costs = []
    for place in (mover, road, wall):
        wrong = truth.clamp(min=1).clone()
        wrong[place] *= 1.2
        right = losses.mixture_loss(certain(truth.clamp(min=1)), truth, trust)
        costs.append((losses.mixture_loss(certain(wrong), truth, trust) - right).item())
    assert costs[0] == pytest.approx(3 * costs[1], rel=1e-2) and costs[1] == pytest.approx(5 * costs[2], rel=1e-2)


def test_planes_are_smooth_and_steps_are_not() -> None:
    row, column = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    plane, flat = (0.02 + 0.01 * row + 0.003 * column)[None], torch.full((1, 3, 16, 24), 0.5)
    assert losses.smoothness_loss(plane, flat).item() == pytest.approx(0, abs=1e-5)
    step = torch.where(column > 11, 0.5, 0.1)[None]
    edge = torch.where(column > 11, 0.9, 0.1).expand(1, 3, 16, 24)
    assert losses.smoothness_loss(step, flat) > 10 * losses.smoothness_loss(step, edge)


# Batches of other resolutions and scales


def test_a_halved_batch_is_what_a_camera_of_half_the_resolution_sees() -> None:
    batch = sample_batch()
    half = halved(batch)
    assert half.images.shape[-2:] == (16, 32) and half.depth.shape[-2:] == (16, 32)
    point = torch.tensor([1.0, 0.5, 8.0])
    whole, coarse = (b.K[0, 0] @ point / point[2] for b in (batch, half))
    torch.testing.assert_close(coarse[:2] + 0.5, (whole[:2] + 0.5) / 2)


def test_a_rescaled_batch_shows_the_same_images() -> None:
    batch = sample_batch()
    larger = rescaled(batch, torch.tensor([3.0]))
    assert torch.equal(larger.images, batch.images) and torch.equal(larger.flow, batch.flow)
    assert torch.equal(larger.depth, 3 * batch.depth) and torch.equal(
        larger.motions[:, :, 0], 3 * batch.motions[:, :, 0]
    )
    assert torch.equal(larger.T_source_camera[..., :3, :3], batch.T_source_camera[..., :3, :3])
    unchanged = {f.name for f in fields(Batch)} - {"depth", "motions", "reference_time"}  # lengths are 0 in the sample
    assert all(torch.equal(getattr(larger, name), getattr(batch, name)) for name in unchanged)
