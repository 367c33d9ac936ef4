# SPDX-License-Identifier: Apache-2.0
"""The velocity of a vehicle by direct alignment of two images."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view import velocity_alignment
from pixel4d_ros.two_view.flow import CheckedFlow
from pixel4d_ros.two_view.image_pair import pixels_of
from pixel4d_ros.two_view.instance_motion import judged_instances
from pixel4d_ros.two_view.predicted_motion import corrected_velocity
from pixel4d_ros.two_view.two_images import MeasuredFlow, TwoImages

WIDTH, HEIGHT, FOCAL = 400, 120, 230.0
K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]])
DISTANCE, SECONDS, CAMERA_SPEED = 15.0, 0.1, 12.0
CAR = (slice(45, 80), slice(80, 125))  # left of the camera's way
PERSON = (slice(45, 80), slice(80, 95))  # a metre wide
STILL = np.zeros(3)


def picture(width: int, height: int) -> NDArray[np.uint8]:
    """Smooth random texture; its last axis may be upsampled."""
    rng = np.random.default_rng(3)
    rough = cv2.GaussianBlur(rng.uniform(0, 255, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 1.5)
    rough = (rough - rough.mean()) * 4 + 128
    return np.asarray(np.clip(cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC), 0, 255), np.uint8)


def pair(velocity: FloatArray, scale: int = 2) -> TwoImages:
    """A camera that drives ahead sees a car that moves at velocity (3,) m/s; the flow says that the car stands."""
    T = np.eye(4)
    T[2, 3] = CAMERA_SPEED * SECONDS  # a point ahead was farther away
    levels = []
    for width in (WIDTH, scale * WIDTH):
        camera = Camera(K, WIDTH, HEIGHT).resized(width, width * HEIGHT // WIDTH)
        there = picture(camera.width, camera.height)
        v, u = np.mgrid[: camera.height, : camera.width].astype(np.float64)
        inverse = np.linalg.inv(camera.K)
        points = np.stack((u, v, np.ones_like(u)), -1) @ inverse.T * DISTANCE
        before = (points - velocity * SECONDS) @ T[:3, :3].T + T[:3, 3]
        seen = before @ camera.K.T
        places = (seen[..., :2] / seen[..., 2:]).astype(np.float32)
        levels.append((np.asarray(cv2.remap(there, places[..., 0], places[..., 1], cv2.INTER_LINEAR), np.uint8), there))
    depth = np.full((HEIGHT, WIDTH), DISTANCE, np.float32)
    flow = CheckedFlow(np.zeros((HEIGHT, WIDTH, 2), np.float32), np.zeros((HEIGHT, WIDTH), bool))
    (here, there), fine = levels
    return TwoImages(MeasuredFlow(here, there, flow, *fine), Camera(K, WIDTH, HEIGHT), depth, T, SECONDS)


def car() -> NDArray[np.bool_]:
    return mask_of(CAR)


def mask_of(box: tuple[slice, slice]) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[box] = True
    return mask


def aligned(images: TwoImages, mask: NDArray[np.bool_], guesses: list[FloatArray]) -> FloatArray:
    """The velocity (3,), one of the guesses or STILL itself if none is better."""
    prior = np.zeros(3), np.zeros(3)
    found, chosen = velocity_alignment.aligned(images.images, *pixels_of(mask), np.reshape(guesses, (-1, 3)), *prior)
    return found if chosen < 0 else [*guesses, STILL][chosen]


def changed(images: TwoImages, change: Callable[[int, NDArray[np.uint8]], FloatArray]) -> TwoImages:
    """The pair with the grey levels that change returns for each of its four images, in the order of the fields."""
    measured = images.measured
    for k, image in enumerate((measured.here, measured.there, measured.fine_here, measured.fine_there)):
        np.copyto(image, np.clip(change(k, image), 0, 255).astype(np.uint8))
    return images


def ambiguous(velocity: FloatArray, share: float) -> TwoImages:
    """What stands and what moves at velocity (3,), one shining through the other: a share of the grey levels moves."""
    moves = pair(velocity).measured
    shown = moves.here, moves.there, moves.fine_here, moves.fine_there
    return changed(pair(STILL), lambda k, image: (1 - share) * image + share * shown[k])


@pytest.mark.parametrize("velocity", [(0, 0, 12), (0, 0, -14), (5, 0, 0), (-1, 0, 3)])
def test_the_velocity_is_found_from_a_guess_that_is_near(velocity: tuple[float, ...]) -> None:
    true = np.array(velocity, np.float64)
    guess = true + np.array([0.5, 0.1, 1.5])
    np.testing.assert_allclose(aligned(pair(true), car(), [guess]), true, atol=0.6)


def test_an_oncoming_car_is_found_without_a_guess() -> None:
    true = np.array([0.0, 0, -14])
    found = aligned(pair(true), car(), [])
    assert np.linalg.norm(found - true) < 0.15 * 14


def test_a_car_that_stands_keeps_standing_and_a_right_guess_is_kept() -> None:
    assert aligned(pair(STILL), car(), []) is STILL
    guess = np.array([4.0, 0, 0])
    assert aligned(pair(guess), car(), [guess]) is guess


def test_brightness_may_change() -> None:
    true = np.array([0.0, 0, 12])
    images = changed(pair(true), lambda k, image: image + (15.0 if k % 2 == 0 else 0.0))
    np.testing.assert_allclose(aligned(images, car(), [true * 0.9]), true, atol=0.8)


def test_little_contrast_makes_a_car_no_slower() -> None:
    true = np.array([0.0, 0, 12])
    images = changed(pair(true), lambda _, image: 128 + (image - 128.0) / 5)
    assert aligned(images, car(), [true * 0.8])[2] == pytest.approx(12, abs=0.5)


def test_a_person_does_not_move_at_the_speed_of_a_car_because_the_texture_is_much_the_same_there() -> None:
    images = ambiguous(np.array([12.0, 0, 0]), 0.55)
    assert aligned(images, car(), [])[0] == pytest.approx(12, abs=1)
    assert np.linalg.norm(aligned(images, mask_of(PERSON), [])) < 1


@pytest.mark.parametrize("velocity", [(1, 0, 14), (4, 0, 2)])
def test_a_wrong_prediction_from_one_image_is_corrected(velocity: tuple[float, ...]) -> None:
    true = np.array(velocity, np.float64)
    np.testing.assert_allclose(corrected(pair(true), 3.0), true, atol=0.7)


@pytest.mark.parametrize(("predicted", "found"), [(-13.0, -14), (1.0, 0)])
def test_a_prediction_from_one_image_decides_what_two_images_leave_open(predicted: float, found: float) -> None:
    assert corrected(ambiguous(np.array([0.0, 0, -14]), 0.55), predicted)[2] == pytest.approx(found, abs=1)


def corrected(images: TwoImages, ahead: float) -> FloatArray:
    is_seen, velocity, _ = corrected_velocity(images.images, car(), np.array([0.0, 0, ahead]))
    assert is_seen
    return velocity


def test_where_no_flow_is_known_an_instance_is_judged_by_alignment() -> None:
    judged = list(judged_instances(pair(np.array([0.0, 0, -14])), car().astype(np.int64)))
    assert len(judged) == 1 and judged[0].probability > 0.8
    assert judged[0].fit.velocity[2] == pytest.approx(-14, abs=2)
