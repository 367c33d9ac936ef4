# SPDX-License-Identifier: Apache-2.0
"""Parts of one object that were found apart: neighbours that move alike. Long vehicles come in pieces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view import compiled
from pixel4d_ros.two_view.flow import Mask, around, pixels_of, thinned_rows
from pixel4d_ros.two_view.velocity_fit import Fit, TwoImages, fitted_mover

CONTACT = 5  # pixels: parts farther apart are no neighbours
LEAST_CONTACT = 0.25  # of the smaller part's width or height: how long their border is at least
SAME_DISTANCE = 1.1  # ratio of the distances on both sides of the border, at most
ABREAST = 0.9  # metres: two vehicles that were found as such are one only if one is behind the other by this
LARGE = 0.125  # of the image's width: vehicles that are larger may have been found in part
MOST_PIXELS = 500  # of a part whose middle is asked for
ALIKE, ALIKE_SHARE = 0.7, 0.3  # m/s, and share of the speed: difference of velocities, at most


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


def joined_parts(pair: TwoImages, parts: Iterable[MovingPart]) -> list[MovingPart]:
    """The parts, those of one object joined, whose probability is then the largest of theirs."""
    objects: list[MovingPart] = []
    for part in sorted(parts, key=lambda part: -int(part.pixels.sum())):
        mates = [k for k, other in enumerate(objects) if _are_one(pair, part, other)]
        for k in reversed(mates):
            part = _joined(pair, objects.pop(k), part)
        objects.append(part)
    return objects


def move_alike(one: FloatArray, other: FloatArray) -> bool:
    """Whether two velocities (3,) in m/s may be those of one object."""
    limit = ALIKE + ALIKE_SHARE * max(float(np.linalg.norm(velocity)) for velocity in (one, other))
    return bool(np.linalg.norm(one - other) <= limit)


def _are_one(pair: TwoImages, part: MovingPart, other: MovingPart) -> bool:
    if not move_alike(part.velocity, other.velocity):
        return False
    if part.whole and other.whole and _abreast(pair, part, other) > ABREAST:
        return False
    area = around(part.pixels, CONTACT)
    own, its, depth = part.pixels[area], other.pixels[area], pair.depth[area]
    if not its.any():
        return False
    reach = np.ones((2 * CONTACT + 1,) * 2, np.uint8)
    here = own & (cv2.dilate(its.view(np.uint8), reach) > 0)
    there = its & (cv2.dilate(own.view(np.uint8), reach) > 0)
    if not here.any() or _extent(here) < LEAST_CONTACT * min(_extent(part.pixels), _extent(other.pixels)):
        return False
    ratio: float = compiled.median(depth[here]) / compiled.median(depth[there])
    return 1 / SAME_DISTANCE < ratio < SAME_DISTANCE


def _abreast(pair: TwoImages, part: MovingPart, other: MovingPart) -> float:
    """Metres between the middles of two parts across the direction in which they move, over ground.

    The camera is taken to be level.
    """
    x, _, z = part.velocity + other.velocity
    right, ahead = _middle(pair, other.pixels) - _middle(pair, part.pixels)
    return float(abs(right * z - ahead * x) / max(np.hypot(x, z), 1e-6))


def _middle(pair: TwoImages, pixels: Mask) -> FloatArray:
    """Metres (2,) to the right of the camera and ahead of it of the middle of some pixels (h, w)."""
    points = compiled.unprojected(*thinned_rows(*pixels_of(pixels), MOST_PIXELS), pair.depth, pair.camera.K)
    return np.array([compiled.median(points[:, axis].copy()) for axis in (0, 2)])


def is_large(pixels: Mask) -> bool:
    """Whether pixels (h, w) are those of a vehicle so large that it may have been found in pieces, or in part."""
    return bool(_extent(pixels) >= LARGE * pixels.shape[1])


def _extent(pixels: Mask) -> int:
    """The larger of width and height in pixels."""
    _, _, width, height = cv2.boundingRect(pixels.view(np.uint8))
    return int(max(width, height))


def _joined(pair: TwoImages, large: MovingPart, small: MovingPart) -> MovingPart:
    """Both as one, with the velocity that fits all of the flow, or else the larger one's."""
    pixels, probability = large.pixels | small.pixels, max(large.probability, small.probability)
    fit, whole = fitted_mover(pair, pixels), large.whole or small.whole
    if fit is not None:
        return MovingPart.of(pixels, fit, probability, whole)
    if small.pixels.sum() > large.pixels.sum():
        large = small
    return MovingPart(pixels, large.velocity, large.covariance, probability, whole)
