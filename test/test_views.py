"""Which views are rendered when paths share some, and where they go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixel4d_ros.views import distinct_views, runs


def poses_at(places: list[float]) -> np.ndarray:
    """Poses at these places along x."""
    poses = np.tile(np.eye(4), (len(places), 1, 1))
    poses[:, 0, 3] = places
    return poses


def test_paths_that_start_alike_share_their_first_view() -> None:
    # Three paths of three instants each.
    poses = poses_at([0, 1, 2, 0, 3, 4, 0, 5, 2])
    rendered, shown = distinct_views(poses, np.arange(9) % 3)
    assert rendered.tolist() == [0, 1, 2, 4, 5, 7]
    assert shown.tolist() == [0, 1, 2, 0, 3, 4, 0, 5, 2]


def test_the_same_pose_at_another_time_is_another_view() -> None:
    rendered, _ = distinct_views(poses_at([0, 0, 0]), np.arange(3))
    assert rendered.tolist() == [0, 1, 2]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 4), st.integers(1, 7))
def test_every_view_gets_what_was_rendered_for_it(places: list[int], times: int, at_once: int) -> None:
    poses, instants = poses_at(list(map(float, places))), np.arange(len(places)) % times
    rendered, shown = distinct_views(poses, instants)
    result = np.full((len(places), 2), -1.0)
    for start in range(0, len(rendered), at_once):
        some = rendered[start : start + at_once]
        part = np.column_stack((poses[some, 0, 3], instants[some]))
        for place, views in runs(shown, start, len(some)):
            result[place : place + len(part[views])] = part[views]
    np.testing.assert_array_equal(result, np.column_stack((places, instants)))


@pytest.mark.parametrize("count", [1, 14])
def test_one_path_is_copied_in_one_piece(count: int) -> None:
    _, shown = distinct_views(poses_at(list(range(count))), np.arange(count))
    assert list(runs(shown, 0, count)) == [(0, slice(0, count))]
