# SPDX-License-Identifier: Apache-2.0
"""research/maneuver_statistics.py: accelerations of labelled tracks."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from support.paths import REPOSITORY

from pixel4d_ros.datasets.boxes import Box
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.geometry.rotations import FloatArray, rigid

sys.path.insert(0, str(REPOSITORY / "research"))

from maneuver_statistics import accelerations

TIMES = np.arange(30) * 0.1


def clip_of(*velocities: FloatArray) -> Clip:
    """A standing camera that looks ahead at boxes with these velocities (T, 3) in its axes."""
    boxes = tuple(
        tuple(
            Box(k + 1, "Car", rigid(np.eye(3), [0, 0, 20.0]), np.ones(3), True, v[t]) for k, v in enumerate(velocities)
        )
        for t in range(len(TIMES))
    )
    K = np.array([[100.0, 0, 32], [0, 100.0, 16], [0, 0, 1]])
    images = np.zeros((len(TIMES), 32, 64, 3), np.uint8)
    return Clip("clip", images, K, np.tile(np.eye(4), (len(TIMES), 1, 1)), TIMES, boxes=boxes)


def test_a_car_that_brakes_or_turns_has_that_acceleration() -> None:
    zero = np.zeros_like(TIMES)
    braking = np.stack((zero, zero, 8 - 2 * TIMES), 1)
    found = accelerations(clip_of(braking), 1.0)
    np.testing.assert_allclose(found, np.tile([-2.0, 0.0], (len(found), 1)), atol=1e-9)
    # To the left of a camera that looks ahead is -x.
    turning = np.stack((-1.5 * TIMES, zero, np.full_like(TIMES, 10.0)), 1)
    assert accelerations(clip_of(turning), 1.0)[0] == pytest.approx([0.0, 1.5])


def test_what_stands_and_what_is_labelled_too_shortly_does_not_count() -> None:
    assert accelerations(clip_of(np.zeros((30, 3))), 1.0).shape == (0, 2)
    assert accelerations(clip_of(np.ones((30, 3))), 5.0).shape == (0, 2)
