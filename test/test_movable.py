# SPDX-License-Identifier: Apache-2.0
"""Vehicles and people in one image: how cells become instances, what is known of their distance, how it is learned."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.batch_samples import sample_batch
from torch import Tensor

from pixel4d_ros import Forecaster
from pixel4d_ros.predictor.heads import MAX_DEPTH, MIN_DEPTH, MOVABLE_MAPS
from pixel4d_ros.predictor.movable import STATIC_ERROR, distance_shift, instance_numbers
from pixel4d_ros.predictor.network import Network
from pixel4d_ros.predictor.objects import OFFSET_SCALE, ObjectCells
from pixel4d_ros.synthetic import street_clip
from pixel4d_ros.training.losses import movable_loss
from pixel4d_ros.training.rendering import predict_maps

H, W = 16, 32  # cells


def maps_of(*boxes: tuple[int, int, int, int], distance: float = 20.0) -> dict[str, Tensor]:
    """MOVABLE_MAPS that are sure of instances in boxes of cells (left, top, right, bottom), at a canonical distance."""
    maps = {name: torch.zeros(1, n, H, W) for name, n in MOVABLE_MAPS.items()}
    maps["movable"] -= 8
    maps["center"] -= 8
    share = math.log(distance / MIN_DEPTH) / math.log(MAX_DEPTH / MIN_DEPTH)
    maps["distance"] += math.log(share / (1 - share))
    maps["distance_spread"] -= 8  # sure of that, too
    for left, top, right, bottom in boxes:
        rows, columns = slice(top, bottom), slice(left, right)
        y, x = (top + bottom - 1) / 2, (left + right - 1) / 2
        maps["movable"][..., rows, columns] = 8
        maps["center"][..., round(y), round(x)] = 8
        maps["offset"][0, 0, rows, columns] = (x - torch.arange(left, right)) / OFFSET_SCALE
        maps["offset"][0, 1, rows, columns] = ((y - torch.arange(top, bottom)) / OFFSET_SCALE)[:, None]
    return maps


def test_each_car_is_an_instance() -> None:
    cells = ObjectCells.of(4 * H, 4 * W, torch.ones(1))
    numbers = instance_numbers(maps_of((2, 4, 10, 10), (10, 4, 18, 10), (24, 2, 27, 12)), cells)
    assert numbers[0].max() == 0
    parked = [numbers[4:10, 2:10], numbers[4:10, 10:18], numbers[2:12, 24:27]]
    assert all(len(torch.unique(box)) == 1 and box.min() > 0 for box in parked)
    assert len({int(box[0, 0]) for box in parked}) == 3


def test_a_vehicle_moves_to_its_distance_and_nothing_else_does() -> None:
    log_depth = torch.full((1, 1, 2 * H, 2 * W), math.log(16.0))
    shift = distance_shift(maps_of((2, 4, 18, 14)), log_depth)[0, 0]
    assert shift[9, 10].item() == pytest.approx(math.log(20 / 16), abs=0.01)
    assert shift[:, 22:].abs().max() < 1e-3


def test_two_estimates_of_distance_are_weighted_by_their_errors() -> None:
    maps = maps_of((0, 0, W, H))
    maps["distance_spread"][:] = math.log(math.expm1(STATIC_ERROR - 0.01))  # as wrong as the static branch
    shift = distance_shift(maps, torch.full((1, 1, H, W), math.log(16.0)))
    assert shift.mean().item() == pytest.approx(0.5 * math.log(20 / 16), abs=0.01)


def test_what_is_not_known_teaches_nothing() -> None:
    torch.manual_seed(0)
    batch = sample_batch()
    prediction = predict_maps(Network().eval(), batch, batch)
    loss, parts = movable_loss(prediction, batch)
    assert torch.isfinite(loss) and parts["movable"] > 0
    batch.object_ids[:] = -1
    _, nothing = movable_loss(prediction, batch)
    assert all(nothing[name] == 0 for name in ("movable", "centers", "votes", "distance"))


def test_a_scene_knows_its_vehicles_whether_they_move_or_not() -> None:
    """Of streets whose objects are known: most of their pixels belong to an instance, few of the others do.

    (Of the others some do: what could move, but stands for good, has no number in synthetic streets.)
    """
    forecaster = Forecaster.load(device="cpu")
    hit, other = [], []
    for seed in (900_001, 900_004, 900_007):
        clip = street_clip(seed, 2, size=(416, 128))
        scene = forecaster.predict(np.asarray(clip.images[0]), clip.K)
        assert scene.camera is not None and scene.instance_ids is not None and clip.object_ids is not None
        places = scene.pixels(scene.camera)
        seen = (places >= 0) & (scene.instance_ids > 0)
        found = torch.zeros(scene.camera.height * scene.camera.width, dtype=torch.bool)
        found[places[seen]] = True
        things = torch.from_numpy(clip.object_ids[0] > 0).flatten()
        hit.append(found[things].float().mean().item())
        other.append(found[~things].float().mean().item())
    assert np.mean(hit) > 0.6
    assert np.mean(other) < 0.5 * np.mean(hit)
