# SPDX-License-Identifier: Apache-2.0
"""A guess of an object's class from the size of its box, for a predictor that names no classes.

One view shows an object's whole height, but often only a part of its length and width. So the seen height is normally
distributed (in its logarithm) about the class's height; the seen length and width are anything up to the class's, and
seldom more. Bayes' rule with the frequencies of the classes gives the probabilities.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pixel4d_ros.geometry.rotations import FloatArray

UNKNOWN = ""


class SizeClass(NamedTuple):
    """A class of traffic participants."""

    prior: float  # share among moving things in traffic
    size: tuple[float, float, float]  # length, width, height in metres
    height_deviation: float  # of the logarithm of the height, among members of the class
    overrun: float = 0.25  # deviation of the logarithm of a length or width seen longer than this


# Sizes: medians of the labelled boxes of KITTI's drives. Vans and buses count as trucks.
CLASSES = {
    "Car": SizeClass(0.60, (4.2, 1.8, 1.55), 0.12),
    "Truck": SizeClass(0.12, (7.0, 2.5, 3.0), 0.25),
    "Cyclist": SizeClass(0.08, (1.8, 0.75, 1.75), 0.06),
    "Pedestrian": SizeClass(0.15, (1.0, 0.75, 1.75), 0.10),
    UNKNOWN: SizeClass(0.05, (6.0, 3.0, 1.5), 1.0, 1.0),
}
SEEN_HEIGHT = 0.20  # deviation of the logarithm of a predicted height from the true one
MIN_PROBABILITY = 0.5  # below it the class is unknown


def class_probabilities(size: ArrayLike) -> dict[str, float]:
    """Probability of each class of CLASSES for a box of size (3,): length, width, height in metres."""
    seen = np.maximum(np.asarray(size, np.float64), 0.05)
    logs = {name: np.log(c.prior) + _log_likelihood(seen, c) for name, c in CLASSES.items()}
    highest = max(logs.values())
    weights = {name: float(np.exp(value - highest)) for name, value in logs.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def guess_class(size: ArrayLike) -> tuple[str, float]:
    """The most likely class of a box and its probability; "" and 0 where no class is at least MIN_PROBABILITY."""
    probabilities = class_probabilities(size)
    name = max(probabilities, key=lambda n: probabilities[n])
    if name == UNKNOWN or probabilities[name] < MIN_PROBABILITY:
        return UNKNOWN, 0.0
    return name, probabilities[name]


def _log_likelihood(seen: FloatArray, c: SizeClass) -> float:
    deviation = float(np.hypot(SEEN_HEIGHT, c.height_deviation))
    height = -0.5 * (np.log(seen[2] / c.size[2]) / deviation) ** 2 - np.log(deviation)
    # Uniform up to the class's extent, with a tail beyond it.
    over = np.maximum(np.log(seen[:2] / np.array(c.size[:2])), 0.0) / c.overrun
    return float(height - (0.5 * over**2 + np.log(c.size[:2])).sum())
