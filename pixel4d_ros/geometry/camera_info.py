# SPDX-License-Identifier: Apache-2.0
"""sensor_msgs/CameraInfo to a pinhole camera and an undistortion, for the node and all readers of logs.

Only fields of the message are read: rclpy's messages, those of rosbags and plain objects work. Meaning of the fields:
sensor_msgs/CameraInfo.msg and REP 104.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rectification import FISHEYE, Lens, Rectifier, Undistortion, is_distorted, undistortion
from pixel4d_ros.geometry.rotations import FloatArray

logger = logging.getLogger(__name__)

# Names that drivers use for a camera without distortion. Other unknown models are rejected: zero coefficients need not
# mean "no distortion" (they do not for a fisheye lens).
UNDISTORTED_MODELS = ("", "none", "pinhole", "perspective", "plumb_bob", "rational_polynomial", "brown_conrady")
SMALLEST_FOCAL_LENGTH = 0.1  # of the longer side, i.e. 157 degrees: smaller values are placeholders
LARGEST_FOCAL_LENGTH = 100.0  # of the longer side, i.e. 0.6 degrees
ASPECT_TOLERANCE = 0.01  # between the horizontal and the vertical scale of a resized image


@dataclass(frozen=True)
class ImageCamera:
    """The camera of an image: `camera` applies to the results of `image` and `depth`."""

    camera: Camera
    undistortion: Undistortion | None = None  # None: the image is undistorted already

    def image(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image (H, W, 3) without distortion."""
        return pixels if self.undistortion is None else self.undistortion.image(pixels)

    def depth(self, metres: NDArray[np.float32]) -> NDArray[np.float32]:
        """Depth (H, W), registered to the image as it was recorded, without distortion."""
        return metres if self.undistortion is None else self.undistortion.depth(metres)


def image_camera(camera: Camera, coefficients: Sequence[float], target: Camera | None = None) -> ImageCamera:
    """A data set's camera with OpenCV's coefficients k1, k2, p1, p2, k3. Raises ValueError.

    target: the pinhole camera of the results (None: that of the undistortion without black corners).
    """
    if not is_distorted(coefficients) and (target is None or np.array_equal(camera.K, target.K)):
        return ImageCamera(camera)
    made = undistortion(Lens(camera, "plumb_bob", tuple(float(c) for c in coefficients)), target)
    return ImageCamera(made.camera, made)


def is_rectified_topic(image_topic: str) -> bool:
    """Whether the name of an image topic means rectified images, as image_proc's image_rect and image_rect_color."""
    return any("rect" in word.split("_") or "rectified" in word.split("_") for word in image_topic.lower().split("/"))


def read_camera_info(
    info: Any, width: int, height: int, rectified: bool = False, rectifier: Rectifier | None = None
) -> ImageCamera:
    """The camera of an image of width x height pixels, from its CameraInfo.

    K (P for rectified images) refers to the full sensor; region of interest, binning, and resizing at the same aspect
    ratio are considered. rectified: the images have no distortion, D is ignored. rectifier: caches undistortion maps.
    Raises ValueError with cause and cure.
    """
    _check_numbers(info)
    camera = _window(_full_camera(info, width, height, rectified), info, width, height)
    if rectified:
        return ImageCamera(camera)
    model = str(info.distortion_model).strip().lower()
    coefficients = tuple(float(d) for d in info.d)
    if model in FISHEYE:  # distorted even with zero coefficients: r = f theta
        coefficients = coefficients or (0.0,) * 4
    elif not is_distorted(coefficients) and model in UNDISTORTED_MODELS:
        return ImageCamera(camera)
    made = (rectifier or Rectifier()).undistortion(Lens(camera, model, coefficients))
    return ImageCamera(made.camera, made)


def _check_numbers(info: Any) -> None:
    if not all(np.isfinite(np.asarray(values, np.float64)).all() for values in (info.k, info.d, info.p)):
        raise ValueError("CameraInfo contains NaN or Inf in K, D or P: check the camera's calibration")


def _full_camera(info: Any, width: int, height: int, rectified: bool) -> Camera:
    """The camera of the whole sensor at full resolution."""
    K, P = np.reshape(info.k, (3, 3)), np.reshape(info.p, (3, 4))
    name = "K"
    if rectified and P[0, 0] > 0 and P[1, 1] > 0:
        name, K = "P", P[:, :3]
    if not (K[0, 0] > 0 and K[1, 1] > 0):
        raise ValueError(
            f"CameraInfo has focal lengths {K[0, 0]:g}, {K[1, 1]:g}: the camera is not calibrated; calibrate it, or set"
            " its CameraInfo by hand"
        )
    if not (info.width and info.height):
        # The driver omits the size: accept K as that of this image if its principal point is near the middle.
        if not (0.3 < K[0, 2] / width < 0.7 and 0.3 < K[1, 2] / height < 0.7):
            raise ValueError(
                f"CameraInfo has no size (0x0), and the principal point of its {name} is not near the middle of the"
                f" {width}x{height} image: set width and height to the size at which the camera was calibrated"
            )
        check_pinhole(K, width, height, name)
        return Camera(K, width, height)
    check_pinhole(K, info.width, info.height, name)
    return Camera(K, info.width, info.height)


def check_pinhole(K: FloatArray, width: int, height: int, name: str = "K") -> None:
    """Raise ValueError if K (3, 3) cannot be a camera of width x height pixels: a placeholder, or other units."""
    side = max(width, height)
    cure = "calibrate the camera, and publish the focal lengths and the principal point in pixels"
    if np.abs(K[2] - (0, 0, 1)).max() > 1e-6 or abs(K[1, 0]) > 1e-6:
        raise ValueError(
            f"CameraInfo's {name} is no camera matrix fx 0 cx, 0 fy cy, 0 0 1 (row by row): it is"
            f" {', '.join(f'{value:g}' for value in K.ravel())}; {cure}"
        )
    for focal in (K[0, 0], K[1, 1]):
        if not SMALLEST_FOCAL_LENGTH * side <= focal <= LARGEST_FOCAL_LENGTH * side:
            raise ValueError(
                f"CameraInfo's {name} has a focal length of {focal:g} pixels for {width}x{height} images, which is no"
                f" real camera: {cure}"
            )
    cx, cy = K[0, 2], K[1, 2]
    if not (0 < cx < width - 1 and 0 < cy < height - 1):
        raise ValueError(
            f"CameraInfo's {name} has its principal point at ({cx:g}, {cy:g}), outside the {width}x{height} image:"
            f" {cure}"
        )


def _window(full: Camera, info: Any, width: int, height: int) -> Camera:
    """The camera of an image of width x height pixels: part of the sensor, binned or resized."""
    camera, roi = full, info.roi
    binning = max(1, info.binning_x), max(1, info.binning_y)
    binned = full.width // binning[0], full.height // binning[1]
    if roi.width and roi.height and (roi.width, roi.height) != (full.width, full.height) and binned != (width, height):
        if roi.x_offset + roi.width > full.width or roi.y_offset + roi.height > full.height:
            raise ValueError(
                f"CameraInfo's region of interest ({roi.width}x{roi.height} at {roi.x_offset}, {roi.y_offset}) is not"
                f" within its {full.width}x{full.height} pixels: set width and height to those of the whole sensor"
            )
        camera = full.shifted(roi.x_offset, roi.y_offset, roi.width, roi.height)
    if binning[0] > camera.width or binning[1] > camera.height:
        raise ValueError(
            f"CameraInfo has a binning of {binning[0]}x{binning[1]} on {camera.width}x{camera.height} pixels"
        )
    camera = camera.binned(*binning)
    if (camera.width, camera.height) == (width, height):
        return camera
    sx, sy = width / camera.width, height / camera.height
    pixel = max(1 / camera.width, 1 / camera.height)
    if abs(sx - sy) > max(ASPECT_TOLERANCE * max(sx, sy), pixel):
        calibrated = f"{camera.width}x{camera.height}"
        raise ValueError(
            f"image is {width}x{height} but CameraInfo is for {calibrated}: remap camera_info to this camera's"
        )
    logger.debug("CameraInfo of %dx%d is scaled to images of %dx%d", camera.width, camera.height, width, height)
    return camera.resized(width, height)
