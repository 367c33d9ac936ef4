# SPDX-License-Identifier: Apache-2.0
"""Distances along candidate paths, as the what-if service answers them, against LiDAR and labelled boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.datasets.boxes import is_inside
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.lidar_ground import lidar_points, road_heights
from pixel4d_ros.geometry.optical import FORWARD_OPTICAL
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.outputs.clearance import Footprint, clearance, find_scene_obstacles
from pixel4d_ros.outputs.obstacles import HEIGHTS
from pixel4d_ros.scene import DynamicGaussians

CAR = Footprint(np.array([[2.2, 0.9], [2.2, -0.9], [-2.2, -0.9], [-2.2, 0.9]]))  # around the camera
# m/s ahead and rad/s to the left of the probes; the slow ones keep clear of what the fast ones touch
TWISTS = ((4.0, -0.4), (8.0, -0.12), (8.0, 0.12), (4.0, 0.4), (1.0, -0.3), (2.0, 0.0), (1.0, 0.3))
FARTHEST = 10.0  # metres: what is farther away counts as that far
STRAY = (0.5, 3)  # metres, and returns within them, with itself, that a return needs to show an obstacle
OUTLINE = 0.2  # metres between the points of a box's outline


@dataclass(frozen=True)
class Probe:
    """The closest distance along one path, and whether the vehicle touches something on it."""

    predicted: float  # metres, at most FARTHEST
    measured: float
    predicted_contact: bool
    contact: bool


@dataclass(frozen=True)
class ClearanceScore:
    """What many probes give."""

    probes: int
    median_error: float  # metres, over the paths that touch nothing in truth; NaN where all do
    contacts: int  # paths on which the vehicle touches what LiDAR or boxes show
    missed: int  # of these, those that are predicted to be free
    false: int  # paths predicted to touch something that is not there


def probe_paths(times: FloatArray) -> FloatArray:
    """T_now_base (P, T, 4, 4) of the probes: arcs at constant speed, the base x ahead and z up."""
    horizon = float(times[-1]) + 0.1
    return np.stack([CameraPath.constant_twist((v, 0, 0), (0, 0, w), horizon).at(times) for v, w in TWISTS])


def score_probes(scene: DynamicGaussians, window: Clip) -> list[Probe]:
    """The probes of one source image: window's frame 0, whose later frames give the places of moving boxes.

    The base is the camera's place, x ahead and z up. Raises ValueError without depth in the source image.
    """
    if window.depth is None or not (window.depth[0] > 0).any():
        raise ValueError(f"{window.name} has no LiDAR depth to measure distances with")
    times = window.times - window.times[0]
    paths = probe_paths(times)
    T_scene_base = rigid_inverse(FORWARD_OPTICAL)
    around = find_scene_obstacles(scene, FORWARD_OPTICAL, HEIGHTS)
    found = clearance(around, T_scene_base @ paths, times, CAR)
    predicted = np.minimum(found.static.distances, found.moving.distances).min(1)
    touched = np.isfinite(np.minimum(found.static.contact, found.moving.contact))
    measured = measured_distances(window, paths).min(1)
    return [
        Probe(min(float(p), FARTHEST), min(float(m), FARTHEST), bool(t), bool(m <= 0))
        for p, m, t in zip(predicted, measured, touched, strict=True)
    ]


def measured_distances(window: Clip, paths: FloatArray) -> FloatArray:
    """Distances (P, T) of the footprint from what LiDAR and boxes show; inf where there is nothing."""
    static = standing_returns(window)[:, :2]
    out = np.full(paths.shape[:2], np.inf)
    for t in range(paths.shape[1]):
        there = np.concatenate((static, _outlines(window, t)))
        for p in range(len(paths)):
            if len(there):
                inverse = rigid_inverse(paths[p, t])
                own = there @ inverse[:2, :2].T + inverse[:2, 3]
                out[p, t] = float(CAR.distances(torch.as_tensor(own)).min())
    return out


def standing_returns(window: Clip) -> FloatArray:
    """LiDAR returns (N, 3) of obstacles in the base frame, without those of moving boxes and of the vehicle itself.

    Returns that stand alone do not count: a leaf, dust, or a beam that an outline splits.
    """
    assert window.depth is not None
    points = lidar_points(np.asarray(window.depth[0]), window.K)
    base: FloatArray = points @ FORWARD_OPTICAL[:3, :3].T
    heights = road_heights(base)
    obstacles = (heights >= HEIGHTS[0]) & (heights <= HEIGHTS[1])
    movers = [box for box in window.boxes[0] if box.moving] if window.boxes is not None else []
    for box in movers:
        obstacles &= ~is_inside(points, box)
    standing = base[obstacles]
    alone = cKDTree(standing).query_ball_point(standing, STRAY[0], return_length=True) < STRAY[1]
    static: FloatArray = standing[~alone]
    # What the vehicle's outline holds now is the vehicle itself.
    apart: FloatArray = static[CAR.distances(torch.as_tensor(static[:, :2])).numpy() > 0]
    return apart


def _outlines(window: Clip, t: int) -> FloatArray:
    """Points (N, 2) in the first base frame on the outlines of the boxes that move in frame t."""
    parts = [np.empty((0, 2))]
    for box in window.boxes[t] if window.boxes is not None else ():
        if box.moving:
            length, width = box.size[:2] / 2
            u, v = (np.linspace(-s, s, max(2, int(2 * s / OUTLINE))) for s in (length, width))
            rim = np.concatenate([np.stack(np.broadcast_arrays(*p), -1) for p in ((u, width), (u, -width))])
            ends = np.concatenate([np.stack(np.broadcast_arrays(*p), -1) for p in ((length, v), (-length, v))])
            corners = np.concatenate((rim, ends))
            own = np.column_stack((corners, np.zeros((len(corners), 1)), np.ones(len(corners))))
            T = FORWARD_OPTICAL @ rigid_inverse(window.poses[0]) @ window.poses[t] @ box.T_camera_box
            parts.append((own @ T.T)[:, :2])
    return np.concatenate(parts)


def summarise_probes(probes: Sequence[Probe]) -> ClearanceScore:
    """Median error of the closest distance where nothing is touched, and contacts. Raises ValueError without probes."""
    if not probes:
        raise ValueError("no path was compared: the log has no depth")
    errors = [abs(p.predicted - p.measured) for p in probes if not p.contact]
    return ClearanceScore(
        len(probes),
        float(np.median(errors)) if errors else float("nan"),
        sum(p.contact for p in probes),
        sum(p.contact and not p.predicted_contact for p in probes),
        sum(p.predicted_contact and not p.contact for p in probes),
    )
