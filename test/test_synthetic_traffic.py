# SPDX-License-Identifier: Apache-2.0
"""The situations of traffic on synthetic streets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixel4d_ros.synthetic.motion import ArcActor, RoadActor, RoadTable, expand
from pixel4d_ros.synthetic.scenarios import Scenario, draw_scenario
from pixel4d_ros.synthetic.street import make_street
from pixel4d_ros.synthetic.traffic import FreeSpace
from pixel4d_ros.training import synthetic_data
from pixel4d_ros.training.synthetic_data import LONGEST_REFERENCE, STEP, make_batches

SEEDS = range(2_000_000, 2_000_012)


def test_streets_show_vehicles_that_cross_stand_brake_and_come_towards() -> None:
    directions, speeds, changes, standing = [], [], [], 0
    for seed in SEEDS:
        layout = make_street(seed)
        forward = layout.camera(np.zeros(1))[0, :2, 2]
        motion = expand(layout.actors, 0.0)
        speed = np.linalg.norm(motion.velocities, axis=-1)
        fast = speed > 1.5
        directions += list((motion.velocities[fast, :2] @ forward) / speed[fast])
        speeds += list(speed)
        changes += list(np.linalg.norm(motion.accelerations, axis=-1))
        standing += len(layout.standing)
    assert np.mean(np.abs(directions) < 0.4) > 0.1  # across the ego's way
    assert np.mean(np.array(directions) < -0.8) > 0.1 and np.mean(np.array(directions) > 0.8) > 0.1
    assert max(changes) > 1.0 and max(speeds) < 40
    assert standing > 5 * len(SEEDS)


def test_every_scenario_is_drawn() -> None:
    drawn = {draw_scenario(np.random.default_rng(seed)) for seed in range(100)}
    assert drawn == set(Scenario)


def test_what_would_touch_is_not_added() -> None:
    free_space = FreeSpace(3.0, [np.array([30.0, 0.0, 0.7])])
    ahead = ArcActor(np.array([0.0, 0.0, 0.7]), 0.0, 5.0, 0.0)
    assert free_space.is_free(ahead, 2.3, 0.9)
    free_space.add(ahead, 2.3, 0.9)
    assert not free_space.is_free(ArcActor(np.array([15.0, 0.0, 0.7]), np.pi, 5.0, 0.0), 2.3, 0.9)  # head on
    assert free_space.is_free(ArcActor(np.array([15.0, 3.0, 0.7]), np.pi, 5.0, 0.0), 2.3, 0.9)  # in the other lane
    assert not free_space.is_free(ArcActor(np.array([20.0, 0.0, 0.7]), 0.0, 5.0, 0.0), 2.3, 0.9)  # into what stands


def test_a_car_that_changes_lanes_drifts_and_turns_its_nose() -> None:
    table = RoadTable(make_street(7).road, -50, 150)
    straight, drifting = (RoadActor(table, 10.0, -2.0, 10.0, 0.0, 1, 0.7, drift) for drift in (0.0, 1.5))
    (p, yaw), (q, turned) = straight.at(np.array([2.0])), drifting.at(np.array([2.0]))
    assert abs(np.hypot(*(q - p)[0, :2]) - 3.0) < 0.02
    assert abs((turned - yaw)[0] - np.arctan2(1.5, 10.0)) < 1e-6


def test_a_batch_has_reference_images_before_the_source_and_labels_what_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_data, "MADE_AT_ONCE", 1)
    (batch,) = make_batches(3, 2, (64, 32), np.random.default_rng(0), torch.device("cpu"), kind="street")
    assert batch.images.shape[1] == 2 and batch.has_reference.all()
    steps = batch.reference_time / STEP
    assert (steps < -0.99).all() and (steps > -LONGEST_REFERENCE - 0.01).all()
    assert (batch.reference - batch.images[:, 0]).abs().mean() > 1e-3
    still = batch.motions.abs().amax((-1, -2)) == 0
    assert (batch.moving[still] == 0).all() and batch.moving.sum() > 0
    behind = batch.hidden_depth > 0
    assert behind.any() and (batch.hidden_depth[behind] > batch.depth[behind]).all()
