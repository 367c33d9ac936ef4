# SPDX-License-Identifier: Apache-2.0
"""Many paths at once lead where CameraPath.at says that each of them does."""

from __future__ import annotations

import numpy as np
import pytest

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.geometry.interpolation import poses_along
from pixel4d_ros.geometry.rotations import FloatArray, rigid, rotation_matrix


def path(seed: int, count: int) -> tuple[FloatArray, FloatArray]:
    """Knots 0.05 to 0.5 apart around 0, and poses with turns of up to a right angle between them."""
    random = np.random.default_rng(seed)
    knots = np.cumsum(random.uniform(0.05, 0.5, count)) - 0.5
    poses = [rigid(rotation_matrix(random.normal(size=3)), random.normal(size=3) * 10)]
    for _ in range(count - 1):
        turn = random.normal(size=3)
        turn *= random.uniform(0, np.pi / 2) / np.linalg.norm(turn)
        poses.append(poses[-1] @ rigid(rotation_matrix(turn), random.normal(size=3)))
    return knots, np.stack(poses)


@pytest.mark.parametrize("seed", range(10))
def test_paths_of_any_length_lead_where_each_alone_does(seed: int) -> None:
    random = np.random.default_rng(seed)
    paths = [path(seed * 100 + k, int(count)) for k, count in enumerate(random.integers(1, 20, 7))]
    places = random.uniform(-6, 12, (7, 30))  # far beyond both ends, too
    for (knots, _), own in zip(paths, places):
        own[: min(5, len(knots))] = knots[:5]
    found = poses_along(paths, places)
    assert found.shape == (7, 30, 4, 4)
    for own, at, there in zip(paths, places, found):
        np.testing.assert_allclose(there, CameraPath(*own).at(at), atol=1e-9)


def test_knots_close_together_are_followed_far_beyond() -> None:
    knots, step = np.array([0.0, 1e-6]), rigid(rotation_matrix([0, 0, 3e-7]), [8e-6, 0, 0])
    (found,) = poses_along([(knots, np.stack([np.eye(4), step]))], np.array([[-1.0, 2.0]]))
    expected = CameraPath.constant_twist([8.0, 0, 0], [0, 0, 0.3], 2.0, step=1e-3)
    np.testing.assert_allclose(found[1], expected.at(2.0)[0], atol=1e-5)
    np.testing.assert_allclose(found[0], np.linalg.inv(expected.at(1.0)[0]), atol=1e-5)


def test_what_was_given_stays_as_it_was() -> None:
    knots, poses = path(1, 5)
    before = poses.copy()
    poses_along([(knots, poses)], np.array([[-1.0, 0.0, 9.0]]))
    np.testing.assert_array_equal(poses, before)
