# SPDX-License-Identifier: Apache-2.0
"""Whether a clip's images and its poses belong together, by optical flow.

A camera that moves shifts each point of a still scene along its epipolar line, away from where the rotation alone puts
it. Poses in another frame or direction, angles in other units, quaternions in another order, images that are mirrored
or turned, and intrinsics of another size put the points elsewhere. The scale of positions does not matter.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.datasets.pose_mistakes import View, bars_doubt, has_fixed_orientation, usual_mistakes, view
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.flow import LEAST_SIDE, flow_size, measured_flow

logger = logging.getLogger(__name__)
PAIRS, LEAST_PAIRS = 6, 3  # of images that are compared, and of those that must tell something
AGO_S = 0.4  # between the images of a pair
GRID = 4  # pixels between the points that are compared
LEAST_POINTS = 0.1  # share of the image whose flow must be known
LEAST_FLOW = 1.5  # pixels: shorter flow tells nothing
SLACK, SLACK_SHARE = 0.75, 0.2  # pixels that a point may be off, and share of its flow on top
STILL_SHARE = 0.02  # of the points that move: fewer are noise
# Share of points that agree, median over pairs. Clips of 20 data sets have 0.46 or more, the worst where traffic moves
# around a slow vehicle; the mistakes named above have 0 to 0.3.
LEAST_AGREEMENT = 0.35
# A mistake is likely where agreement, mean over pairs, is above one of these without it, and more by the other one.
# Clips of 20 data sets gain at most 0.08 above 0.75; a slow vehicle amid traffic gains 0.24, up to 0.66.
GOOD_AGREEMENT, BETTER = 0.75, 0.12
MOVED_M = 1.0  # of the camera between the images of a pair: more shows in pictures


def warn_of_wrong_poses(clip: Clip) -> None:
    """Warn where a clip's images do not move as its poses say; reads up to 12 of its images."""
    doubt = pose_doubt(clip)
    if doubt:
        logger.warning("%s: %s", clip.name, doubt)


def warn_of_wrong_log_poses(path: Path, camera: str | None = None, rectified: bool | None = None) -> None:
    """The same of a driving log, see read_clip; nothing where it has no poses, as the node works without."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are given where the log is used
        try:
            clip = read_clip(path, camera, rectified=rectified)
        except ValueError:
            return
    warn_of_wrong_poses(clip)


def pose_doubt(clip: Clip) -> str:
    """Why images and poses of a clip may not belong together; empty where they agree, or too little moves."""
    if len(clip) < 2 or min(clip.images.shape[1:3]) < LEAST_SIDE:
        return ""
    ahead = max(1, min(round(AGO_S / float(np.median(np.diff(clip.times)))), (len(clip) - 1) // 2 or 1))
    firsts = np.unique(np.linspace(0, len(clip) - 1 - ahead, PAIRS).round().astype(int))
    pairs: dict[tuple[int, int], MovingPoints] = {}
    brightest, frozen = np.zeros(clip.images.shape[1:3], np.uint8), 0
    for i in firsts.tolist():
        try:
            first, later = clip.images[i], clip.images[i + ahead]
        except ValueError:  # damaged: reported when the image is used
            continue
        brightest = np.maximum(brightest, np.maximum(first, later).max(2))
        points = moving_points(first, later)
        if points is not None:
            pairs[i, i + ahead] = points
        elif clip.metric and np.linalg.norm(view(clip, i, i + ahead)[1][:3, 3]) > MOVED_M:
            frozen += _is_still(first, later)
    if frozen >= LEAST_PAIRS and frozen > len(pairs):
        return "the images do not change while the poses move: is the camera frozen, or are they of another drive?"
    if doubt := bars_doubt(clip.K, brightest):
        return doubt
    return _disagreement(clip, pairs) if len(pairs) >= LEAST_PAIRS else ""


def _disagreement(clip: Clip, pairs: dict[tuple[int, int], MovingPoints]) -> str:
    """Which mistake makes images and poses disagree, or that they do; else empty."""
    given = {pair: points.agreement(view(clip, *pair)) for pair, points in pairs.items()}
    mean, median = float(np.mean(list(given.values()))), float(np.median(list(given.values())))
    if mean < GOOD_AGREEMENT and has_fixed_orientation(clip):
        return (
            f"the poses keep one orientation, by which {mean:.0%} of what moves in the images moves as the poses say:"
            " fill it, if the camera turns"
        )
    best, text = GOOD_AGREEMENT, ""
    for mistake in usual_mistakes():
        undone = {pair: found for pair in pairs if (found := mistake.undo(clip, *pair)) is not None}
        if len(undone) < LEAST_PAIRS:
            continue
        without = float(np.mean([pairs[pair].agreement(found) for pair, found in undone.items()]))
        as_given = float(np.mean([given[pair] for pair in undone]))
        if without > best and without - as_given > BETTER:
            best = without
            text = (
                f"{mistake.text}: {as_given:.0%} of what moves in the images moves as the poses say, {without:.0%}"
                " would without this mistake"
            )
    if text or median >= LEAST_AGREEMENT:
        return text
    return (
        f"only {median:.0%} of what moves in the images moves as the poses say: check which frame and axes the poses"
        " are of, the order of quaternions, clocks, the camera's mounting and K, and whether images are mirrored or"
        " turned"
    )


@dataclass(frozen=True)
class MovingPoints:
    """Points that move from an image to a later one: pixels and flow (n, 2) at flow_size; size of the images."""

    pixels: FloatArray
    flow: FloatArray
    image_size: tuple[int, int]  # width, height

    def agreement(self, view: View) -> float:
        """Share of the points that move as K and T_later_first say."""
        K, T_later_first = view
        K = Camera(K, *self.image_size).resized(*flow_size(*self.image_size)).K
        rays = np.column_stack((self.pixels, np.ones(len(self.pixels)))) @ np.linalg.inv(K).T @ T_later_first[:3, :3].T
        far = _projected(rays, K)
        off = self.pixels + self.flow - far
        distance = np.linalg.norm(off, axis=1)
        translation = T_later_first[:3, 3]
        baseline = float(np.linalg.norm(translation))
        if baseline > 0:  # a point at a finite depth lies on the half line from far in this direction
            direction = _projected(rays + 1e-3 * translation / baseline, K) - far
            direction /= np.maximum(np.linalg.norm(direction, axis=1), 1e-12)[:, None]
            along, across = (off * direction).sum(1), off[:, 0] * direction[:, 1] - off[:, 1] * direction[:, 0]
            distance = np.where(along > 0, np.abs(across), distance)
        return float((distance < SLACK + SLACK_SHARE * np.linalg.norm(self.flow, axis=1)).mean())


def moving_points(first: NDArray[np.uint8], later: NDArray[np.uint8]) -> MovingPoints | None:
    """The points of an image (H, W, 3) that move until a later one; None if too few are known."""
    image_size = first.shape[1], first.shape[0]
    size = flow_size(*image_size)
    flow = (measured_flow(first, later) * np.array(size, np.float32))[::GRID, ::GRID].astype(np.float64)
    pixels = np.stack(np.meshgrid(np.arange(0, size[0], GRID), np.arange(0, size[1], GRID)), -1).astype(np.float64)
    known: NDArray[np.bool_] = np.isfinite(flow[..., 0])
    length: FloatArray = np.hypot(flow[..., 0], flow[..., 1])  # NaN where unknown
    moving: NDArray[np.bool_] = known & (np.nan_to_num(length) > LEAST_FLOW)
    if known.mean() < LEAST_POINTS or moving.sum() < STILL_SHARE * known.sum():
        return None
    return MovingPoints(pixels[moving], flow[moving], image_size)


def _projected(points: FloatArray, K: FloatArray) -> FloatArray:
    """Pixels (n, 2) of points (n, 3); points behind the camera are far outside the image."""
    pixels = points @ K.T
    return np.asarray(pixels[:, :2] / np.maximum(pixels[:, 2:], 1e-6))


def _is_still(first: NDArray[np.uint8], later: NDArray[np.uint8]) -> bool:
    """Whether two images (H, W, 3) show the same, with some structure."""
    flow = measured_flow(first, later)
    flow *= np.array(flow_size(first.shape[1], first.shape[0]), np.float32)
    moved: NDArray[np.float32] = np.hypot(flow[..., 0], flow[..., 1])
    known: NDArray[np.bool_] = np.isfinite(moved)
    return bool(known.mean() > 0.5 and first.std() > 5 and (moved[known] > LEAST_FLOW).mean() < STILL_SHARE)
