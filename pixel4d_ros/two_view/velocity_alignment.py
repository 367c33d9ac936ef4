# SPDX-License-Identifier: Apache-2.0
"""The velocity of an object by direct alignment of two images, where optical flow is wrong or coarse.

All pixels of a rigid object share one velocity, given their depth. So its three numbers are fitted to the images
themselves (Lucas and Kanade 1981), first at the size at which flow is measured, then at full resolution. Flow that is
estimated pixel by pixel fails on oncoming vehicles, and is coarse on far ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixel4d_ros.camera import unproject
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view import compiled_images
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


def aligned(pair: TwoImages, mask: Mask, guesses: Sequence[FloatArray]) -> FloatArray:
    """The velocity (3,) in m/s that aligns the images on a mask (h, w): one of the guesses (3,) if none is BETTER.

    STILL, if nothing is better than that.
    """
    rows, columns = thinned_rows(*pixels_of(mask), MOST_PIXELS)
    places = FOUR if len(rows) <= FEW else CENTER
    pixels = np.asarray((np.stack((columns, rows), -1)[:, None] + places).reshape(-1, 2), np.float64)
    points = unproject(pixels, np.repeat(pair.depth[rows, columns], len(places)), pair.camera.K)
    known = np.array([*guesses, STILL])
    coarse = _Level(pair, pixels, points, pair.measured.here, pair.measured.there)
    errors = coarse.errors(known)
    found = known[errors.argmin()]
    if errors.min() > max(ALIKE, EXPLAINED * errors[-1]):
        starts = coarse.starts()
        best = starts[np.argsort(coarse.errors(starts), kind="stable")[:BEST]]
        found = min((coarse.aligned(start) for start in (*known[:-1], *best)), key=lambda result: result[1])[0]
    fine = _Level(pair, pixels, points, pair.measured.fine_here, pair.measured.fine_there)
    velocity, error = fine.aligned(found)
    errors = fine.errors(known)
    return velocity if error < BETTER * errors.min() else (*guesses, STILL)[errors.argmin()]


class _Level:
    """Pixels of an object in both images, at one resolution."""

    def __init__(self, pair: TwoImages, pixels: FloatArray, points: FloatArray, here: Grey, there: Grey) -> None:
        """pixels (n, 2), x and y of pair.camera, show points (n, 3); both images are of any one size."""
        scale = np.array([here.shape[1] / pair.camera.width, here.shape[0] / pair.camera.height])
        u, v = ((pixels + 0.5) * scale - 0.5).T.copy()
        grey = compiled_images.sampled_at(here, v, u)
        T, K = pair.T_reference_source, pair.camera.resized(here.shape[1], here.shape[0]).K
        path = T[:3, :3] * pair.seconds
        self.per_metre = K[0, 0] * pair.seconds / float(np.median(points[:, 2]))  # pixels per m/s across
        self.images = points @ T[:3, :3].T + T[:3, 3], grey, there, K, path

    def starts(self) -> FloatArray:
        """Velocities (k, 3) from which to look for the right one: along the optical axis, and across."""
        count = min(MOST_STARTS, 2 * int(ACROSS * self.per_metre / STEP) + 1)
        starts = np.zeros((len(AHEAD) + count, 3))
        starts[: len(AHEAD), 2], starts[len(AHEAD) :, 0] = AHEAD, np.linspace(-ACROSS, ACROSS, count)
        return starts

    def errors(self, tried: FloatArray) -> FloatArray:
        """Mean differences (k,) in grey levels with velocities (k, 3); inf where too little of the object is seen."""
        left, seen = compiled_images.velocity_errors(*self.images, tried)
        return np.where(seen > LEAST_SEEN, left, np.inf)

    def aligned(self, start: FloatArray) -> tuple[FloatArray, float]:
        """The velocity (3,) that is reached from a start, and its error."""
        velocity, left, seen = compiled_images.aligned_velocity(*self.images, start, BELIEF, ROUNDS, OUTLIER)
        return velocity, left if seen > LEAST_SEEN else np.inf
