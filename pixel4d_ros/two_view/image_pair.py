# SPDX-License-Identifier: Apache-2.0
"""Two images as compiled functions take them, and the pixels of an object in the first, found in its bounding box."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view import compiled
from pixel4d_ros.two_view.flow import Flow, Mask, Rows
from pixel4d_ros.two_view.rigid_flow import Grey, Map

MARGIN = 0.1  # of an object's smaller side: its outline is about so accurate
SAME_DEPTH = 1.2  # ratio to an object's median depth, beyond which a pixel belongs to something else
MOST_INNER = 600  # pixels of an object that are compared, about
Box = tuple[int, int, int, int]  # first row, row after the last, first column, column after the last


class ImagePair(NamedTuple):
    """Two images of one size, the depth of the first, the flow and the pose between them."""

    here: Grey  # (h, w)
    there: Grey  # (h, w), the reference image
    depth: Map  # (h, w) metres, predicted for here
    K: FloatArray  # (3, 3) of both
    T_there_here: FloatArray  # (4, 4)
    seconds: float  # from there to here
    flow: Flow  # (h, w, 2) pixels, from here to there
    agrees: Mask  # (h, w) where the flow is known
    fine_here: Grey  # (H, W) both at full resolution,
    fine_there: Grey
    fine_K: FloatArray  # and their (3, 3)


@njit(cache=True, nogil=True)
def box_of(mask: Mask) -> Box:
    """The bounding box of what a mask (h, w) marks; all 0 where that is nothing."""
    height, width = mask.shape
    top, bottom, left, right = -1, 0, width, 0
    for v in range(height):
        row, some = mask[v], False
        for u in range(width):
            some |= row[u]
        if not some:
            continue
        top, bottom = (v if top < 0 else top), v + 1
        u = 0
        while u < left and not row[u]:
            u += 1
        left, u = min(left, u), width
        while u > right and not row[u - 1]:
            u -= 1
        right = max(right, u)
    return (0, 0, 0, 0) if top < 0 else (top, bottom, left, right)


@njit(cache=True, nogil=True)
def widened(box: Box, reach: int, mask: Mask) -> Box:
    """A box with all that is within so many pixels of it in a mask (h, w)."""
    top, bottom, left, right = box
    height, width = mask.shape
    return max(top - reach, 0), min(bottom + reach, height), max(left - reach, 0), min(right + reach, width)


@njit(cache=True, nogil=True)
def pixels_of(mask: Mask) -> tuple[Rows, Rows]:
    """Rows and columns (n,) of the pixels that a mask (h, w) marks."""
    top, bottom, left, right = box_of(mask)
    v, u = np.nonzero(mask[top:bottom, left:right])
    return v + top, u + left


@njit(cache=True, nogil=True)
def thinned_rows(v: Rows, u: Rows, most: int) -> tuple[Rows, Rows]:
    """Rows and columns (n,) of pixels, every second, third, ... of them, so that at most so many are left."""
    step = max(1, -(-len(v) // most))
    return v[::step].copy(), u[::step].copy()


@njit(cache=True, nogil=True)
def margin_of(box: Box) -> int:
    """Pixels, each way, by which the outline of an object in a box may be wrong."""
    top, bottom, left, right = box
    return round(MARGIN * max(0, min(right - left, bottom - top) - 1) / 2)


@njit(cache=True, nogil=True)
def dilated(mask: Mask, reach: int) -> Mask:
    """The pixels (h, w) within so many rows and columns of one that a mask (h, w) marks."""
    height, width = mask.shape
    wide, out = np.zeros((height, width), np.bool_), np.zeros((height, width), np.bool_)
    for v in range(height):
        until = -1  # the last column that is reached
        for u in range(width + reach):
            if u < width and mask[v, u]:
                until = u + 2 * reach
            if u >= reach:
                wide[v, u - reach] = u <= until
    until_row = np.full(width, -1)
    for v in range(height + reach):
        for u in range(width):
            if v < height and wide[v, u]:
                until_row[u] = v + 2 * reach
            if v >= reach:
                out[v - reach, u] = v <= until_row[u]
    return out


@njit(cache=True, nogil=True)
def inner_pixels(depth: Map, mask: Mask) -> tuple[Rows, Rows]:
    """Rows and columns (n,) of an object's pixels, about MOST_INNER of them, evenly spread; mask (h, w) marks all.

    Without its rim, which may show what is behind, and about at its distance in depth (h, w). An object has far fewer
    independent errors than MOST_INNER.
    """
    own = box_of(mask)
    top, bottom, left, right = widened(own, 1, mask)
    inner = ~dilated(~mask[top:bottom, left:right], margin_of(own))
    v, u = np.nonzero(inner)
    v, u = v + top, u + left
    values = compiled.depths(v, u, depth)
    distance = compiled.median(values) if len(v) > 0 else 0.0
    near, far = np.float32(distance / SAME_DEPTH), np.float32(distance * SAME_DEPTH)
    alike = (values > near) & (values < far)
    v, u = v[alike], u[alike]
    step = max(1, round(np.sqrt(len(v) / MOST_INNER)))
    chosen = (v % step == 0) & (u % step == 0)
    return v[chosen], u[chosen]
