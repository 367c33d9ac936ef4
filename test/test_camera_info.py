# SPDX-License-Identifier: Apache-2.0
"""One meaning of CameraInfo: every way to describe the same camera gives the same pinhole camera and the same clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from support.log_samples import HEIGHT, WIDTH, camera_info, entries, image_message, write_mcap

from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.geometry.camera_info import is_rectified_topic, read_camera_info
from pixel4d_ros.logs.reader import LogError
from pixel4d_ros.logs.types import jazzy_types

T = jazzy_types().types
K = np.array([[50.0, 0, 31.5], [0, 52, 23.5], [0, 0, 1]])


def info(**changes: Any) -> Any:
    """A CameraInfo of 64x48 pixels, as plain fields."""
    P = np.hstack((K, np.zeros((3, 1)))).ravel()
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False)
    fields = {"width": 64, "height": 48, "distortion_model": "plumb_bob", "d": [0.0] * 5, "k": K.ravel(), "p": P}
    return SimpleNamespace(**{**fields, "binning_x": 0, "binning_y": 0, "roi": roi, **changes})


def roi(x: int, y: int, width: int, height: int) -> Any:
    return SimpleNamespace(x_offset=x, y_offset=y, width=width, height=height, do_rectify=False)


def test_a_resized_image_has_a_scaled_camera() -> None:
    for factor in (0.5, 2, 3):
        size = int(64 * factor), int(48 * factor)
        camera = read_camera_info(info(), *size).camera
        np.testing.assert_allclose(camera.K[:2, :2], K[:2, :2] * factor)
        # The middle of the image stays the middle.
        np.testing.assert_allclose(camera.K[:2, 2], [(size[0] - 1) / 2, (size[1] - 1) / 2])


def test_binning_counts_also_where_it_does_not_divide_the_size() -> None:
    odd = info(width=65, height=49, binning_x=2, binning_y=2)
    camera = read_camera_info(odd, 32, 24).camera
    np.testing.assert_allclose(camera.K, [[25, 0, 15.5], [0, 26, 11.5], [0, 0, 1]])
    with pytest.raises(ValueError, match="image is 64x48 but CameraInfo is for 32x48"):
        read_camera_info(info(binning_x=2), 64, 48)


def test_a_binning_larger_than_the_sensor_is_refused() -> None:
    with pytest.raises(ValueError, match="CameraInfo has a binning of 65x1 on 64x48 pixels"):
        read_camera_info(info(binning_x=65), 64, 48)


def test_a_region_of_interest_shifts_the_principal_point() -> None:
    part = info(roi=roi(10, 4, 40, 20))
    np.testing.assert_allclose(read_camera_info(part, 40, 20).camera.K[:2, 2], [21.5, 19.5])
    # An image of the whole sensor in spite of the region is the whole sensor's.
    np.testing.assert_allclose(read_camera_info(part, 64, 48).camera.K, K)
    with pytest.raises(ValueError, match=r"region of interest .* not within its 64x48 pixels"):
        read_camera_info(info(roi=roi(40, 0, 40, 20)), 40, 20)


def test_p_counts_for_rectified_images_and_distortion_is_left_alone() -> None:
    P = np.hstack((K * [[0.8], [0.8], [1]], np.zeros((3, 1))))
    rectified = read_camera_info(info(p=P.ravel(), d=[-0.2, 0.1, 0, 0, 0]), 64, 48, rectified=True)
    np.testing.assert_allclose(rectified.camera.K, P[:, :3])
    assert rectified.undistortion is None
    names = {"/a/image_rect": True, "/a/image_rect_color/compressed": True, "/rectified/image": True}
    for name, expected in {**names, "/a/image_raw": False, "/direct/image": False}.items():
        assert is_rectified_topic(name) is expected


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        ("plumb_bob", [-0.2, 0.05, 0, 0, 0]),
        ("rational_polynomial", [0.3, -0.02, 0.001, -0.001, 0, 0.7, 0.05, 0.001]),
        ("equidistant", [-0.02, 0.003, -0.001, 0.0002]),
        ("fisheye", [0.0, 0, 0, 0]),  # r = f theta is not a pinhole camera
        ("equidistant", []),
    ],
)
def test_each_lens_is_undistorted(model: str, coefficients: list[float]) -> None:
    made = read_camera_info(info(distortion_model=model, d=coefficients), 64, 48)
    assert made.undistortion is not None
    assert made.image(np.full((48, 64, 3), 200, np.uint8)).min() == 200


@pytest.mark.parametrize("model", ["double_sphere", "ftheta"])
def test_unknown_lenses_are_refused_even_with_zero_coefficients(model: str) -> None:
    with pytest.raises(ValueError, match=f"distortion model '{model}' is not supported: publish plumb_bob"):
        read_camera_info(info(distortion_model=model), 64, 48)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.eye(3), "focal length of 1 pixels for 64x48 images, which is no real camera: calibrate"),
        (np.zeros((3, 3)), "focal lengths 0, 0: the camera is not calibrated"),
        (np.array([[0.8, 0, 0.5], [0, 0.8, 0.5], [0, 0, 1]]), "focal length of 0.8 pixels"),
        (
            np.array([[50, 0, 101.5], [0, 52, 23.5], [0, 0, 1]]),
            r"principal point at \(101.5, 23.5\), outside the 64x48 image",
        ),
        (np.diag([50.0, 52, 1]), r"principal point at \(0, 0\)"),
        (K.T, "no camera matrix fx 0 cx"),
        (K * np.nan, "NaN or Inf in K"),
        (K * [[1e5], [1e5], [1]], "focal length of 5e"),
    ],
)
def test_a_matrix_that_is_no_camera_is_refused(bad: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_camera_info(info(k=bad.ravel()), 64, 48)


def test_a_missing_size_is_the_images_where_the_principal_point_agrees() -> None:
    assert read_camera_info(info(width=0, height=0), 64, 48).camera.width == 64
    with pytest.raises(ValueError, match="has no size"):
        read_camera_info(info(width=0, height=0), 256, 192)


# The same drive, its camera described in other ways.

FOCAL = 30.0
MIDDLE = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])


def binned(message: Any) -> Any:
    """The sensor has twice the pixels, binned by two."""
    full = camera_info(T, 0, FOCAL, scale=2)
    return replace(full, header=message.header, binning_x=2, binning_y=2)


def of_another_resolution(message: Any) -> Any:
    return replace(camera_info(T, 0, FOCAL, scale=4), header=message.header)


def part_of_a_sensor(message: Any) -> Any:
    k, p = message.k.copy(), message.p.copy()
    k[[2, 5]] += 10, 20
    p[[2, 6]] += 10, 20
    window = T["sensor_msgs/msg/RegionOfInterest"](10, 20, HEIGHT, WIDTH, False)
    return replace(message, k=k, p=p, width=WIDTH + 40, height=HEIGHT + 40, roi=window)


@pytest.mark.parametrize("described", [binned, of_another_resolution, part_of_a_sensor])
def test_a_log_gives_the_same_clip_however_its_camera_is_described(
    tmp_path: Path, described: Callable[[Any], Any]
) -> None:
    plain = read_clip(write_mcap(tmp_path / "plain.mcap", entries()))
    items = [replace(e, message=described(e.message)) if e.topic.endswith("left/camera_info") else e for e in entries()]
    other = read_clip(write_mcap(tmp_path / "other.mcap", items))
    np.testing.assert_allclose(other.K, plain.K)
    np.testing.assert_array_equal(other.images, plain.images)


def test_a_distorted_log_gives_the_images_of_the_pinhole_camera(tmp_path: Path) -> None:
    """A smooth scene seen through a lens, and read back as the plain camera sees it."""
    D = np.array([-0.4, 0.1, 0.0, 0.0, 0.0])
    own = np.array([[FOCAL, 0, MIDDLE[0]], [0, FOCAL, MIDDLE[1]], [0, 0, 1]])

    def scene(rays: np.ndarray) -> np.ndarray:
        """RGB of rays (..., 2), x / z and y / z."""
        shades = 0.5 + 0.45 * np.stack((np.sin(5 * rays[..., 0]), np.cos(4 * rays[..., 1]), rays[..., 0]), -1)
        return np.uint8(np.clip(shades, 0, 1) * 255)

    pixels = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1).astype(np.float64)
    seen = cv2.undistortPoints(pixels.reshape(-1, 1, 2), own, D).reshape(HEIGHT, WIDTH, 2)
    items = []
    for e in entries():
        if e.topic == "/camera/left/image_raw":
            items.append(replace(e, message=image_message(T, e.time_ns, scene(seen))))
        elif e.topic.endswith("left/camera_info"):
            items.append(replace(e, message=replace(e.message, d=D)))
        else:
            items.append(e)
    clip = read_clip(write_mcap(tmp_path / "distorted.mcap", items))
    rays = (pixels - clip.K[[0, 1], 2]) / clip.K[[0, 1], [0, 1]]
    difference = np.abs(clip.images[0].astype(float) - scene(rays))[2:-2, 2:-2]
    plain = scene((pixels - own[[0, 1], 2]) / FOCAL)  # what K alone claims that the image shows
    assert np.abs(scene(seen).astype(float) - plain).mean() > 5
    assert difference.mean() < 1.5


def test_a_log_whose_camera_info_is_no_camera_is_refused(tmp_path: Path) -> None:
    def identity(message: Any) -> Any:
        return replace(message, k=np.eye(3).ravel())

    items = [replace(e, message=identity(e.message)) if e.topic.endswith("camera_info") else e for e in entries()]
    with pytest.raises(LogError, match=r"a\.mcap: /camera/left/camera_info: .*focal length of 1 pixels"):
        read_clip(write_mcap(tmp_path / "a.mcap", items))
