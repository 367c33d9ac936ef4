# SPDX-License-Identifier: Apache-2.0
"""Views of a moving scene: which are rendered when paths share some, where they go, and what moves in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.dataset_samples import street_photo

from pixel4d_ros import Forecaster
from pixel4d_ros.rendering import moved_scene
from pixel4d_ros.rendering.host_rendering import render_to_host
from pixel4d_ros.rendering.moved_scene import advance, distinct_views, render, runs
from pixel4d_ros.scene import MOTION_FIELDS, DynamicGaussians


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
        for place, rows in runs(shown, start, len(some)):
            result[place : place + len(part[rows])] = part[rows]
    np.testing.assert_array_equal(result, np.column_stack((places, instants)))


@pytest.mark.parametrize("count", [1, 14])
def test_one_path_is_copied_in_one_piece(count: int) -> None:
    _, shown = distinct_views(poses_at(list(range(count))), np.arange(count))
    assert list(runs(shown, 0, count)) == [(0, slice(0, count))]


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster.load(device="cpu")


@pytest.fixture(scope="module")
def scene(forecaster: Forecaster) -> DynamicGaussians:
    """One with Gaussians that move; the last of all, which fills room that is left, stands still."""
    photo = street_photo((104, 32))
    scene = forecaster.predict(photo.image, photo.K, num_samples=2)
    ids = torch.zeros_like(scene.object_ids)
    ids[1000:1300] = 1
    motion = {name: torch.zeros_like(scene.means) for name in MOTION_FIELDS}
    motion["velocities"] = (ids > 0)[:, None] * torch.tensor([3.0, 0, 1.0])
    return replace(scene, object_ids=ids, futures=(), **motion)


def test_room_that_is_left_among_the_moving_changes_nothing(scene: DynamicGaussians) -> None:
    assert scene.camera is not None
    times, poses, instants = np.array([0.0, 0.5]), poses_at([0, 0]), np.arange(2)
    exact = advance([scene], times, exact=True)
    index = moved_scene.padded_indices(scene.object_ids > 0)
    assert index is not None and len(index) > 300 and len(exact.moved[0].index) == 300
    t = torch.tensor(times, dtype=torch.float32)[:, None, None]
    roomy = replace(exact, moved=(moved_scene.move_to(scene, index, t),))
    (one,), (other,) = (render(moved_scene, poses, instants, scene.camera) for moved_scene in (exact, roomy))
    assert torch.equal(one.frames, other.frames) and not torch.equal(one.frames[0], one.frames[1])


def test_where_more_moves_than_there_is_room_for_it_is_counted(scene: DynamicGaussians) -> None:
    assert scene.camera is not None
    moved = advance([scene], np.array([0.0, 0.5]))
    too_little_room = replace(moved, moved=(), complete=torch.tensor(False))
    found, expected = (render_to_host(m, poses_at([0, 0]), scene.camera) for m in (too_little_room, moved))
    np.testing.assert_array_equal(found.frames, expected.frames)
    assert not np.array_equal(found.frames[0, 0], found.frames[0, 1])
