# SPDX-License-Identifier: Apache-2.0
"""What moves and how fast in clips that come with labels: object ids per pixel, or tracked 3D boxes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.boxes import Box, box_mask, is_inside
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.lidar import project_depth
from pixel4d_ros.evaluation.windows import resized
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.predictor.objects import MAX_OBJECTS
from pixel4d_ros.training.motion_labels import MotionLabels, label_motion, points_of
from pixel4d_ros.two_view.flow import Mask, flow_size
from pixel4d_ros.two_view.rigid_flow import Map

# Width, height in pixels of the smallest upright hole in depth that tells of something left out. In KITTI stereo 2015
# 3% of the road lies in such holes between lines of the laser, and so does 95% of a car whose depth is taken out. (A
# pixel without depth in the 3 x 3 around it: 3% of the road, 85% of the car.)
HOLE = (3, 5)
RIM = 3  # pixels of the square around a pixel, in which an object makes it unknown: outlines are a pixel off
REACH = 2  # frames before and after, between which the velocity of a box is taken
STANDS = 0.3  # m/s: at less, a box that moves at other times stands


@dataclass(frozen=True)
class _Things:
    """What can move in a frame; the motion and place of what is not in the dictionaries are unknown."""

    numbers: NDArray[np.int32]  # (h, w) at flow_size: 0 still, 1.. a thing by its number in the clip, -1 unknown
    velocities: dict[int, FloatArray]  # (3,) m/s in the frame's camera; NaN where unknown
    centroids: dict[int, FloatArray]  # (3,) metres in the frame's camera
    standing: set[int]  # things that stand in this frame


def given_labels(clip: Clip) -> MotionLabels | None:
    """Labels by the clip's object_ids, else by its boxes; None where it has neither.

    Positions and velocities are in the clip's units, where these are not metres. Of more than MAX_OBJECTS things in a
    frame those that cover the least are unknown.

    By object_ids: the rim around an object is unknown, and so are holes in depth, for data sets leave out the depth of
    what moves but has no id. By boxes: all that can move within the laser's reach has one, parked vehicles too, and all
    else is still. Where the boxes are not complete, all else is what label_motion finds still in it, or unknown.
    """
    if clip.object_ids is None and clip.boxes is None:
        return None
    small = resized(replace(clip, depth=None, stereo=None), flow_size(*clip.images.shape[2:0:-1]))
    paths = _paths(clip)
    labels = MotionLabels.uniform(clip, 0)
    around = None if clip.boxes_complete or clip.object_ids is not None else label_motion(replace(clip, boxes=None)).ids
    for t in range(len(clip)):
        depth = _nearest_depth(clip, small, t)
        things = _by_boxes(small, t, depth, paths) if small.object_ids is None else _by_ids(small, t, depth)
        if around is not None:
            things.numbers[(things.numbers == 0) & (around[t] != 0)] = -1
        labels.ids[t], kept = _renumbered(things.numbers)
        for i, number in enumerate(kept, 1):
            labels.moving[t, i] = number not in things.standing
            if number in things.centroids:
                labels.velocities[t, i] = things.velocities[number]
                labels.centroids[t, i] = things.centroids[number]
    return labels


def _nearest_depth(clip: Clip, small: Clip, t: int) -> Map | None:
    """The least depth (h, w) that frame t has in each pixel of the small clip, 0 where none; None without depth.

    Every point is kept: of a laser's, resampling to the nearest would lose most.
    """
    if clip.depth is None:
        return None
    depth, (height, width) = clip.depth[t], small.images.shape[1:3]
    return project_depth(points_of(depth > 0, depth, clip.K), np.eye(4), small.K, (width, height))


def _renumbered(numbers: NDArray[np.int32]) -> tuple[NDArray[np.int8], list[int]]:
    """Ids (h, w) of the MAX_OBJECTS largest things, 1.. from the largest on, and the numbers these had; -1 the rest."""
    found, areas = np.unique(numbers[numbers > 0], return_counts=True)
    kept = [int(number) for number in found[np.argsort(-areas, kind="stable")][:MAX_OBJECTS]]
    ids = np.where(numbers == 0, 0, -1).astype(np.int8)
    for i, number in enumerate(kept, 1):
        ids[numbers == number] = i
    return ids, kept


def _by_ids(clip: Clip, t: int, depth: Map | None) -> _Things:
    """What moves in frame t by the object ids of a clip at flow_size, depth (h, w) being that of the same size."""
    assert clip.object_ids is not None
    numbers = clip.object_ids[t].astype(np.int32)
    unknown = cv2.dilate((numbers > 0).astype(np.uint8), np.ones((RIM, RIM), np.uint8)) > 0
    if depth is not None:
        # Closing leaves a hole its shape, and fills what the window does not fit into.
        unknown |= cv2.morphologyEx((depth > 0).astype(np.uint8), cv2.MORPH_CLOSE, np.ones(HOLE[::-1], np.uint8)) == 0
    numbers[unknown & (numbers == 0)] = -1
    things = _Things(numbers, {}, {}, set())
    for number in map(int, np.unique(numbers[numbers > 0])):
        centroid = _centroid(clip, t, depth, number)
        if centroid is not None:
            things.centroids[number] = centroid
            motions = clip.object_motions
            things.velocities[number] = np.full(3, np.nan) if motions is None else motions[t, number, 0]
    return things


def _centroid(clip: Clip, t: int, depth: Map | None, number: int) -> FloatArray | None:
    """Where an object is (3,) in frame t's camera: its label, else the middle of its points; None without any."""
    assert clip.object_ids is not None
    if clip.object_centroids is not None:
        return np.asarray(clip.object_centroids[t, number], np.float64)
    if depth is None:
        return None
    points = points_of((clip.object_ids[t] == number) & (depth > 0), depth, clip.K)
    return np.asarray(np.median(points, 0)) if len(points) else None


def _by_boxes(clip: Clip, t: int, depth: Map | None, paths: dict[int, dict[int, FloatArray]]) -> _Things:
    """What moves in frame t by the boxes of a clip at flow_size, depth (h, w) being that of the same size."""
    assert clip.boxes is not None
    things = _Things(np.zeros(clip.images.shape[1:3], np.int32), {}, {}, set())
    numbers = things.numbers
    # The farthest first: nearer ones hide it, also those that stand.
    for box in sorted(clip.boxes[t], key=lambda box: -np.linalg.norm(box.T_camera_box[:3, 3])):
        things.centroids[box.track] = box.T_camera_box[:3, 3]
        velocity = box.velocity
        if velocity is None:
            velocity = clip.poses[t, :3, :3].T @ _velocity(paths[box.track], clip.times, t)
        stands = not box.moving or bool(np.linalg.norm(velocity) < STANDS)  # it moves where the velocity is unknown
        if stands:
            things.standing.add(box.track)
        things.velocities[box.track] = np.zeros(3) if stands else velocity
        own, doubtful = _covered(box, clip.K, depth, numbers.shape)
        numbers[doubtful] = -1
        numbers[own] = box.track
    return things


def _covered(box: Box, K: FloatArray, depth: Map | None, shape: tuple[int, ...]) -> tuple[Mask, Mask]:
    """Pixels (h, w) of a box, and those that may be: without depth themselves, where most points are not the box's."""
    mask = box_mask(box, K, shape[1], shape[0])
    if depth is None:
        return mask, np.zeros_like(mask)
    known, own = mask & (depth > 0), np.zeros_like(mask)
    own[known] = is_inside(points_of(known, depth, K), box)
    if 2 * own.sum() > known.sum():
        return own | mask & ~known, np.zeros_like(mask)
    return own, mask & ~known


def _paths(clip: Clip) -> dict[int, dict[int, FloatArray]]:
    """By track, and by the frames in which it is seen: the centre (3,) of its box in the world."""
    paths: dict[int, dict[int, FloatArray]] = {}
    for t, boxes in enumerate(clip.boxes or ()):
        for box in boxes:
            paths.setdefault(box.track, {})[t] = (clip.poses[t] @ box.T_camera_box)[:3, 3]
    return paths


def _velocity(path: dict[int, FloatArray], times: FloatArray, t: int) -> FloatArray:
    """Velocity (3,) in the world about frame t; NaN without another frame of it."""
    frames = [s for s in range(t - REACH, t + REACH + 1) if s in path]
    if len(frames) < 2:
        return np.full(3, np.nan)
    first, last = frames[0], frames[-1]
    return np.asarray((path[last] - path[first]) / (times[last] - times[first]))
