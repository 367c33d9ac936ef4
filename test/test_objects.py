# SPDX-License-Identifier: Apache-2.0
"""Objects out of votes: who belongs together, where it is and how it moves."""

from __future__ import annotations

import torch
from torch import Tensor

from pixel4d_ros.predictor.objects import (
    ANGULAR_SCALE,
    LINEAR_SCALE,
    MAX_OBJECTS,
    OFFSET_SCALE,
    ObjectCells,
    Objects,
    decode_motion,
    find_objects,
    nearest_peaks,
    object_sums,
)

HEIGHT, WIDTH = 64, 128
CELLS = ObjectCells.of(HEIGHT, WIDTH, torch.tensor([2.0]))


def votes_for(box: tuple[slice, slice], offset: Tensor) -> tuple[int, int]:
    """Let every quarter resolution pixel in the box vote for the box's centre, and return that centre (row, column)."""
    rows, columns = box
    row, column = (rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2
    for y in range(rows.start, rows.stop):
        for x in range(columns.start, columns.stop):
            offset[:, y, x] = torch.tensor([column - x, row - y]) / OFFSET_SCALE
    return row, column


def found(mobility: Tensor, center: Tensor, offset: Tensor) -> Objects:
    """Objects of which every pixel is sure, at one metre, and moves at 3 in all units of its map."""
    moving = mobility > 0
    mobility = torch.sigmoid(mobility) * moving
    near, motion = nearest_peaks(center, offset, CELLS), torch.full((12, *center.shape), 3.0)
    return find_objects(near, mobility, moving.float(), moving.float().expand(3, -1, -1), motion, CELLS)


def no_maps() -> tuple[Tensor, Tensor, Tensor]:
    """Mobility, centres and votes of an input view on which nothing moves."""
    return torch.full((HEIGHT, WIDTH), -5.0), torch.full((16, 32), -8.0), torch.zeros(2, 16, 32)


def two_cars(second: tuple[slice, slice]) -> Tensor:
    """Ids of an input view with a car in the cells of rows 4..10, columns 3..10, and a second one."""
    mobility, center, offset = no_maps()
    for score, box in zip((3.0, 2.0), ((slice(4, 10), slice(3, 10)), second)):
        center[votes_for(box, offset)] = score
        mobility[4 * box[0].start : 4 * box[0].stop, 4 * box[1].start : 4 * box[1].stop] = 5.0
    return found(mobility, center, offset).ids


def test_two_cars_are_two_objects() -> None:
    ids = two_cars((slice(5, 12), slice(20, 28)))
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.long)
    expected[16:40, 12:40] = 1
    expected[20:48, 80:112] = 2
    assert torch.equal(ids, expected)


def test_cars_side_by_side_are_told_apart_by_their_votes() -> None:
    ids = two_cars((slice(4, 10), slice(10, 18)))
    assert (ids[16:40, 12:40] == 1).all() and (ids[16:40, 40:72] == 2).all()


def test_what_is_too_small_or_has_no_centre_is_background() -> None:
    mobility, center, offset = no_maps()
    mobility[8:11, 8:11] = 5.0  # nine pixels with a centre
    center[2, 2] = 3.0
    mobility[40:60, 100:120] = 5.0  # many pixels that vote for nothing near
    objects = found(mobility, center, offset)
    assert not objects.ids.any() and not objects.centroids.any() and not objects.motion.any()
    assert not found(mobility, no_maps()[1], offset).ids.any()


def test_an_object_that_barely_seems_to_move_is_background() -> None:
    mobility, center, offset = no_maps()
    for box, logit in (((slice(4, 10), slice(3, 10)), 1.5), ((slice(4, 10), slice(20, 27)), 2.5)):
        center[votes_for(box, offset)] = 3.0
        mobility[4 * box[0].start : 4 * box[0].stop, 4 * box[1].start : 4 * box[1].stop] = logit
    mobility[16:40, 36:40] = 5.0  # a few sure pixels do not make the rest of it move
    ids = found(mobility, center, offset).ids
    assert not ids[:, :80].any() and (ids[16:40, 80:108] > 0).all()


def test_of_many_peaks_the_highest_are_objects_in_their_order() -> None:
    mobility, center, offset = no_maps()
    scores = torch.linspace(0, 3, 4 * 8).view(4, 8)  # more than there are places for
    center[1::4, 1::4] = scores
    center[1::4, 2::4] = scores - 0.1  # beside a peak is none
    mobility[:] = 5.0
    near = nearest_peaks(center, offset, CELLS)
    assert near[1::4, 1::4].flatten()[-MAX_OBJECTS:].tolist() == list(range(MAX_OBJECTS, 0, -1))
    assert found(mobility, center, offset).ids.unique().tolist() == list(range(1, MAX_OBJECTS + 1))


def test_a_flat_peak_is_one_object() -> None:
    mobility, center, offset = no_maps()
    center[7:9, 11:13] = 2.0  # in four of the blocks of 3 x 3 cells
    mobility[:] = 5.0
    assert found(mobility, center, offset).ids.unique().tolist() == [0, 1]


def test_objects_move_as_their_sure_pixels_do() -> None:
    mobility, center, offset = no_maps()
    center[votes_for((slice(4, 10), slice(3, 10)), offset)] = 3.0
    mobility[16:40, 12:40] = 5.0
    mobility = torch.sigmoid(mobility) * (mobility > 0)
    sure = torch.zeros(HEIGHT, WIDTH)
    sure[16:20, 12:16], sure[20:24, 16:20] = 1.0, 0.5
    points, motion = torch.zeros(3, HEIGHT, WIDTH), torch.zeros(2 * 12, 16, 32)
    points[:, 16:20, 12:16], points[:, 20:24, 16:20] = 4.0, 10.0
    motion[:, 4, 3], motion[12:, 5, 4] = 1.0, 4.0
    motion[:, 8, 8] = 99.0  # of which nothing is sure
    objects = find_objects(nearest_peaks(center, offset, CELLS), mobility, sure, points * sure, motion, CELLS)
    torch.testing.assert_close(objects.centroids[1], torch.full((3,), 6.0))
    linear, angular = torch.tensor([1.0, 1, 2]) * LINEAR_SCALE, torch.ones(3) * ANGULAR_SCALE  # a lens twice as long
    expected = torch.stack((linear, linear, angular, angular))
    torch.testing.assert_close(objects.motion[1], torch.stack((2 / 3 * expected, 2 * expected)))
    assert not objects.motion[2:].any() and not objects.motion[0].any() and not objects.centroids[0].any()


def test_motion_is_scaled_to_metres_and_radians() -> None:
    maps = torch.ones(2, 3, 12, 4, 5)
    motion = decode_motion(maps, torch.tensor([1.0, 2.0]))
    assert motion.shape == (2, 3, 4, 3, 4, 5)
    linear, angular = [LINEAR_SCALE] * 3, [ANGULAR_SCALE] * 3
    assert motion[0, 0, :, :, 0, 0].tolist() == [linear, linear, angular, angular]
    # Seen through a lens twice as long, what looks like one metre ahead is two.
    twice = [LINEAR_SCALE, LINEAR_SCALE, 2 * LINEAR_SCALE]
    assert motion[1, 2, :, :, 3, 4].tolist() == [twice, twice, angular, angular]


def test_sums_are_over_each_object() -> None:
    values = torch.tensor([[[9.0, 9], [1, 0]], [[3, 4], [5, 5]]])
    sums = object_sums(values, torch.tensor([[0, 1], [1, 3]]), CELLS)
    torch.testing.assert_close(sums[:4], torch.tensor([[9.0, 3], [10, 9], [0, 0], [0, 5]]))
    assert not sums[4:].any()
