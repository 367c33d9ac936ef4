# SPDX-License-Identifier: Apache-2.0
"""Undistortion of images to a pinhole camera with OpenCV; its maps are cached per calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixel4d_ros.camera import Camera

# Names of sensor_msgs/distortion_models.hpp with OpenCV's counts of coefficients; some drivers call equidistant
# "fisheye".
COEFFICIENTS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,), "fisheye": (4,)}
FISHEYE = ("equidistant", "fisheye")
LARGEST_ZOOM = 8  # of the undistorted image: lenses have 0.3 (fisheye) to 1.3
FOLDED = 0.02  # share of the undistorted image
CACHED = 4  # calibrations, for cameras that change between a few resolutions


@dataclass(frozen=True)
class Lens:
    """A distorted camera."""

    camera: Camera
    model: str  # one of COEFFICIENTS
    coefficients: tuple[float, ...]


@dataclass(frozen=True)
class Undistortion:
    """Maps from a lens's images to those of `camera`, a pinhole camera of the same size without black corners."""

    camera: Camera
    maps: tuple[NDArray[Any], NDArray[Any]]

    def image(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The undistorted image (H, W, 3)."""
        return np.asarray(cv2.remap(pixels, *self.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))

    def depth(self, metres: NDArray[np.float32]) -> NDArray[np.float32]:
        """The undistorted depth (H, W); nearest pixel, because depths must not be averaged."""
        return np.asarray(cv2.remap(metres, *self.maps, cv2.INTER_NEAREST, borderValue=0))


class Rectifier:
    """Cache of undistortions by lens: computing one takes some milliseconds."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Undistortion] = {}

    def undistortion(self, lens: Lens) -> Undistortion:
        """The undistortion of a lens. Raises ValueError for an unsupported model or coefficients."""
        camera = lens.camera
        key = (lens.model, lens.coefficients, camera.K.tobytes(), camera.width, camera.height)
        if key not in self._known:
            if len(self._known) >= CACHED:
                self._known.pop(next(iter(self._known)))
            self._known[key] = undistortion(lens)
        return self._known[key]


def _folds(maps: tuple[NDArray[Any], NDArray[Any]]) -> bool:
    """Whether maps to the pixels x, y of the distorted image show parts of it mirrored: no lens does that."""
    (x_down, x_right), (y_down, y_right) = (np.gradient(pixels.astype(np.float64)) for pixels in maps)
    return bool((x_right * y_down - x_down * y_right <= 0).mean() > FOLDED)


def is_distorted(coefficients: ArrayLike) -> bool:
    """Whether any coefficient is not zero."""
    return bool(np.any(np.asarray(coefficients, np.float64)))


def undistortion(lens: Lens, target: Camera | None = None) -> Undistortion:
    """The undistortion of a lens, to the camera `target` (None: the one without black corners). Raises ValueError."""
    if lens.model not in COEFFICIENTS:
        raise ValueError(
            f"distortion model {lens.model!r} is not supported: publish {', '.join(COEFFICIENTS)}, or images rectified"
            " by image_proc with the parameter rectify false"
        )
    allowed = COEFFICIENTS[lens.model]
    if len(lens.coefficients) not in allowed:
        counts = " or ".join(map(str, allowed))
        raise ValueError(f"{lens.model} needs {counts} distortion coefficients, got {len(lens.coefficients)}")
    K, D = lens.camera.K, np.asarray(lens.coefficients)
    size = (lens.camera.width, lens.camera.height)
    if target is not None:
        K_new = target.K
    elif lens.model in FISHEYE:
        K_new = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(K, D, size, np.eye(3), balance=0)
    else:
        K_new, _ = cv2.getOptimalNewCameraMatrix(K, D, size, 0, size)
    if lens.model in FISHEYE:
        maps = cv2.fisheye.initUndistortRectifyMap(K, D, np.eye(3), K_new, size, cv2.CV_32FC1)
    else:
        maps = cv2.initUndistortRectifyMap(K, D, np.eye(3), K_new, size, cv2.CV_32FC1)
    zooms = np.diag(K_new)[:2] / np.diag(K)[:2]
    is_likely = np.isfinite(K_new).all() and ((zooms > 1 / LARGEST_ZOOM) & (zooms < LARGEST_ZOOM)).all()
    if not is_likely or _folds(maps):
        raise ValueError(
            f"the {lens.model} coefficients {[round(d, 6) for d in lens.coefficients]} cannot be undone, as they fold"
            " the image or leave next to nothing of it: are they in the order of the distortion model, and of this"
            " camera and K? Calibrate again"
        )
    # The border may lie up to a pixel outside the image; remap replicates the nearest pixel there.
    return Undistortion(Camera(K_new, *size), (maps[0], maps[1]))
