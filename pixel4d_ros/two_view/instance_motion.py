# SPDX-License-Identifier: Apache-2.0
"""Whether vehicles and people found in one image move, from the flow on them to a reference image.

What drives along the camera's way looks like a static object of another depth. One image shows the distance of a
vehicle to about DISTANCE_SPREAD, so that the flow tells the two apart where the camera moves enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numba import njit

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view import compiled
from pixel4d_ros.two_view.flow import Mask, around
from pixel4d_ros.two_view.motion_evidence import motion_evidence
from pixel4d_ros.two_view.moving_probability import CALIBRATION
from pixel4d_ros.two_view.velocity_alignment import aligned
from pixel4d_ros.two_view.velocity_fit import (
    ANY,
    INDEPENDENT,
    LEAST_PIXELS,
    LEFT,
    PIXEL,
    Fit,
    FlowEquations,
    Ids,
    TwoImages,
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
MARGIN = 0.1  # of an instance's smaller side: its outline is about so accurate
STANDS = 0.2  # pixels, median: flow that is this near to that of a static world is not looked at again
MOST_PIXELS = 600  # of an instance that are compared
SAME_DEPTH = 1.2  # ratio to an instance's median depth, beyond which a pixel belongs to something else


@dataclass(frozen=True)
class JudgedInstance:
    """An instance, the velocity that explains the flow on it, and how likely it moves."""

    pair: TwoImages
    number: int  # its id
    pixels: Mask  # (h, w)
    inner: Mask  # (h, w): those of them that were compared,
    equations: FlowEquations  # and what they say
    fit: Fit

    @cached_property
    def features(self) -> FloatArray | None:
        """(7,) log ratio of the likelihood of the flow, moving / static; Evidence.features; log of the pixel count.

        More than MOST_PIXELS count as so many. None for a velocity that no moving object has.
        """
        pair, velocity = self.pair, self.fit.velocity
        if not is_plausible(velocity):
            return None
        baseline = float(np.linalg.norm(pair.T_reference_source[:3, 3]))
        ratio = np.clip(motion_log_ratio(self.equations, velocity, baseline), -CLEAR, CLEAR)
        evidence = motion_evidence(pair.images, self.inner, velocity * pair.seconds)
        return np.array((ratio, *evidence.features, np.log(min(self.pixels.sum(), MOST_PIXELS))))

    @property
    def probability(self) -> float:
        """Calibrated probability that it moves."""
        return 0.0 if self.features is None else CALIBRATION.of_instance(self.features)


def judged_instances(pair: TwoImages, instances: Ids) -> Iterator[JudgedInstance]:
    """The instances, the largest first, whose images one velocity explains; instances (h, w) has their ids, 0: none."""
    judged = (judged_instance(pair, number, instances == number) for number in numbers_of(instances))
    return (instance for instance in judged if instance is not None)


def numbers_of(instances: Ids) -> list[int]:
    """The ids, the largest instance first, of those that are large enough in instances (h, w)."""
    sizes = np.bincount(instances.ravel())
    return [int(number) for number in 1 + np.argsort(-sizes[1:]) if sizes[number] >= LEAST_PIXELS]


def judged_instance(
    pair: TwoImages, number: int, pixels: Mask, guess: FloatArray | None = None
) -> JudgedInstance | None:
    """An instance of some pixels (h, w), if one velocity explains its images; else it keeps what its patches say.

    guess: its velocity (3,) by another image.
    """
    inner = thinned(inner_pixels(pair, pixels))
    equations = FlowEquations.of(pair, inner)
    fit = None if equations is None else solved(equations, np.zeros(3), ANY)
    if inner.any() and (fit is None or fit.after > LEFT or fit.before > STANDS):
        known = None if fit is None else fit.velocity
        velocity = aligned(pair, inner, [v for v in (known, guess) if v is not None])
        if velocity.any() and velocity is not known:
            equations = FlowEquations.of_motion(pair, inner, velocity)
            fit = solved(equations, np.zeros(3), ANY)
    if equations is None or fit is None or fit.after > LEFT:
        return None
    return JudgedInstance(pair, number, pixels, inner, equations, fit)


def inner_pixels(pair: TwoImages, pixels: Mask) -> Mask:
    """The pixels (h, w) of an instance without its rim, which may show what is behind, and about at its distance."""
    inner, area = np.zeros_like(pixels), around(pixels, 1)
    depth, eroded = pair.depth[area], cv2.erode(pixels[area].view(np.uint8), window(pixels), borderValue=1) > 0
    distance = compiled.median(depth[eroded]) if eroded.any() else 0.0
    inner[area] = eroded & (depth < distance * SAME_DEPTH) & (depth > distance / SAME_DEPTH)
    return inner


def thinned(pixels: Mask) -> Mask:
    """About MOST_PIXELS of some pixels (h, w), evenly spread: an object has far fewer independent errors."""
    step = round(float(np.sqrt(pixels.sum() / MOST_PIXELS)))
    if step < 2:
        return pixels
    thin = np.zeros_like(pixels)
    thin[::step, ::step] = pixels[::step, ::step]
    return thin


def window(pixels: Mask) -> Mask:
    """A window as large as errors of an instance's outline, each way, for erosion and dilation."""
    _, _, width, height = cv2.boundingRect(pixels.view(np.uint8))
    reach = round(MARGIN * max(0, min(width, height) - 1) / 2)
    return np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)


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
