# SPDX-License-Identifier: Apache-2.0
"""One meaning of CameraInfo: every way to describe the same camera gives the same pinhole camera and the same clip."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from support.log_samples import HEIGHT, WIDTH, camera_info, entries, image_message, write_mcap

from pixel4d_ros.commands.forecast import read_intrinsics
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.geometry.camera_info import AlreadyRectifiedError, is_rectified_topic, read_camera_info
from pixel4d_ros.logs.reader import LogError
from pixel4d_ros.logs.types import jazzy_types

T = jazzy_types().types
K = np.array([[50.0, 0, 31.5], [0, 52, 23.5], [0, 0, 1]])


def info(**changes: Any) -> Any:
    """A CameraInfo of 64x48 pixels, as plain fields."""
    P = np.hstack((K, np.zeros((3, 1)))).ravel()
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False)
    fields = {"width": 64, "height": 48, "distortion_model": "plumb_bob", "d": [0.0] * 5, "k": K.ravel(), "p": P}
    fields["r"] = np.eye(3).ravel()
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


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        ("plumb_bob", [-5.0, 0, 0, 0, 0]),  # folds the image
        ("plumb_bob", [100.0, 0, 0, 0, 0]),  # one pixel filled the image
        ("equidistant", [-2.0, 0, 0, 0]),
    ],
)
def test_coefficients_that_no_lens_has_are_refused(model: str, coefficients: list[float]) -> None:
    with pytest.raises(ValueError, match="cannot be undone, as they fold the image or leave next to nothing"):
        read_camera_info(info(distortion_model=model, d=coefficients), 64, 48)


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
        (np.array([[50, 12, 31.5], [0, 52, 23.5], [0, 0, 1]]), "a skew of 12 pixels"),
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


# KITTI, 2011_09_26, camera 2: K_02, D_02, R_rect_02 and P_rect_02 as kitti2bag puts them into CameraInfo, beside
# rectified images of 1242x375 pixels; the raw ones had 1392x512.
KITTI_K = [959.791, 0, 696.0217, 0, 956.9251, 224.1806, 0, 0, 1]
KITTI_D = [-0.3691481, 0.1968681, 0.001353473, 0.000567759, -0.06770705]
KITTI_R = [0.9998817, 0.01511453, -0.002841595, -0.01511724, 0.9998853, -0.0009338510, 0.002827154, 0.0009766976,
           0.9999955]  # fmt: skip
KITTI_P = [721.5377, 0, 609.5593, 44.85728, 0, 721.5377, 172.854, 0.2163791, 0, 0, 1, 0.002745884]


def kitti2bag(**changes: Any) -> Any:
    fields = {"width": 1242, "height": 375, "k": KITTI_K, "d": KITTI_D, "r": KITTI_R, "p": KITTI_P}
    return info(**{**fields, **changes})


def test_rectified_images_beside_the_raw_ones_calibration_are_not_undistorted_again() -> None:
    with pytest.raises(
        AlreadyRectifiedError, match=r"cannot be of raw 1242x375 images, its P can: .* set rectify to f"
    ):
        read_camera_info(kitti2bag(), 1242, 375)
    np.testing.assert_allclose(read_camera_info(kitti2bag(), 1242, 375, rectified=True).camera.K[0, 0], 721.5377)
    # The raw images with the same numbers are undistorted, also where P shows all or only the middle of them.
    raw = kitti2bag(width=1392, height=512, p=[*KITTI_P[:2], 684.6, 0, 0, 721.5377, 241.4, 0, 0, 0, 1, 0])
    assert read_camera_info(raw, 1392, 512).undistortion is not None
    K = np.reshape(KITTI_K, (3, 3))
    for alpha in (0, 0.5, 1):
        new, _ = cv2.getOptimalNewCameraMatrix(K, np.array(KITTI_D), (1392, 512), alpha)
        P = np.hstack((new, np.zeros((3, 1)))).ravel()
        assert read_camera_info(kitti2bag(width=1392, height=512, p=P), 1392, 512).undistortion is not None


def test_a_kitti2bag_log_gives_the_clip_of_its_rectified_camera(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def raw_calibration(e: Any) -> Any:
        if not e.topic.endswith("camera_info"):
            return e
        k = np.array(e.message.k) * 1.33
        k[[2, 5, 8]] = 21.0, 17.0, 1.0
        return replace(e, message=replace(e.message, k=k, d=np.array([-0.37, 0.2, 0, 0, 0])))

    path = write_mcap(tmp_path / "kitti.mcap", list(map(raw_calibration, entries(3))))
    plain = read_clip(write_mcap(tmp_path / "plain.mcap", entries(3)))
    clip = read_clip(path)
    np.testing.assert_allclose(clip.K, plain.K)
    np.testing.assert_array_equal(np.asarray(clip.images), np.asarray(plain.images))
    assert "seem to be rectified already" in caplog.text and "its P is used" in caplog.text
    with pytest.raises(LogError, match="seem to be rectified"):
        read_clip(path, rectified=False)


def test_whether_images_are_rectified_is_said_and_can_be_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def distorted(e: Any) -> Any:
        d = np.array([-0.1, 0.0, 0, 0, 0])
        return replace(e, message=replace(e.message, d=d)) if e.topic.endswith("camera_info") else e

    path = write_mcap(tmp_path / "a.mcap", list(map(distorted, entries(3))))
    assert read_clip(path).K[0, 0] != 30.0
    assert "are undistorted by /camera/left/camera_info; pass --rectified if they are rectified already" in caplog.text
    np.testing.assert_allclose(read_clip(path, rectified=True).K[0, 0], 30.0)


def test_the_camera_info_of_another_camera_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def elsewhere(topic: str) -> list[Any]:
        """CameraInfo of a camera in another frame, on that topic."""
        found = []
        for e in entries(3):
            if e.topic.endswith("camera_info"):
                header = replace(e.message.header, frame_id="rear_optical")
                e = replace(e, topic=topic, message=replace(e.message, header=header))
            found.append(e)
        return found

    path = write_mcap(tmp_path / "rear.mcap", elsewhere("/rear/camera_info"))
    with pytest.raises(
        LogError, match=r"no CameraInfo for /camera/left/image_raw, and /rear/camera_info is of another"
    ):
        read_clip(path)
    assert len(read_clip(write_mcap(tmp_path / "odd.mcap", elsewhere("/camera/left/camera_info")))) == 3
    assert "is /camera/left/camera_info of the camera of /camera/left/image_raw?" in caplog.text


def test_matrices_that_are_no_cameras_are_refused_in_every_clip() -> None:
    clip = {"name": "a", "images": np.zeros((2, 24, 32, 3), np.uint8), "poses": np.tile(np.eye(4), (2, 1, 1))}
    for bad, words in {
        "identity": (np.eye(3), "clip a: K has a focal length of 1 pixels for 32x24 images"),
        "outside": (np.array([[30.0, 0, 40], [0, 30, 12], [0, 0, 1]]), "clip a: K has its principal point at"),
    }.values():
        with pytest.raises(ValueError, match=words):
            Clip(K=bad, times=np.arange(2.0), **clip)
    for times in ([0.0, 0.0], [1.0, 0.5], [0.0, np.nan]):
        with pytest.raises(ValueError, match="times must be finite numbers of seconds that increase"):
            Clip(K=np.array([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]]), times=np.array(times), **clip)


@pytest.mark.parametrize(("factor", "doubted"), [(0.5, True), (0.32, True), (1.5, True), (1.0, False), (1.15, False)])
def test_k_in_pixels_of_another_size_than_its_own_is_doubted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, factor: float, doubted: bool
) -> None:
    """A node that resizes images changed width and height and forgot K."""
    items = []
    for e in entries():
        if e.topic.endswith("camera_info"):
            k = e.message.k * ([factor] * 6 + [1.0] * 3)
            e = replace(e, message=replace(e.message, k=k))
        items.append(e)
    read_clip(write_mcap(tmp_path / "log.mcap", items))
    assert ("K seems to be in pixels of about" in caplog.text) == doubted


def test_a_region_of_interest_is_no_doubt() -> None:
    assert not read_camera_info(info(roi=roi(0, 0, WIDTH // 2, HEIGHT // 2)), WIDTH // 2, HEIGHT // 2).doubt


@pytest.mark.parametrize(("scale", "doubted"), [(1.0, False), (0.5, True), (1.9, True)])
def test_intrinsics_of_another_image_size_are_doubted(
    caplog: pytest.LogCaptureFixture, scale: float, doubted: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        read_intrinsics([300 * scale, 300 * scale, 199.5 * scale, 119.5 * scale], 400, 240)
    assert ("--intrinsics seems to be in pixels of about" in caplog.text) == doubted


def test_a_principal_point_whose_x_and_y_are_swapped_is_doubted(caplog: pytest.LogCaptureFixture) -> None:
    read_intrinsics([500, 500, 320, 240], 640, 480)
    assert not caplog.text
    read_intrinsics([500, 500, 245, 318], 640, 480)
    assert "--intrinsics has its principal point at (245, 318): are its x and y swapped?" in caplog.text


def test_focal_lengths_that_are_far_apart_are_doubted(caplog: pytest.LogCaptureFixture) -> None:
    read_intrinsics([480, 48, 200, 60], 400, 120)
    assert "--intrinsics has the focal lengths 480 and 48" in caplog.text
