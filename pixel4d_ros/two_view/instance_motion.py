# SPDX-License-Identifier: Apache-2.0
"""Whether vehicles and people found in one image move, from the flow on them to a reference image.

What drives along the camera's way looks like a static object of another depth. One image shows the distance of a
vehicle to about DISTANCE_SPREAD, so that the flow tells the two apart where the camera moves enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.flow import Mask
from pixel4d_ros.two_view.motion_evidence import Evidence, motion_evidence
from pixel4d_ros.two_view.moving_probability import CALIBRATION
from pixel4d_ros.two_view.velocity_fit import (
    ANY,
    INDEPENDENT,
    LEFT,
    PIXEL,
    Fit,
    FlowEquations,
    Ids,
    TwoImages,
    cauchy_weights,
    fitted,
    is_plausible,
)

DISTANCE_SPREAD = 0.2  # standard deviation of the logarithm of an instance's predicted distance
RELIEF = 0.12  # of the parallax: standard deviation of the flow from errors of depth within an object
ROTATION = 0.0005  # rad, standard deviation of the refined pose about each axis,
SHIFT, SHIFT_SHARE = 0.005, 0.02  # metres, and share of the baseline: the same along each axis
SPEED = np.array([10.0, 1.0, 10.0])  # m/s, standard deviation of the velocity of what moves
CLEAR = 10.0  # log ratios beyond this are no stronger evidence
MARGIN = 0.1  # of an instance's smaller side: its outline is about so accurate
SAME_DEPTH = 1.2  # ratio to an instance's median depth, beyond which a pixel belongs to something else


@dataclass(frozen=True)
class JudgedInstance:
    """An instance, the velocity that explains the flow on it, and how likely it moves."""

    pixels: Mask  # (h, w)
    fit: Fit
    log_ratio: float  # of the likelihood of the flow, moving / static
    evidence: Evidence  # of the images, and of how it stands on the ground

    @property
    def features(self) -> FloatArray:
        """(6,) from which the probability is computed."""
        return np.append(np.clip(self.log_ratio, -CLEAR, CLEAR), self.evidence.features)

    @property
    def probability(self) -> float:
        """Calibrated probability that it moves; 0 for velocities that no object has."""
        return CALIBRATION.of_instance(self.features) if is_plausible(self.fit.velocity) else 0.0


def judged_instances(pair: TwoImages, instances: Ids) -> Iterator[JudgedInstance]:
    """The instances, the largest first, on which one velocity fits the flow; instances (h, w) has their ids, 0: none.

    The others keep what their patches say.
    """
    numbers, sizes = np.unique(instances[instances > 0], return_counts=True)
    for number in numbers[np.argsort(-sizes)]:
        pixels = instances == number
        inner = inner_pixels(pair, pixels)
        fit = fitted(pair, inner, np.zeros(3), ANY)
        if fit is None or fit.after > LEFT:
            continue
        ratio = motion_log_ratio(pair, inner, fit.velocity)
        evidence = motion_evidence(pair.images, inner, fit.velocity * pair.seconds)
        yield JudgedInstance(pixels, fit, ratio, evidence)


def inner_pixels(pair: TwoImages, pixels: Mask) -> Mask:
    """The pixels (h, w) of an instance without its rim, which may show what is behind, and about at its distance."""
    inner = cv2.erode(pixels.astype(np.uint8), window(pixels), borderValue=1) > 0
    distance = float(np.median(pair.depth[inner])) if inner.any() else 0.0
    same: Mask = inner & (pair.depth < distance * SAME_DEPTH) & (pair.depth > distance / SAME_DEPTH)
    return same


def window(pixels: Mask) -> Mask:
    """A window as large as errors of an instance's outline, each way, for erosion and dilation."""
    v, u = np.nonzero(pixels)
    reach = round(MARGIN * min(int(np.ptp(u)), int(np.ptp(v))) / 2) if len(u) else 0
    return np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)


def motion_log_ratio(pair: TwoImages, mask: Mask, velocity: FloatArray) -> float:
    """Logarithm of the Bayes factor of a moving object against a static one, from the flow in a mask (h, w).

    velocity (3,) m/s is fitted's, and tells outliers. Both models are linear in their unknowns x with Gaussian priors
    and Gaussian noise, y = X x + n, so that the marginal likelihood has a closed form (C. Bishop, Pattern Recognition
    and Machine Learning, 2006, equation 3.86): with A = X' W X + P and b = X' W y, its logarithm is
    (log |P| - log |A| + b' A^-1 b) / 2 plus what both models share. The unknowns of a static object are a factor of
    its inverse depth, near 1 by DISTANCE_SPREAD, and the error of the pose. A moving object has a velocity, too. An
    object's flow has at most INDEPENDENT independent errors. 0 where too little flow is known.
    """
    equations = FlowEquations.of(pair, mask)
    if equations is None:
        return 0.0
    y, V = equations.static, equations.velocity
    count = len(y) // 2
    parallax = np.linalg.norm(equations.inverse_depth.reshape(-1, 2), axis=1).repeat(2)
    variance = (PIXEL**2 + (RELIEF * parallax) ** 2) * count / min(count, INDEPENDENT)
    weight = cauchy_weights(np.abs(y - V @ velocity)) / variance
    shift = SHIFT + SHIFT_SHARE * float(np.linalg.norm(pair.T_reference_source[:3, 3]))
    static = np.column_stack((equations.inverse_depth, equations.pose))
    deviation = np.array([DISTANCE_SPREAD, *3 * [ROTATION], *3 * [shift]])

    def log_likelihood(X: FloatArray, deviation: FloatArray) -> float:
        precision, seen = (X * weight[:, None]).T @ X + np.diag(deviation**-2.0), X.T @ (weight * y)
        explained = seen @ np.linalg.solve(precision, seen)
        return float(explained / 2 - np.linalg.slogdet(precision)[1] / 2 - np.log(deviation).sum())

    moving = log_likelihood(np.hstack((static, V)), np.append(deviation, SPEED))
    return moving - log_likelihood(static, deviation)
