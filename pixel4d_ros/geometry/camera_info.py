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

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera, check_pinhole
from pixel4d_ros.geometry.rectification import (
    COEFFICIENTS,
    FISHEYE,
    Lens,
    Rectifier,
    Undistortion,
    is_distorted,
    undistortion,
)

logger = logging.getLogger(__name__)

# Names that drivers use for a camera without distortion. Other unknown models are rejected: zero coefficients need not
# mean "no distortion" (they do not for a fisheye lens).
UNDISTORTED_MODELS = ("", "none", "pinhole", "perspective", "plumb_bob", "rational_polynomial", "brown_conrady")
ASPECT_TOLERANCE = 0.01  # between the horizontal and the vertical scale of a resized image


# Logarithms: of the factors by which K is off in x and y, as far as they are one, and at least.
SAME_FACTOR, OTHER_FACTOR = 0.15, 0.35
SWAPPED = 0.07  # of the image's sides: a principal point that much nearer to the middle with x and y swapped
STRETCHED = 2.5  # of fx to fy: images that were resized to another format have up to 2
OUTSIDE = 0.08  # of the image's side: how far a rectified image may reach beyond one side of the raw one only


_warned: set[str] = set()  # doubts, see warn_of_size


class AlreadyRectifiedError(ValueError):
    """K and D cannot be of raw images of this size, but P can be of rectified ones."""


@dataclass(frozen=True)
class ImageCamera:
    """The camera of an image: `camera` applies to the results of `image` and `depth`."""

    camera: Camera
    undistortion: Undistortion | None = None  # None: the image is undistorted already
    rectified: bool = False  # P of the CameraInfo was used
    doubt: str = ""  # why K may be of another image size

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
    full = _full_camera(info, width, height, rectified)
    camera, doubt = _window(full, info, width, height), size_doubt(full, "CameraInfo's K")
    if rectified:
        return ImageCamera(camera, rectified=True, doubt=doubt)
    model = str(info.distortion_model).strip().lower()
    coefficients = tuple(float(d) for d in info.d)
    if is_distorted(coefficients) and _seems_rectified(info, model, width, height):
        raise AlreadyRectifiedError(
            f"CameraInfo's K and D cannot be of raw {width}x{height} images, its P can: the images seem to be rectified"
            " already (as kitti2bag writes them); set rectify to false, so that P is used"
        )
    if model in FISHEYE:  # distorted even with zero coefficients: r = f theta
        coefficients = coefficients or (0.0,) * 4
    elif not is_distorted(coefficients) and model in UNDISTORTED_MODELS:
        return ImageCamera(camera, doubt=doubt)
    made = (rectifier or Rectifier()).undistortion(Lens(camera, model, coefficients))
    return ImageCamera(made.camera, made, doubt=doubt)


def frame_mismatch(image_frame: str, info_frame: str) -> str:
    """The warning for an image and a CameraInfo in different frames; "" where they agree, or one has none."""
    image_frame, info_frame = str(image_frame).strip("/"), str(info_frame).strip("/")
    if not image_frame or not info_frame or image_frame == info_frame:
        return ""
    return f"the images are in frame {image_frame!r}, its CameraInfo in {info_frame!r}"


def size_doubt(camera: Camera, name: str) -> str:
    """Says why K may be in other pixels; else empty.

    Its focal lengths are far from equal, or its principal point is off the middle by one factor in x and y, or swapped.
    """
    fx, fy = camera.K[0, 0], camera.K[1, 1]
    if not 1 / STRETCHED <= fx / fy <= STRETCHED:
        return f"{name} has the focal lengths {fx:.0f} and {fy:.0f}: are pixels so far from square?"
    cx, cy = camera.K[:2, 2]
    place = np.array([cx, cy]) / (camera.width - 1, camera.height - 1)
    swapped = np.array([cy, cx]) / (camera.width - 1, camera.height - 1)
    if np.abs(place - 0.5).min() > SWAPPED > np.abs(swapped - 0.5).max():
        return f"{name} has its principal point at ({cx:.0f}, {cy:.0f}): are its x and y swapped?"
    x, y = 2 * place
    if abs(np.log(x / y)) > SAME_FACTOR or abs(np.log(x * y)) / 2 < OTHER_FACTOR:
        return ""
    width, height = round(camera.width * x), round(camera.height * y)
    return (
        f"{name} seems to be in pixels of about {width}x{height} images, not of {camera.width}x{camera.height}: its"
        f" principal point is ({cx:.0f}, {cy:.0f}); set width and height to those of the calibration, or scale K"
    )


def warn_of_size(camera: Camera, name: str) -> None:
    """Log size_doubt as a warning, each doubt once: many images have one K."""
    doubt = size_doubt(camera, name)
    if doubt and doubt.removeprefix(name) not in _warned:
        _warned.add(doubt.removeprefix(name))
        logger.warning(doubt)


def _seems_rectified(info: Any, model: str, width: int, height: int) -> bool:
    """Whether what P sees reaches far beyond one side of what K and D see, and not beyond the other.

    Rectified images lie within the raw ones or around them. kitti2bag beside rectified images writes K and D of the
    larger raw ones, and P of the rectified ones.
    """
    P, R = np.reshape(info.p, (3, 4))[:, :3], np.reshape(info.r, (3, 3))
    if model in FISHEYE or len(info.d) not in COEFFICIENTS.get(model, ()):
        return False
    try:
        check_pinhole(P, width, height, "P")
        check_pinhole(np.reshape(info.k, (3, 3)), width, height, "K")
    except ValueError:
        return False
    if not (np.isfinite(R).all() and np.allclose(R @ R.T, np.eye(3), atol=1e-3)):
        R = np.eye(3)
    x, y = (width - 1) / 2, (height - 1) / 2
    edges = np.array([(0, y, 1), (2 * x, y, 1), (x, 0, 1), (x, 2 * y, 1)], np.float64)  # left, right, top, bottom
    rays = edges @ np.linalg.inv(P).T @ R
    if not (rays[:, 2] > 0).all():
        return False
    K, D = np.reshape(info.k, (3, 3)), np.asarray(info.d, np.float64)
    seen = cv2.projectPoints(rays / rays[:, 2:], np.zeros(3), np.zeros(3), K, D)[0][:, 0]
    beyond = np.array(
        [-seen[0, 0] / width, seen[1, 0] / width - 1, -seen[2, 1] / height, seen[3, 1] / height - 1], np.float64
    ).reshape(2, 2)
    return bool(((beyond.max(1) > OUTSIDE) & (beyond.min(1) < OUTSIDE / 4)).any())


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
        check_pinhole(K, width, height, f"CameraInfo's {name}")
        return Camera(K, width, height)
    check_pinhole(K, info.width, info.height, f"CameraInfo's {name}")
    return Camera(K, info.width, info.height)


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
