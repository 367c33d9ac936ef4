# SPDX-License-Identifier: Apache-2.0
"""The labelled objects of a window's source image: their pixels, positions and motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import unproject
from pixel4d_ros.datasets.box_labels import MOVES
from pixel4d_ros.datasets.boxes import Box, box_mask, is_inside
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse

LEAST_SHARE = 0.001  # of the image's pixels: objects and masks smaller than this are not scored
PEOPLE = frozenset({"Pedestrian", "Person", "Person_sitting", "Cyclist"})  # their boxes show mostly background
FEWEST_POINTS = 20  # measured points that tell which of a box's pixels show a person
GROUND = 0.25  # metres above a box's bottom: lower points may be the ground's
LARGELY_OCCLUDED = 2  # by the labels: such objects are not scored


@dataclass(frozen=True)
class LabelledObject:
    """One object in the source image."""

    mask: NDArray[np.bool_]  # (H, W) its pixels, without those of nearer labelled objects
    center: FloatArray  # (3,) metres, source camera
    velocity: FloatArray | None  # (3,) m/s over ground, in the source camera's axes; None: unknown
    box: Box | None = None
    points: NDArray[np.bool_] | None = None  # (H, W) pixels of a person where it was measured; None: too few

    @property
    def shown(self) -> NDArray[np.bool_]:
        """Pixels (H, W) by which it is found: those that show it for sure where these are known, else its mask."""
        return self.mask if self.points is None else self.points

    @property
    def moving(self) -> bool | None:
        """Whether it moves over ground; None: unknown."""
        return None if self.velocity is None else float(np.linalg.norm(self.velocity)) >= MOVES


def labelled_objects(window: Clip) -> list[LabelledObject] | None:
    """The objects of frame 0 that are large and visible enough to be scored; None without labels of objects."""
    if window.object_ids is not None:
        if window.object_motions is None or window.object_centroids is None:
            return None
        found = [
            LabelledObject(
                window.object_ids[0] == i,
                window.object_centroids[0, i].astype(np.float64),
                window.object_motions[0, i, 0].astype(np.float64),
            )
            for i in np.unique(window.object_ids[0][window.object_ids[0] > 0])
        ]
    elif window.boxes is not None:
        found = _by_boxes(window)
    else:
        return None
    return [thing for thing in found if thing.mask.sum() >= LEAST_SHARE * thing.mask.size]


def _by_boxes(window: Clip) -> list[LabelledObject]:
    assert window.boxes is not None
    height, width = window.images.shape[1:3]
    taken = np.zeros((height, width), bool)
    found = []
    for box in sorted(window.boxes[0], key=lambda box: float(box.T_camera_box[2, 3])):  # nearest first
        mask = box_mask(box, window.K, width, height) & ~taken
        taken |= mask
        if box.occluded != LARGELY_OCCLUDED:
            points = _measured_points(window, box, mask) if box.label in PEOPLE else None
            found.append(LabelledObject(mask, box.T_camera_box[:3, 3], _velocity(window, box), box, points))
    return found


def _measured_points(window: Clip, box: Box, mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The pixels (H, W) of a box's mask whose measured depth lies in the box, above the ground; None for few."""
    if window.depth is None:
        return None
    depth = np.asarray(window.depth[0], np.float64)
    v, u = np.nonzero(mask & (depth > 0) & np.isfinite(depth))
    points = unproject(np.stack((u, v), -1), depth[v, u], window.K)
    own = (points - box.T_camera_box[:3, 3]) @ box.T_camera_box[:3, :3]
    inside = is_inside(points, box) & (own[:, 2] > GROUND - box.size[2] / 2)
    if inside.sum() < FEWEST_POINTS:
        return None
    pixels = np.zeros_like(mask)
    pixels[v[inside], u[inside]] = True
    return pixels


def _velocity(window: Clip, box: Box) -> FloatArray | None:
    """From the label, else from the track's place in the next frame; None where neither is known."""
    if box.velocity is not None:
        return box.velocity
    if window.boxes is None or len(window) < 2:
        return None
    after = next((other for other in window.boxes[1] if other.track == box.track), None)
    if after is None:
        return None
    T = rigid_inverse(window.poses[0]) @ window.poses[1] @ after.T_camera_box
    velocity: FloatArray = (T[:3, 3] - box.T_camera_box[:3, 3]) / (window.times[1] - window.times[0])
    return velocity


def share_inside(points: FloatArray, box: Box) -> float:
    """Share of points (N, 3), metres in the camera's frame, that is_inside counts to a box; NaN without points."""
    return float(is_inside(points, box).mean()) if len(points) else float("nan")
