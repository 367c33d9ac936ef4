# SPDX-License-Identifier: Apache-2.0
"""Whether vehicles and people found in one image move, from the flow on them to a reference image.

What drives along the camera's way looks like a static object of another depth. One image shows the distance of a
vehicle to about DISTANCE_SPREAD, so that the flow tells the two apart where the camera moves enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view import compiled
from pixel4d_ros.two_view.flow import Mask, Rows
from pixel4d_ros.two_view.image_pair import MOST_INNER, ImagePair, inner_pixels, pixels_of
from pixel4d_ros.two_view.motion_evidence import motion_evidence
from pixel4d_ros.two_view.moving_probability import CALIBRATION
from pixel4d_ros.two_view.two_images import Ids, TwoImages
from pixel4d_ros.two_view.velocity_alignment import aligned
from pixel4d_ros.two_view.velocity_fit import (
    ANY,
    INDEPENDENT,
    LEAST_PIXELS,
    LEFT,
    PIXEL,
    Fit,
    FlowEquations,
    equations_of_flow,
    equations_of_motion,
    fitted_mover,
    is_plausible,
    solved,
)

# Standard deviation of the logarithm of an instance's predicted distance: .115 on held-out stereo pairs and kitti_0052.
DISTANCE_SPREAD = 0.12
RELIEF = 0.12  # of the parallax: standard deviation of the flow from errors of depth within an object
ROTATION = 0.0005  # rad, standard deviation of the refined pose about each axis,
SHIFT, SHIFT_SHARE = 0.005, 0.02  # metres, and share of the baseline: the same along each axis
SPEED = np.array([10.0, 1.0, 10.0])  # m/s, standard deviation of the velocity of what moves
LEAST_PIXEL = 0.2  # pixels, standard deviation of the flow, at least,
LEFT_BEHIND = 3.0  # and what it is more than the residual's median: much of its error one velocity explains, too
CLEAR = 10.0  # log ratios beyond this are no stronger evidence
STANDS = 0.2  # pixels, median: flow that is this near to that of a static world is not looked at again
ALIKE, ALIKE_SHARE = 0.7, 0.3  # m/s, and share of the speed: difference of velocities of one object, at most


@dataclass(frozen=True)
class JudgedInstance:
    """An instance, the velocity that explains the flow on it, and how likely it moves."""

    number: int  # its id
    pixels: Mask  # (h, w)
    fit: Fit
    features: FloatArray | None  # (7,) of judged_pixels; None for a velocity that no moving object has

    @property
    def probability(self) -> float:
        """Calibrated probability that it moves."""
        return 0.0 if self.features is None else CALIBRATION.of_instance(self.features)


def judged_instances(pair: TwoImages, instances: Ids) -> Iterator[JudgedInstance]:
    """The instances, the largest first, whose images one velocity explains; instances (h, w) has their ids, 0: none."""
    judged = (judged_instance(pair, None, number, instances == number) for number in numbers_of(instances))
    return (instance for instance in judged if instance is not None)


def numbers_of(instances: Ids) -> list[int]:
    """The ids, the largest instance first, of those that are large enough in instances (h, w)."""
    sizes = np.bincount(instances.ravel())
    return [int(number) for number in 1 + np.argsort(-sizes[1:]) if sizes[number] >= LEAST_PIXELS]


def judged_instance(pair: TwoImages, longer: TwoImages | None, number: int, pixels: Mask) -> JudgedInstance | None:
    """An instance of some pixels (h, w), if one velocity explains its images; else it keeps what its patches say.

    By the images over a longer time, if these show the same motion: what is fast may have left the older image.
    """
    older = pair if longer is None else longer
    is_judged, fit, may_move, features = judged_pixels(pair.images, older.images, longer is not None, pixels)
    return JudgedInstance(number, pixels, fit, features if may_move else None) if is_judged else None


def motion_log_ratio(equations: FlowEquations, velocity: FloatArray, baseline: float) -> float:
    """Logarithm of the Bayes factor of a moving object against a static one, from the flow on its pixels.

    velocity (3,) m/s is the fitted one, by which outliers are found; baseline is in metres. Both models are linear in
    their unknowns x with Gaussian priors and Gaussian noise, y = X x + n, so that the marginal likelihood has a closed
    form (C. Bishop, Pattern Recognition and Machine Learning, 2006, equation 3.86): with A = X' W X + P and b = X' W y,
    its logarithm is (log |P| - log |A| + b' A^-1 b) / 2 plus what both models share. The unknowns of a static object
    are a factor of its inverse depth, near 1 by DISTANCE_SPREAD, and the error of the pose. A moving object has a
    velocity, too. An object's flow has at most INDEPENDENT independent errors, as large as what a velocity leaves
    unexplained tells.
    """
    parts = equations.static, equations.velocity, equations.inverse_depth, equations.pose
    return float(log_ratio_of(parts, velocity, baseline))


@njit(cache=True, nogil=True)
def log_ratio_of(
    equations: tuple[FloatArray, FloatArray, FloatArray, FloatArray], velocity: FloatArray, baseline: float
) -> float:
    """motion_log_ratio of the static, velocity, inverse_depth and pose parts of FlowEquations."""
    y, V, inverse_depth, pose = equations
    rows = len(y)
    X, weight, unexplained = np.empty((10, rows)), np.empty(rows), np.empty(rows)
    X[0], X[1:7], X[7:] = inverse_depth, pose.T, V.T
    for i in range(rows):
        unexplained[i] = abs(y[i] - V[i, 0] * velocity[0] - V[i, 1] * velocity[1] - V[i, 2] * velocity[2])
    pixel = min(PIXEL, max(LEAST_PIXEL, LEFT_BEHIND * compiled.median(unexplained)))
    share = (rows // 2) / min(rows // 2, INDEPENDENT)
    for i in range(rows):
        parallax = np.hypot(inverse_depth[i - i % 2], inverse_depth[i - i % 2 + 1])
        variance = (pixel**2 + (RELIEF * parallax) ** 2) * share
        weight[i] = 1 / (1 + (unexplained[i] / LEFT) ** 2) / variance
    normal, seen = compiled.normal_equations(X, y, weight, rows)
    deviation = np.empty(10)
    deviation[0], deviation[1:4], deviation[4:7], deviation[7:] = (
        DISTANCE_SPREAD, ROTATION, SHIFT + SHIFT_SHARE * baseline, SPEED,
    )  # fmt: skip
    return float(_log_likelihood(normal, seen, deviation) - _log_likelihood(normal, seen, deviation[:7]))


@njit(cache=True, nogil=True)
def _log_likelihood(normal: FloatArray, seen: FloatArray, deviation: FloatArray) -> float:
    """Of a model that has the first k unknowns only, with deviation (k,)."""
    k = len(deviation)
    precision, right = normal[:k, :k].copy(), seen[:k].copy()
    for i in range(k):
        precision[i, i] += deviation[i] ** -2.0
    explained = (right * np.linalg.solve(precision, right)).sum()
    return float(explained / 2 - np.linalg.slogdet(precision)[1] / 2 - np.log(deviation).sum())


@njit(cache=True, nogil=True)
def judged_pixels(pair: ImagePair, older: ImagePair, has_older: bool, mask: Mask) -> tuple[bool, Fit, bool, FloatArray]:
    """Whether one velocity explains the images on a mask (h, w), it, whether an object may have it, and features (7,).

    By the older pair, if there is one that shows the same motion. The features are the log ratio of the likelihood of
    the flow, moving / static; Evidence; logarithm of the pixel count, of which more than MOST_INNER count as so many.
    """
    v, u = inner_pixels(pair.depth, mask)
    features = np.zeros(7)
    fit, equations = _fit_of_instance(pair, v, u, np.zeros((0, 3)))
    if fit.after > LEFT:
        return False, fit, False, features
    if has_older:
        other, its_equations = _fit_of_instance(older, v, u, fit.velocity.reshape(1, 3))
        if not other.after > LEFT and move_alike(fit.velocity, other.velocity):
            pair, fit, equations = older, other, its_equations
    if not is_plausible(fit.velocity):
        return True, fit, False, features
    baseline = np.sqrt((pair.T_there_here[:3, 3] ** 2).sum())
    parts = equations.static, equations.velocity, equations.inverse_depth, equations.pose
    features[0] = min(max(log_ratio_of(parts, fit.velocity, baseline), -CLEAR), CLEAR)
    evidence = motion_evidence(pair, v, u, fit.velocity * pair.seconds)
    for k in range(5):
        features[1 + k] = evidence[k]
    features[6] = np.log(min(mask.sum(), MOST_INNER))
    return True, fit, True, features


@njit(cache=True, nogil=True)
def _fit_of_instance(pair: ImagePair, v: Rows, u: Rows, guess: FloatArray) -> tuple[Fit, FlowEquations]:
    """The velocity of pixels at rows v and columns u (n,), and their equations.

    guess (0 or 1, 3): the velocity by another image.
    """
    equations = equations_of_flow(pair, v, u)
    fit = solved(equations, np.zeros(3), ANY.copy())
    if len(v) > 0 and (fit.after > LEFT or fit.before > STANDS):
        is_known = len(equations.static) > 0
        guesses = np.concatenate((fit.velocity.reshape(1, 3), guess)) if is_known else guess
        velocity, chosen = aligned(pair, v, u, guesses, np.zeros(3), np.zeros(3))
        if velocity.any() and not (is_known and chosen == 0):
            equations = equations_of_motion(pair, v, u, velocity)
            fit = solved(equations, np.zeros(3), ANY.copy())
    return fit, equations


@njit(cache=True, nogil=True)
def move_alike(one: FloatArray, other: FloatArray) -> bool:
    """Whether two velocities (3,) in m/s may be those of one object."""
    speed = np.sqrt(max((one**2).sum(), (other**2).sum()))
    return bool(np.sqrt(((one - other) ** 2).sum()) <= ALIKE + ALIKE_SHARE * speed)


@njit(cache=True, nogil=True)
def fit_of_mover(pair: ImagePair, mask: Mask, velocity: FloatArray, whole: bool) -> tuple[bool, Fit]:
    """The velocity of a mover on a mask (h, w), of a velocity (3,) by other images, and whether these images show one.

    whole: it was found as one vehicle or person.
    """
    is_seen, flow = fitted_mover(pair, *pixels_of(mask))
    v, u = inner_pixels(pair.depth, mask)
    if not whole or len(v) == 0:
        return is_seen, flow
    guesses = np.empty((1 + is_seen, 3))
    guesses[0], guesses[1:] = velocity, flow.velocity
    found, chosen = aligned(pair, v, u, guesses, np.zeros(3), np.zeros(3))
    if chosen == 0 or not is_plausible(found):
        return False, flow
    return True, solved(equations_of_motion(pair, v, u, found), np.zeros(3), ANY.copy())
