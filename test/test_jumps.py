# SPDX-License-Identifier: Apache-2.0
"""Jumps of estimated poses are found and removed; what vehicles do is not one."""

from __future__ import annotations

import numpy as np
import pytest

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.geometry.jumps import JumpsError, find_jumps, without_jumps
from pixel4d_ros.geometry.rotations import FloatArray, rigid, rotation_matrix

ARC = CameraPath.constant_twist([8.0, 0, 0], [0, 0, 0.3], 5.0, step=0.01)  # a left turn at 8 m/s


def drive(rate: float) -> tuple[FloatArray, FloatArray]:
    """Times (T,) and poses (T, 4, 4) of five seconds at a rate in Hz."""
    times = np.arange(0, 5, 1 / rate)
    return times, ARC.at(times)


@pytest.mark.parametrize("rate", [10.0, 50.0])
@pytest.mark.parametrize("moved", [[50.0, 0, 0], [3.0, 1.0, 0], [0, 0, -20.0]])
def test_a_relocalisation_is_removed(rate: float, moved: list[float]) -> None:
    times, poses = drive(rate)
    jumped = poses.copy()
    jumped[times > 2] = rigid(rotation_matrix([0, 0, 0.1]), moved) @ poses[times > 2]
    joined, jumps = without_jumps(times, jumped)
    assert jumps.tolist() == [int((times <= 2).sum()) - 1]
    np.testing.assert_allclose(joined, poses, atol=1e-6)


def test_a_single_outlier_is_replaced_by_the_motion_before_it() -> None:
    times, poses = drive(10.0)
    outlier = poses.copy()
    outlier[20, 0, 3] += 30
    joined, jumps = without_jumps(times, outlier)
    assert jumps.tolist() == [19, 20]
    np.testing.assert_allclose(joined, poses, atol=1e-6)


def test_a_turn_on_the_spot_from_one_message_to_the_next_is_a_jump() -> None:
    times, poses = drive(10.0)
    turned = poses.copy()
    turned[30:, :3, :3] = poses[30:, :3, :3] @ rotation_matrix([0, 0, np.pi])
    assert find_jumps(times, turned).tolist() == [29]


@pytest.mark.parametrize("rate", [1.0, 10.0, 100.0])
def test_what_vehicles_do_is_no_jump(rate: float) -> None:
    """Emergency braking, a standstill, noise of 0.1 m, a gap of two seconds."""
    times = np.arange(0, 10, 1 / rate)
    place = np.where(times < 4, 30 * times, np.where(times < 7, 120 + 30 * (times - 4) - 5 * (times - 4) ** 2, 165.0))
    poses = np.tile(np.eye(4), (len(times), 1, 1))
    poses[:, 0, 3] = place
    poses[:, :2, 3] += np.random.default_rng(1).normal(0, 0.1, (len(times), 2))
    kept = (times < 2) | (times > 4)
    assert not len(find_jumps(times, poses)) and not len(find_jumps(times[kept], poses[kept]))


@pytest.mark.parametrize("moved", [[0.8, 0, 0], [0, 0.5, 0]])
@pytest.mark.parametrize("rate", [10.0, 50.0])
def test_a_jump_of_half_a_metre_is_removed_where_the_poses_are_exact(rate: float, moved: list[float]) -> None:
    """0.8 m within 0.1 s would count as 8 m/s. Where all poses scatter as much, it is noise."""
    times, poses = drive(rate)
    jumped = poses.copy()
    jumped[times > 2, :3, 3] += moved
    joined, jumps = without_jumps(times, jumped)
    assert len(jumps) == 1
    np.testing.assert_allclose(joined, poses, atol=0.01)
    jumped[:, :2, 3] += np.random.default_rng(1).normal(0, 0.2, (len(times), 2))
    assert not len(find_jumps(times, jumped))


def test_poses_that_jump_all_the_time_are_not_joined_to_a_standstill() -> None:
    """Four keyframes of an indoor scene, a metre apart, became one place; so did metres that were millimetres."""
    times, poses = np.arange(5) * 0.1, np.tile(np.eye(4), (5, 1, 1))
    poses[:, :3, 3] = [[0, 0, 0], [-0.1, 0.1, 0.1], [0.8, -0.3, -0.4], [1.2, 0.1, 0.2], [3.3, 0.1, 0]]
    with pytest.raises(JumpsError, match=r"steps between poses are 1\.4 m \(median\) off those beside them"):
        without_jumps(times, poses)
    times, poses = drive(10.0)
    poses[:, :3, 3] = poses[np.arange(len(times)) // 10 * 10, :3, 3]  # republished ten times
    with pytest.raises(JumpsError, match="4 of 49 steps between poses jump"):
        without_jumps(times, poses)
