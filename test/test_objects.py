"""Objects out of votes: who belongs together, where it is and how it moves."""

from __future__ import annotations

import torch
from torch import Tensor

from pixel4d_ros.predictor.objects import (
    ANGULAR_SCALE,
    LINEAR_SCALE,
    OFFSET_SCALE,
    decode_motion,
    find_objects,
    members,
    object_means,
)


def votes_for(box: tuple[slice, slice], offset: Tensor) -> tuple[int, int]:
    """Let every quarter resolution pixel in the box vote for the box's centre, and return that centre (row, column)."""
    rows, columns = box
    row, column = (rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2
    for y in range(rows.start, rows.stop):
        for x in range(columns.start, columns.stop):
            offset[:, y, x] = torch.tensor([column - x, row - y]) / OFFSET_SCALE
    return row, column


def two_cars(second: tuple[slice, slice]) -> Tensor:
    """Maps of a 128 x 64 canvas with a car at quarter resolution rows 4..10, columns 3..10, and a second one."""
    mobility, center, offset = torch.full((64, 128), -5.0), torch.full((16, 32), -8.0), torch.zeros(2, 16, 32)
    for score, box in zip((3.0, 2.0), ((slice(4, 10), slice(3, 10)), second)):
        center[votes_for(box, offset)] = score
        mobility[4 * box[0].start : 4 * box[0].stop, 4 * box[1].start : 4 * box[1].stop] = 5.0
    return find_objects(mobility, center, offset)


def test_two_cars_are_two_objects() -> None:
    found = two_cars((slice(5, 12), slice(20, 28)))
    expected = torch.zeros(64, 128, dtype=torch.long)
    expected[16:40, 12:40] = 1
    expected[20:48, 80:112] = 2
    assert torch.equal(found, expected)


def test_cars_side_by_side_are_told_apart_by_their_votes() -> None:
    found = two_cars((slice(4, 10), slice(10, 18)))
    assert (found[16:40, 12:40] == 1).all() and (found[16:40, 40:72] == 2).all()


def test_what_is_too_small_or_has_no_centre_is_background() -> None:
    mobility, center, offset = torch.full((64, 128), -5.0), torch.full((16, 32), -8.0), torch.zeros(2, 16, 32)
    mobility[8:11, 8:11] = 5.0  # nine pixels with a centre
    center[2, 2] = 3.0
    mobility[40:60, 100:120] = 5.0  # many pixels that vote for nothing near
    found = find_objects(mobility, center, offset)
    assert not found.any()
    assert not find_objects(mobility, torch.full((16, 32), -8.0), offset).any()


def test_motion_is_scaled_to_metres_and_radians() -> None:
    maps = torch.ones(2, 3, 12, 4, 5)
    motion = decode_motion(maps, torch.tensor([1.0, 2.0]))
    assert motion.shape == (2, 3, 4, 3, 4, 5)
    linear, angular = [LINEAR_SCALE] * 3, [ANGULAR_SCALE] * 3
    assert motion[0, 0, :, :, 0, 0].tolist() == [linear, linear, angular, angular]
    # Seen through a lens twice as long, what looks like one metre ahead is two.
    twice = [LINEAR_SCALE, LINEAR_SCALE, 2 * LINEAR_SCALE]
    assert motion[1, 2, :, :, 3, 4].tolist() == [twice, twice, angular, angular]


def test_objects_take_the_weighted_mean_of_their_pixels() -> None:
    values = torch.tensor([[[9.0, 9], [1, 0]], [[3, 4], [5, 5]]])
    weights = members(torch.tensor([[0, 1], [1, 3]])) * torch.tensor([[1.0, 3], [1, 2]])[..., None]
    means = object_means(values, weights)
    torch.testing.assert_close(means[:4], torch.tensor([[0.0, 0], [1.5, 1], [0, 0], [5, 5]]))
    assert not means[4:].any()
