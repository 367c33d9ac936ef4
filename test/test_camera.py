# SPDX-License-Identifier: Apache-2.0
"""Cameras and camera paths: intrinsics follow the image, paths stay rigid and pass through their poses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixel4d_ros import Camera, CameraPath
from pixel4d_ros.camera import check_poses, unproject
from pixel4d_ros.geometry.rotations import FloatArray, rigid, rotation_matrix

often = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31)
KITTI = Camera(np.array([[241.0, 0, 203.0], [0, 241.0, 57.5], [0, 0, 1]]), 400, 120)


def projected(K: FloatArray, points: FloatArray) -> FloatArray:
    """Pixels (N, 2) of points (N, 3) in the optical frame."""
    homogeneous = points @ K.T
    return homogeneous[:, :2] / homogeneous[:, 2:]


def points_ahead(seed: int, count: int = 20) -> FloatArray:
    rng = np.random.default_rng(seed)
    return rng.uniform([-5, -2, 1], [5, 2, 40], (count, 3))


def random_path(seed: int, knots: int = 5) -> CameraPath:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.05, 0.5, knots)) - 0.3
    poses = [rigid(rotation_matrix(rng.uniform(-1, 1, 3)), rng.uniform(-5, 5, 3)) for _ in times]
    return CameraPath(times, np.stack(poses))


@often
@given(seeds, st.integers(8, 2000), st.integers(8, 2000))
def test_a_resized_camera_sees_points_where_the_resized_image_shows_them(seed: int, width: int, height: int) -> None:
    points = points_ahead(seed)
    before, after = projected(KITTI.K, points), projected(KITTI.resized(width, height).K, points)
    # The image's corners, half a pixel outside the corner pixels' centres, stay corners.
    scale = np.array([width / KITTI.width, height / KITTI.height])
    np.testing.assert_allclose(after + 0.5, (before + 0.5) * scale, atol=1e-6)


@often
@given(seeds, st.integers(-50, 50), st.integers(-50, 50))
def test_a_shifted_camera_sees_a_window(seed: int, left: int, top: int) -> None:
    points = points_ahead(seed)
    window = KITTI.shifted(left, top, 64, 32)
    np.testing.assert_allclose(projected(window.K, points), projected(KITTI.K, points) - [left, top], atol=1e-9)
    assert (window.width, window.height) == (64, 32)


@often
@given(seeds)
def test_projected_points_come_back_by_their_depth(seed: int) -> None:
    points = points_ahead(seed)
    np.testing.assert_allclose(unproject(projected(KITTI.K, points), points[:, 2], KITTI.K), points, atol=1e-9)


def test_resizing_there_and_back_changes_nothing() -> None:
    np.testing.assert_allclose(KITTI.resized(101, 57).resized(400, 120).K, KITTI.K, atol=1e-9)


@pytest.mark.parametrize(
    ("K", "message"),
    [
        (np.zeros((3, 3)), "focal lengths must be positive"),
        (np.diag([100.0, -100, 1]), "focal lengths must be positive"),
        (np.diag([np.nan, 100, 1]), "NaN or Inf"),
        (np.diag([np.inf, 100, 1]), "NaN or Inf"),
        (np.ones(9), "must be 3x3"),
    ],
)
def test_bad_intrinsics_are_refused(K: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Camera(K, 64, 48)


@often
@given(seeds, st.lists(st.floats(-3, 5), min_size=1, max_size=8))
def test_a_path_stays_rigid_at_any_time(seed: int, times: list[float]) -> None:
    poses = random_path(seed).at(times)
    assert poses.shape == (len(times), 4, 4)
    R = poses[:, :3, :3]
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), [np.eye(3)] * len(times), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(R), 1, atol=1e-9)
    np.testing.assert_array_equal(poses[:, 3], [[0, 0, 0, 1]] * len(times))


@often
@given(seeds)
def test_a_path_passes_through_its_poses(seed: int) -> None:
    path = random_path(seed)
    np.testing.assert_allclose(path.at(path.times), path.poses, atol=1e-7)


@often
@given(seeds, st.floats(0, 1))
def test_between_poses_the_camera_moves_straight_and_turns_evenly(seed: int, s: float) -> None:
    path = random_path(seed, knots=2)
    (start, end), t = path.poses, path.times[0] + s * (path.times[1] - path.times[0])
    pose = path.at(t)[0]
    np.testing.assert_allclose(pose[:3, 3], (1 - s) * start[:3, 3] + s * end[:3, 3], atol=1e-9)

    def angle(a: FloatArray, b: FloatArray) -> float:
        return float(np.arccos(np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1, 1)))

    assert angle(start, pose) == pytest.approx(s * angle(start, end), abs=1e-6)


@often
@given(
    st.tuples(*[st.floats(-10, 10)] * 3), st.tuples(*[st.floats(-1, 1)] * 3), st.floats(0.2, 2), st.integers(-12, 12)
)
def test_beyond_its_ends_a_path_keeps_its_twist(
    linear: tuple[float, ...], angular: tuple[float, ...], horizon: float, steps: int
) -> None:
    path = CameraPath.constant_twist(linear, angular, horizon)
    dt = path.times[1]
    increment = path.poses[1]
    there = increment if steps >= 0 else np.linalg.inv(increment)
    np.testing.assert_allclose(path.at(steps * dt)[0], np.linalg.matrix_power(there, abs(steps)), atol=1e-4)


@often
@given(st.tuples(*[st.floats(-15, 15)] * 3), st.tuples(*[st.floats(-0.5, 0.5)] * 3))
def test_constant_twist_is_the_exponential_map(linear: tuple[float, ...], angular: tuple[float, ...]) -> None:
    x, y, z = angular
    twist = np.zeros((4, 4))
    twist[:3, :3] = [[0, -z, y], [z, 0, -x], [-y, x, 0]]
    twist[:3, 3] = linear
    exact = torch.linalg.matrix_exp(torch.from_numpy(twist)).numpy()
    np.testing.assert_allclose(CameraPath.constant_twist(linear, angular, 1.0).at(1.0)[0], exact, atol=0.01)


def test_a_still_camera_stays_where_it_is() -> None:
    np.testing.assert_array_equal(CameraPath.still().at([0.0, 1.0, -3.0]), [np.eye(4)] * 3)


@often
@given(seeds)
def test_a_path_goes_on_beyond_its_ends_without_a_jump(seed: int) -> None:
    path = random_path(seed)
    ends = path.times[[0, -1]]
    np.testing.assert_allclose(path.at(ends + np.array([-1e-6, 1e-6])), path.at(ends), atol=1e-3)


@pytest.mark.parametrize(
    ("times", "poses", "message"),
    [
        ([], np.zeros((0, 4, 4)), "empty"),
        ([0.0, 0.0], [np.eye(4)] * 2, "strictly increasing"),
        ([0.0, np.nan], [np.eye(4)] * 2, "finite"),
        ([0.0], [np.eye(4)] * 2, "one time per pose"),
        ([0.0], [np.full((4, 4), np.nan)], "NaN or Inf"),
        ([0.0], [np.diag([2.0, 1, 1, 1])], "not rigid"),
        ([0.0], np.eye(4), "shape"),
    ],
)
def test_bad_paths_are_refused(times: list[float], poses: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CameraPath(np.array(times), np.asarray(poses))


def test_a_path_is_not_asked_for_times_that_are_not_numbers() -> None:
    with pytest.raises(ValueError, match="finite"):
        random_path(0).at([0.0, np.nan])


def test_a_mirror_image_is_not_a_pose() -> None:
    with pytest.raises(ValueError, match="rigid"):
        check_poses(np.diag([-1.0, 1, 1, 1])[None])


def test_the_speed_of_a_path_is_that_forward_at_its_start() -> None:
    assert CameraPath.still().speed() is None
    assert CameraPath.constant_twist([0.3, 0, 7.0], [0, 0.1, 0], 1.0).speed() == pytest.approx(7.0, abs=0.05)
    assert CameraPath.constant_twist([0, 0, 0], [0, 0, 0], 1.0).speed() == 0


@pytest.mark.parametrize("times", [[0.0, 0.1], [-0.2, 0, 0.25, 0.5], [0, 0.03, 0.08, 0.4], [-0.1, 0.05, 1], [0, 0.05]])
def test_the_speed_of_a_path_is_what_its_poses_tell(times: list[float]) -> None:
    path = CameraPath(np.array(times), random_path(3, len(times)).poses)
    start, end = path.at([0.0, 0.1])
    assert path.speed() == pytest.approx((np.linalg.inv(start) @ end)[2, 3] / 0.1)
