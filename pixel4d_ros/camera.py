# SPDX-License-Identifier: Apache-2.0
"""Pinhole cameras and camera paths in time (numpy, float64)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pixel4d_ros.geometry.interpolation import poses_along
from pixel4d_ros.geometry.rotations import FloatArray, rotation_matrix

SMALLEST_FOCAL_LENGTH = 0.1  # of the longer side, i.e. 157 degrees: less is no pinhole camera but a placeholder
LARGEST_SKEW = 0.02  # of the focal length
LARGEST_FOCAL_LENGTH = 100.0  # of the longer side, i.e. 0.6 degrees
DEFAULT_FOV = 80.0  # degrees, horizontal: of images without intrinsics


def check_intrinsics(K: ArrayLike) -> FloatArray:
    """Return K as (3, 3) float64 pixels, or raise ValueError with the cause and the cure."""
    K = np.asarray(K, np.float64)
    if K.shape != (3, 3):
        raise ValueError(
            f"intrinsics K must be 3x3, got shape {K.shape}: pass the matrix, e.g. np.reshape(info.k, (3, 3))"
        )
    if not np.isfinite(K).all():
        raise ValueError("intrinsics K contain NaN or Inf: check the camera's calibration")
    if K[0, 0] <= 0 or K[1, 1] <= 0:
        raise ValueError(
            f"focal lengths must be positive, got fx={K[0, 0]:g}, fy={K[1, 1]:g}: the camera is not calibrated"
        )
    return K


def check_pinhole(K: FloatArray, width: int, height: int, what: str) -> None:
    """Raise ValueError where K (3, 3) is no camera of width x height pixels but a placeholder or in other units.

    what: names the matrix, as in "CameraInfo's K".
    """
    side = max(width, height)
    cure = "calibrate the camera, and give the focal lengths and the principal point in pixels"
    if np.abs(K[2] - (0, 0, 1)).max() > 1e-6 or abs(K[1, 0]) > 1e-6:
        raise ValueError(
            f"{what} is no camera matrix fx 0 cx, 0 fy cy, 0 0 1 (row by row): it is"
            f" {', '.join(f'{value:g}' for value in K.ravel())}; {cure}"
        )
    for focal in (K[0, 0], K[1, 1]):
        if not SMALLEST_FOCAL_LENGTH * side <= focal <= LARGEST_FOCAL_LENGTH * side:
            raise ValueError(
                f"{what} has a focal length of {focal:g} pixels for {width}x{height} images, which is no real camera:"
                f" {cure}"
            )
    if abs(K[0, 1]) > LARGEST_SKEW * K[0, 0]:
        raise ValueError(f"{what} has a skew of {K[0, 1]:g} pixels (its second value): cameras have none; {cure}")
    cx, cy = K[0, 2], K[1, 2]
    if not (0 < cx < width - 1 and 0 < cy < height - 1):
        raise ValueError(
            f"{what} has its principal point at ({cx:g}, {cy:g}), outside the {width}x{height} image: {cure}"
        )


def check_poses(poses: ArrayLike) -> FloatArray:
    """Return rigid transforms (T, 4, 4) as float64, or raise ValueError with the cause and the cure."""
    poses = np.asarray(poses, np.float64)
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise ValueError(f"camera poses must have shape (T, 4, 4), got {poses.shape}")
    if not np.isfinite(poses).all():
        raise ValueError("camera poses contain NaN or Inf: check the trajectory and the odometry")
    R = poses[:, :3, :3]
    if len(poses) and np.abs(poses[:, 3] - (0, 0, 0, 1)).max() > 1e-6:
        raise ValueError("camera poses must end in the row 0 0 0 1: pass 4x4 rigid transforms, not projections")
    if len(poses) and np.abs(R @ np.swapaxes(R, 1, 2) - np.eye(3)).max() > 1e-3:
        raise ValueError(
            "camera poses are not rigid: their rotation part must be orthonormal (normalise the quaternions)"
        )
    if (np.linalg.det(R) < 0).any():
        raise ValueError("camera poses are not rigid: they mirror (the axes of their frame must be right-handed)")
    return poses


def unproject(pixels: ArrayLike, depth: ArrayLike, K: FloatArray) -> FloatArray:
    """Points (..., 3) in the camera's frame of pixels (..., 2), x and y, at depths (...) along its axis."""
    pixels = np.asarray(pixels, np.float64)
    homogeneous = np.concatenate((pixels, np.ones_like(pixels[..., :1])), -1)
    return np.asarray(homogeneous @ np.linalg.inv(K).T * np.asarray(depth, np.float64)[..., None])


def _pixel_scale(sx: float, sy: float) -> FloatArray:
    """(3, 3): pixel coordinates after scaling by sx, sy; pixel centres are integers, the corner is at (-0.5, -0.5)."""
    return np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]])


SPEED_INTERVAL = 0.1  # seconds over which a path's speed is measured


def intrinsics_from_fov(width: int, height: int, degrees: float = DEFAULT_FOV) -> FloatArray:
    """K (3, 3) of an image of width x height pixels with that horizontal field of view and square pixels."""
    focal = 0.5 * width / math.tan(math.radians(degrees) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: K (3, 3) in pixels, pixel centres at integers; image size in pixels."""

    K: FloatArray
    width: int
    height: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "K", check_intrinsics(self.K))

    def resized(self, width: int, height: int) -> Camera:
        """The same camera with its image resampled to width x height pixels."""
        return Camera(_pixel_scale(width / self.width, height / self.height) @ self.K, width, height)

    def binned(self, x: int, y: int) -> Camera:
        """The same camera with x times y pixels in one; a remainder at the right and the bottom is cut off."""
        return Camera(_pixel_scale(1 / x, 1 / y) @ self.K, self.width // x, self.height // y)

    def shifted(self, left: int, top: int, width: int, height: int) -> Camera:
        """The camera of the window whose upper left pixel is (left, top); negative offsets pad."""
        K = self.K.copy()
        K[0, 2] -= left
        K[1, 2] -= top
        return Camera(K, width, height)


@dataclass(frozen=True)
class CameraPath:
    """Camera poses over time.

    Times (T,) seconds after the source image, increasing; poses (T, 4, 4) T_source_camera.
    """

    times: FloatArray
    poses: FloatArray

    def __post_init__(self) -> None:
        times = np.asarray(self.times, np.float64)
        poses = check_poses(self.poses)
        if times.ndim != 1 or len(times) != len(poses):
            raise ValueError(f"a camera path needs one time per pose, got {times.shape} times and {len(poses)} poses")
        if len(times) == 0:
            raise ValueError("the camera path is empty: it needs at least one pose")
        if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise ValueError("the times of a camera path must be finite and strictly increasing")
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "poses", poses)

    @staticmethod
    def still() -> CameraPath:
        """A camera that stays where the source image was taken."""
        return CameraPath(np.zeros(1), np.eye(4)[None])

    @staticmethod
    def constant_twist(linear: ArrayLike, angular: ArrayLike, horizon: float, step: float = 0.1) -> CameraPath:
        """Constant body twist in the camera's frame: linear (3,) m/s and angular (3,) rad/s, for horizon seconds.

        Each step moves along the chord of the arc at its mid orientation, exact to third order in angular * step.
        """
        linear, angular = np.asarray(linear, np.float64), np.asarray(angular, np.float64)
        times = np.linspace(0, horizon, max(2, int(np.ceil(horizon / step)) + 1))
        dt = times[1]
        increment = np.eye(4)
        increment[:3, :3] = rotation_matrix(angular * dt)
        increment[:3, 3] = rotation_matrix(angular * dt / 2) @ linear * dt
        poses = [np.eye(4)]
        for _ in times[1:]:
            poses.append(poses[-1] @ increment)
        return CameraPath(times, np.stack(poses))

    def at(self, times: ArrayLike) -> FloatArray:
        """Poses (n, 4, 4) at times (n,): slerp and linear translation between poses, constant twist beyond the ends.

        A path of one pose stands still.
        """
        times = np.atleast_1d(np.asarray(times, np.float64))
        if not np.isfinite(times).all():
            raise ValueError("the times at which to place the camera must be finite")
        (poses,) = poses_along([(self.times, self.poses)], times[None])
        return np.asarray(poses)

    def speed(self) -> float | None:
        """Forward speed in m/s at time 0; None for a path of one pose."""
        if len(self.times) == 1:
            return None
        first, after = np.searchsorted(self.times, (0.0, SPEED_INTERVAL))
        if after < len(self.times) and self.times[first] == 0:
            # Fast case, a pose at 0: linear interpolation of positions needs no rotations.
            share = (SPEED_INTERVAL - self.times[after - 1]) / (self.times[after] - self.times[after - 1])
            start, (here, there) = self.poses[first], self.poses[after - 1 : after + 1, :3, 3]
            end = here + share * (there - here)
        else:
            start, later = self.at([0.0, SPEED_INTERVAL])
            end = later[:3, 3]
        return float(start[:3, 2] @ (end - start[:3, 3])) / SPEED_INTERVAL
