# SPDX-License-Identifier: Apache-2.0
"""The velocity that explains the flow between two images on some pixels best.

Compiled, so that threads run at once. Functions get copies of constants: these have a type of their own, for which all
would be compiled once more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view import compiled
from pixel4d_ros.two_view.flow import Rows
from pixel4d_ros.two_view.image_pair import ImagePair, thinned_rows

SLOWEST, FASTEST = 0.5, 40.0  # m/s of an added object
CLIMB, CLIMB_SHARE = 0.3, 0.15  # m/s, and share of its speed: vertical speed of an added object, at most
NEAREST = 0.5  # metres
EXPLAINED = 0.5  # a velocity explains flow if it leaves less than this share of a static world's residual,
LEFT = 0.7  # and less than so many pixels
LEAST_PIXELS, MOST_PIXELS = 30, 2000  # for one velocity
PIXEL, INDEPENDENT = 0.5, 20  # pixels, standard deviation of the flow, and number of an object's independent errors
ANY = np.array([50.0, 2.5, 50.0])  # m/s: standard deviation of a velocity without a prediction
ROUNDS = 8  # of reweighting
DEPTH_SPREAD = 0.15  # standard deviation of the logarithm of predicted depth


class FlowEquations(NamedTuple):
    """Flow on n pixels as linear equations, in pixels of the reference image, two per pixel.

    A point at p in the reference camera's frame, seen at e in units of the focal length, leaves p_xy - e p_z. Times
    focal length over depth that is about the distance of the flow from that of a static world in pixels, and linear in
    whatever displaces p.
    """

    static: FloatArray  # (2n,) pixels that a static world of the predicted depth leaves
    velocity: FloatArray  # (2n, 3) pixels per m/s that the points move by, source camera's axes
    inverse_depth: FloatArray  # (2n,) pixels per share that all inverse depths change by: the parallax
    camera_velocity: FloatArray  # (3,) m/s of the source camera, in its axes
    pose: FloatArray  # (2n, 6) pixels per radian of rotation and metre of translation put before T_there_here


class Fit(NamedTuple):
    """The velocity (3,) in m/s that explains the flow on some pixels best, and how well it does."""

    velocity: FloatArray
    covariance: FloatArray  # (3, 3) (m/s)^2
    before: float  # pixels, median difference of the flow from that of a static world; inf where too little is known
    after: float  # the same from that of a world of this velocity


@njit(cache=True, nogil=True)
def explains(fit: Fit) -> bool:
    """Whether one velocity explains the flow where a static world does not."""
    return fit.after < LEFT and fit.after < EXPLAINED * fit.before


@njit(cache=True, nogil=True)
def is_plausible(velocity: FloatArray) -> bool:
    """Whether an object may have a velocity (3,) in m/s, of a camera that is about level."""
    speed = np.sqrt((velocity**2).sum())
    return bool(SLOWEST <= speed <= FASTEST and abs(velocity[1]) <= CLIMB + CLIMB_SHARE * speed)


@njit(cache=True, nogil=True)
def equations_of_flow(pair: ImagePair, v: Rows, u: Rows) -> FlowEquations:
    """The equations of those of the pixels at rows v and columns u (n,) with known flow: none of too few.

    At most MOST_PIXELS of them.
    """
    known = np.empty(len(v), np.bool_)
    for i in range(len(v)):
        known[i] = pair.agrees[v[i], u[i]]
    v, u = thinned_rows(v[known], u[known], MOST_PIXELS)
    if len(v) < LEAST_PIXELS:
        v, u = v[:0].copy(), u[:0].copy()
    equations: FlowEquations = _equations(pair, v, u, compiled.flow_ends(v, u, pair.flow))
    return equations


@njit(cache=True, nogil=True)
def equations_of_motion(pair: ImagePair, v: Rows, u: Rows, velocity: FloatArray) -> FlowEquations:
    """The equations of pixels at rows v and columns u (n,) if the flow there is that of a velocity (3,) in m/s."""
    v, u = thinned_rows(v, u, MOST_PIXELS)
    K, T = pair.K, pair.T_there_here
    ends, seen, before = compiled.unprojected(v, u, pair.depth, K), np.empty(3), velocity * pair.seconds
    for i in range(len(v)):
        p = ends[i] - before
        for k in range(3):
            seen[k] = T[k, 0] * p[0] + T[k, 1] * p[1] + T[k, 2] * p[2] + T[k, 3]
        for k in range(2):
            ends[i, k] = (K[k, 0] * seen[0] + K[k, 1] * seen[1] + K[k, 2] * seen[2]) / max(seen[2], NEAREST)
    equations: FlowEquations = _equations(pair, v, u, ends)
    return equations


@njit(cache=True, nogil=True)
def _equations(pair: ImagePair, v: Rows, u: Rows, ends: FloatArray) -> FlowEquations:
    """The equations of pixels at rows v and columns u (n,) whose flow ends at the first columns of ends (n, k)."""
    T = pair.T_there_here
    points = compiled.unprojected(v, u, pair.depth, pair.K)
    static, velocity, inverse_depth, pose = compiled.flow_equations(points, ends, pair.K, T, pair.seconds, NEAREST)
    camera = np.array([(T[:3, k] * T[:3, 3]).sum() / pair.seconds for k in range(3)])
    return FlowEquations(static, velocity, inverse_depth, camera, pose)


@njit(cache=True, nogil=True)
def solved(equations: FlowEquations, prior: FloatArray, deviation: FloatArray) -> Fit:
    """Fit a velocity to the flow on some pixels, with a Gaussian prior (3,) of standard deviation (3,), m/s.

    A point p that moves at v was at p - v t, where the flow ends. Least squares with Cauchy weights.
    """
    count = len(equations.static) // 2
    if count == 0:
        return Fit(np.zeros(3), np.zeros((3, 3)), np.inf, np.inf)
    noise = PIXEL**2 * count / min(count, INDEPENDENT)
    velocity, covariance, before, after = compiled.reweighted_velocity(
        equations.static, equations.velocity, noise / deviation**2, prior, ROUNDS, LEFT
    )
    # Velocities relative to the camera are proportional to depth, which is known to DEPTH_SPREAD.
    relative = velocity - equations.camera_velocity
    covariance = noise * covariance + DEPTH_SPREAD**2 * np.outer(relative, relative)
    return Fit(velocity, covariance, before, after)


@njit(cache=True, nogil=True)
def fitted(pair: ImagePair, v: Rows, u: Rows, prior: FloatArray, deviation: FloatArray) -> Fit:
    """Fit a velocity to the flow at rows v and columns u (n,), with a Gaussian prior (3,) of deviation (3,), m/s."""
    fit: Fit = solved(equations_of_flow(pair, v, u), prior, deviation)
    return fit


@njit(cache=True, nogil=True)
def fitted_mover(pair: ImagePair, v: Rows, u: Rows) -> tuple[bool, Fit]:
    """The velocity at rows v and columns u (n,) without a prior.

    Also whether it explains the flow there and an object may have it.
    """
    fit = fitted(pair, v, u, np.zeros(3), ANY.copy())
    return explains(fit) and is_plausible(fit.velocity), fit
