# SPDX-License-Identifier: Apache-2.0
"""The losses: what costs nothing, what costs, and what is left out because nobody knows it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.batch_samples import SIZE, sample_batch

from pixel4d_ros.predictor.heads import MOVABLE_MAPS, DepthModes, NetworkInput, PixelMaps, SurfaceMaps
from pixel4d_ros.predictor.latent import Latent
from pixel4d_ros.predictor.objects import LINEAR_SCALE, OFFSET_SCALE
from pixel4d_ros.training import losses
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.rendering import RenderedPrediction, training_view
from pixel4d_ros.training.surface_losses import depth_loss


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
    modes = DepthModes(*(full.expand(-1, 2, -1, -1) for _ in range(3)))
    surface = SurfaceMaps(modes, *(full + 8 for _ in range(7)))
    movable = {name: torch.zeros(1, n, h, w) for name, n in MOVABLE_MAPS.items()} | {"center": center, "offset": offset}
    maps = PixelMaps(
        {"mobility": full}, surface, {"center": center, "offset": offset}, still[:, None], still, still.clone(), movable
    )
    source = NetworkInput(full.expand(-1, 3, -1, -1), full, full.expand(-1, 2, -1, -1), None, torch.zeros(1, 2))
    return RenderedPrediction(
        source=source,
        maps=maps,
        motion=motion,
        depth_scale=torch.ones(1),
        view=view,
        fine=view,
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


def test_true_depth_costs_nothing_and_the_unknown_is_left_out() -> None:
    truth = torch.rand(2, 16, 24) * 30 + 1
    truth[0, :4], truth[1, 5] = torch.inf, 0
    limit, trust = torch.full((2, 1, 1), 250.0), (truth > 0).float()
    right = torch.where(truth == 0, 77.0, truth.clamp(max=250.0))
    assert depth_loss(right, truth, trust, limit).item() == pytest.approx(0, abs=1e-6)
    # Ten percent too far everywhere: the relative error counts.
    assert depth_loss(right * 1.1, truth, trust, limit).item() == pytest.approx(math.log(1.1), rel=1e-4)
    nothing = torch.zeros(2, 16, 24)
    assert depth_loss(right, nothing, nothing, limit).item() == 0


def test_mobility_is_judged_only_where_it_is_known() -> None:
    ids = torch.tensor([[[0, 0, 1, 2]]])
    sure = torch.tensor([[[-20.0, -20, 20, 20]]])
    assert losses.mobility_loss(sure, ids).item() == pytest.approx(0, abs=1e-6)
    assert losses.mobility_loss(-sure, ids).item() > 10
    # What nobody knows counts as standing, but hardly against what is known.
    half_known = torch.cat((ids, torch.full_like(ids, -1)), 2)
    wrong = torch.cat((sure, torch.full_like(sure, 20)), 2)
    assert 0 < losses.mobility_loss(wrong, half_known).item() < 1
    assert losses.mobility_loss(-sure, ids).item() > 10


def test_right_votes_and_motion_cost_nothing() -> None:
    batch = sample_batch(objects=2)
    batch.object_ids[batch.object_ids == 0] = -1
    prediction = perfect_prediction(batch)
    best = losses.object_loss(prediction, batch).item()  # of the heat map, which no logits match exactly
    prediction.motion[:, 0, 2] += 1.0  # which is more to what drives at 1 m/s than at 2
    wrong = (1 / (1 + losses.SLOW) + 1 / (2 + losses.SLOW)) / 2
    assert losses.object_loss(prediction, batch).item() - best == pytest.approx(wrong, rel=1e-5)
    prediction.motion[:, 0, 2] -= 1.0
    prediction.maps.objects["offset"] += 0.25
    assert losses.object_loss(prediction, batch).item() - best == pytest.approx(0.25, rel=1e-5)


def test_a_large_object_counts_for_more_than_a_small_one_but_not_by_its_area() -> None:
    batch = sample_batch(objects=2)
    batch.motions[0, 2] = batch.motions[0, 1]
    batch.object_ids[0, 4:28, 36:60] = 2  # four times the area of the other
    best = losses.object_loss(perfect_prediction(batch), batch).item()

    def costs(k: int) -> tuple[float, float]:
        """Of wrong motion and of wrong votes of object k."""
        slow, astray = perfect_prediction(batch), perfect_prediction(batch)
        top, left = slow.view.top // 4, slow.view.left // 4
        wrong = torch.zeros(slow.motion.shape[-2:])
        wrong[top : top + 8, left : left + 16] = batch.object_ids[0, 2::4, 2::4] == k
        slow.motion[:, 0, 0] += wrong
        astray.maps.objects["offset"].add_(wrong)
        return losses.object_loss(slow, batch).item() - best, losses.object_loss(astray, batch).item() - best

    small, large = costs(1), costs(2)
    for little, much in zip(small, large):
        assert much == pytest.approx(2 * little, rel=1e-3)


def test_the_loss_of_motion_is_of_what_moves_and_how_alone() -> None:
    batch = sample_batch(objects=2)
    prediction = perfect_prediction(batch)
    total, parts = losses.motion_loss(prediction, batch)
    assert list(parts) == ["mobility", "objects", "spread"]
    assert total.item() == pytest.approx(sum(losses.WEIGHTS[name] * value.item() for name, value in parts.items()))
    known = {"mobility": losses.mobility_loss(torch.zeros(1, 32, 64), batch.object_ids)}
    known |= {"objects": losses.object_loss(prediction, batch), "spread": losses.spread_loss(prediction, batch)}
    assert {name: value.item() for name, value in parts.items()} == pytest.approx(
        {name: value.item() for name, value in known.items()}
    )


def test_a_centre_where_the_object_is_costs_least() -> None:
    batch = sample_batch(objects=1)

    def cost(row: int, column: int) -> float:
        prediction = perfect_prediction(batch)
        center = prediction.maps.objects["center"].fill_(-6.0)
        center[0, 0, row + prediction.view.top // 4, column + prediction.view.left // 4] = 4.0
        return losses.object_loss(prediction, batch).item()

    # Pixels 8..20 and 20..32 are quarter resolution rows 2..4 and columns 5..7.
    assert cost(3, 6) < min(cost(3, 12), cost(6, 6), cost(0, 0))


def test_scenes_without_objects_have_a_loss_too() -> None:
    batch = sample_batch(objects=0)
    prediction = perfect_prediction(batch)
    prediction.maps.objects["center"].fill_(-20.0)
    assert losses.object_loss(prediction, batch).item() == pytest.approx(0, abs=1e-6)


def test_a_latent_like_the_prior_costs_only_its_free_bits() -> None:
    zeros = torch.zeros(2, 8, 2, 3)
    free = 8 * losses.FREE_BITS
    assert losses.latent_loss(Latent(zeros, zeros)).item() == pytest.approx(free)
    assert losses.latent_loss(Latent(zeros + 1, zeros)).item() == pytest.approx(8 * 0.5)


def test_the_spread_that_the_motion_has_is_the_likeliest() -> None:
    batch = sample_batch(objects=1)  # 1 m/s to the right, where the mode stands still: one of 12 numbers is off

    def cost(spread: float) -> float:
        prediction = perfect_prediction(batch)
        prediction.maps.spread.fill_(losses.LEAST_SPREAD / LINEAR_SCALE)
        prediction.maps.spread[:, 0] = spread / LINEAR_SCALE
        return losses.spread_loss(prediction, batch).item()

    assert cost(1.0) < min(cost(0.5), cost(2.0))


def test_unknown_pixels_teach_nothing() -> None:
    batch = sample_batch(objects=2)
    batch.object_ids[:, 16:] = -1
    batch.motions[0, 1, 1:] = torch.nan  # of object 1 the velocity is known, of object 2 nothing
    batch.motions[0, 2] = torch.nan
    prediction = perfect_prediction(sample_batch(objects=2))
    maps, view = prediction.maps, prediction.view
    prediction.motion.add_(0.1)
    mobility = torch.zeros(1, 32, 64)
    learned = [mobility, prediction.motion, maps.objects["center"], maps.objects["offset"], maps.spread]
    for tensor in learned:
        tensor.requires_grad_()
    loss = losses.mobility_loss(mobility, batch.object_ids) + losses.object_loss(prediction, batch)
    (loss + losses.spread_loss(prediction, batch)).backward()
    gradients = [tensor.grad for tensor in learned]
    assert all(g is not None and torch.isfinite(g).all() and g.any() for g in gradients)
    told, motion, center, offset, spread = (g.flatten(1, -3) if g.ndim > 3 else g for g in gradients if g is not None)
    assert told[:, :16].all() and told[:, 16:].abs().max() < 0.1 * told[:, :16].abs().min()
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
    ids = torch.zeros(1, 32, 64, dtype=torch.long)
    right = losses.flow_loss(prediction, batch.flow, ids)
    assert right.item() == pytest.approx(math.log(1.1), abs=1e-3)  # a distance is taken as 0.1 pixels at least
    assert losses.flow_loss(prediction, batch.flow + 3, ids) > right + 1
    assert losses.flow_loss(prediction, batch.flow + torch.nan, ids).item() == 0


def test_flow_is_explained_by_motion_where_that_is_known_or_likely() -> None:
    batch = sample_batch(objects=0)
    prediction = replace(perfect_prediction(batch), flow=torch.full((1, 2, 32, 64), 3.0))
    measured, ids = torch.full((1, 2, 32, 64), 3.0), torch.zeros(1, 32, 64, dtype=torch.long)
    right = pytest.approx(math.log(1.1), abs=1e-3)
    assert losses.flow_loss(prediction, measured, ids + 1).item() == right
    assert losses.flow_loss(prediction, measured, ids - 1, guess=True).item() == right
    assert losses.flow_loss(prediction, batch.flow, ids - 1, guess=True).item() == right
    for unmoved in (ids, ids - 1):
        assert losses.flow_loss(prediction, measured, unmoved).item() > 1
