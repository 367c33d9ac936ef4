"""Folders of image files as lazy frames, checked for size and freed of lens distortion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.lazy_frames import LazyFrames
from pixel4d_ros.geometry.rotations import FloatArray


class DatasetError(ValueError):
    """A data set that cannot be read; the message names the file and what was expected."""


def decode_rgb(data: bytes, source: str) -> NDArray[np.uint8]:
    """RGB (H, W, 3) of an encoded image; `source` names it in the DatasetError that a damaged one raises."""
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        bgr = None
    if bgr is None:
        raise DatasetError(f"{source} is no whole image ({len(data)} bytes): copy or download it again")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """RGB (H, W, 3) of an image file. Raises DatasetError."""
    try:
        return decode_rgb(path.read_bytes(), str(path))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}; an image was expected there") from error


@dataclass(frozen=True)
class Lens:
    """An OpenCV lens (k1, k2, p1, p2, k3) and the pinhole camera K that its undistorted images have.

    K differs from the lens's own: it shows the largest part of the picture that has no empty border.
    """

    distorted_K: FloatArray
    coefficients: FloatArray
    K: FloatArray
    maps: tuple[NDArray[np.float32], NDArray[np.float32]] | None

    @staticmethod
    def of(K: FloatArray, coefficients: Sequence[float], width: int, height: int) -> Lens:
        """The lens of a camera; without distortion images stay as they are."""
        values = np.asarray(coefficients, np.float64)
        if not values.any():
            return Lens(K, values, K, None)
        pinhole, _ = cv2.getOptimalNewCameraMatrix(K, values, (width, height), 0)
        pinhole = np.asarray(pinhole, np.float64)
        x, y = cv2.initUndistortRectifyMap(K, values, None, pinhole, (width, height), cv2.CV_32FC1)
        return Lens(K, values, pinhole, (np.asarray(x), np.asarray(y)))

    def undistorted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image (H, W, 3) as the pinhole camera sees it."""
        if self.maps is None:
            return image
        return np.asarray(cv2.remap(image, *self.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image file. Raises DatasetError."""
    height, width = read_rgb(path).shape[:2]
    return width, height


def lazy_image_files(
    paths: Sequence[Path], size: tuple[int, int], why: str, lens: Lens | None = None
) -> LazyFrames[np.uint8]:
    """Image files as frames of size (width, height); `why` says in errors where that size comes from."""

    def load(i: int) -> NDArray[np.uint8]:
        image = read_rgb(paths[i])
        found = (image.shape[1], image.shape[0])
        if found != size:
            raise DatasetError(f"{paths[i]} has {found[0]}x{found[1]} pixels, but {why} says {size[0]}x{size[1]}")
        return image if lens is None else lens.undistorted(image)

    return LazyFrames(load, len(paths), (size[1], size[0], 3), np.uint8)
