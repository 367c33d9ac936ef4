# SPDX-License-Identifier: Apache-2.0
"""The tracker: ids that last, velocities smoothed over images, births and deaths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixel4d_ros.geometry.rotations import FloatArray, rigid, rotation_matrix
from pixel4d_ros.outputs.tracked_scene import detections_of, track_ids, with_tracked_velocities
from pixel4d_ros.outputs.tracking import Detection, TrackedObject, Tracker, combine
from pixel4d_ros.scene import DynamicGaussians, Motion

CAR = np.array([4.5, 1.8, 1.5])  # metres
RED, GREY = np.array([0.7, 0.1, 0.1]), np.array([0.5, 0.5, 0.5])
LOG = Path(__file__).parents[1] / "../shared/logs/train/kitti_0052.mcap"


def detection(center: FloatArray | tuple[float, ...], scene_id: int = 1, **more: object) -> Detection:
    """A car, seen to 0.5 m."""
    fields = {"size": CAR, "yaw": 0.0, "center_covariance": 0.25 * np.eye(3), "color": GREY, **more}
    return Detection(scene_id=scene_id, center=np.asarray(center, float), **fields)  # type: ignore[arg-type]


def drive(tracker: Tracker, steps: int, noise: float = 0.0, seed: int = 0) -> Iterator[tuple[int, list[TrackedObject]]]:
    """Two cars that meet on two lanes at 10 m/s, 3.5 m apart, detected in changing order with noise (m)."""
    random = np.random.default_rng(seed)
    for k in range(steps):
        t = 0.1 * k
        there, back = np.array([10 * t, 0, 0.8]), np.array([30 - 10 * t, 3.5, 0.8])
        seen = [detection(p + random.normal(0, noise, 3), i) for i, p in ((1, there), (2, back))]
        yield k, tracker.update(t, seen if random.random() < 0.5 else seen[::-1])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_cars_that_pass_each_other_keep_their_ids(seed: int) -> None:
    names = {}
    for _, tracked in drive(Tracker(), 30, 0.2, seed):
        assert len(tracked) == 2
        for o in tracked:
            assert names.setdefault(o.scene_id, o.id) == o.id
    assert set(names) == {1, 2} and set(names.values()) == {1, 2}


def test_the_velocity_is_found_from_positions_and_smoother_than_their_differences() -> None:
    last = list(drive(Tracker(), 30, 0.2, 1))[-1][1]
    by_scene = {o.scene_id: o for o in last}
    # Differences of positions with 0.2 m of noise at 10 Hz are 2.8 m/s wrong along each axis.
    np.testing.assert_allclose(by_scene[1].velocity, [10, 0, 0], atol=1.2)
    np.testing.assert_allclose(by_scene[2].velocity, [-10, 0, 0], atol=1.2)
    assert all(np.sqrt(o.covariance[3, 3]) < 1.5 and (np.linalg.eigvalsh(o.covariance) > 0).all() for o in last)


def test_a_measured_velocity_is_smoothed() -> None:
    random, tracker, errors = np.random.default_rng(2), Tracker(), []
    for k in range(40):
        velocity = np.array([6.0, 0, 0]) + random.normal(0, 1.5, 3)
        place = np.array([0.6 * k, 0, 0]) + random.normal(0, 0.3, 3)
        (o,) = tracker.update(0.1 * k, [detection(place, velocity=velocity, velocity_covariance=2.25 * np.eye(3))])
        errors.append((np.linalg.norm(velocity - [6, 0, 0]), np.linalg.norm(o.velocity - [6, 0, 0])))
    measured, smoothed = np.mean(errors[10:], axis=0)
    assert smoothed < 0.5 * measured


def test_an_object_behind_another_for_half_a_second_gets_its_id_again() -> None:
    tracker = Tracker()
    for k in range(25):
        seen = [] if 10 <= k < 15 else [detection((k, 0, 0.8))]
        tracked = tracker.update(0.1 * k, seen)
        assert [o.id for o in tracked] == [1]
        if 10 <= k < 15:
            assert tracked[0].scene_id == 0 and abs(tracked[0].center[0] - k) < 1.0  # predicted meanwhile


def test_existence_grows_with_detections_and_an_object_that_is_gone_is_dropped() -> None:
    tracker = Tracker()
    likely = [tracker.update(0.1 * k, [detection((0, 0, 0))])[0].existence for k in range(5)]
    assert likely == sorted(likely) and likely[0] == pytest.approx(0.7) and likely[-1] > 0.99
    fading = [tracker.update(0.5 + 0.1 * k, []) for k in range(15)]
    assert fading[-1] == [] and fading[0][0].existence > fading[2][0].existence


def test_a_second_detection_on_a_known_object_is_a_part_of_it() -> None:
    tracker = Tracker()
    for k in range(10):
        seen = [detection((k, 0, 0.8), 1), detection((k - 0.8, 0.3, 0.3), 2, size=0.3 * CAR, color=RED)]
        (o,) = tracker.update(0.1 * k, seen[: 1 if k < 5 else 2])
        assert o.id == 1 and o.parts == (() if k < 5 else (2,))
    assert track_ids([o]) == {1: 1, 2: 1}


def test_pieces_of_an_object_that_appears_are_its_parts() -> None:
    pieces = [detection((-0.8, 0.3, 0.3), 1, size=0.3 * CAR), detection((0, 0, 0.8), 2)]
    (o,) = Tracker().update(0.0, pieces)
    assert (o.scene_id, o.parts) == (2, (1,))  # the largest piece stands for it


def test_a_detection_beside_a_known_object_is_an_object_of_its_own() -> None:
    tracker = Tracker()
    tracker.update(0.0, [detection((0, 0, 0.8), 1)])
    assert len(tracker.update(0.1, [detection((1, 0, 0.8), 1), detection((1, 2.5, 0.8), 2)])) == 2


def test_a_single_false_detection_does_not_last() -> None:
    tracker = Tracker()
    tracker.update(0.0, [detection((0, 0, 0), confidence=0.3)])
    assert tracker.update(0.1, [])[0].existence < 0.15 and tracker.update(0.2, []) == []


@pytest.mark.parametrize("change", [{"color": RED}, {"size": 4 * CAR}, {"label": "Bus"}])
def test_a_thing_that_looks_otherwise_is_another_object(change: dict[str, object]) -> None:
    tracker = Tracker()
    tracker.update(0.0, [detection((0, 0, 0), label="Car")])
    tracked = tracker.update(0.1, [detection((0.1, 0, 0), **{"label": "Car", **change})])
    assert [(o.id, o.scene_id) for o in tracked] == [(1, 0), (2, 1)]


def test_appearance_decides_between_two_that_are_equally_near() -> None:
    tracker = Tracker()
    tracker.update(0.0, [detection((0, 0, 0), 1, color=GREY), detection((0, 2, 0), 2, color=GREY + 0.2)])
    tracked = tracker.update(0.1, [detection((0, 1, 0), 1, color=GREY + 0.2), detection((0, 1, 0), 2, color=GREY)])
    assert {o.id: o.scene_id for o in tracked} == {1: 2, 2: 1}


def test_the_moving_probability_is_that_of_several_images() -> None:
    tracker = Tracker()
    for k in range(10):
        (o,) = tracker.update(0.1 * k, [detection((0, 0, 0), moving=0.7)])
    assert o.moving > 0.9
    for k in range(10, 30):
        (o,) = tracker.update(0.1 * k, [detection((0, 0, 0), moving=0.1)])
    assert o.moving < 0.1
    assert combine(0.5, 0.8, 1.0) == pytest.approx(0.8) and combine(0.3, 0.5, 1.0) == pytest.approx(0.3)


@pytest.mark.parametrize("stamp", [0.5, 30.0])
def test_time_that_jumps_clears_the_tracker_but_no_id_is_given_twice(stamp: float) -> None:
    tracker = Tracker()
    tracker.update(1.0, [detection((0, 0, 0))])
    assert [o.id for o in tracker.update(stamp, [detection((0, 0, 0))])] == [2]


@settings(max_examples=20, deadline=None)
@given(st.floats(-3, 3), st.floats(-1e4, 1e4))
def test_tracks_turn_and_move_with_the_fixed_frame(yaw: float, shift: float) -> None:
    R, p = rotation_matrix([0, 0, yaw]), np.array([shift, -shift, 2.0])
    here, there = Tracker(), Tracker()
    for k in range(8):
        seen = [detection((k, 0, 0.5)), detection((20 - k, 4, 0.5), 2)]
        moved = [replace(d, center=R @ d.center + p, yaw=d.yaw + yaw) for d in seen]
        pairs = zip(here.update(0.1 * k, seen), there.update(0.1 * k, moved), strict=True)
        for a, b in pairs:
            assert (a.id, a.scene_id) == (b.id, b.scene_id)
            np.testing.assert_allclose(b.center, R @ a.center + p, atol=1e-6)
            np.testing.assert_allclose(b.velocity, R @ a.velocity, atol=1e-6)


def scene_with_a_car(T_fixed_scene: FloatArray, velocity: FloatArray) -> DynamicGaussians:
    """A car of 4 x 1.8 x 1.5 m around (10, 2, 1) of the fixed frame, and a wall; velocity (3,) in the fixed frame."""
    steps = np.linspace(-0.5, 0.5, 7)
    car = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3) * [4.0, 1.8, 1.5] + [10.0, 2.0, 1.0]
    wall = np.random.default_rng(0).uniform([20, -5, 0], [20.1, 5, 3], (50, 3))
    points = np.concatenate((wall, car))
    means = (points - T_fixed_scene[:3, 3]) @ T_fixed_scene[:3, :3]
    ids = torch.tensor([0] * len(wall) + [1] * len(car))
    n = len(points)
    speeds = torch.zeros(n, 3)
    speeds[ids > 0] = torch.tensor(velocity @ T_fixed_scene[:3, :3], dtype=torch.float32)
    zero = torch.zeros(n, 3)
    return DynamicGaussians(
        torch.tensor(means, dtype=torch.float32), torch.tensor([1.0, 0, 0, 0]).expand(n, 4), torch.full((n, 3), 0.1),
        torch.ones(n), torch.tensor([0.7, 0.1, 0.1]).expand(n, 3), speeds, zero, zero, zero, ids, torch.zeros(2, 3),
    )  # fmt: skip


T_FIXED_SCENE = rigid([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0, 0, 1.5])


def test_a_scenes_objects_become_detections_of_the_fixed_frame() -> None:
    scene = scene_with_a_car(T_FIXED_SCENE, np.array([5.0, 0, 0]))
    (found,) = detections_of(scene, T_FIXED_SCENE, moving={1: 0.9}, labels={1: "Car"})
    np.testing.assert_allclose(found.center, [10, 2, 1], atol=0.05)
    np.testing.assert_allclose(found.size, [4.0, 1.8, 1.5], atol=0.1)
    assert found.velocity is not None and found.color is not None
    np.testing.assert_allclose(found.velocity, [5, 0, 0], atol=1e-5)
    np.testing.assert_allclose(found.color, RED, atol=1e-4)
    assert found.yaw == pytest.approx(0, abs=1e-6) and (found.label, found.moving) == ("Car", 0.9)
    assert found.center_covariance[0, 0] > found.center_covariance[1, 1]  # depth is less certain than direction


def test_a_detection_moves_as_probably_as_in_its_scene() -> None:
    scene = scene_with_a_car(T_FIXED_SCENE, np.array([5.0, 0, 0]))
    (found,) = detections_of(replace(scene, moving_probability=torch.tensor([0.0, 0.4])), T_FIXED_SCENE)
    assert found.moving == pytest.approx(0.4)


def test_smoothed_velocities_go_back_into_the_scene() -> None:
    tracker, random, errors = Tracker(), np.random.default_rng(0), []
    for k in range(20):
        velocity = np.array([5.0, 0, 0]) + random.normal(0, 2, 3) * [1, 1, 0]
        scene = scene_with_a_car(T_FIXED_SCENE, velocity)
        T_fixed_scene = rigid(np.eye(3), [0.5 * k, 0, 0]) @ T_FIXED_SCENE
        tracked = tracker.update(0.1 * k, detections_of(scene, T_fixed_scene))
        assert track_ids(tracked) == {1: 1}
        smooth = with_tracked_velocities(scene, tracked, T_fixed_scene)
        inside = T_FIXED_SCENE[:3, :3] @ smooth.velocities[-1].double().numpy()
        assert not smooth.velocities[0].any()  # the wall stands
        errors.append((np.linalg.norm(velocity - [5, 0, 0]), np.linalg.norm(inside - [5, 0, 0])))
    raw, smoothed = np.mean(errors[5:], axis=0)
    assert smoothed < 0.5 * raw


def test_an_object_at_rest_in_a_future_stays_at_rest_there() -> None:
    scene = scene_with_a_car(T_FIXED_SCENE, np.array([5.0, 0, 0]))
    rest = Motion(*(torch.zeros(len(scene), 3) for _ in range(4)))
    faster = replace(scene.motion, velocities=1.2 * scene.velocities)
    scene = replace(scene, futures=(scene.motion, rest, faster))
    (seen,) = detections_of(scene, T_FIXED_SCENE)
    (o,) = Tracker().update(0.0, [replace(seen, velocity=np.array([7.0, 0, 0]))])
    smooth = with_tracked_velocities(scene, [o], T_FIXED_SCENE)
    speeds = [float(motion.velocities[-1].norm()) for motion in (smooth.motion, *smooth.futures)]
    assert speeds == pytest.approx([7.0, 7.0, 0.0, 8.0], abs=1e-4)
    smooth = with_tracked_velocities(scene.sample(1), [o], T_FIXED_SCENE)
    speeds = [float(motion.velocities[-1].norm()) for motion in (smooth.motion, *smooth.futures)]
    assert speeds == pytest.approx([0.0, 5.0, 0.0, 6.0], abs=1e-4)  # nothing to shift by


@pytest.mark.skipif(not LOG.exists(), reason="needs ../shared/logs/train/kitti_0052 with its boxes")
def test_no_identity_switches_on_the_boxes_of_a_real_street() -> None:
    from pixel4d_ros.datasets.box_labels import read_box_labels

    frames = read_box_labels(LOG.with_suffix(".boxes.json"))
    random, tracker, names, seen, kept = np.random.default_rng(0), Tracker(), {}, 0, 0
    for stamp, boxes in sorted(frames.items()):
        found = []
        for box in boxes:
            if random.random() < 0.1:  # not detected
                continue
            x, y, z = box.T_camera_box[:3, 3] + random.normal(0, 0.2, 3)
            size = box.size * np.exp(random.normal(0, 0.1, 3))
            found.append(Detection(box.track, np.array([z, -x, -y]), size, 0.0, 0.1 * np.eye(3)))
        for o in tracker.update(stamp, found):
            if o.scene_id:
                seen += 1
                kept += names.setdefault(o.scene_id, o.id) == o.id
    assert seen > 500 and kept == seen


def test_another_prediction_from_the_same_image_changes_scene_ids_only() -> None:
    tracker = Tracker()
    tracker.update(0.0, [detection((0, 0, 0), 1), detection((20, 0, 0), 2)])
    first = tracker.update(0.1, [detection((1, 0, 0), 1), detection((20, 0, 0), 2)])
    again = tracker.update(0.1, [detection((20, 0, 0), 1), detection((1, 0, 0), 2), detection((50, 0, 0), 3)])
    assert [(o.id, o.scene_id) for o in again] == [(1, 2), (2, 1), (3, 3)]
    for before, after in zip(first, again, strict=False):
        np.testing.assert_array_equal(before.center, after.center)
        np.testing.assert_array_equal(before.covariance, after.covariance)
        assert (before.existence, before.moving) == (after.existence, after.moving)


def test_a_velocity_is_as_uncertain_as_the_sampled_futures_differ() -> None:
    means = torch.tensor([[x, y, 10.0 + z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)])
    n, zero = len(means), torch.zeros(len(means), 3)
    scene = DynamicGaussians(
        means, torch.tensor([1.0, 0, 0, 0]).expand(n, 4), torch.full((n, 3), 0.1), torch.full((n,), 0.9),
        torch.full((n, 3), 0.5), torch.tensor([0.0, 0, 1.0]).expand(n, 3), zero, zero, zero,
        torch.ones(n, dtype=torch.int64), torch.stack((torch.zeros(3), means.mean(0))),
    )  # fmt: skip
    (alone,) = detections_of(scene, np.eye(4))
    faster = replace(scene.motion, velocities=scene.velocities + torch.tensor([0.0, 0, 9.0]))
    (sampled,) = detections_of(replace(scene, futures=(faster,)), np.eye(4))
    assert alone.velocity_covariance[0, 0] == pytest.approx(1.75**2)
    assert sampled.velocity_covariance[0, 0] == pytest.approx(9.0**2 / 3)
