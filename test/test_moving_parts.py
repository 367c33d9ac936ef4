# SPDX-License-Identifier: Apache-2.0
"""Parts of one vehicle become one object, neighbours do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.flow import CheckedFlow, Mask
from pixel4d_ros.two_view.moving_parts import MovingPart, joined_parts
from pixel4d_ros.two_view.two_images import MeasuredFlow, TwoImages

SIZE = 400, 120
CAMERA = Camera(np.array([[240.0, 0, 200], [0, 240, 60], [0, 0, 1]]), *SIZE)
FORWARD = np.array([0.0, 0, 6])


def scene(*distances: tuple[slice, float]) -> TwoImages:
    """Images of a wall 30 m away, in columns of which something is nearer; nothing is known of the flow."""
    depth = np.full(SIZE[::-1], 30, np.float32)
    for columns, distance in distances:
        depth[:, columns] = distance
    nowhere, grey = np.zeros(SIZE[::-1], bool), np.zeros(SIZE[::-1], np.uint8)
    measured = MeasuredFlow(grey, grey, CheckedFlow(np.zeros((*SIZE[::-1], 2), np.float32), nowhere), grey, grey)
    return TwoImages(measured, CAMERA, depth, np.eye(4), 0.2)


def part(columns: slice, velocity: FloatArray = FORWARD, rows: slice = slice(40, 80), **more: Any) -> MovingPart:
    pixels: Mask = np.zeros(SIZE[::-1], bool)
    pixels[rows, columns] = True
    return MovingPart(pixels, velocity, np.eye(3), **{"probability": 0.5, **more})


def test_pieces_of_a_lorry_are_one() -> None:
    cab, tank = slice(100, 140), slice(142, 240)
    (lorry,) = joined_parts(scene((cab, 9), (tank, 8.5)), [part(cab, probability=0.9), part(tank)])
    assert lorry.pixels.sum() == 40 * (40 + 98)
    assert lorry.probability == 0.9


@pytest.mark.parametrize(
    ("distance", "velocity", "columns", "rows"),
    [
        (12.0, FORWARD, slice(140, 180), slice(40, 80)),  # the next one in the queue
        (9.0, -FORWARD, slice(140, 180), slice(40, 80)),  # comes the other way
        (9.0, FORWARD, slice(160, 200), slice(40, 80)),  # not beside it
        (9.0, FORWARD, slice(140, 180), slice(78, 110)),  # their corners touch
    ],
)
def test_what_is_apart_stays_apart(distance: float, velocity: FloatArray, columns: slice, rows: slice) -> None:
    first = slice(100, 140)
    parts = [part(first), part(columns, velocity, rows)]
    assert len(joined_parts(scene((first, 9), (columns, distance)), parts)) == 2


@pytest.mark.parametrize(("velocity", "objects"), [(FORWARD, 2), (np.array([6.0, 0, 0]), 1)])
def test_two_that_were_found_as_such_are_one_if_one_follows_the_other(velocity: FloatArray, objects: int) -> None:
    """Two cars abreast stay two; a lorry that crosses was found in two pieces."""
    left, right = slice(100, 140), slice(140, 180)
    parts = [part(left, velocity, whole=True), part(right, velocity, whole=True)]
    assert len(joined_parts(scene((left, 9), (right, 9)), parts)) == objects
