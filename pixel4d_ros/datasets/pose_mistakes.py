# SPDX-License-Identifier: Apache-2.0
"""Usual mistakes of images and poses, and how to undo them: a clip that agrees much better without one has it.

Driving straight ahead looks much the same mirrored or late, so that agreement alone finds few of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.geometry.interpolation import poses_along
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse, rotation_vector

OFFSETS_S = (0.1, 0.2, 0.3, 0.4)  # between the stamps of images and poses, both ways
ROLLS = np.radians(np.arange(-10, 10.5, 0.5))  # of a camera between two images
FIXED = 1e-4  # rad: measured orientations change more
BLACK, LEAST_BAR = 16, 0.1  # of 255, and share of the image's side
SAME_ASPECT = 0.03  # of a ratio of focal lengths

View = tuple[FloatArray, FloatArray]  # K and T_later_first of two images


@dataclass(frozen=True)
class Mistake:
    """A mistake in words. undo: the K and T_j_i of two images i and j of a clip without it; None where unknown."""

    text: str
    undo: Callable[[Clip, int, int], View | None]


def view(clip: Clip, i: int, j: int) -> View:
    """K and T_j_i as the clip has them."""
    return clip.K, rigid_inverse(clip.poses[j]) @ clip.poses[i]


def usual_mistakes() -> Iterator[Mistake]:
    """Images that are mirrored, turned, or stamped by another clock than the poses."""
    for text, x, y in (
        ("the images seem to be mirrored left to right", -1, 1),
        ("the images seem to be mirrored top to bottom", 1, -1),
        ("the images seem to be upside down, or the poses in axes with y right and z down", -1, -1),
    ):
        yield Mistake(text, partial(_mirrored, np.diag([float(x), float(y), 1.0, 1.0])))
    for offset in OFFSETS_S:
        for sign, word in ((1, "later"), (-1, "earlier")):
            text = f"the images seem to show what was in view {offset:g} s {word}: stamp images and poses by one clock"
            yield Mistake(text, partial(_shifted, sign * offset))


def rolled(given: View, angle: float) -> View:
    """A view in which the later camera has rolled by an angle (rad) about its axis."""
    K, T = given
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return K, turn @ T


def has_fixed_orientation(clip: Clip) -> bool:
    """Whether the poses move and have the very same orientation, as where it is not measured."""
    first = clip.poses[0, :3, :3].T
    return bool(np.ptp(clip.poses[:, :3, 3], axis=0).any()) and all(
        np.linalg.norm(rotation_vector(first @ R)) < FIXED for R in clip.poses[1:, :3, :3]
    )


def bars_doubt(K: FloatArray, brightest: NDArray[np.uint8]) -> str:
    """Why K may be of the picture inside black bars and not of the whole image; else empty.

    brightest (H, W): over the images and their channels.
    """
    height, width = brightest.shape
    inside = []
    for side, lines, center in ((width, brightest.max(0), K[0, 2]), (height, brightest.max(1), K[1, 2])):
        bright = np.flatnonzero(lines > BLACK)
        before, after = (int(bright[0]), side - 1 - int(bright[-1])) if len(bright) else (0, 0)
        has_bars = min(before, after) >= LEAST_BAR * side
        inside.append(side - before - after if has_bars else side)
        if has_bars and abs(center - (inside[-1] - 1) / 2) < abs(center - (side - 1) / 2) / 2:
            return f"K's principal point is in the middle of {inside[-1]} pixels, the picture without its black bars"
    stretch, focal_ratio = inside[0] / width * height / inside[1], K[1, 1] / K[0, 0]
    if abs(stretch - 1) > 2 * SAME_ASPECT and abs(focal_ratio / stretch - 1) < SAME_ASPECT:
        return "K is stretched to the whole image as if its black bars belonged to the picture"
    return ""


def _mirrored(mirror: FloatArray, clip: Clip, i: int, j: int) -> View:
    height, width = clip.images.shape[1:3]
    K, T = view(clip, i, j)
    K = K.copy()
    for axis, last in enumerate((width - 1, height - 1)):
        K[axis, 2] = K[axis, 2] if mirror[axis, axis] > 0 else last - K[axis, 2]
    return K, mirror @ T @ mirror


def _shifted(offset: float, clip: Clip, i: int, j: int) -> View | None:
    times = clip.times[[i, j]] + offset
    if times.min() < clip.times[0] or times.max() > clip.times[-1]:
        return None
    after = np.searchsorted(clip.times, times)
    if (clip.times[after] - clip.times[np.maximum(after - 1, 0)]).max() > abs(clip.times[j] - clip.times[i]) + 1e-6:
        return None  # amid a gap
    first, later = poses_along([(clip.times - clip.times[0], clip.poses)], (times - clip.times[0])[None])[0]
    return clip.K, rigid_inverse(later) @ first
