# SPDX-License-Identifier: Apache-2.0
"""Vehicles that the network finds in one image: which of them move, by the flow to a reference image."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pixel4d_ros import Camera, DynamicGaussians, ReferenceView
from pixel4d_ros.camera import unproject
from pixel4d_ros.two_view.flow import CheckedFlow
from pixel4d_ros.two_view.image_pair import inner_pixels, pixels_of
from pixel4d_ros.two_view.instance_motion import judged_instances, motion_log_ratio
from pixel4d_ros.two_view.moving_probability import CALIBRATION, LIKELY
from pixel4d_ros.two_view.object_motion import whole_objects, with_motion_from_flow
from pixel4d_ros.two_view.rigid_flow import static_flow
from pixel4d_ros.two_view.two_images import MeasuredFlow, TwoImages
from pixel4d_ros.two_view.velocity_fit import equations_of_flow

WIDTH, HEIGHT, SECONDS, BASELINE = 416, 128, 0.2, 0.5
K = np.array([[250.0, 0, 208], [0, 250, 50], [0, 0, 1]])
WALL, CAR = 40.0, 15.0  # metres
CAMERA_SPEED = BASELINE / SECONDS
LEFT, RIGHT = (slice(40, 86), slice(170, 208)), (slice(40, 86), slice(208, 246))  # side by side, just ahead
Box = tuple[slice, slice]
Cars = list[tuple[Box, float]]  # where they are, and m/s forwards
Grey = NDArray[np.float32]


def texture(seed: int) -> Grey:
    noise = np.random.default_rng(seed).uniform(0, 255, (HEIGHT, WIDTH)).astype(np.float32)
    return np.asarray(np.clip((cv2.GaussianBlur(noise, (0, 0), 2) - 127) * 4 + 127, 0, 255), np.float32)


def mask_of(box: Box) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[box] = True
    return mask


def farther(image: Grey, near: float, far: float) -> Grey:
    """A plane across the optical axis, from far instead of near."""
    scale = near / far
    move = np.array([[scale, 0, (1 - scale) * K[0, 2]], [0, scale, (1 - scale) * K[1, 2]]])
    return np.asarray(cv2.warpAffine(image, move, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT), np.float32)


def seen(cars: Cars) -> tuple[NDArray[np.uint8], ReferenceView]:
    """An image of a wall and cars ahead of it, and one before the camera drove BASELINE; cars in it."""
    here = texture(0)
    there = farther(here, WALL, WALL + BASELINE)
    for seed, (box, speed) in enumerate(cars, 1):
        car, mask = texture(seed), mask_of(box).astype(np.float32)
        before = CAR - speed * SECONDS + BASELINE
        here = np.where(mask > 0, car, here)
        there = np.where(farther(mask, CAR, before) > 0.5, farther(car, CAR, before), there)
    image, other = (np.repeat(x.astype(np.uint8)[..., None], 3, 2) for x in (here, there))
    T = np.eye(4)
    T[2, 3] = -BASELINE
    return image, ReferenceView(other, K, T, -SECONDS)


def predicted(cars: Cars, factor: float = 1.0, moving: Box | None = None) -> DynamicGaussians:
    """A scene without motion whose instances are the cars, a factor too far; or one that moves at 1 m/s, with id 1."""
    depth, instances = np.full((HEIGHT, WIDTH), WALL), np.zeros((HEIGHT, WIDTH), np.int64)
    for number, (box, _) in enumerate(cars, 1):
        depth[box], instances[box] = CAR * factor, number
    v, u = np.mgrid[:HEIGHT, :WIDTH].reshape(2, -1)
    means = torch.from_numpy(unproject(np.stack((u, v), -1), depth.ravel(), K)).float()
    n, zeros = len(means), torch.zeros(len(means), 3)
    ids = torch.zeros(n, dtype=torch.int64) if moving is None else torch.from_numpy(mask_of(moving).ravel()).long()
    velocities = ids[:, None] * torch.tensor([0.0, 0, 1])
    turns = torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1)
    gaussians = (means, turns, torch.full((n, 3), 0.1), torch.ones(n), torch.zeros(n, 3))
    motion = (velocities, zeros, zeros, zeros)
    return DynamicGaussians(
        *gaussians,
        *motion,
        ids,
        torch.zeros(int(ids.max()) + 1, 3),
        camera=Camera(K, WIDTH, HEIGHT),
        instance_ids=torch.from_numpy(instances.ravel()),
    )


def found(scene: DynamicGaussians, cars: Cars) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids (H, W) of objects, and velocities (M + 1, 3), by the flow."""
    moved = with_motion_from_flow(scene, *seen(cars))
    return moved.object_ids.view(HEIGHT, WIDTH).numpy(), moved.per_object(moved.velocities).numpy()


def test_a_car_ahead_at_the_cameras_speed_is_found_by_its_instance_only() -> None:
    box = (slice(40, 86), slice(178, 238))
    cars: Cars = [(box, CAMERA_SPEED)]
    scene = predicted(cars)
    ids, velocities = found(scene, cars)
    number = int(np.bincount(ids[box].ravel()).argmax())
    assert number > 0 and (ids == number)[box].mean() > 0.95 and (ids == number).sum() < 1.3 * ids[box].size
    np.testing.assert_allclose(velocities[number], (0, 0, CAMERA_SPEED), atol=0.6)
    without, _ = found(replace(scene, instance_ids=None), cars)
    assert not without.any()


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.15])
def test_a_parked_car_at_a_wrong_depth_does_not_move(factor: float) -> None:
    cars: Cars = [(LEFT, 0.0), (RIGHT, 0.0)]
    ids, _ = found(predicted(cars, factor), cars)
    assert not ids.any()


def test_neighbours_stay_apart() -> None:
    cars: Cars = [(LEFT, CAMERA_SPEED), (RIGHT, CAMERA_SPEED)]
    ids, _ = found(predicted(cars), cars)
    left, right = ids[LEFT], ids[RIGHT]
    assert left.any() and right.any() and not set(np.unique(left[left > 0])) & set(np.unique(right[right > 0]))


def test_a_parked_neighbour_stays_parked() -> None:
    cars: Cars = [(LEFT, 8.0), (RIGHT, 0.0)]
    ids, _ = found(predicted(cars), cars)
    assert (ids[LEFT] > 0).mean() > 0.9 and not ids[RIGHT].any()


def test_an_instance_that_the_network_sees_move_is_that_object() -> None:
    cars: Cars = [(LEFT, CAMERA_SPEED), (RIGHT, 0.0)]
    half = (slice(40, 86), slice(170, 190))
    scene = predicted(cars, moving=half)
    ids, velocities = found(scene, cars)
    assert (ids[LEFT] == 1).all() and not (ids > 1).any() and not ids[RIGHT].any()
    moved = with_motion_from_flow(scene, *seen(cars))
    own = moved.velocities.view(HEIGHT, WIDTH, 3)[LEFT].reshape(-1, 3)
    assert torch.equal(own, own[:1].expand_as(own)) and velocities[1, 2] > 0.9


def crossing(speed: float) -> tuple[NDArray[np.uint8], ReferenceView]:
    """A camera that stands sees a car that crosses, after 0.2 and after 0.6 seconds."""
    wall, car, mask = texture(0), texture(1), mask_of(LEFT).astype(np.float32)

    def picture(seconds: float) -> NDArray[np.uint8]:
        move = np.array([[1, 0, -speed * seconds * K[0, 0] / CAR], [0, 1, 0]])
        shown = cv2.warpAffine(mask, move, (WIDTH, HEIGHT)) > 0.5
        grey = np.where(shown, cv2.warpAffine(car, move, (WIDTH, HEIGHT)), wall)
        return np.repeat(grey.astype(np.uint8)[..., None], 3, 2)

    older = ReferenceView(picture(0.6), K, np.eye(4), -0.6)
    return picture(0.0), ReferenceView(picture(0.2), K, np.eye(4), -0.2, older)


@pytest.mark.parametrize("speed", [1.0, 8.0])
def test_what_crosses_before_a_camera_that_stands_is_found_slow_or_fast(speed: float) -> None:
    scene = predicted([(LEFT, 0.0)])
    moved = with_motion_from_flow(scene, *crossing(speed))
    ids, velocities = moved.object_ids.view(HEIGHT, WIDTH).numpy(), moved.per_object(moved.velocities).numpy()
    number = int(np.bincount(ids[LEFT].ravel()).argmax())
    assert number > 0 and (ids == number)[LEFT].mean() > 0.9
    np.testing.assert_allclose(velocities[number], (speed, 0, 0), atol=0.15 * speed)


def test_an_instance_that_hardly_overlaps_an_object_is_none_of_it() -> None:
    ids, instances = mask_of((slice(40, 86), slice(100, 175))).astype(np.int64), mask_of(LEFT).astype(np.int64)
    assert np.array_equal(whole_objects(ids, instances), ids)
    assert np.array_equal(whole_objects(ids, 0 * instances), ids)


def exact(speed: float, baseline: float, factor: float = 1.0) -> TwoImages:
    """A wall without texture that moves at m/s forwards, exact flow, and its depth too large by a factor."""
    depth, T = np.full((HEIGHT, WIDTH), CAR, np.float32), np.eye(4)
    T[2, 3] = baseline
    moved = T.copy()
    moved[2, 3] -= speed * SECONDS
    flow = CheckedFlow(static_flow(np.float32(1) / depth, moved, K), np.ones((HEIGHT, WIDTH), bool))
    grey = np.zeros((HEIGHT, WIDTH), np.uint8)
    measured = MeasuredFlow(grey, grey, flow, grey, grey)
    return TwoImages(measured, Camera(K, WIDTH, HEIGHT), depth * factor, T, SECONDS)


def log_ratio(speed: float, baseline: float, factor: float = 1.0) -> float:
    pair = exact(speed, baseline, factor)
    (judged,) = judged_instances(pair, mask_of(LEFT).astype(np.int64))
    equations = equations_of_flow(pair.images, *pixels_of(mask_of(LEFT)))
    return motion_log_ratio(equations, judged.fit.velocity, baseline)


def test_of_a_camera_that_stands_any_consistent_flow_is_motion() -> None:
    assert log_ratio(0.0, 0.0) < -3 < 3 < log_ratio(6.0, 0.0)
    assert log_ratio(6.0, 0.0, factor=1.5) > 3


def test_the_more_depth_would_be_wrong_the_likelier_it_moves() -> None:
    ratios = [log_ratio(0.0, BASELINE, factor) for factor in (1.0, 1.3, 2.0, 4.0)]
    assert ratios == sorted(ratios) and ratios[1] < 0 < ratios[3]


def test_what_is_too_small_to_have_flow_is_not_judged() -> None:
    pair, tiny = exact(6.0, 0.0), mask_of((slice(50, 54), slice(200, 204)))
    assert list(judged_instances(pair, tiny.astype(np.int64))) == []


def test_the_rim_and_what_is_behind_an_instance_do_not_count() -> None:
    pair = exact(0.0, BASELINE)
    pair.depth[LEFT[0], 200:] = WALL
    inner = np.zeros((HEIGHT, WIDTH), bool)
    inner[inner_pixels(pair.depth, mask_of(LEFT))] = True
    assert inner.any() and not inner[:, 200:].any() and not inner[40].any() and not (inner & ~mask_of(LEFT)).any()


def test_evidence_of_both_kinds_makes_motion_likelier() -> None:
    static, unclear, moving = (
        CALIBRATION.of_instance(np.array([flow, images, 3.0, 0.2, 0.0, 0.0, np.log(400)]))
        for flow, images in ((-8.0, 0.0), (0.0, 0.0), (5.0, 0.3))
    )
    assert static < LIKELY < unclear < moving


def test_a_speck_needs_more_evidence_than_a_vehicle() -> None:
    speck, vehicle = (CALIBRATION.of_instance(np.array([2.0, 0.1, 3.0, 0.2, 0, 0, np.log(n)])) for n in (40, 400))
    assert speck < vehicle - 0.2


def test_an_instance_in_the_air_or_on_the_road_needs_more_evidence() -> None:
    vehicle, treetop, road = (
        CALIBRATION.of_instance(np.array([0.0, 0.0, 3.0, gap, flatness, 0.0, np.log(400)]))
        for gap, flatness in ((0.2, 0.0), (2.0, 0.0), (0.2, 0.5))
    )
    assert treetop < vehicle - 0.2 and road < vehicle - 0.1
