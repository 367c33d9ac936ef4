# SPDX-License-Identifier: Apache-2.0
"""Moving objects for planners: which is closest when, and boxes that hold whatever way the scene is turned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pixel4d_ros.geometry.rotations import FloatArray, rigid, rotation_matrix
from pixel4d_ros.outputs.moving_objects import ALONG_VELOCITY, closest_objects, moving_objects
from pixel4d_ros.scene import DynamicGaussians

TIMES = np.array([0.0, 0.5, 1.0])
UP = np.array([0.0, -1.0, 0.0])  # of an optical frame that looks ahead


def block(centre: FloatArray, size: FloatArray, n: int = 9) -> FloatArray:
    """A grid of points (n^3, 3) that fills a box."""
    steps = np.linspace(-0.5, 0.5, n)
    return centre + np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3) * size


def scene(*objects: tuple[FloatArray, FloatArray], turning: float = 0.0) -> DynamicGaussians:
    """A static wall 3 m ahead, and objects (points (n, 3), velocity (3,))."""
    points = [block(np.array([0.0, 0.0, 3.0]), np.array([20.0, 2.0, 0.1])), *(p for p, _ in objects)]
    speeds = [np.zeros(3), *(v for _, v in objects)]
    ids = np.repeat(np.arange(len(points)), [len(p) for p in points])
    means = torch.tensor(np.concatenate(points), dtype=torch.float32)
    n = len(means)
    angular = torch.zeros(n, 3)
    angular[ids > 0, 1] = turning
    return DynamicGaussians(
        means=means,
        quaternions=torch.tensor([1.0, 0, 0, 0]).expand(n, 4),
        scales=torch.full((n, 3), 0.1),
        opacities=torch.ones(n),
        colors=torch.full((n, 3), 0.5),
        velocities=torch.tensor(np.stack(speeds), dtype=torch.float32)[ids],
        accelerations=torch.zeros(n, 3),
        angular_velocities=angular,
        angular_accelerations=torch.zeros(n, 3),
        object_ids=torch.tensor(ids),
        centroids=torch.tensor(np.stack([p.mean(0) for p in points]), dtype=torch.float32),
    )


CAR = np.array([1.8, 1.5, 4.0])  # metres along x, y, z of the optical frame


def test_the_closest_object_changes_as_they_move() -> None:
    cars = scene(
        (block(np.array([0.0, 0.0, 10.0]), CAR), np.array([0.0, 0.0, 10.0])),
        (block(np.array([5.0, 0.0, 14.0]), CAR), np.array([-5.0, 0.0, -5.0])),
    )
    standing = np.zeros((1, 3, 3))
    following = np.array([[[0.0, 0.0, 10.0 * t] for t in TIMES]])
    closest = closest_objects(cars, np.concatenate([standing, following]), TIMES)
    assert closest.ids.tolist() == [[1, 2, 2], [1, 2, 2]]
    np.testing.assert_allclose(closest.distances[:, 0], 8.0, rtol=1e-5)  # the rear of car 1
    np.testing.assert_allclose(closest.distances[0, 2], 7.0, rtol=1e-5)  # car 2 right ahead, its front 2 m nearer
    # The second car is around the following path when it gets there.
    assert closest.distances[1, 2] < 1.0


def test_the_static_and_the_faint_are_no_moving_objects() -> None:
    lone = scene()
    closest = closest_objects(lone, np.zeros((2, 3, 3)), TIMES)
    assert not closest.ids.any() and np.isinf(closest.distances).all()
    assert moving_objects(lone, UP, TIMES) == []
    faint = scene((block(np.array([0.0, 0.0, 10.0]), CAR), np.array([0.0, 0.0, 1.0])))
    faint.opacities[faint.object_ids > 0] = 0.05
    assert np.isinf(closest_objects(faint, np.zeros((1, 3, 3)), TIMES).distances).all()
    assert moving_objects(faint, UP, TIMES) == []


def test_a_box_spans_its_object_and_lies_along_its_velocity() -> None:
    (car,) = moving_objects(scene((block(np.array([1.0, 0.5, 10.0]), CAR), np.array([0.0, 0.0, 6.0]))), UP, TIMES)
    assert car.object_id == 1
    np.testing.assert_allclose(car.T_source_box[:3, 3], [1.0, 0.5, 10.0], atol=1e-5)
    np.testing.assert_allclose(car.T_source_box[:3, 0], [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(car.size, [4.0, 1.8, 1.5], atol=1e-5)
    np.testing.assert_allclose(car.velocity, [0, 0, 6.0], atol=1e-6)
    np.testing.assert_allclose(car.path, [[1.0, 0.5, 10.0 + 6 * t] for t in TIMES], atol=1e-5)


def test_a_few_gaussians_far_behind_do_not_lengthen_the_box() -> None:
    points = np.concatenate([block(np.array([1.0, 0.5, 10.0]), CAR), [[1.0, 0.5, z] for z in range(20, 60)]])
    (car,) = moving_objects(scene((points, np.array([0.0, 0.0, 6.0]))), UP, TIMES)
    np.testing.assert_allclose(car.size, [4.0, 1.8, 1.5], atol=0.05)


def test_a_slow_object_lies_along_its_longer_side_and_turns_in_place() -> None:
    (car,) = moving_objects(scene((block(np.array([1.0, 0.5, 10.0]), CAR), np.zeros(3)), turning=0.5), UP, TIMES)
    assert abs(car.T_source_box[2, 0]) > 0.999 and np.isclose(car.size[0], 4.0, atol=1e-4)
    np.testing.assert_allclose(car.path, np.tile([1.0, 0.5, 10.0], (3, 1)), atol=1e-5)
    np.testing.assert_allclose(car.velocity, 0, atol=1e-5)


def test_points_in_one_upright_line_get_a_box_too() -> None:
    line = np.stack([np.zeros(9), np.linspace(0, 1, 9), np.full(9, 5.0)], 1)
    (post,) = moving_objects(scene((line, np.zeros(3))), UP, [0.0])
    assert np.isfinite(post.T_source_box).all() and np.isclose(post.size[2], 0.96, atol=1e-4)


def with_empty_slots(full: DynamicGaussians, numbers: tuple[int, ...]) -> DynamicGaussians:
    """The scene with its objects 1.. numbered anew among sixteen; no Gaussian belongs to the others."""
    ids = torch.tensor([0, *numbers])
    centroids = torch.full((17, 3), torch.nan)  # nobody may look at those of empty slots
    centroids[ids] = full.centroids
    return replace(full, object_ids=ids[full.object_ids], centroids=centroids)


def test_objects_without_gaussians_are_nowhere() -> None:
    cars = scene(
        (block(np.array([0.0, 0.0, 10.0]), CAR), np.array([0.0, 0.0, 6.0])),
        (block(np.array([5.0, 0.0, 14.0]), CAR), np.array([-5.0, 0.0, -5.0])),
        turning=0.2,
    )
    slotted, ways = with_empty_slots(cars, (16, 5)), np.zeros((2, 3, 3))
    before, after = closest_objects(cars, ways, TIMES), closest_objects(slotted, ways, TIMES)
    assert np.array_equal(after.ids, np.where(before.ids == 1, 16, 5)) and set(before.ids.ravel()) == {1, 2}
    np.testing.assert_array_equal(after.distances, before.distances)
    boxes = {o.object_id: o for o in moving_objects(slotted, UP, TIMES)}
    assert boxes.keys() == {5, 16}
    for o, number in zip(moving_objects(cars, UP, TIMES), (16, 5)):
        for field in ("T_source_box", "size", "velocity", "path"):
            np.testing.assert_array_equal(getattr(boxes[number], field), getattr(o, field))
    nothing_moves = with_empty_slots(scene(), ())
    assert np.isinf(closest_objects(nothing_moves, ways, TIMES).distances).all()
    assert moving_objects(nothing_moves, UP, TIMES) == []


@pytest.mark.parametrize("turning", [0.0, 0.8])
def test_closest_distances_are_those_to_the_gaussians_moved_one_by_one(turning: float) -> None:
    cars = scene(
        (block(np.array([0.0, 0.0, 10.0]), CAR), np.array([0.5, 0.0, 6.0])),
        (block(np.array([5.0, 0.0, 14.0]), CAR), np.array([-5.0, 0.0, -5.0])),
        turning=turning,
    )
    positions = np.random.default_rng(1).uniform(-10, 10, (4, 3, 3))
    closest = closest_objects(cars, positions, TIMES)
    for i, t in enumerate(TIMES):
        later = cars.at(float(t))
        means, ids = later.means[later.object_ids > 0].double().numpy(), later.object_ids[later.object_ids > 0].numpy()
        apart = np.linalg.norm(positions[:, i, None] - means, axis=-1)
        np.testing.assert_allclose(closest.distances[:, i], apart.min(1), atol=1e-4)
        assert (closest.ids[:, i] == ids[apart.argmin(1)]).all()


@pytest.mark.parametrize("pairs", [1, 100, 10_000])
def test_distances_do_not_depend_on_how_many_are_computed_at_once(monkeypatch, pairs: int) -> None:
    cars = scene(
        (block(np.array([0.0, 0.0, 10.0]), CAR, 5), np.array([0.0, 0.0, 6.0])),
        (block(np.array([5.0, 0.0, 14.0]), CAR, 3), np.array([-5.0, 0.0, -5.0])),
    )
    ways = np.random.default_rng(2).uniform(-10, 10, (4, 3, 3))
    whole = closest_objects(cars, ways, TIMES)
    monkeypatch.setattr("pixel4d_ros.outputs.moving_objects.PAIRS", pairs)
    parts = closest_objects(cars, ways, TIMES)
    np.testing.assert_array_equal(parts.ids, whole.ids)
    np.testing.assert_allclose(parts.distances, whole.distances, atol=1e-9)


def test_what_is_near_keeps_its_distance_far_from_the_camera() -> None:
    far = np.array([400.0, 0.0, 300.0])
    lone = scene((far[None], np.zeros(3)))
    ways = (far + np.array([[0.0, 0.0, 0.0], [2.0**-10, 0.0, 0.0], [0.0, 0.25, 0.0]]))[None]
    closest = closest_objects(lone, ways, TIMES)
    np.testing.assert_allclose(closest.distances, [[0.0, 2.0**-10, 0.25]], atol=1e-6)
    assert (closest.ids == 1).all()


numbers = st.floats(-3, 3)
vectors = st.tuples(numbers, numbers, numbers)


@settings(max_examples=25, deadline=None)
@given(vectors, vectors, vectors)
def test_a_rigid_motion_of_the_scene_moves_boxes_with_it(turn, shift, velocity) -> None:
    assume(abs(np.hypot(velocity[0], velocity[2]) - ALONG_VELOCITY) > 1e-3)  # there rounding chooses the axes
    cars = scene((block(np.array([1.0, 0.5, 10.0]), CAR), np.asarray(velocity)), turning=0.3)
    T = rigid(rotation_matrix(turn), shift)
    (before,), (after,) = (
        moving_objects(s, up, TIMES) for s, up in ((cars, UP), (cars.transformed(T), T[:3, :3] @ UP))
    )
    np.testing.assert_allclose(after.size, before.size, atol=1e-3)
    np.testing.assert_allclose(after.T_source_box[:3, 3], (T @ before.T_source_box)[:3, 3], atol=1e-3)
    np.testing.assert_allclose(after.velocity, T[:3, :3] @ before.velocity, atol=1e-3)
    np.testing.assert_allclose(after.path, before.path @ T[:3, :3].T + T[:3, 3], atol=1e-3)
    points = np.array([[[0.0, 0.0, 2.0 * t] for t in TIMES]])
    one = closest_objects(cars, points, TIMES)
    other = closest_objects(cars.transformed(T), points @ T[:3, :3].T + T[:3, 3], TIMES)
    np.testing.assert_allclose(one.distances, other.distances, atol=1e-3)
