# SPDX-License-Identifier: Apache-2.0
"""Parts of one object that were found apart: neighbours that move alike. Long vehicles come in pieces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view import compiled
from pixel4d_ros.two_view.flow import Mask
from pixel4d_ros.two_view.image_pair import Box, box_of, dilated, pixels_of, thinned_rows, widened
from pixel4d_ros.two_view.instance_motion import move_alike
from pixel4d_ros.two_view.rigid_flow import Map
from pixel4d_ros.two_view.two_images import TwoImages
from pixel4d_ros.two_view.velocity_fit import Fit, fitted_mover

CONTACT = 5  # pixels: parts farther apart are no neighbours
LEAST_CONTACT = 0.25  # of the smaller part's width or height: how long their border is at least
SAME_DISTANCE = 1.1  # ratio of the distances on both sides of the border, at most
ABREAST = 0.9  # metres: two vehicles that were found as such are one only if one is behind the other by this
LARGE = 0.125  # of the image's width: vehicles that are larger may have been found in part
MOST_PIXELS = 500  # of a part whose middle is asked for

Key = tuple[Mask, FloatArray, bool]  # pixels, velocity and whole of a MovingPart


@dataclass(frozen=True)
class MovingPart:
    """Pixels of an image, and what the flow says of their motion."""

    pixels: Mask  # (h, w)
    velocity: FloatArray  # (3,) m/s
    covariance: FloatArray  # (3, 3) (m/s)^2
    probability: float  # that it moves
    whole: bool = False  # it was found as one vehicle or person

    @staticmethod
    def of(pixels: Mask, fit: Fit, probability: float, whole: bool = False) -> MovingPart:
        """Pixels (h, w) whose velocity was fitted."""
        return MovingPart(pixels, fit.velocity, fit.covariance, probability, whole)

    @cached_property
    def size(self) -> int:
        """Number of pixels."""
        return int(self.pixels.sum())

    @property
    def key(self) -> Key:
        """What decides whether it is part of another."""
        return self.pixels, self.velocity, self.whole


def joined_parts(pair: TwoImages, parts: Iterable[MovingPart]) -> list[MovingPart]:
    """The parts, those of one object joined, whose probability is then the largest of theirs."""
    objects: list[MovingPart] = []
    for part in sorted(parts, key=lambda part: -part.size):
        mates = [k for k, other in enumerate(objects) if _are_one(pair.depth, pair.images.K, part.key, other.key)]
        for k in reversed(mates):
            part = _joined(pair, objects.pop(k), part)
        objects.append(part)
    return objects


@njit(cache=True, nogil=True)
def _are_one(depth: Map, K: FloatArray, part: Key, other: Key) -> bool:
    """Whether two parts are one object, given pixels (h, w), velocity (3,) and whether it was found as one of each."""
    (pixels, velocity, whole), (its_pixels, its_velocity, its_whole) = part, other
    if not move_alike(velocity, its_velocity):
        return False
    if whole and its_whole:
        middle, its_middle = _middle(depth, K, pixels), _middle(depth, K, its_pixels)
        if _abreast(middle, its_middle, velocity + its_velocity) > ABREAST:
            return False
    box, its_box = box_of(pixels), box_of(its_pixels)
    top, bottom, left, right = widened(box, CONTACT, pixels)
    own, its = pixels[top:bottom, left:right].copy(), its_pixels[top:bottom, left:right].copy()
    if not its.any():
        return False
    here, there = own & dilated(its, CONTACT), its & dilated(own, CONTACT)
    if not here.any() or _extent(box_of(here)) < LEAST_CONTACT * min(_extent(box), _extent(its_box)):
        return False
    near = depth[top:bottom, left:right].copy()
    distance = compiled.median(compiled.depths(*pixels_of(here), near))
    ratio = distance / compiled.median(compiled.depths(*pixels_of(there), near))
    return bool(1 / SAME_DISTANCE < ratio < SAME_DISTANCE)


@njit(cache=True, nogil=True)
def _abreast(middle: FloatArray, other: FloatArray, velocity: FloatArray) -> float:
    """Metres between two middles (2,) across the direction of a velocity (3,), over ground. The camera is level."""
    right, ahead = other - middle
    return float(abs(right * velocity[2] - ahead * velocity[0]) / max(np.hypot(velocity[0], velocity[2]), 1e-6))


@njit(cache=True, nogil=True)
def _middle(depth: Map, K: FloatArray, pixels: Mask) -> FloatArray:
    """Metres (2,) to the right of the camera and ahead of it of the middle of some pixels (h, w)."""
    points = compiled.unprojected(*thinned_rows(*pixels_of(pixels), MOST_PIXELS), depth, K)
    return np.array([compiled.median(points[:, axis].copy()) for axis in (0, 2)])


def is_large(pixels: Mask) -> bool:
    """Whether pixels (h, w) are those of a vehicle so large that it may have been found in pieces, or in part."""
    return bool(_extent(box_of(pixels)) >= LARGE * pixels.shape[1])


@njit(cache=True, nogil=True)
def _extent(box: Box) -> int:
    """The larger of width and height in pixels."""
    top, bottom, left, right = box
    return max(bottom - top, right - left)


def _joined(pair: TwoImages, large: MovingPart, small: MovingPart) -> MovingPart:
    """Both as one, with the velocity that fits all of the flow, or else the larger one's."""
    pixels, probability = large.pixels | small.pixels, max(large.probability, small.probability)
    (is_seen, fit), whole = fitted_mover(pair.images, *pixels_of(pixels)), large.whole or small.whole
    if is_seen:
        return MovingPart.of(pixels, fit, probability, whole)
    if small.size > large.size:
        large = small
    return MovingPart(pixels, large.velocity, large.covariance, probability, whole)
