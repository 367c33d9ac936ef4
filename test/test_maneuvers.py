# SPDX-License-Identifier: Apache-2.0
"""Predicted paths of tracked objects: their probabilities and spread are those of what the tracker knows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.outputs.maneuvers import ACCELERATION, Maneuver, PredictedPath, predicted_paths
from pixel4d_ros.outputs.tracking import TrackedObject

TIMES = np.arange(14) * 0.1


def car(
    speed: float = 8.0, heading: float = 0.0, moving: float = 0.9, deviation: tuple[float, float] = (1.0, 0.5)
) -> TrackedObject:
    """A car with the standard deviations of its speed ahead and sideways, m/s."""
    c, s = np.cos(heading), np.sin(heading)
    R = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    covariance = np.zeros((6, 6))
    covariance[3:, 3:] = R @ np.diag([*np.square(deviation), 0.01]) @ R.T
    velocity = R @ [speed, 0.0, 0.0]
    return TrackedObject(
        3,
        1,
        "",
        np.array([10.0, 2.0, 0.8]),
        np.array([4.5, 1.8, 1.5]),
        heading,
        velocity,
        covariance,
        0.9,
        moving,
        1,
        2,
    )


def by_maneuver(o: TrackedObject) -> dict[Maneuver, PredictedPath]:
    return {path.maneuver: path for path in predicted_paths(o, TIMES)}


def displacements(path: PredictedPath) -> FloatArray:
    moved: FloatArray = path.poses[:, :2, 3] - path.poses[0, :2, 3]
    return moved


def test_a_car_that_certainly_moves_most_likely_keeps_its_velocity() -> None:
    paths = predicted_paths(car(), TIMES)
    assert paths[0].maneuver == Maneuver.CONSTANT_VELOCITY and paths[0].probability == pytest.approx(0.3)
    np.testing.assert_allclose(displacements(paths[0])[:, 0], 8.0 * TIMES, atol=1e-9)
    assert [p.probability for p in paths] == sorted((p.probability for p in paths), reverse=True)


def test_what_probably_stands_most_likely_stays() -> None:
    paths = predicted_paths(car(speed=0.3, moving=0.2), TIMES)
    assert paths[0].maneuver == Maneuver.STANDING and paths[0].probability == pytest.approx(0.8)
    assert not displacements(paths[0]).any()


@settings(max_examples=50, deadline=None)
@given(st.floats(6, 20), st.floats(-3, 3), st.floats(0, 1), st.floats(0, 2), st.floats(0, 2))
def test_the_moving_paths_have_mean_and_variance_of_the_prediction(
    speed: float, heading: float, moving: float, along: float, across: float
) -> None:
    paths = by_maneuver(car(speed, heading, moving, (along, across)))
    assert sum(p.probability for p in paths.values()) == pytest.approx(1.0)
    assert paths.pop(Maneuver.STANDING).probability == pytest.approx(1 - moving)
    weights = np.array([1 / 3 if k == Maneuver.CONSTANT_VELOCITY else 1 / 6 for k in paths])
    moved = np.stack([displacements(p) for p in paths.values()])
    ahead = np.array([np.cos(heading), np.sin(heading)])
    left = np.array([-ahead[1], ahead[0]])
    mean = np.einsum("k,ktd->td", weights, moved)
    np.testing.assert_allclose(mean, speed * TIMES[:, None] * ahead, atol=1e-6)
    for axis, deviation, acceleration in ((ahead, along, ACCELERATION[0]), (left, across, ACCELERATION[1])):
        variance = weights @ ((moved - mean) @ axis) ** 2
        np.testing.assert_allclose(variance, (deviation * TIMES) ** 2 + acceleration**2 * TIMES**4 / 4, atol=1e-6)


def test_the_more_certain_the_velocity_the_closer_the_paths() -> None:
    far, close = (displacements(by_maneuver(car(deviation=d))[Maneuver.LEFT])[-1, 1] for d in ((2, 2), (0.1, 0.1)))
    assert far > 4 > 2 > close > 0


def test_a_car_turns_with_its_path() -> None:
    paths = by_maneuver(car())
    left, right = (np.arctan2(*paths[k].poses[-1, [1, 0], 0]) for k in (Maneuver.LEFT, Maneuver.RIGHT))
    assert 0.1 < left < 0.5 and right == pytest.approx(-left)
    np.testing.assert_allclose(paths[Maneuver.BRAKING].poses[:, :3, :3], np.eye(3)[None].repeat(14, 0), atol=1e-9)


def test_a_braking_car_stops_and_does_not_roll_back() -> None:
    braking = displacements(by_maneuver(car(speed=1.0, deviation=(1.0, 0.1)))[Maneuver.BRAKING])[:, 0]
    assert braking.max() < 0.2 and (np.diff(braking) >= 0).all()


def test_one_time_is_enough() -> None:
    assert all(path.poses.shape == (1, 4, 4) for path in predicted_paths(car(), [0.0]))
