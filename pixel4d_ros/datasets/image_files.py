# SPDX-License-Identifier: Apache-2.0
"""Folders of image files as lazy frames, checked for size and undistorted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.lazy_frames import LazyFrames
from pixel4d_ros.geometry.camera_info import ImageCamera, image_camera
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.logs.encoded import decode
from pixel4d_ros.logs.images import SATURATED, first_decoded


class DatasetError(ValueError):
    """An unreadable data set; the message names the file and what was expected."""


def decode_rgb(data: bytes, source: str, upright: bool = False) -> NDArray[np.uint8]:
    """RGB (H, W, 3) of an encoded image; raises DatasetError naming `source`.

    upright: apply the EXIF orientation, for pictures without a calibration.
    """
    try:
        bgr = decode(data, cv2.IMREAD_COLOR, upright)
    except ValueError as error:
        raise DatasetError(
            f"{source} is no whole image ({len(data)} bytes, {error}): copy or download it again"
        ) from error
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def read_rgb(path: Path, upright: bool = False) -> NDArray[np.uint8]:
    """RGB (H, W, 3) of an image file. Raises DatasetError."""
    try:
        return decode_rgb(path.read_bytes(), str(path), upright)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}; an image was expected there") from error


def read_unchanged(path: Path) -> NDArray[Any]:
    """An image file (H, W) or (H, W, C) with the bits and channels that it stores. Raises DatasetError."""
    try:
        return decode(path.read_bytes(), cv2.IMREAD_UNCHANGED)
    except (ValueError, OSError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error


def depth_doubt(path: Path) -> str:
    """Why an image file may be no picture but depth; else empty. Raises DatasetError."""
    stored = read_unchanged(path)
    if stored.ndim == 3 or stored.dtype == np.uint8:
        return ""
    return f"it has one channel of {8 * stored.dtype.itemsize} bits: is it depth, or a thermal image?"


def read_16_bits(path: Path, size: tuple[int, int], unit: float) -> NDArray[np.float32]:
    """Depth or disparity (H, W) of a 16-bit png of size (width, height), which stores `unit` a metre or pixel.

    0 where unknown or beyond the 16 bits. Raises DatasetError.
    """
    stored = read_unchanged(path)
    if stored.dtype != np.uint16 or stored.shape != size[::-1]:
        raise DatasetError(f"{path} is no 16-bit png of {size[0]}x{size[1]} pixels, the size of its image")
    measured: NDArray[np.float32] = np.where(stored < SATURATED, stored, 0).astype(np.float32) / np.float32(unit)
    return measured


def image_size(paths: Sequence[Path]) -> tuple[int, int]:
    """(width, height) of the first whole one of some image files. Raises DatasetError if there is none."""
    _, image = first_decoded(paths, read_rgb)
    return image.shape[1], image.shape[0]


def natural_key(name: object) -> list[tuple[int, int, str]]:
    """Key of the natural order: frame_2 before frame_10."""
    parts = re.split(r"(\d+)", str(name))
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]


class FrameCameras:
    """The cameras of a clip's frames; all images are undistorted and resampled to the intrinsics of the first.

    Ks (T, 3, 3) pixels, coefficients (T, n) as OpenCV's k1, k2, p1, p2, k3. Raises ValueError for an invalid lens.
    """

    def __init__(self, Ks: FloatArray, coefficients: FloatArray, size: tuple[int, int]) -> None:
        self._Ks, self._coefficients, self._size = Ks, coefficients, size
        self._first = image_camera(Camera(Ks[0], *size), coefficients[0])
        self.K = self._first.camera.K  # of all images that `image` returns
        self._camera = lru_cache(maxsize=1)(self._make)

    def image(self, i: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Frame i (H, W, 3) as seen by the camera K."""
        same = np.array_equal(self._Ks[i], self._Ks[0]) and np.array_equal(self._coefficients[i], self._coefficients[0])
        return (self._first if same else self._camera(i)).image(pixels)

    def _make(self, i: int) -> ImageCamera:
        return image_camera(Camera(self._Ks[i], *self._size), self._coefficients[i].tolist(), self._first.camera)


def lazy_image_files(
    paths: Sequence[Path], size: tuple[int, int], why: str, cameras: FrameCameras | None = None
) -> LazyFrames[np.uint8]:
    """Image files as frames of size (width, height), undistorted by `cameras`; `why`: the source of that size."""

    def load(i: int) -> NDArray[np.uint8]:
        image = read_rgb(paths[i])
        found = (image.shape[1], image.shape[0])
        if found != size:
            raise DatasetError(f"{paths[i]} has {found[0]}x{found[1]} pixels, but {why} says {size[0]}x{size[1]}")
        return image if cameras is None else cameras.image(i, image)

    return LazyFrames(load, len(paths), (size[1], size[0], 3), np.uint8)
