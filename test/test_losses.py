# SPDX-License-Identifier: Apache-2.0
"""The losses: what costs nothing, what costs, and what is left out because nobody knows it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.batch_samples import SIZE, sample_batch

from pixel4d_ros.predictor.heads import (
    MAX_DEPTH,
    MIN_DEPTH,
    DepthModes,
    NetworkInput,
    PixelMaps,
    ReferenceInput,
    TwoViewMaps,
)
from pixel4d_ros.predictor.latent import Latent
from pixel4d_ros.predictor.matching import PLANES
from pixel4d_ros.predictor.objects import LINEAR_SCALE, OFFSET_SCALE
from pixel4d_ros.training import losses, motion_losses
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.rendering import RenderedPrediction, training_view


def perfect_prediction(batch: Batch) -> RenderedPrediction:
    """Votes and motion that are exactly those of the batch's objects."""
    view = training_view(*SIZE)
    h, w = view.height // 4, view.width // 4
    offset, motion, center = torch.zeros(1, 2, h, w), torch.zeros(1, 4, 3, h, w), torch.zeros(1, 1, h, w)
    ids = batch.object_ids[0, 2::4, 2::4]
    for k in range(1, batch.motions.shape[1]):
        rows, columns = torch.nonzero(ids == k).T
        where = (rows + view.top // 4, columns + view.left // 4)
        offset[0, 0][where] = (columns.float().mean() - columns) / OFFSET_SCALE
        offset[0, 1][where] = (rows.float().mean() - rows) / OFFSET_SCALE
        motion[0][:, :, where[0], where[1]] = batch.motions[0, k][..., None]
    still, full = torch.zeros(1, 12, h, w), torch.zeros(1, 1, view.height, view.width)
    depth = full + 8
    two_view = TwoViewMaps(
        torch.zeros(1, PLANES, h, w), torch.full((1, 1, h, w), math.log(8)), torch.zeros(1, 2, h, w), torch.zeros(1)
    )
    maps = PixelMaps(
        {"mobility": full, "object": full.clone()},
        depth,
        torch.ones_like(depth),
        depth + 1,
        {"center": center, "offset": offset},
        still[:, None],
        still,
        still.clone(),
        two_view,
    )
    reference = ReferenceInput(
        batch.reference, batch.K[:, 0], batch.K[:, 0], torch.eye(4)[None], torch.ones(1), torch.zeros(1)
    )
    source = NetworkInput(
        full.expand(-1, 3, -1, -1), full, full.expand(-1, 2, -1, -1), None, torch.zeros(1, 2), reference
    )
    return RenderedPrediction(
        source=source,
        maps=maps,
        motion=motion,
        depth_scale=torch.ones(1),
        view=view,
        posterior=None,
        views=batch.images,
        flow=batch.flow.clone(),
        static_flow=batch.flow.clone(),
    )


def test_equal_images_cost_nothing() -> None:
    images = torch.rand(2, 3, 3, 32, 64)
    assert losses.color_loss(images, images).item() == pytest.approx(0, abs=1e-5)
    assert losses.similarity(images[0], images[0]).item() == pytest.approx(1, abs=1e-5)
    assert losses.color_loss(images + 0.1, images).item() > 0.1


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
    flat, known = torch.zeros(1, 16, 24), torch.zeros(1, 16, 24)
    assert losses.behind_loss(flat, known).item() == pytest.approx(0, abs=1e-6)
    known[:, :8] = 100.0
    assert losses.behind_loss(flat, known).item() == pytest.approx(math.log(100 / math.sqrt(0.5 * 250)), abs=0.3)
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


def test_mobility_is_judged_only_where_it_is_known() -> None:
    batch = sample_batch(objects=2)
    batch.moving[0, 2] = 0  # the second one stands
    prediction = perfect_prediction(batch)
    logit = prediction.maps.static["mobility"]
    top, left = prediction.view.top, prediction.view.left
    inside = logit[0, 0, top : top + 32, left : left + 64]
    inside.copy_(torch.where(batch.object_ids[0] == 1, 20.0, -20.0))
    assert motion_losses.mobility_loss(prediction, batch).item() == pytest.approx(0, abs=1e-6)
    inside.neg_()
    assert motion_losses.mobility_loss(prediction, batch).item() > 10
    unknown = replace(batch, object_ids=torch.full_like(batch.object_ids, -1))
    assert motion_losses.mobility_loss(prediction, unknown).item() == 0
    batch.moving[0, 1:] = torch.nan
    inside.copy_(torch.where(batch.object_ids[0] == 0, -20.0, 7.0))
    assert motion_losses.mobility_loss(prediction, batch).item() == pytest.approx(0, abs=1e-6)


def test_an_object_that_stands_teaches_no_motion() -> None:
    batch = sample_batch(objects=1)
    batch.motions[:], batch.moving[0, 1] = 0, 0
    prediction = perfect_prediction(batch)
    best = motion_losses.object_loss(prediction, batch).item()
    prediction.motion.add_(3.0)
    assert motion_losses.object_loss(prediction, batch).item() == pytest.approx(best)


def test_right_votes_and_motion_cost_nothing() -> None:
    batch = sample_batch(objects=2)
    batch.object_ids[batch.object_ids == 0] = -1
    prediction = perfect_prediction(batch)
    best = motion_losses.object_loss(prediction, batch).item()  # of the heat map, which no logits match exactly
    prediction.motion[:, 0, 2] += 1.0  # which is more to what drives at 1 m/s than at 2
    wrong = (1 / (1 + motion_losses.SLOW) + 1 / (2 + motion_losses.SLOW)) / 2
    assert motion_losses.object_loss(prediction, batch).item() - best == pytest.approx(wrong, rel=1e-5)
    prediction.motion[:, 0, 2] -= 1.0
    prediction.maps.objects["offset"] += 0.25
    assert motion_losses.object_loss(prediction, batch).item() - best == pytest.approx(0.25, rel=1e-5)


def test_a_large_object_counts_for_more_than_a_small_one_but_not_by_its_area() -> None:
    batch = sample_batch(objects=2)
    batch.motions[0, 2] = batch.motions[0, 1]
    batch.object_ids[0, 4:28, 36:60] = 2  # four times the area of the other
    best = motion_losses.object_loss(perfect_prediction(batch), batch).item()

    def costs(k: int) -> tuple[float, float]:
        """Of wrong motion and of wrong votes of object k."""
        slow, astray = perfect_prediction(batch), perfect_prediction(batch)
        top, left = slow.view.top // 4, slow.view.left // 4
        wrong = torch.zeros(slow.motion.shape[-2:])
        wrong[top : top + 8, left : left + 16] = batch.object_ids[0, 2::4, 2::4] == k
        slow.motion[:, 0, 0] += wrong
        astray.maps.objects["offset"].add_(wrong)
        return motion_losses.object_loss(slow, batch).item() - best, motion_losses.object_loss(
            astray, batch
        ).item() - best

    small, large = costs(1), costs(2)
    for little, much in zip(small, large):
        assert much == pytest.approx(2 * little, rel=1e-3)


def test_the_loss_of_motion_is_of_what_moves_and_how_alone() -> None:
    batch = sample_batch(objects=2)
    prediction = perfect_prediction(batch)
    total, parts = losses.motion_loss(prediction, batch)
    assert list(parts) == ["mobility", "member", "objects", "spread", "residual"]
    assert total.item() == pytest.approx(sum(losses.WEIGHTS[name] * value.item() for name, value in parts.items()))
    known = {"mobility": motion_losses.mobility_loss(prediction, batch)}
    known |= {"member": motion_losses.member_loss(prediction, batch)}
    known |= {name: getattr(motion_losses, f"{name}_loss")(prediction, batch) for name in ("spread",)}
    known |= {"objects": motion_losses.object_loss(prediction, batch), "residual": torch.zeros(())}
    assert {name: value.item() for name, value in parts.items()} == pytest.approx(
        {name: value.item() for name, value in known.items()}
    )


def test_a_centre_where_the_object_is_costs_least() -> None:
    batch = sample_batch(objects=1)

    def cost(row: int, column: int) -> float:
        prediction = perfect_prediction(batch)
        center = prediction.maps.objects["center"].fill_(-6.0)
        center[0, 0, row + prediction.view.top // 4, column + prediction.view.left // 4] = 4.0
        return motion_losses.object_loss(prediction, batch).item()

    # Pixels 8..20 and 20..32 are quarter resolution rows 2..4 and columns 5..7.
    assert cost(3, 6) < min(cost(3, 12), cost(6, 6), cost(0, 0))


def test_scenes_without_objects_have_a_loss_too() -> None:
    batch = sample_batch(objects=0)
    prediction = perfect_prediction(batch)
    prediction.maps.objects["center"].fill_(-20.0)
    assert motion_losses.object_loss(prediction, batch).item() == pytest.approx(0, abs=1e-6)


def test_a_latent_like_the_prior_costs_only_its_free_bits() -> None:
    zeros = torch.zeros(2, 8, 2, 3)
    free = 8 * losses.FREE_BITS
    assert losses.latent_loss(Latent(zeros, zeros)).item() == pytest.approx(free)
    assert losses.latent_loss(Latent(zeros + 1, zeros)).item() == pytest.approx(8 * 0.5)


def test_the_spread_that_the_motion_has_is_the_likeliest() -> None:
    batch = sample_batch(objects=1)  # 1 m/s to the right, where the mode stands still: one of 12 numbers is off

    def cost(spread: float) -> float:
        prediction = perfect_prediction(batch)
        prediction.maps.spread.fill_(motion_losses.LEAST_SPREAD / LINEAR_SCALE)
        prediction.maps.spread[:, 0] = spread / LINEAR_SCALE
        return motion_losses.spread_loss(prediction, batch).item()

    assert cost(1.0) < min(cost(0.5), cost(2.0))


def test_unknown_pixels_teach_nothing() -> None:
    batch = sample_batch(objects=2)
    batch.object_ids[:, 16:] = -1
    batch.motions[0, 1, 1:] = torch.nan  # of object 1 the velocity is known, of object 2 nothing
    batch.motions[0, 2] = torch.nan
    prediction = perfect_prediction(sample_batch(objects=2))
    maps, view = prediction.maps, prediction.view
    prediction.motion.add_(0.1)
    learned = [prediction.motion, maps.objects["center"], maps.objects["offset"], maps.spread]
    for tensor in learned:
        tensor.requires_grad_()
    loss = motion_losses.object_loss(prediction, batch)
    (loss + motion_losses.spread_loss(prediction, batch)).backward()
    gradients = [tensor.grad for tensor in learned]
    assert all(g is not None and torch.isfinite(g).all() and g.any() for g in gradients)
    motion, center, offset, spread = (g.flatten(1, -3) if g.ndim > 3 else g for g in gradients if g is not None)
    row, column = view.top // 4, view.left // 4
    lower = slice(row + 4, row + 8)
    assert center[:, :, row : row + 4, column : column + 16].all() and not center[:, :, lower].any()
    assert not offset[:, :, lower].any() and not motion[:, :, lower].any() and not spread[:, :, lower].any()
    for gradient in (motion[0, :, row + 2 : row + 4], spread[0, :, row + 2 : row + 4]):
        first, second = gradient[..., column + 5 : column + 8], gradient[..., column + 10 : column + 13]
        assert first[:3].all() and not first[3:].any() and not second.any()


def test_flow_as_predicted_costs_next_to_nothing() -> None:
    batch = sample_batch(objects=0)
    prediction = perfect_prediction(batch)
    still = torch.zeros(1, 32, 64)
    right = losses.flow_loss(prediction, batch.flow, still)
    assert right.item() == pytest.approx(math.log(1.1), abs=1e-3)  # a distance is taken as 0.1 pixels at least
    assert losses.flow_loss(prediction, batch.flow + 3, still) > right + 1
    assert losses.flow_loss(prediction, batch.flow + torch.nan, still).item() == 0


def test_flow_is_explained_by_motion_where_that_is_known_or_likely() -> None:
    batch = sample_batch(objects=0)
    prediction = replace(perfect_prediction(batch), flow=torch.full((1, 2, 32, 64), 3.0))
    measured, still = torch.full((1, 2, 32, 64), 3.0), torch.zeros(1, 32, 64)
    unknown = torch.full_like(still, torch.nan)
    right = pytest.approx(math.log(1.1), abs=1e-3)
    assert losses.flow_loss(prediction, measured, still + 1).item() == right
    assert losses.flow_loss(prediction, measured, unknown, guess=True).item() == right
    assert losses.flow_loss(prediction, batch.flow, unknown, guess=True).item() == right
    for unmoved in (still, unknown):
        assert losses.flow_loss(prediction, measured, unmoved).item() > 1
