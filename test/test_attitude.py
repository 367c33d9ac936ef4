"""How far off the camera's attitude may be, and the blur that follows from it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from dataset_samples import street_photo

from pixel4d_ros import Camera, CameraPath, Forecaster
from pixel4d_ros.attitude import attitude_spread
from pixel4d_ros.rendering.blur import REACH, blurred

CAMERA = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), 640, 480)


def poses_ahead(*metres: float) -> np.ndarray:
    poses = np.tile(np.eye(4), (len(metres), 1, 1))
    poses[:, 2, 3] = metres
    return poses


def test_the_attitude_is_known_at_the_source_and_less_the_further_one_drives() -> None:
    spread = attitude_spread(poses_ahead(0, 1, 4, 9), CAMERA, walk=0.1)
    np.testing.assert_allclose(spread, np.radians(0.1) * 500 * np.array([0, 1, 2, 3]), rtol=1e-6)


def test_the_same_angle_is_fewer_pixels_of_a_smaller_image() -> None:
    half = CAMERA.resized(320, 240)
    np.testing.assert_allclose(
        attitude_spread(poses_ahead(5), half), attitude_spread(poses_ahead(5), CAMERA) / 2, rtol=1e-6
    )


def test_however_far_one_drives_the_blur_ends() -> None:
    assert attitude_spread(poses_ahead(1e9), CAMERA) == 640 / 8


def test_turning_on_the_spot_says_nothing_of_the_attitude() -> None:
    turned = CameraPath.constant_twist((0, 0, 0), (0, 0.5, 0), 1.0).at([1.0])
    assert attitude_spread(turned, CAMERA) == 0


@pytest.mark.parametrize("spread", [0.8, 2.0])
def test_blur_is_that_of_opencv(spread: float) -> None:
    features = torch.rand(1, 30, 40, 4)
    side = 2 * int(np.ceil(REACH * spread)) + 1
    wanted = cv2.GaussianBlur(features[0, ..., :3].numpy(), (side, side), spread, borderType=cv2.BORDER_REPLICATE)
    found = blurred(features, torch.tensor([spread]), spread)
    np.testing.assert_allclose(found[0, ..., :3].numpy(), wanted, atol=1e-5)
    assert torch.equal(found[..., 3], features[..., 3])


def test_each_view_has_a_blur_of_its_own() -> None:
    features, spread = torch.rand(3, 20, 30, 4), torch.tensor([0.0, 0.5, 3.0])
    together = blurred(features, spread, 3.0)
    assert torch.equal(together[0], features[0])
    for view in (1, 2):
        alone = blurred(features[view : view + 1], spread[view : view + 1], float(spread[view]))
        torch.testing.assert_close(together[view : view + 1], alone, rtol=0, atol=1e-5)


def test_frames_ahead_are_softer_and_depth_and_confidence_are_not_touched() -> None:
    photo = street_photo((208, 64))
    path = CameraPath.constant_twist((0, 0, 10), (0, 0, 0), 1.0)
    sure, unsure = Forecaster.load(device="cpu"), Forecaster.load(device="cpu")
    sure.attitude_walk, unsure.attitude_walk = 0, 0.3
    one, other = (f.forecast(photo.image, photo.K, path, [0.0, 1.0]) for f in (sure, unsure))
    np.testing.assert_array_equal(one.frames[0, 0], other.frames[0, 0])
    roughness = [np.abs(np.diff(f.frames[0, 1].astype(float), axis=1)).mean() for f in (one, other)]
    assert roughness[1] < 0.8 * roughness[0]
    np.testing.assert_array_equal(one.depth, other.depth)
    np.testing.assert_array_equal(one.confidence, other.confidence)
