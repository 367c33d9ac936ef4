# SPDX-License-Identifier: Apache-2.0
"""KITTI's tracklet_labels.xml: 3D boxes of tracked objects, in the LiDAR's frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from pixel4d_ros.datasets.boxes import Box, box_corners, check_box, is_moving
from pixel4d_ros.datasets.image_files import DatasetError
from pixel4d_ros.geometry.rotations import FloatArray, rigid, rotation_matrix


@dataclass(frozen=True)
class Tracklet:
    """One tracked object: label, size (length, width, height) and T_velodyne_box from frame `first` on."""

    label: str
    size: FloatArray
    first: int
    poses: FloatArray  # (n, 4, 4) of the box's centre


def read_tracklets(path: Path) -> list[Tracklet]:
    """The tracklets of a drive. Raises DatasetError."""
    try:
        root = ET.parse(path).getroot()
        return [_tracklet(item) for item in root.findall("./tracklets/item")]
    except (ET.ParseError, LookupError) as error:  # LookupError: an unknown encoding
        raise DatasetError(f"{path} is truncated or no XML ({error}): unpack the drive's tracklets again") from error
    except ValueError as error:
        raise DatasetError(f"{path}: {error}; items with h, w, l, first_frame and poses expected") from error


def tracklet_boxes(
    tracklets: list[Tracklet], frames: list[int], world: FloatArray, T_camera_velodyne: FloatArray
) -> tuple[tuple[Box, ...], ...]:
    """Boxes of each of the frames (by KITTI's numbers) in front of the camera; world (T, 4, 4) is T_world_velodyne."""
    boxes: list[list[Box]] = [[] for _ in frames]
    for track, tracklet in enumerate(tracklets, 1):
        labelled = [
            (i, T) for i, number in enumerate(frames) if (T := _pose_at(tracklet, number)) is not None
        ]  # frames of the clip in which it is labelled
        if not labelled:
            continue
        moving = is_moving(np.stack([(world[i] @ T)[:3, 3] for i, T in labelled]))
        for i, T in labelled:
            box = Box(track, tracklet.label, T_camera_velodyne @ T, tracklet.size, moving)
            if (box_corners(box)[:, 2] > 0).any():
                boxes[i].append(box)
    return tuple(tuple(b) for b in boxes)


def _pose_at(tracklet: Tracklet, number: int) -> FloatArray | None:
    k = number - tracklet.first
    return tracklet.poses[k] if 0 <= k < len(tracklet.poses) else None


def _tracklet(item: ET.Element) -> Tracklet:
    height, width, length = (_number(item, name) for name in ("h", "w", "l"))
    poses = []
    for pose in item.findall("./poses/item"):
        x, y, z, yaw = (_number(pose, name) for name in ("tx", "ty", "tz", "rz"))
        # KITTI's origin of a box is the centre of its bottom.
        poses.append(rigid(rotation_matrix([0, 0, yaw]), [x, y, z + height / 2]))
    if not poses:
        raise ValueError("a tracklet has no poses")
    label, size = item.findtext("objectType", "unknown"), np.array([length, width, height])
    check_box(label, poses[0], size)
    return Tracklet(label, size, int(_number(item, "first_frame")), np.stack(poses))


def _number(item: ET.Element, name: str) -> float:
    text = item.findtext(name)
    if text is None:
        raise ValueError(f"a tracklet has no <{name}>")
    number = float(text)
    if not np.isfinite(number):
        raise ValueError(f"a tracklet's <{name}> is {number}")
    return number
