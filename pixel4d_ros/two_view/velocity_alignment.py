# SPDX-License-Identifier: Apache-2.0
"""The velocity of an object by direct alignment of two images, where optical flow is wrong or coarse.

All pixels of a rigid object share one velocity, given their depth. So its three numbers are fitted to the images
themselves (Lucas and Kanade 1981), first at the size at which flow is measured, then at full resolution. Flow that is
estimated pixel by pixel fails on oncoming vehicles, and is coarse on far ones.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view import compiled, compiled_images
from pixel4d_ros.two_view.flow import Rows
from pixel4d_ros.two_view.image_pair import ImagePair, thinned_rows
from pixel4d_ros.two_view.rigid_flow import Grey
from pixel4d_ros.two_view.velocity_fit import INDEPENDENT

ROUNDS, COARSE_ROUNDS = 20, 8
NOISE = 2.0, 8.0  # grey levels, least and most: standard deviation of the images' differences
SPEED = np.array([8.0, 0.5, 15.0])  # m/s, standard deviation of a velocity about 0,
PERSON_SPEED = np.array([2.0, 0.3, 4.0])  # and of what is as narrow as a person, also on a bicycle seen from behind
NARROW = 1.2  # metres
LEAST_SEEN = 0.6  # share of an object's pixels that the reference image must show
MOST_PIXELS, FEW = 400, 100  # of an object that are compared; of fewer, four places each
CENTER, FOUR = np.zeros((1, 2)), np.array([[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]])  # in a pixel
AHEAD, ACROSS = np.arange(-24.0, 25.0, 3.0), 15.0  # m/s along the optical axis, and across to this, that are tried,
STEP, MOST_STARTS = 2.0, 81  # across so many pixels apart, if there are not more; where the guesses explain too little
BEST = 5  # and how many of them are followed
THIN, THINNER = 2, 4  # at the smaller size each second pixel follows, each fourth is compared with what is tried
ALIKE, EXPLAINED = 2.0, 0.2  # grey levels, or share of a static world's difference: a guess that leaves less is near
BETTER = 0.97  # an alignment must leave less than this share of what a guess leaves

Images = tuple[Grey, Grey, FloatArray]  # an image (h, w), the reference image, and K (3, 3) of both
Level = tuple[FloatArray, FloatArray, Grey, FloatArray, FloatArray, int]  # first arguments of aligned_velocity, rounds
Prior = tuple[FloatArray, FloatArray, float]  # as aligned_velocity takes it


@njit(cache=True, nogil=True)
def aligned(
    pair: ImagePair, rows: Rows, columns: Rows, guesses: FloatArray, mean: FloatArray, deviation: FloatArray
) -> tuple[FloatArray, int]:
    """The velocity (3,) in m/s that aligns the images on pixels at rows and columns (n,), and -1.

    Or else the one of the guesses (k, 3) that nothing is BETTER than, and its index; 0 m/s and k, if that is as good.
    The prior has a mean (3,) and spread (3,) in m/s; 0 for that of vehicles, or for what is NARROW of people.
    """
    v, u = thinned_rows(rows, columns, MOST_PIXELS)
    K, T = pair.K, pair.T_there_here
    pixels, points = _points(pair, v, u, FOUR if len(v) <= FEW else CENTER)
    starts = search_starts(K[0, 0] * pair.seconds / compiled.median(compiled.depths(v, u, pair.depth)))
    if not deviation.any():
        deviation = PERSON_SPEED if np.ptp(points[:, 0]) < NARROW else SPEED
    prior, path = (mean, deviation**-2.0, float(INDEPENDENT)), T[:3, :3] * pair.seconds
    known = np.zeros((len(guesses) + 1, 3))
    known[:-1] = guesses
    coarse, fine = (pair.here, pair.there, K), (pair.fine_here, pair.fine_there, pair.fine_K)
    velocity, chosen = aligned_from(pixels, points, coarse, fine, path, known, starts, prior)
    return (velocity if chosen < 0 else known[chosen]), chosen


@njit(cache=True, nogil=True)
def _points(pair: ImagePair, v: Rows, u: Rows, places: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Pixels (n, 2), x and y, at places (k, 2) around rows v and columns u, and points (n, 3) in there's frame."""
    K, T, count = pair.K, pair.T_there_here, len(places)
    pixels, points, p = np.empty((len(v) * count, 2)), np.empty((len(v) * count, 3)), np.empty(3)
    for i in range(len(pixels)):
        row, column = v[i // count], u[i // count]
        pixels[i, 0], pixels[i, 1] = column + places[i % count, 0], row + places[i % count, 1]
        p[2] = pair.depth[row, column]
        y = (pixels[i, 1] - K[1, 2]) / K[1, 1]
        p[0], p[1] = (pixels[i, 0] - K[0, 2] - K[0, 1] * y) / K[0, 0] * p[2], y * p[2]
        for k in range(3):
            points[i, k] = T[k, 0] * p[0] + T[k, 1] * p[1] + T[k, 2] * p[2] + T[k, 3]
    return pixels, points


@njit(cache=True, nogil=True)
def aligned_from(
    pixels: FloatArray,
    points: FloatArray,
    coarse: Images,
    fine: Images,
    path: FloatArray,
    known: FloatArray,
    starts: FloatArray,
    prior: Prior,
) -> tuple[FloatArray, int]:
    """The velocity (3,) and -1, or else the index of that of the velocities known (k, 3), of which the last is 0.

    pixels (n, 2), x and y in coarse images, show points (n, 3) in the reference camera's frame, in which path (3, 3) is
    metres per m/s. starts (m, 3) are tried where the velocities known explain too little.
    """
    size = coarse[0].shape
    level = _level(pixels[::THIN].copy(), points[::THIN].copy(), coarse, path, size, COARSE_ROUNDS)
    errors = _errors(level, known, prior)
    start = known[errors.argmin()]
    if errors.min() > max(ALIKE, EXPLAINED * errors[-1]):
        few = _level(pixels[::THINNER].copy(), points[::THINNER].copy(), coarse, path, size, COARSE_ROUNDS)
        best = starts[np.argsort(_errors(few, starts, prior), kind="mergesort")[:BEST]].copy()
        least = np.inf
        tried = np.concatenate((known[:-1], best))
        for k in range(len(tried)):
            velocity, error = _reached(level, tried[k], prior)
            if k == 0 or error < least:
                start, least = velocity, error
    level = _level(pixels, points, fine, path, size, ROUNDS)
    velocity, error = _reached(level, start, prior)
    errors = _errors(level, known, prior)
    return velocity, -1 if error < BETTER * errors.min() else int(errors.argmin())


@njit(cache=True, nogil=True)
def _level(
    pixels: FloatArray, points: FloatArray, images: Images, path: FloatArray, size: tuple[int, int], rounds: int
) -> Level:
    """Points (n, 3), seen at pixels (n, 2) of images of a size (height, width), in images of any size."""
    here, there, K = images
    v = (pixels[:, 1] + 0.5) * (here.shape[0] / size[0]) - 0.5
    u = (pixels[:, 0] + 0.5) * (here.shape[1] / size[1]) - 0.5
    return points, compiled_images.sampled_at(here, v, u), there, K, path, rounds


@njit(cache=True, nogil=True)
def search_starts(pixels: float) -> FloatArray:
    """Velocities (k, 3) from which to look for the right one: along the optical axis, and across, pixels per m/s."""
    count = min(MOST_STARTS, 2 * int(ACROSS * pixels / STEP) + 1)
    starts = np.zeros((len(AHEAD) + count, 3))
    starts[: len(AHEAD), 2], starts[len(AHEAD) :, 0] = AHEAD, np.linspace(-ACROSS, ACROSS, count)
    return starts


@njit(cache=True, nogil=True)
def _errors(level: Level, tried: FloatArray, prior: Prior) -> FloatArray:
    """Errors (k,) of velocities (k, 3); inf where too little of the object is seen."""
    points, grey, there, K, path, _ = level
    errors, by = np.full(len(tried), np.inf), tried @ path.T
    for k in range(len(tried)):
        left, seen = compiled_images.displaced_error(points, grey, there, K, by[k], 0.0)
        if seen > LEAST_SEEN:
            errors[k] = _error(left, tried[k], prior)
    return errors


@njit(cache=True, nogil=True)
def _reached(level: Level, start: FloatArray, prior: Prior) -> tuple[FloatArray, float]:
    """The velocity (3,) that is reached from a start, and its error."""
    points, grey, there, K, path, rounds = level
    velocity, left, seen = compiled_images.aligned_velocity(points, grey, there, K, path, start, prior, rounds, NOISE)
    return velocity, _error(left, velocity, prior) if seen > LEAST_SEEN else np.inf


@njit(cache=True, nogil=True)
def _error(left: float, velocity: FloatArray, prior: Prior) -> float:
    """The mean difference of the images in grey levels, the larger the less likely the velocity is by the prior.

    For differences of a Laplace distribution of unknown spread, the negative logarithm of the posterior is log(error)
    times the number of independent ones.
    """
    mean, precision, independent = prior
    tail = compiled_images.TAIL
    far = 1.0
    for k in range(3):
        far += precision[k] * (velocity[k] - mean[k]) ** 2 / tail
    return float(left * far ** ((tail + 3) / 2 / independent))
