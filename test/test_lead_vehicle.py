# SPDX-License-Identifier: Apache-2.0
"""What stands in the camera's way in one image, close in time, is taken to drive ahead of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pixel4d_ros import DynamicGaussians
from pixel4d_ros.predictor.movable import UNNUMBERED
from pixel4d_ros.scene import Motion
from pixel4d_ros.two_view.lead_vehicle import SLOWEST, with_lead_vehicle
from pixel4d_ros.two_view.moving_probability import CALIBRATION, moving_count, with_network_probability

CAR, WALL, NUMBER = 100, 50, 3  # Gaussians of a car, and of a wall behind it; the car's instance


def road(x: float, z: float, samples: int = 1, number: int = NUMBER) -> DynamicGaussians:
    """A car x metres to the right and z metres ahead, at whose outline some of its pixels show a wall far behind."""
    n = CAR + WALL
    means = torch.tensor([[x, 1.0, z]]).repeat(n, 1)
    means[: CAR // 10] *= 4  # in its outline, at the depth of the wall
    means[CAR:] = torch.tensor([-8.0, 0.0, 60.0])
    zeros, ids = torch.zeros(n, 3), torch.zeros(n, dtype=torch.int64)
    instances = torch.where(torch.arange(n) < CAR, number, 0)
    still = Motion(zeros, zeros, zeros, zeros)
    shape = (means, torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1), zeros + 0.1, torch.ones(n), zeros)
    scene = DynamicGaussians(*shape, zeros, zeros, zeros, zeros, ids, torch.zeros(3, 3), (still,) * samples)
    return replace(scene, observed=torch.ones(n), instance_ids=instances)


def test_a_car_close_ahead_moves_as_fast_as_the_camera() -> None:
    scene = with_network_probability(road(0.4, 18.0), 12.0, seed=0)
    assert moving_count(scene) == 1
    assert scene.velocities[:CAR].tolist() == [[0, 0, 12.0]] * CAR and not scene.velocities[CAR:].any()
    (number,) = scene.object_ids[:CAR].unique().tolist()
    assert scene.centroids[number].tolist() == pytest.approx([0.4, 1.0, 18.0], rel=0.1)
    assert scene.moving_probability is not None
    assert scene.moving_probability[number] == pytest.approx(CALIBRATION.lead)


@pytest.mark.parametrize(
    ("x", "z", "speed"),
    [(2.0, 18.0, 12.0), (0.4, 30.0, 12.0), (0.4, 5.0, SLOWEST - 0.1), (0.4, 18.0, None)],
    ids=["parked at the roadside", "far ahead", "the camera is about to stop", "speed not known"],
)
def test_what_is_not_in_the_way_or_may_be_reached_at_leisure_stands(x: float, z: float, speed: float | None) -> None:
    assert moving_count(with_network_probability(road(x, z), speed, seed=0)) == 0


def test_parts_of_which_it_is_not_known_what_they_belong_to_stand() -> None:
    assert moving_count(with_network_probability(road(0.4, 18.0, number=UNNUMBERED), 12.0, seed=0)) == 0


def test_what_the_network_found_to_move_keeps_its_motion() -> None:
    scene = road(0.4, 18.0)
    ids, velocities = scene.object_ids.clone(), scene.velocities.clone()
    ids[: CAR - 20], velocities[: CAR - 20] = 1, torch.tensor([0, 0, 9.0])
    found = with_lead_vehicle(replace(scene, object_ids=ids, velocities=velocities), 12.0, seed=0)
    assert torch.equal(found.velocities, velocities) and torch.equal(found.object_ids, ids)


def test_futures_draw_its_speed_and_whether_it_moves_at_all() -> None:
    scene = with_network_probability(road(0.4, 18.0, samples=200), 12.0, seed=1)
    speeds = torch.stack([future.velocities[0, 2] for future in scene.futures])
    assert speeds[0] == 12.0
    assert (speeds > 0).float().mean() == pytest.approx(CALIBRATION.lead, abs=0.07)
    drawn = speeds[speeds > 0]
    assert drawn.mean() == pytest.approx(12.0, abs=0.5) and drawn.std() == pytest.approx(1.7, abs=0.4)
