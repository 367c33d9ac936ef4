# SPDX-License-Identifier: Apache-2.0
"""The benchmark's image and camera path. Times depend on the content, so it is no flat or random picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera, CameraPath, intrinsics_from_fov
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.two_view.reference_view import AGO, ReferenceView

SEED = 900_002  # a held-out street with two near cars
SPEED = 8.0  # m/s ahead
STEP = 0.1  # seconds between forecast frames
FASTEST, SLOWEST, SHARPEST = 11.0, 5.0, 0.3  # candidates: m/s, m/s, rad/s


@dataclass(frozen=True)
class SourceImage:
    """One image of the size measured, and its camera."""

    pixels: NDArray[np.uint8]  # (H, W, 3) RGB
    camera: Camera
    origin: str  # for people
    reference: ReferenceView | None = None  # what the camera saw before, for motion from flow

    def resized(self, size: tuple[int, int]) -> SourceImage:
        """The image resampled to size (width, height)."""
        if size == (self.camera.width, self.camera.height):
            return self
        way = cv2.INTER_AREA if size[0] < self.camera.width else cv2.INTER_CUBIC
        pixels = np.asarray(cv2.resize(self.pixels, size, interpolation=way), np.uint8)
        return SourceImage(pixels, self.camera.resized(*size), f"{self.origin}, resized")


def source_image(
    given: Path | None, size: tuple[int, int], device: torch.device, with_reference: bool = False
) -> SourceImage:
    """An image file, the first image of a log, or (None) one of the synthetic street, in size (width, height).

    Raises ValueError when the file is none of these, or an earlier view is asked for that only the street has.
    """
    if given is None:
        return street(size, device, with_reference)
    if with_reference:
        raise ValueError("--motion-from-flow needs an image with an earlier one: leave --image away")
    from pixel4d_ros.datasets.open import LOG_SUFFIXES

    if given.is_dir() or given.suffix in LOG_SUFFIXES:
        return first_of_log(given).resized(size)
    return picture(given).resized(size)


def street(size: tuple[int, int], device: torch.device, with_reference: bool = False) -> SourceImage:
    """A held-out synthetic street with KITTI's camera; its reference is the street AGO seconds before."""
    from pixel4d_ros.synthetic import street_clip

    clip, reference = street_clip(SEED, 2 if with_reference else 1, step=AGO, size=size, device=device), None
    if with_reference:
        T = rigid_inverse(clip.poses[1]) @ clip.poses[0]
        reference = ReferenceView(np.asarray(clip.images[0]), clip.K, T, -AGO)
    pixels = np.asarray(clip.images[-1])
    return SourceImage(pixels, Camera(clip.K, *size), f"synthetic street of seed {SEED}", reference)


def first_of_log(path: Path) -> SourceImage:
    """The first image of a driving log or data set. Raises ValueError."""
    from pixel4d_ros.datasets.open import open_clips

    clip = next(iter(open_clips(path, stop=1)))
    pixels = np.asarray(clip.images[0])
    return SourceImage(pixels, Camera(clip.K, pixels.shape[1], pixels.shape[0]), path.name)


def picture(path: Path) -> SourceImage:
    """An image file, seen as by a camera of the field of view that `pixel4d forecast` takes. Raises ValueError."""
    from pixel4d_ros.datasets.image_files import read_rgb

    pixels = read_rgb(path)
    height, width = pixels.shape[:2]
    return SourceImage(pixels, Camera(intrinsics_from_fov(width, height), width, height), path.name)


def forecast_times(frames: int) -> FloatArray:
    """(T,) seconds after the image."""
    return np.asarray(np.arange(frames) * STEP, np.float64)


def straight_path(times: FloatArray) -> CameraPath:
    """Straight ahead."""
    return CameraPath.constant_twist([0, 0, SPEED], [0, 0, 0], max(float(times[-1]), STEP))


def candidate_poses(count: int, times: FloatArray) -> FloatArray:
    """T_source_camera (P, T, 4, 4) of P paths that differ in turn and speed; a single one goes straight."""
    if count == 1:
        return straight_path(times).at(times)[None]
    turns = np.linspace(-SHARPEST, SHARPEST, count)
    speeds = np.resize(np.linspace(SLOWEST, FASTEST, 4), count)
    horizon = max(float(times[-1]), STEP)
    paths = [CameraPath.constant_twist([0, 0, v], [0, w, 0], horizon) for v, w in zip(speeds, turns)]
    return np.stack([path.at(times) for path in paths])
