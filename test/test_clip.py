# SPDX-License-Identifier: Apache-2.0
"""Clips: lazy frames behave as arrays do, parts stay together, boxes cover the pixels of what is in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixel4d_ros.datasets.boxes import Box, box_mask
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.lazy_frames import CACHED, LazyFrames
from pixel4d_ros.geometry.rotations import rigid, rotation_matrix
from pixel4d_ros.synthetic.motion import BODY_OPTICAL

K = np.array([[40.0, 0, 31.5], [0, 40, 23.5], [0, 0, 1]])
WIDTH, HEIGHT = 64, 48
FORWARD = BODY_OPTICAL.T  # rotation of a box that faces away from the camera


def frame(index: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), index, np.uint8)


def lazy(count: int = 40) -> tuple[LazyFrames[np.uint8], list[int]]:
    loads: list[int] = []

    def load(index: int) -> np.ndarray:
        loads.append(index)
        return frame(index)

    return LazyFrames(load, count, (HEIGHT, WIDTH, 3), np.uint8), loads


def clip(count: int = 10, **fields: object) -> Clip:
    return Clip("c", lazy(count)[0], K, np.tile(np.eye(4), (count, 1, 1)), np.arange(float(count)), **fields)


def box(centre: tuple[float, float, float], size: tuple[float, float, float], moving: bool = True) -> Box:
    return Box(1, "car", rigid(FORWARD, centre), np.array(size), moving)


def test_frames_are_read_when_asked_for_and_a_few_are_kept() -> None:
    frames, loads = lazy()
    assert (frames.shape, frames.dtype, len(frames)) == ((40, HEIGHT, WIDTH, 3), np.uint8, 40)
    part = frames[5:30:5][1:]
    assert isinstance(part, LazyFrames) and part.shape[0] == 4 and not loads
    np.testing.assert_array_equal(part[-1], frame(25))
    part[0][:] = 99  # what a user draws on is their own
    np.testing.assert_array_equal(part[0], frame(10))
    assert loads == [25, 10]
    np.testing.assert_array_equal(frames[25], frame(25))
    assert loads == [25, 10]  # parts share the cache
    np.asarray(frames)
    assert len(loads) > 40 - CACHED
    with pytest.raises(IndexError):
        part[4]


@given(st.slices(12), st.integers(0, HEIGHT - 1))
@settings(max_examples=30, deadline=None)
def test_lazy_frames_index_as_arrays_do(cut: slice, row: int) -> None:
    frames = lazy(12)[0]
    eager = np.asarray(frames)
    np.testing.assert_array_equal(eager, np.stack([frame(i) for i in range(12)]))
    np.testing.assert_array_equal(np.asarray(frames[cut]), eager[cut])
    np.testing.assert_array_equal(frames[cut, row], eager[cut, row])
    np.testing.assert_array_equal(np.stack(list(frames)), eager)
    np.testing.assert_array_equal(frames[..., 0], eager[..., 0])


def test_part_keeps_everything_together() -> None:
    boxes = tuple((box((0, 0, 5.0 + i), (4, 2, 1.5)),) for i in range(10))
    whole = clip(boxes=boxes, depth=np.arange(10.0, dtype=np.float32)[:, None, None] * np.ones((1, HEIGHT, WIDTH)))
    part = whole.part(2, 9, 3)
    assert part.boxes == boxes[2:9:3]
    assert part.depth is not None
    np.testing.assert_array_equal(part.depth[:, 0, 0], [2, 5, 8])
    np.testing.assert_array_equal(part.times, [2, 5, 8])
    np.testing.assert_array_equal(part.images[1], frame(5))
    with pytest.raises(ValueError, match="clip c: 10 images but 3 boxes"):
        clip(boxes=boxes[:3])


def test_moving_mask_prefers_object_ids_and_leaves_out_what_stands() -> None:
    assert clip().moving_mask(0) is None
    driving, parked = box((-2, 0, 10), (4, 2, 1.5)), box((2, 0, 10), (4, 2, 1.5), moving=False)
    boxed = clip(1, boxes=((driving, parked),))
    mask = boxed.moving_mask(0)
    assert mask is not None
    np.testing.assert_array_equal(mask, box_mask(driving, K, WIDTH, HEIGHT))
    assert mask.any() and not mask[:, WIDTH // 2 :].any()
    ids = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    ids[0, 3, 4] = 2
    known = clip(1, boxes=((driving,),), object_ids=ids).moving_mask(0)
    assert known is not None and known.sum() == 1 and known[3, 4]


def test_box_mask_of_a_box_ahead() -> None:
    # 4 m long, 2 m wide, 1 m high, its near face 8 m away: 40 * (1, 0.5) / 8 = (5, 2.5) pixels about the centre.
    mask = box_mask(box((0, 0, 10), (4, 2, 1)), K, WIDTH, HEIGHT)
    v, u = np.nonzero(mask)
    assert (u.min(), u.max(), v.min(), v.max()) == (27, 36, 21, 26)
    assert mask.sum() == 10 * 6


def test_box_mask_near_and_behind_the_camera() -> None:
    assert box_mask(box((0, 0, 0), (4, 2, 1.5)), K, WIDTH, HEIGHT).all()  # the camera is inside
    assert not box_mask(box((0, 0, -5), (4, 2, 1.5)), K, WIDTH, HEIGHT).any()
    beside = box_mask(box((2, 0.5, 0), (8, 2, 1)), K, WIDTH, HEIGHT)  # passes the camera on its right
    assert beside[:, WIDTH // 2 + 8 :].any() and not beside[:, : WIDTH // 2].any() and not beside[0].any()


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_pixels_of_points_in_the_box_are_in_its_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pose = rigid(rotation_matrix(rng.normal(0, 2, 3)), rng.uniform((-4, -3, -1), (4, 3, 12)))
    thing = Box(1, "car", pose, rng.uniform(0.5, 5, 3), True)
    mask = box_mask(thing, K, WIDTH, HEIGHT)
    inside = (rng.uniform(-0.5, 0.5, (400, 3)) * thing.size) @ pose[:3, :3].T + pose[:3, 3]
    x, y, z = (inside[inside[:, 2] > 0.06] @ K.T).T
    u, v = np.rint(x / z), np.rint(y / z)
    # Away from the outline, by the half pixel that rounding moves a point.
    grown = mask.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            grown |= np.roll(mask, step, axis)
    seen = (u >= 1) & (v >= 1) & (u < WIDTH - 1) & (v < HEIGHT - 1)
    wide = grown | np.roll(grown, 1, 0) | np.roll(grown, -1, 0)
    assert wide[v[seen].astype(int), u[seen].astype(int)].all()


def test_times_in_another_unit_are_refused() -> None:
    """RealEstate10K's microseconds, given in milliseconds, are 33 of them apart."""
    with pytest.raises(ValueError, match=r"3\.3e-05 s lie between its images: times must be seconds"):
        replace(clip(), times=33e-6 * np.arange(10))
