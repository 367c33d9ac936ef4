# SPDX-License-Identifier: Apache-2.0
"""KITTI raw: synced and rectified drives as clips, from the layout in which they are distributed."""

from __future__ import annotations

import re
from calendar import timegm
from pathlib import Path
from time import strptime

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.image_files import DatasetError, lazy_image_files
from pixel4d_ros.datasets.kitti_calibration import KittiCamera, read_camera, read_poses
from pixel4d_ros.datasets.kitti_splits import split_drives
from pixel4d_ros.datasets.kitti_tracklets import read_tracklets, tracklet_boxes
from pixel4d_ros.datasets.lazy_frames import LazyFrames
from pixel4d_ros.datasets.lidar import project_depth
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.logs.pose_track import plausible_poses

DRIVE = re.compile(r"\d{4}_\d\d_\d\d_drive_\d{4}_(sync|extract)")
PARTNER = {0: 1, 1: 0, 2: 3, 3: 2}  # the other camera of each stereo pair
PICTURES = (".png", ".jpg", ".jpeg")
POINT_BYTES = 16  # x, y, z, reflectance as float32
FARTHEST_M, ODD_POINTS = 1000.0, 0.01  # of a return, and share of the points that may be farther


def kitti_drives(path: Path, split: str | None = None, part: str = "test") -> list[Path]:
    """Synced drives at path: itself, those of a day's folder, or of a folder of days; `split`: only its part.

    Raises DatasetError when there are none.
    """
    if DRIVE.fullmatch(path.resolve().name):
        found = [path]
    else:
        found = sorted(d for pattern in ("*_drive_*", "*/*_drive_*") for d in path.glob(pattern) if d.is_dir())
    if any(d.resolve().name.endswith("_extract") for d in found) and len(found) == 1:
        raise DatasetError(f"{found[0]} is neither synced nor rectified: download the drive's _sync.zip")
    found = [d for d in found if d.resolve().name.endswith("_sync")]
    if split is not None:
        names = split_drives(split, part)
        found = [d for d in found if d.resolve().name in names]
    if not found:
        what = "drives" if split is None else f"drives of the split {split}, part {part},"
        raise DatasetError(f"{path} holds no {what} of KITTI raw: 2011_xx_xx/2011_xx_xx_drive_xxxx_sync was expected")
    return found


def read_kitti_raw(drive: str | Path, camera: int = 2) -> Clip:
    """A synced drive as a Clip; camera 0..3 (2: left in colour), with its partner if present.

    The calibration is in the parent folder. The world is east, north, up from the inertial unit's first position. Depth
    is the LiDAR's scan, nearest point per pixel, boxes are the tracklets, if present. Pose and scan have the image's
    number. Raises DatasetError, also on access to a damaged file.
    """
    drive = Path(drive)
    numbers, paths = _numbered(drive / f"image_{camera:02d}" / "data", *PICTURES)
    if not numbers:
        raise DatasetError(
            f"{drive / f'image_{camera:02d}' / 'data'} holds no images: 0000000000.png (or .jpg) ... expected"
        )
    date = drive.resolve().parent
    rig = read_camera(date, camera)
    times = read_times(drive / f"image_{camera:02d}" / "timestamps.txt", numbers)
    world_imu = read_poses([drive / "oxts" / "data" / f"{number:010d}.txt" for number in numbers])
    world_imu = plausible_poses(str(drive / "oxts"), "the vehicle", times, world_imu)
    T_imu_camera = rigid_inverse(rig.T_camera_imu)
    labels = drive / "tracklet_labels.xml"
    world_velodyne = world_imu @ T_imu_camera @ rig.T_camera_velodyne
    return Clip(
        name=drive.resolve().name,
        images=_images(paths, rig, date, camera),
        K=rig.K,
        poses=world_imu @ T_imu_camera,
        times=times,
        depth=_lidar_depth(drive, numbers, rig),
        stereo=_partner(drive, PARTNER[camera], numbers, world_imu, times),
        boxes=tracklet_boxes(read_tracklets(labels), numbers, world_velodyne, rig.T_camera_velodyne)
        if labels.is_file()
        else None,
    )


def _partner(drive: Path, camera: int, numbers: list[int], world_imu: FloatArray, times: FloatArray) -> Clip | None:
    """The other camera of the pair; None if it lacks one of the images."""
    found = dict(zip(*_numbered(drive / f"image_{camera:02d}" / "data", *PICTURES)))
    if not set(numbers) <= set(found):
        return None
    date = drive.resolve().parent
    rig = read_camera(date, camera)
    images = _images([found[n] for n in numbers], rig, date, camera)
    return Clip(f"{drive.resolve().name}_{camera}", images, rig.K, world_imu @ rigid_inverse(rig.T_camera_imu), times)


def _images(paths: list[Path], rig: KittiCamera, date: Path, camera: int) -> LazyFrames[np.uint8]:
    return lazy_image_files(paths, rig.size, f"S_rect_{camera:02d} in {date / 'calib_cam_to_cam.txt'}")


def read_times(path: Path, numbers: list[int]) -> FloatArray:
    """Times (T,) in seconds of the frames with these numbers, from KITTI's timestamps.txt. Raises DatasetError."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise DatasetError(f"{path} is missing: one time per image was expected") from error
    times = np.zeros(len(numbers))
    for i, number in enumerate(numbers):
        if number >= len(lines):
            raise DatasetError(f"{path} has {len(lines)} lines, but image {number:010d} needs line {number + 1}")
        whole, _, fraction = lines[number].strip().partition(".")
        try:
            times[i] = timegm(strptime(whole, "%Y-%m-%d %H:%M:%S")) + float(f"0.{fraction or 0}")
        except ValueError as error:
            raise DatasetError(
                f"{path}, line {number + 1}: {lines[number]!r} is no time, 2011-09-26 13:02:25.9 is"
            ) from error
    if (np.diff(times) <= 0).any():
        raise DatasetError(f"{path}: the times do not increase")
    return times


def _numbered(folder: Path, *suffixes: str) -> tuple[list[int], list[Path]]:
    """Files named by their frame's number, in order; of two with the same number that of the first suffix."""
    files: dict[int, Path] = {}
    for suffix in suffixes:
        for path in folder.glob(f"*{suffix}"):
            if path.stem.isdecimal():
                files.setdefault(int(path.stem), path)
    numbers = sorted(files)
    return numbers, [files[number] for number in numbers]


def _lidar_depth(drive: Path, numbers: list[int], rig: KittiCamera) -> LazyFrames[np.float32] | None:
    folder = drive / "velodyne_points" / "data"
    scans = dict(zip(*_numbered(folder, ".bin")))
    if not scans:
        return None

    def load(i: int) -> NDArray[np.float32]:
        path = scans.get(numbers[i])
        if path is None:
            return np.zeros(rig.size[::-1], np.float32)  # some drives lack a few scans
        return project_depth(_read_scan(path), rig.T_camera_velodyne, rig.K, rig.size)

    return LazyFrames(load, len(numbers), rig.size[::-1], np.float32)


def _read_scan(path: Path) -> NDArray[np.float32]:
    """Points (N, 3) of a scan, metres. Raises DatasetError, also for scans of other columns, types or units."""
    data = path.read_bytes()
    if len(data) % POINT_BYTES:
        raise DatasetError(f"{path} is truncated: {len(data)} bytes are no whole points of {POINT_BYTES} bytes")
    scan = np.frombuffer(data, np.float32).reshape(-1, 4)
    farthest, reflectance = np.abs(scan[:, :3]).max(1), scan[:, 3]
    odd = ~(farthest <= FARTHEST_M) | ~(reflectance >= 0)
    if len(scan) and odd.mean() > ODD_POINTS:
        raise DatasetError(
            f"{path}: {odd.mean():.0%} of its points are over {FARTHEST_M:g} m away or have a reflectance below 0:"
            " x, y, z in metres and reflectance as little-endian float32 were expected"
        )
    return scan[:, :3]
