# SPDX-License-Identifier: Apache-2.0
"""Means with bootstrap confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pixel4d_ros.geometry.rotations import FloatArray

BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % bootstrap confidence interval (None with fewer than two values)."""

    mean: float
    low: float | None
    high: float | None


def bootstrap(values: ArrayLike, seed: int = 0, statistic: Callable[..., Any] = np.mean) -> Interval:
    """Mean of values (n,) and its 95 % percentile interval (B. Efron, 1979), resampling the values with a seed.

    statistic: np.mean, or np.median in its place.
    """
    values = np.asarray(values, np.float64)
    if len(values) == 0:
        raise ValueError("nothing to average: no source was evaluated")
    if len(values) == 1:
        return Interval(float(values[0]), None, None)
    draws = np.random.default_rng(seed).integers(0, len(values), (BOOTSTRAP_DRAWS, len(values)))
    low, high = np.percentile(statistic(values[draws], axis=1), [2.5, 97.5])
    return Interval(float(statistic(values)), float(low), float(high))


def nanmean(values: FloatArray, axis: int | None = None) -> FloatArray:
    """Mean over the finite values; NaN, without a warning, where there are none."""
    finite = np.isfinite(values)
    total, count = np.where(finite, values, 0).sum(axis), finite.sum(axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def known(values: Sequence[float], seed: int, statistic: Callable[..., Any] = np.mean) -> Interval | None:
    """The interval of those values that are finite; None when none is."""
    finite = [v for v in values if math.isfinite(v)]
    return bootstrap(finite, seed, statistic) if finite else None
