# SPDX-License-Identifier: Apache-2.0
"""Calibration of predicted probabilities: Brier score and reliability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 10  # of equal width between probabilities 0 and 1


@dataclass(frozen=True)
class Event:
    """A predicted probability and whether it came true."""

    probability: float
    happened: bool


@dataclass(frozen=True)
class ReliabilityBin:
    """The events whose probability lies in one bin."""

    probability: float  # mean
    frequency: float  # share that happened
    count: int


def brier_score(events: Sequence[Event]) -> float:
    """Mean squared difference of probability and outcome (G. Brier, 1950); 0 is best, 0.25 is a constant 0.5.

    Raises ValueError without events.
    """
    if not events:
        raise ValueError("a Brier score needs at least one event")
    return float(np.mean([(e.probability - e.happened) ** 2 for e in events]))


def reliability(events: Sequence[Event]) -> tuple[ReliabilityBin, ...]:
    """The bins of a reliability diagram that hold events, from low probabilities to high ones."""
    probabilities = np.array([e.probability for e in events])
    happened = np.array([e.happened for e in events], float)
    index = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    members = [index == k for k in range(BINS)]
    return tuple(
        ReliabilityBin(float(probabilities[m].mean()), float(happened[m].mean()), int(m.sum()))
        for m in members
        if m.any()
    )
