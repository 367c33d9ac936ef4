# SPDX-License-Identifier: Apache-2.0
"""The velocity of a vehicle by direct alignment of two images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.flow import CheckedFlow
from pixel4d_ros.two_view.instance_motion import judged_instances
from pixel4d_ros.two_view.velocity_alignment import STILL, aligned
from pixel4d_ros.two_view.velocity_fit import MeasuredFlow, TwoImages

WIDTH, HEIGHT, FOCAL = 400, 120, 230.0
K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]])
DISTANCE, SECONDS, CAMERA_SPEED = 15.0, 0.1, 12.0
CAR = (slice(45, 80), slice(80, 125))  # left of the camera's way


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
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[CAR] = True
    return mask


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
    images = pair(true)
    for image in (images.measured.here, images.measured.fine_here):
        np.copyto(image, np.clip(image.astype(int) + 15, 0, 255).astype(np.uint8))
    np.testing.assert_allclose(aligned(images, car(), [true * 0.9]), true, atol=0.8)


def test_where_no_flow_is_known_an_instance_is_judged_by_alignment() -> None:
    judged = list(judged_instances(pair(np.array([0.0, 0, -14])), car().astype(np.int64)))
    assert len(judged) == 1 and judged[0].probability > 0.8
    assert judged[0].fit.velocity[2] == pytest.approx(-14, abs=2)
