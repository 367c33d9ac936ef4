# SPDX-License-Identifier: Apache-2.0
"""The velocity of an object by direct alignment of two images, where optical flow is wrong or coarse.

All pixels of a rigid object share one velocity, given their depth. So its three numbers are fitted to the images
themselves (Lucas and Kanade 1981), first at the size at which flow is measured, then at full resolution. Flow that is
estimated pixel by pixel fails on oncoming vehicles, and is coarse on far ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from pixel4d_ros.camera import unproject
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view import compiled, compiled_images
from pixel4d_ros.two_view.flow import Mask, pixels_of, thinned_rows
from pixel4d_ros.two_view.rigid_flow import Grey
from pixel4d_ros.two_view.velocity_fit import INDEPENDENT, TwoImages

ROUNDS = 8
OUTLIER = 8.0  # grey levels: such a difference counts half
SPEED = np.array([8.0, 1.0, 15.0])  # m/s, standard deviation of a velocity about 0,
BELIEF = OUTLIER**2 / INDEPENDENT / SPEED**2  # and its precision per pixel, as few errors of the images are independent
LEAST_SEEN = 0.6  # share of an object's pixels that the reference image must show
MOST_PIXELS, FEW = 400, 100  # of an object that are compared; of fewer, four places each
CENTER, FOUR = np.zeros((1, 2)), np.array([[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]])  # in a pixel
AHEAD, ACROSS = np.arange(-24.0, 25.0, 3.0), 15.0  # m/s along the optical axis, and across to this, that are tried,
STEP, MOST_STARTS = 2.0, 81  # across so many pixels apart, if there are not more; where the guesses explain too little
BEST = 3  # and how many of them are followed
ALIKE, EXPLAINED = 5.0, 0.5  # grey levels, or share of a static world's difference: a guess that leaves less is near
BETTER = 0.97  # an alignment must leave less than this share of what a guess leaves
STILL = np.zeros(3)


Images = tuple[Grey, Grey, FloatArray]  # an image (h, w), the reference image, and K (3, 3) of both
Level = tuple[FloatArray, FloatArray, Grey, FloatArray, FloatArray]  # the first arguments of aligned_velocity


def aligned(pair: TwoImages, mask: Mask, guesses: Sequence[FloatArray]) -> FloatArray:
    """The velocity (3,) in m/s that aligns the images on a mask (h, w): one of the guesses (3,) if none is BETTER.

    STILL, if nothing is better than that.
    """
    rows, columns = thinned_rows(*pixels_of(mask), MOST_PIXELS)
    places = FOUR if len(rows) <= FEW else CENTER
    pixels = np.asarray((np.stack((columns, rows), -1)[:, None] + places).reshape(-1, 2), np.float64)
    depth = pair.depth[rows, columns].repeat(len(places))
    T, measured, known = pair.T_reference_source, pair.measured, (*guesses, STILL)
    points = unproject(pixels, depth, pair.camera.K) @ T[:3, :3].T + T[:3, 3]
    coarse, fine = (
        (measured.here, measured.there, pair.camera.K),
        (measured.fine_here, measured.fine_there, pair.fine_K),
    )
    starts = search_starts(pair.camera.K[0, 0] * pair.seconds / compiled.median(depth))
    velocity, chosen = aligned_from(pixels, points, coarse, fine, T[:3, :3] * pair.seconds, np.array(known), starts)
    return np.asarray(velocity) if chosen < 0 else known[chosen]


@njit(cache=True, nogil=True)
def aligned_from(
    pixels: FloatArray,
    points: FloatArray,
    coarse: Images,
    fine: Images,
    path: FloatArray,
    known: FloatArray,
    starts: FloatArray,
) -> tuple[FloatArray, int]:
    """The velocity (3,) and -1, or else the index of that of the velocities known (k, 3), of which the last is STILL.

    pixels (n, 2), x and y in coarse images, show points (n, 3) in the reference camera's frame, in which path (3, 3) is
    metres per m/s. starts (m, 3) are tried where the velocities known explain too little.
    """
    level = _level(pixels, points, coarse, path, coarse[0].shape)
    errors = _errors(level, known)
    found = known[errors.argmin()]
    if errors.min() > max(ALIKE, EXPLAINED * errors[-1]):
        best = starts[np.argsort(_errors(level, starts), kind="mergesort")[:BEST]]
        least = np.inf
        for k, start in enumerate(np.concatenate((known[:-1], best))):
            velocity, error = _reached(level, start)
            if k == 0 or error < least:
                found, least = velocity, error
    level = _level(pixels, points, fine, path, coarse[0].shape)
    velocity, error = _reached(level, found)
    errors = _errors(level, known)
    return velocity, -1 if error < BETTER * errors.min() else int(errors.argmin())


@njit(cache=True, nogil=True)
def _level(pixels: FloatArray, points: FloatArray, images: Images, path: FloatArray, size: tuple[int, int]) -> Level:
    """Points (n, 3), seen at pixels (n, 2) of images of a size (height, width), in images of any size."""
    here, there, K = images
    v = (pixels[:, 1] + 0.5) * (here.shape[0] / size[0]) - 0.5
    u = (pixels[:, 0] + 0.5) * (here.shape[1] / size[1]) - 0.5
    return points, compiled_images.sampled_at(here, v, u), there, K, path


@njit(cache=True, nogil=True)
def search_starts(pixels: float) -> FloatArray:
    """Velocities (k, 3) from which to look for the right one: along the optical axis, and across, pixels per m/s."""
    count = min(MOST_STARTS, 2 * int(ACROSS * pixels / STEP) + 1)
    starts = np.zeros((len(AHEAD) + count, 3))
    starts[: len(AHEAD), 2], starts[len(AHEAD) :, 0] = AHEAD, np.linspace(-ACROSS, ACROSS, count)
    return starts


@njit(cache=True, nogil=True)
def _errors(level: Level, tried: FloatArray) -> FloatArray:
    """Mean differences (k,) in grey levels with velocities (k, 3); inf where too little of the object is seen."""
    points, grey, there, K, path = level
    errors = np.full(len(tried), np.inf)
    for k in range(len(tried)):
        left, seen = compiled_images.displaced_error(points, grey, there, K, path @ tried[k], 0.0)
        if seen > LEAST_SEEN:
            errors[k] = left
    return errors


@njit(cache=True, nogil=True)
def _reached(level: Level, start: FloatArray) -> tuple[FloatArray, float]:
    """The velocity (3,) that is reached from a start, and its error."""
    points, grey, there, K, path = level
    velocity, left, seen = compiled_images.aligned_velocity(
        points, grey, there, K, path, start, BELIEF, ROUNDS, OUTLIER
    )
    return velocity, left if seen > LEAST_SEEN else np.inf
