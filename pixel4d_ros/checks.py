# SPDX-License-Identifier: Apache-2.0
"""Checks of the forecaster's input. Each error names the cause and the cure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pixel4d_ros.camera import Camera, check_pinhole, check_poses
from pixel4d_ros.errors import DeviceError
from pixel4d_ros.geometry.camera_info import warn_of_size
from pixel4d_ros.geometry.rotations import FloatArray

MIN_SIDE = 32  # pixels


def check_device(device: str) -> torch.device:
    """Return the device named auto, cpu, cuda or cuda:N, or raise DeviceError if there is no such device."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:N") from error
    if chosen.type not in ("cpu", "cuda"):
        raise DeviceError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device {device} asked for, but torch sees no CUDA GPU: use device auto or cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device {device} asked for, but torch sees only {torch.cuda.device_count()} of them")
    return chosen


@contextmanager
def memory_errors(device: torch.device) -> Iterator[None]:
    """Turn torch's out-of-memory error into a DeviceError."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise DeviceError(
            f"not enough memory on {device}: use smaller images, fewer steps or samples, or device cpu"
        ) from error


def check_image(image: ArrayLike) -> NDArray[np.uint8]:
    """Return an image as contiguous (H, W, 3) uint8, or raise ValueError."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"the image must be (H, W, 3) uint8 RGB, got {pixels.shape} {pixels.dtype}")
    if min(pixels.shape[:2]) < MIN_SIDE:
        raise ValueError(
            f"the image must be at least {MIN_SIDE} pixels on each side, got {pixels.shape[1]}x{pixels.shape[0]}"
        )
    return np.require(pixels, requirements=["C", "W"])  # torch needs writable memory


def check_camera(K: ArrayLike, width: int, height: int) -> Camera:
    """Return the camera of an image, or raise ValueError; a K of another image size is named in a warning."""
    camera = Camera(np.asarray(K, np.float64), width, height)
    check_pinhole(camera.K, width, height, "K")
    warn_of_size(camera, "K")
    return camera


def check_depth(depth: ArrayLike) -> NDArray[np.float32]:
    """Return a depth map as contiguous (h, w) float32 metres, or raise ValueError."""
    metres = np.asarray(depth)
    if metres.ndim != 2 or metres.size == 0 or not np.issubdtype(metres.dtype, np.floating):
        raise ValueError(f"depth must be (h, w) floating point metres, got {metres.shape} {metres.dtype}")
    return np.require(metres, np.float32, ["C", "W"])


def check_sampling(num_samples: int, speed: float | None) -> None:
    """Raise ValueError for a number of sampled futures below 1, or a speed in m/s that is not finite."""
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if speed is not None and not np.isfinite(speed):
        raise ValueError(f"the speed must be a number of metres per second, got {speed}")


def check_views(T_source_camera: ArrayLike, times: ArrayLike) -> tuple[FloatArray, FloatArray, tuple[int, ...]]:
    """Return poses (V, 4, 4), times (T,) and the leading shape (T,) or (P, T) of poses (..., 4, 4), V = T or P T.

    Raises ValueError where the times are not finite, or a path has not one pose per time.
    """
    poses, instants = np.asarray(T_source_camera, np.float64), np.atleast_1d(np.asarray(times, np.float64))
    if not np.isfinite(instants).all():
        raise ValueError(f"the times to render must be finite, got {instants.tolist()}")
    leading = poses.shape[:-2]
    if poses.ndim == 3 and len(poses) != len(instants):
        raise ValueError(f"rendering needs one pose per time, got {len(poses)} poses and {len(instants)} times")
    if poses.ndim == 4:
        if poses.shape[1] != len(instants):
            raise ValueError(f"each path needs one pose per time, got {poses.shape[1]} and {len(instants)} times")
        poses = poses.reshape(-1, *poses.shape[2:])
    poses = check_poses(poses)
    if len(poses) == 0:
        raise ValueError("rendering needs at least one camera pose")
    return poses, instants, leading
