# SPDX-License-Identifier: Apache-2.0
"""Waymo Open segments as clips: common parts of the distributions v1 and v2.

Waymo's vehicle and camera frames are x forward, y left, z up. The lens distortion is corrected; the rolling shutter is
not: each image has the one pose of the data set. Formulas of the range images: the data set's
range_image_utils.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pixel4d_ros.camera import Camera, check_poses
from pixel4d_ros.datasets.boxes import Box, box_corners, is_moving
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.image_files import DatasetError, decode_rgb
from pixel4d_ros.datasets.lazy_frames import LazyFrames
from pixel4d_ros.datasets.lidar import project_depth
from pixel4d_ros.geometry.camera_info import image_camera
from pixel4d_ros.geometry.optical import FORWARD_OPTICAL
from pixel4d_ros.geometry.rotations import FloatArray, rigid, rigid_inverse, rotation_matrix
from pixel4d_ros.logs.pose_track import plausible_poses

CAMERAS = {"FRONT": 1, "FRONT_LEFT": 2, "FRONT_RIGHT": 3, "SIDE_LEFT": 4, "SIDE_RIGHT": 5}
LABELS = {1: "vehicle", 2: "pedestrian", 3: "sign", 4: "cyclist"}


@dataclass(frozen=True)
class CameraCalibration:
    """intrinsic: f_u f_v c_u c_v k1 k2 p1 p2 k3, the image's corner being (0, 0); T_vehicle_camera, x forward."""

    intrinsic: FloatArray
    T_vehicle_camera: FloatArray
    width: int
    height: int


@dataclass(frozen=True)
class LaserCalibration:
    """T_vehicle_laser; inclinations of the beams, rad, lowest first; if empty, their range."""

    T_vehicle_laser: FloatArray
    inclinations: FloatArray
    lowest: float
    highest: float


@dataclass(frozen=True)
class Scan:
    """First returns of a laser."""

    laser: LaserCalibration
    ranges: FloatArray  # (H, W) metres, 0 or less for none
    poses: FloatArray | None  # (H, W, 6) roll pitch yaw x y z of T_world_vehicle at each measurement, if known


@dataclass(frozen=True)
class Label:
    """A labelled object in the vehicle's frame: centre and size (3,) in metres, heading in rad."""

    id: str
    kind: int
    centre: FloatArray
    size: FloatArray
    heading: float


@dataclass(frozen=True)
class Segment:
    """One camera of a segment. `image(i)` is an encoded picture, `scans(i)` the lasers' scans, if any."""

    name: str
    source: str  # the file, for errors
    camera: CameraCalibration
    times: FloatArray  # (T,) seconds, of the images
    image_poses: FloatArray  # (T, 4, 4) T_world_vehicle when the image was taken
    frame_poses: FloatArray  # (T, 4, 4) T_world_vehicle of labels and scans
    labels: Sequence[Sequence[Label]] | None
    image: Callable[[int], bytes]
    scans: Callable[[int], list[Scan]] | None


def camera_number(name: str) -> int:
    """Waymo's number of a camera. Raises DatasetError for an unknown name."""
    if name.upper() not in CAMERAS:
        raise DatasetError(f"Waymo Open has no camera {name}: choose {', '.join(CAMERAS)}")
    return CAMERAS[name.upper()]


def segment_clip(segment: Segment) -> Clip:
    """The segment as a Clip. Raises DatasetError, also on access to a damaged frame."""
    camera = segment.camera
    size = (camera.width, camera.height)
    fx, fy, cx, cy = camera.intrinsic[:4]
    if min(fx, fy, *size) <= 0:
        raise DatasetError(f"{segment.source}: the camera has no positive focal length and size: it is not calibrated")
    K = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    try:
        lens = image_camera(Camera(K, *size), list(camera.intrinsic[4:]))
        vehicle = check_poses(segment.image_poses)
    except ValueError as error:
        raise DatasetError(f"{segment.source}: {error}") from error
    joined = plausible_poses(segment.source, "the vehicle", segment.times, vehicle)
    poses = joined @ camera.T_vehicle_camera @ FORWARD_OPTICAL
    frame_poses = joined @ rigid_inverse(vehicle) @ segment.frame_poses
    T_camera_vehicle = rigid_inverse(poses) @ frame_poses  # of the labels' vehicle

    def image(i: int) -> NDArray[np.uint8]:
        rgb = decode_rgb(segment.image(i), f"{segment.source}, image {i},")
        if rgb.shape[:2] != size[::-1]:
            found = f"{rgb.shape[1]}x{rgb.shape[0]}"
            raise DatasetError(f"{segment.source}: image {i} has {found} pixels, its calibration {size[0]}x{size[1]}")
        return lens.image(rgb)

    def depth(i: int) -> NDArray[np.float32]:
        assert segment.scans is not None
        points = [scan_points(scan, segment.frame_poses[i]) for scan in segment.scans(i)]
        return project_depth(np.concatenate([*points, np.zeros((0, 3))]), T_camera_vehicle[i], lens.camera.K, size)

    count = len(segment.times)
    return Clip(
        name=segment.name,
        images=LazyFrames(image, count, (*size[::-1], 3), np.uint8),
        K=lens.camera.K,
        poses=poses,
        times=segment.times,
        depth=None if segment.scans is None else LazyFrames(depth, count, size[::-1], np.float32),
        boxes=None if segment.labels is None else _boxes(segment.labels, frame_poses, T_camera_vehicle),
    )


def scan_points(scan: Scan, T_world_vehicle: FloatArray) -> FloatArray:
    """Points (N, 3) of a scan in the vehicle's frame of the scan's frame, metres."""
    height, width = scan.ranges.shape
    laser = scan.laser
    inclinations = laser.inclinations
    if not len(inclinations):
        inclinations = laser.lowest + (np.arange(height) + 0.5) / height * (laser.highest - laser.lowest)
    # Columns go clockwise from the back; without the laser's yaw, the middle is the vehicle's front.
    yaw = np.arctan2(laser.T_vehicle_laser[1, 0], laser.T_vehicle_laser[0, 0])
    azimuth = (2 * (np.arange(width, 0, -1) - 0.5) / width - 1) * np.pi - yaw
    row, column = np.nonzero(scan.ranges > 0)
    up, around, reach = inclinations[::-1][row], azimuth[column], scan.ranges[row, column]
    rays = np.stack((np.cos(around) * np.cos(up), np.sin(around) * np.cos(up), np.sin(up)), 1)
    R, t = laser.T_vehicle_laser[:3, :3], laser.T_vehicle_laser[:3, 3]
    points: FloatArray = (rays * reach[:, None]) @ R.T + t
    if scan.poses is None:
        return points
    poses = scan.poses[row, column].astype(np.float64)
    world = Rotation.from_euler("xyz", poses[:, :3]).apply(points) + poses[:, 3:]
    T = rigid_inverse(T_world_vehicle)
    in_scan: FloatArray = world @ T[:3, :3].T + T[:3, 3]
    return in_scan


def _boxes(
    labels: Sequence[Sequence[Label]], world_vehicle: FloatArray, camera_vehicle: FloatArray
) -> tuple[tuple[Box, ...], ...]:
    """Boxes of each frame in front of the camera."""
    paths: dict[str, list[FloatArray]] = {}
    for T, frame in zip(world_vehicle, labels):
        for label in frame:
            paths.setdefault(label.id, []).append(T[:3, :3] @ label.centre + T[:3, 3])
    tracks = {name: number for number, name in enumerate(sorted(paths), 1)}
    moving = {name: is_moving(np.stack(path)) for name, path in paths.items()}

    def box(label: Label, T_camera_vehicle: FloatArray) -> Box:
        pose = T_camera_vehicle @ rigid(rotation_matrix([0, 0, label.heading]), label.centre)
        kind = LABELS.get(label.kind, "unknown")
        return Box(tracks[label.id], kind, pose, label.size, moving[label.id])

    frames = ([box(label, T) for label in frame] for T, frame in zip(camera_vehicle, labels))
    return tuple(tuple(b for b in frame if (box_corners(b)[:, 2] > 0).any()) for frame in frames)
