# SPDX-License-Identifier: Apache-2.0
"""What moves, what stands and how fast, measured on clips with sensor depth: a teacher where nobody has labelled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import unproject
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.frame_pairs import FramePairs
from pixel4d_ros.datasets.residual_motion import GAPS, moving_masks
from pixel4d_ros.evaluation.windows import resized
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.predictor.objects import MAX_OBJECTS
from pixel4d_ros.two_view.flow import Mask, flow_size, length, sample
from pixel4d_ros.two_view.rigid_flow import Map, flow_noise, static_flow

STILL = 0.6  # of the noise of flow: what differs less from a static world fits it
TELLING = 2.0  # times the noise: parallax that a thing with a motion of its own would hardly show too
RIM = 0.012  # of the image's width: pixels this close to a moving patch may move or not
FLAT = 1.12  # largest by smallest depth around a pixel, up to which one value speaks for it
DEPTH_AGREES = 0.05  # relative, of the sensor depth seen and that of a static point, + DEPTH_NOISE
DEPTH_NOISE = 0.1  # metres
POINTS = 6  # sensor points that a patch and its velocity take
LOWEST = 0.3  # metres: patches that rise less are painted on the ground, or shadows
GROUND = 0.15  # metres above the lowest points of a patch: shadows too
FLOW_NOISE = 0.3  # pixels, of all flow in a patch alike
LARGEST_SPREAD, RELATIVE_SPREAD = 1.5, 0.25  # m/s and share of the speed: of the points of a patch, around their median
LARGEST_CHANGE, RELATIVE_CHANGE = 1.0, 0.25  # m/s and share of the speed: between earlier and later frames
SLOWEST, FASTEST = 0.5, 35.0  # m/s: beyond these a patch is an error
PART = 96  # frames labelled at once, for the memory that their flows take


@dataclass(frozen=True)
class MotionLabels:
    """Of T frames, at the size at which flow is measured; patches are numbered 1..M in each frame for itself.

    A patch moves; where boxes mark what could move, a patch may also stand still.
    """

    ids: NDArray[np.int8]  # (T, h, w): 0 still, 1..M a patch, -1 unknown
    velocities: NDArray[np.float32]  # (T, M + 1, 3) m/s in the frame's camera; NaN where unknown
    centroids: NDArray[np.float32]  # (T, M + 1, 3) metres in the frame's camera; 0 where there is no patch
    moving: NDArray[np.float32]  # (T, M + 1) 1 the patch moves, 0 it stands; NaN where unknown

    @staticmethod
    def uniform(clip: Clip, label: int) -> MotionLabels:
        """The same label (0 still, -1 unknown) all over a clip."""
        width, height = flow_size(clip.images.shape[2], clip.images.shape[1])
        none = np.zeros((len(clip), MAX_OBJECTS + 1, 3), np.float32)
        ids, unknown = np.full((len(clip), height, width), label, np.int8), none + np.float32(np.nan)
        return MotionLabels(ids, unknown, none, _all_moving(len(clip)))

    @staticmethod
    def join(labels: list[MotionLabels]) -> MotionLabels:
        """Labels of one frame after another."""
        return MotionLabels(
            np.concatenate([part.ids for part in labels]),
            np.concatenate([part.velocities for part in labels]),
            np.concatenate([part.centroids for part in labels]),
            np.concatenate([part.moving for part in labels]),
        )

    def part(self, start: int, stop: int) -> MotionLabels:
        """Frames start..stop (exclusive)."""
        frames = slice(start, stop)
        return MotionLabels(self.ids[frames], self.velocities[frames], self.centroids[frames], self.moving[frames])


def _all_moving(frames: int) -> NDArray[np.float32]:
    """`moving` of patches that all move, and of the background, which does not."""
    moving = np.ones((frames, MAX_OBJECTS + 1), np.float32)
    moving[:, 0] = 0
    return moving


def label_motion(clip: Clip) -> MotionLabels:
    """Labels of a clip; unknown all over without depth or with fewer than 3 frames.

    Moving is what residual_moving_masks finds. Still is what fits a static world in several frames, where something
    that moves would not fit: flow that leads there and back, next to that of a static point of the sensor's depth, and
    large enough to tell or with the depth in the other frame that a static point has there. A patch's velocity is the
    median over its sensor points of where the flow leads them and what depth the sensor sees there, by the refined
    motion of the camera, in earlier and later frames alike. All cores are used.
    """
    if clip.depth is None or len(clip) < 3:
        return MotionLabels.uniform(clip, -1)
    reach = max(GAPS) + 1
    parts = []
    for start in range(0, len(clip), PART):
        first, last = max(0, start - reach), min(len(clip), start + PART + reach)
        first = max(0, min(first, last - 3))
        part = replace(clip, stereo=None).part(first, last).in_memory()
        labels = _label(resized(part, flow_size(*clip.images.shape[2:0:-1])))
        parts.append(labels.part(start - first, min(start + PART, len(clip)) - first))
    return MotionLabels.join(parts)


def _label(clip: Clip) -> MotionLabels:
    pairs = FramePairs(clip, cached=2 * len(GAPS) * len(clip))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        moving = moving_masks(pairs, pool.map)
        sharp = [_sharp_depth(pairs.depth(t)) for t in range(len(clip))]
        frames = list(pool.map(lambda t: _label_frame(pairs, sharp, moving, t), range(len(clip))))
    ids, velocities, centroids = (np.stack(values) for values in zip(*frames))
    return MotionLabels(ids, velocities, centroids, _all_moving(len(clip)))


def _label_frame(
    pairs: FramePairs, sharp: list[Map], moving: Mask, t: int
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
    """Ids (H, W), velocities (MAX_OBJECTS + 1, 3) and centroids of frame t."""
    ids = np.where(_still(pairs, sharp, moving, t), 0, -1).astype(np.int8)
    velocities = np.full((MAX_OBJECTS + 1, 3), np.nan, np.float32)
    centroids = np.zeros((MAX_OBJECTS + 1, 3), np.float32)
    number = 1
    for whole in _largest_first(moving[t]):
        patch = without_ground(whole, pairs.depth(t), pairs.clip.K)
        points = points_of(patch & (pairs.depth(t) > 0), pairs.depth(t), pairs.clip.K)
        if number > MAX_OBJECTS or len(points) < POINTS:
            continue
        velocity = _velocity(pairs, sharp, patch, t)
        speed = np.linalg.norm(velocity)
        if speed < SLOWEST:
            continue  # flow was wrong
        ids[patch] = number
        centroids[number] = np.median(points, 0)
        velocities[number] = velocity if speed <= FASTEST else np.nan
        number += 1
    return ids, velocities, centroids


def _largest_first(mask: Mask) -> Iterator[Mask]:
    """The connected patches of a mask."""
    count, labels, sizes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    for i in 1 + np.argsort(-sizes[1:count, cv2.CC_STAT_AREA]):
        yield labels == i


def without_ground(patch: Mask, depth: Map, K: FloatArray) -> Mask:
    """A patch (H, W) without the shadow under it; nothing of one that is flat.

    Flow along painted lines and on bare road often is wrong, and a shadow has no depth of its own to be drawn with.
    """
    near = cv2.dilate(depth, np.ones((3, 3), np.uint8))
    down = points_of(patch & (near > 0), near, K)[:, 1]
    if len(down) == 0 or np.quantile(down, 0.95) - np.quantile(down, 0.05) < LOWEST:
        return np.zeros_like(patch)
    low = np.zeros(patch.shape, np.uint8)
    low[patch & (near > 0)] = down > np.quantile(down, 0.95) - GROUND
    between_rows = cv2.morphologyEx(low, cv2.MORPH_CLOSE, np.ones((7, 3), np.uint8)) > 0
    patch &= ~between_rows
    return patch


def _others(t: int, count: int) -> list[int]:
    """The frames that frame t is compared with."""
    return [s for gap in sorted(GAPS) for s in (t - gap, t + gap) if 0 <= s < count]


def _still(pairs: FramePairs, sharp: list[Map], moving: Mask, t: int) -> Mask:
    """Pixels (H, W) of frame t that stand still according to the flow."""
    told, denied = (np.zeros(moving.shape[1:], bool) for _ in range(2))
    for s in _others(t, pairs.count):
        residual, T = pairs.residual(t, s), pairs.pose(t, s)
        fits = residual.excess < STILL
        turned = static_flow(np.zeros_like(sharp[t]), T, pairs.clip.K)
        parallax = length(residual.static - turned) > TELLING * flow_noise(residual.static)
        expected, seen = _depths(pairs, sharp, t, s)
        both = (expected > 0) & (seen > 0)
        off = np.abs(seen - expected) > DEPTH_AGREES * expected + DEPTH_NOISE
        told |= fits & (parallax & ~(both & off) | both & ~off)
        denied |= (residual.excess > 1) | both & off
        denied |= sample(_grown(moving[s]).astype(np.float32), pairs.flow(t, s).flow) > 0.5
    still: Mask = told & ~denied & ~_grown(moving[t])
    return still


def _grown(mask: Mask) -> Mask:
    """A mask with the rim around it."""
    size = 2 * round(RIM * mask.shape[1]) + 1
    grown: Mask = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))) > 0
    return grown


def _sharp_depth(depth: Map) -> Map:
    """Depth (H, W) of pixels next to a sensor point, all of whose neighbours are about as far; else 0."""
    window = np.ones((3, 3), np.uint8)
    largest = cv2.dilate(depth, window)
    smallest = cv2.erode(np.where(depth > 0, depth, np.float32(1e6)), window)
    flat = (largest > 0) & (largest < FLAT * smallest)
    return np.where(flat, np.sqrt(largest * smallest), 0).astype(np.float32)


def _depths(pairs: FramePairs, sharp: list[Map], t: int, s: int) -> tuple[Map, Map]:
    """Depth (H, W) that pixels of frame t would have in frame s if static, and what the sensor sees; 0 if unknown."""
    v, u = np.nonzero(sharp[t] > 0)
    T = pairs.pose(t, s)
    points = points_of(sharp[t] > 0, sharp[t], pairs.clip.K) @ T[:3, :3].T + T[:3, 3]
    expected = np.zeros_like(sharp[t])
    expected[v, u] = points[:, 2]
    return expected, _looked_up(sharp[s], pairs, t, s)


def _looked_up(values: Map, pairs: FramePairs, t: int, s: int) -> Map:
    """values (H, W) of frame s where the flow leads pixels of frame t, to the nearest; 0 where flow is inconsistent."""
    checked = pairs.flow(t, s)
    there = checked.flow + np.moveaxis(np.mgrid[: values.shape[0], : values.shape[1]][::-1], 0, -1).astype(np.float32)
    found = cv2.remap(values, there, None, cv2.INTER_NEAREST)
    return np.where(checked.agrees, found, 0).astype(np.float32)


def points_of(mask: Mask, depth: Map, K: FloatArray) -> FloatArray:
    """Points (N, 3) of the pixels of a mask, in the camera's frame."""
    v, u = np.nonzero(mask)
    return unproject(np.stack((u, v), -1), depth[v, u], K)


def _velocity(pairs: FramePairs, sharp: list[Map], patch: Mask, t: int) -> FloatArray:
    """Velocity (3,) of a patch of frame t, on which at least two other frames agree; NaN where it is not clear."""
    measured = [m for s in _others(t, pairs.count) if (m := _velocity_to(pairs, sharp, patch, t, s)) is not None]
    if len(measured) < 2:
        return np.full(3, np.nan)
    velocities, errors = np.array([m[0] for m in measured]), np.array([m[1] for m in measured])
    surest = velocities[np.argmin(errors)]
    slack = LARGEST_CHANGE + RELATIVE_CHANGE * np.linalg.norm(surest)
    agree = np.linalg.norm(velocities - surest, axis=1) < slack
    if agree.sum() < max(2, len(measured) / 2):
        return np.full(3, np.nan)
    return np.asarray(np.average(velocities[agree], 0, 1 / errors[agree] ** 2))


def _velocity_to(pairs: FramePairs, sharp: list[Map], patch: Mask, t: int, s: int) -> tuple[FloatArray, float] | None:
    """Velocity (3,) of a patch of frame t by what frame s shows of it, and its error in m/s; None where unclear."""
    K, times = pairs.clip.K, pairs.clip.times
    seen = _looked_up(sharp[s], pairs, t, s)
    mask = patch & (sharp[t] > 0) & (seen > 0)
    v, u = np.nonzero(mask)
    if len(u) < POINTS:
        return None
    before = points_of(mask, sharp[t], K)
    there = np.stack((u, v), -1) + pairs.flow(t, s).flow[v, u]
    T = rigid_inverse(pairs.pose(t, s))
    after = unproject(there, seen[v, u], K) @ T[:3, :3].T + T[:3, 3]
    elapsed = abs(times[s] - times[t])
    each = (after - before) / (times[s] - times[t])
    velocity = np.median(each, 0)
    spread = 1.48 * float(np.linalg.norm(np.median(np.abs(each - velocity), 0)))
    if spread > LARGEST_SPREAD + RELATIVE_SPREAD * np.linalg.norm(velocity):
        return None
    return velocity, spread / len(u) ** 0.5 + float(FLOW_NOISE * np.median(before[:, 2]) / K[0, 0] / elapsed)
