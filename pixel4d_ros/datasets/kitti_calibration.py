# SPDX-License-Identifier: Apache-2.0
"""Calibration and poses of KITTI raw recordings.

Not with pykitti: it needs matplotlib, Pillow and pandas, has no tracklets, pairs scans with images by their order (four
scans of drive 0009 are missing) and raises bare errors for damaged files. Formulas: KITTI's development kit
(convertOxtsToPose.m, loadCalibration.m).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from pixel4d_ros.datasets.image_files import DatasetError
from pixel4d_ros.geometry.rotations import FloatArray, rigid

EARTH_RADIUS = 6378137.0  # metres, as in the development kit
OXTS_VALUES = 30
POSE_VALUES = 6  # latitude, longitude, altitude, roll, pitch, yaw; the others are not used and may be NaN


@dataclass(frozen=True)
class KittiCamera:
    """One rectified camera: K (3, 3), size (width, height), and the poses of LiDAR and inertial unit in it."""

    K: FloatArray
    size: tuple[int, int]
    T_camera_velodyne: FloatArray
    T_camera_imu: FloatArray


def read_camera(date: Path, number: int) -> KittiCamera:
    """Camera `number` (0..3) of the recordings of one day. Raises DatasetError."""
    path = date / "calib_cam_to_cam.txt"
    cameras = _read_numbers(path)
    P = _entry(cameras, path, f"P_rect_{number:02d}", 12).reshape(3, 4)
    if P[0, 0] <= 0 or P[1, 1] <= 0:
        raise DatasetError(f"{path}: P_rect_{number:02d} has no positive focal length: it is not calibrated")
    width, height = _entry(cameras, path, f"S_rect_{number:02d}", 2)
    K = P[:, :3]
    rectified = rigid(_rotation(_entry(cameras, path, "R_rect_00", 9), path, "R_rect_00"), np.zeros(3))
    # P = K [I | t]: the position relative to camera 0, in the rectified axes common to all four.
    beside = rigid(np.eye(3), np.linalg.solve(K, P[:, 3]))
    T_camera_velodyne = beside @ rectified @ _read_rigid(date / "calib_velo_to_cam.txt")
    T_velodyne_imu = _read_rigid(date / "calib_imu_to_velo.txt")
    return KittiCamera(K, (round(width), round(height)), T_camera_velodyne, T_camera_velodyne @ T_velodyne_imu)


def read_poses(paths: list[Path]) -> FloatArray:
    """T_world_imu (T, 4, 4) of OXTS packets; the world is east, north, up from the first. Raises DatasetError."""
    packets = np.stack([_read_packet(path) for path in paths])
    latitude, longitude, altitude, roll, pitch, yaw = packets[:, :6].T
    scale = EARTH_RADIUS * np.cos(np.radians(latitude[0]))
    x = scale * np.radians(longitude)
    y = scale * np.log(np.tan(np.pi / 4 + np.radians(latitude) / 2))
    position = np.stack((x, y, altitude), 1)
    poses = np.tile(np.eye(4), (len(packets), 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("ZYX", np.stack((yaw, pitch, roll), 1)).as_matrix()
    poses[:, :3, 3] = position - position[0]
    return poses


def _read_packet(path: Path) -> FloatArray:
    try:
        values = np.array(path.read_text().split(), np.float64)
    except OSError as error:
        raise DatasetError(f"{path} is missing: every image needs a pose, {OXTS_VALUES} numbers of OXTS") from error
    except ValueError as error:
        raise DatasetError(f"{path}: {error}; {OXTS_VALUES} numbers were expected") from error
    if len(values) != OXTS_VALUES:
        raise DatasetError(f"{path} holds {len(values)} values, {OXTS_VALUES} numbers were expected: truncated?")
    if not np.isfinite(values[:POSE_VALUES]).all():
        raise DatasetError(f"{path}: latitude ... yaw (the first {POSE_VALUES} values) must be finite numbers")
    return values


def _read_numbers(path: Path) -> dict[str, FloatArray]:
    """The numeric entries of a `key: v v v` file."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise DatasetError(
            f"{path} is missing: unpack the day's calibration (2011_xx_xx_calib.zip) beside its drives"
        ) from error
    numbers = {}
    for line in lines:
        key, _, values = line.partition(":")
        try:
            numbers[key] = np.array(values.split(), np.float64)
        except ValueError:
            continue  # calib_time holds a date
    return numbers


def _entry(numbers: dict[str, FloatArray], path: Path, key: str, count: int) -> FloatArray:
    values = numbers.get(key, np.zeros(0))
    if len(values) != count or not np.isfinite(values).all():
        raise DatasetError(f"{path}: {key} holds {len(values)} numbers, {count} were expected: truncated?")
    return values


def _rotation(values: FloatArray, path: Path, key: str) -> FloatArray:
    R = values.reshape(3, 3)
    if np.abs(R @ R.T - np.eye(3)).max() > 1e-3 or np.linalg.det(R) < 0:
        raise DatasetError(f"{path}: {key} is no rotation matrix: the calibration is damaged")
    # The files have seven digits, but poses must be orthonormal.
    u, _, v = np.linalg.svd(R)
    return np.asarray(u @ v)


def _read_rigid(path: Path) -> FloatArray:
    numbers = _read_numbers(path)
    return rigid(_rotation(_entry(numbers, path, "R", 9), path, "R"), _entry(numbers, path, "T", 3))
