# SPDX-License-Identifier: Apache-2.0
"""Labelled 3D boxes of the objects in an image, the pixels they cover, and which of them move."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.geometry.interpolation import FASTEST
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse

MOVED = 1.0  # metres on the ground: label noise and pose drift move a parked car by some decimetres
FARTHEST = 2000.0  # metres from the camera: farther objects cannot be labelled
ROUNDED = 0.05  # of rotation matrices: files may hold two decimals
LARGEST = 100.0  # metres: no vehicle is longer; larger ones are in other units
SLACK = 0.3  # metres, accuracy of labels: points up to so far outside a box count as inside
NEAR = 0.05  # metres: near plane, at which boxes are clipped before projection
_CORNERS = np.array(list(product((-0.5, 0.5), repeat=3)))
_EDGES = np.array([(a, b) for a in range(8) for b in range(a) if np.abs(_CORNERS[a] - _CORNERS[b]).sum() == 1])


@dataclass(frozen=True)
class Box:
    """One object in one frame; `track` (1..) is constant through the clip.

    T_camera_box (4, 4) is the pose of the box's centre in that frame's optical frame, the box's axes being x forward,
    y left, z up; size (3,) is length, width, height in metres; moving: at some time of the clip, in the world.
    """

    track: int
    label: str
    T_camera_box: FloatArray
    size: FloatArray
    moving: bool
    velocity: FloatArray | None = None  # (3,) m/s over ground, in the camera's axes; None: unknown
    occluded: int = -1  # 0 visible, 1 partly, 2 largely, 3 or -1 unknown

    def __post_init__(self) -> None:
        check_box(self.label, self.T_camera_box, self.size)
        if self.velocity is not None and not np.linalg.norm(self.velocity) <= FASTEST:
            raise ValueError(f"the velocity of a box ({self.label}) is {np.linalg.norm(self.velocity):.3g}, not in m/s")


def check_box(label: str, pose: FloatArray, size: FloatArray) -> None:
    """Raise ValueError for a pose (4, 4) that is not rigid or far away, or a size (3,) that is not in metres."""
    R, distance = pose[:3, :3], np.linalg.norm(pose[:3, 3])
    if not ((size > 0) & (size <= LARGEST)).all():
        raise ValueError(f"a box ({label}) has the size {size.tolist()}: length, width and height in metres expected")
    if not np.abs(R @ R.T - np.eye(3)).max() < ROUNDED or np.linalg.det(R) < 0:
        raise ValueError(f"the rotation of a box ({label}) is {R.round(3).tolist()}: a 3x3 rotation matrix expected")
    if not distance <= FARTHEST:
        raise ValueError(f"the centre of a box ({label}) is {distance:.0f} m away: finite numbers in metres expected")


def box_corners(box: Box) -> FloatArray:
    """The corners (8, 3) in the camera's optical frame, metres."""
    corners: FloatArray = (_CORNERS * box.size) @ box.T_camera_box[:3, :3].T + box.T_camera_box[:3, 3]
    return corners


def box_mask(box: Box, K: FloatArray, width: int, height: int) -> NDArray[np.bool_]:
    """Pixels (H, W) whose centre lies in the box's outline; without occlusion by other objects."""
    mask = np.zeros((height, width), bool)
    corners = box_corners(box)
    a, b = corners[_EDGES[:, 0]], corners[_EDGES[:, 1]]
    crossing = (a[:, 2] < NEAR) != (b[:, 2] < NEAR)
    a, b = a[crossing], b[crossing]
    cut = a + (b - a) * ((NEAR - a[:, 2:]) / (b[:, 2:] - a[:, 2:]))
    seen = np.concatenate((corners[corners[:, 2] >= NEAR], cut))
    if len(seen) < 3:
        return mask
    pixels = seen @ K.T
    outline = cv2.convexHull((pixels[:, :2] / pixels[:, 2:]).astype(np.float32))[:, 0].astype(np.float64)
    low = np.clip(np.ceil(outline.min(0)), 0, (width, height)).astype(int)
    high = np.clip(np.floor(outline.max(0)) + 1, 0, (width, height)).astype(int)
    v, u = np.mgrid[low[1] : high[1], low[0] : high[0]]
    inside = np.ones(u.shape, bool)
    ahead = np.roll(outline, -1, 0)
    # The sense of rotation of the outline: OpenCV does not specify it.
    turn = np.sign((outline[:, 0] * ahead[:, 1] - outline[:, 1] * ahead[:, 0]).sum())
    for (x, y), (dx, dy) in zip(outline, ahead - outline):
        inside &= turn * (dx * (v - y) - dy * (u - x)) >= 0
    mask[low[1] : high[1], low[0] : high[0]] = inside
    return mask


def is_inside(points: FloatArray, box: Box) -> NDArray[np.bool_]:
    """Which points (N, 3), metres in the camera's frame, are inside a box, or up to SLACK outside."""
    T = rigid_inverse(box.T_camera_box)
    own = points @ T[:3, :3].T + T[:3, 3]
    return np.asarray((np.abs(own) <= box.size / 2 + SLACK).all(1))


def is_moving(positions: FloatArray) -> bool:
    """Whether positions (N, 3) of one object in the world (z up), metres, span more than MOVED on the ground."""
    return bool(np.linalg.norm(np.ptp(positions[:, :2], axis=0)) > MOVED)
