# SPDX-License-Identifier: Apache-2.0
"""Statistics of measured times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Spread:
    """Times of repeated runs, in milliseconds."""

    p50: float
    p99: float
    worst: float
    runs: int

    @staticmethod
    def of(milliseconds: ArrayLike) -> Spread:
        """Of measured times (n,). Raises ValueError when there are none, or one is negative or not finite."""
        times = np.asarray(milliseconds, np.float64).ravel()
        if times.size == 0:
            raise ValueError("nothing was measured: at least one run is needed")
        if not np.isfinite(times).all() or (times < 0).any():
            raise ValueError("a measured time is negative or not finite: the clock cannot be trusted")
        p50, p99, worst = np.percentile(times, (50, 99, 100))
        return Spread(float(p50), float(p99), float(worst), times.size)

    def per(self, count: int) -> Spread:
        """The same runs, as time per one of count parts."""
        return Spread(self.p50 / count, self.p99 / count, self.worst / count, self.runs)


def course(values: ArrayLike, parts: int = 6) -> tuple[float, ...]:
    """Medians of equal parts of values (n,) in their order, which show growth; none of fewer values than parts."""
    series = np.asarray(values, np.float64).ravel()
    if series.size < parts:
        return ()
    return tuple(float(np.median(part)) for part in np.array_split(series, parts))
