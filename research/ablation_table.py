# SPDX-License-Identifier: Apache-2.0
"""The tables of research/ablation.py: what networks reach, and what that is worth against the first of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pixel4d_ros.evaluation.intervals import Interval, known
from pixel4d_ros.evaluation.results import DepthResults, Evaluation, MotionResults
from pixel4d_ros.evaluation.tables import table

BASELINE = "nothing left out"


@dataclass(frozen=True)
class Measured:
    """One network on all grounds."""

    road: Evaluation
    rooms: tuple[Evaluation, ...]  # one source image each
    streets: Evaluation


@dataclass(frozen=True)
class Row:
    """A network, and for how many steps it was trained ("" where that is the same for all)."""

    label: str
    measured: Measured
    steps: str = ""
    without: tuple[str, ...] = ()  # parts of the network that were off


@dataclass(frozen=True)
class Measure:
    """A column. by_image gives one value per source image, None where there is only a value over all."""

    title: str
    digits: int
    value: Callable[[Measured], Interval | None]
    by_image: Callable[[Measured], Sequence[float | None]] | None = None
    lower_is_better: bool = False
    factor: float = 1.0


def _depth(evaluation: Evaluation, value: Callable[[DepthResults], Interval]) -> Interval | None:
    return None if evaluation.depth is None else value(evaluation.depth)


def _motion(measured: Measured, value: Callable[[MotionResults], Interval | None]) -> Interval | None:
    return None if measured.streets.motion is None else value(measured.streets.motion)


def _room_gains(m: Measured) -> list[float]:
    return [math.nan if room.gain is None else room.gain.mean for room in m.rooms]


def _room_depths(m: Measured) -> list[float]:
    found = [_depth(room, lambda d: d.scaled_abs_rel) for room in m.rooms]
    return [math.nan if interval is None else interval.mean for interval in found]


REAL = (
    Measure("road: gain, dB", 2, lambda m: m.road.gain, lambda m: [s.psnr for s in m.road.per_source]),
    Measure(
        "road: AbsRel",
        3,
        lambda m: _depth(m.road, lambda d: d.abs_rel),
        lambda m: [s.abs_rel for s in m.road.per_source],
        lower_is_better=True,
    ),
    Measure("road: frame 0, dB", 2, lambda m: m.road.frame0_psnr, lambda m: [s.frame0_psnr for s in m.road.per_source]),
    Measure("rooms: gain, dB", 2, lambda m: known(_room_gains(m), 0), _room_gains),
    Measure("rooms: AbsRel", 3, lambda m: known(_room_depths(m), 0), _room_depths, lower_is_better=True),
)
SYNTHETIC = (
    Measure("gain, dB", 2, lambda m: m.streets.gain, lambda m: [s.psnr for s in m.streets.per_source]),
    Measure(
        "inside movers, dB",
        2,
        lambda m: m.streets.methods["forecast"].inside,
        lambda m: [s.inside for s in m.streets.per_source],
    ),
    Measure("inside: gain over motion off, dB", 2, lambda m: m.streets.inside_gain),
    Measure("inside: best future over sample 0, dB", 2, lambda m: m.streets.best_inside_gain),
    Measure("velocity error, %", 0, lambda m: _motion(m, lambda x: x.velocity_error), factor=100),
    Measure("IoU", 2, lambda m: _motion(m, lambda x: x.mask_iou)),
)


def section(rows: Sequence[Row]) -> list[str]:
    """Markdown blocks: the real logs, the synthetic streets, and what each row lacks against the first."""
    blocks = [_values("real logs", REAL, rows), _values("synthetic streets", SYNTHETIC, rows)]
    return [
        *blocks,
        "What each is worth (the first row less the others, image by image; above 0: it helps):",
        worth(rows),
    ]


def _values(corner: str, measures: Sequence[Measure], rows: Sequence[Row]) -> str:
    timed = any(row.steps for row in rows)
    header = [corner, *(["steps"] if timed else []), *(m.title for m in measures)]
    lines = []
    for row in rows:
        cells = [cell(m.value(row.measured), m.digits, m.factor) for m in measures]
        lines.append([row.label, *([row.steps] if timed else []), *cells])
    return table(header, lines, markdown=True)


def worth(rows: Sequence[Row]) -> str:
    """How much better the first row is than each other one, with the interval of the differences by source image."""
    base, *others = rows
    measures = [m for m in (*REAL, *SYNTHETIC) if m.by_image is not None]
    names = [m.title if m in REAL else f"streets: {m.title}" for m in measures]
    lines = [[row.label, *(cell(gap(m, base.measured, row.measured), m.digits) for m in measures)] for row in others]
    return table(["", *names], lines, markdown=True)


def gap(measure: Measure, full: Measured, less: Measured) -> Interval | None:
    """Mean by which `full` is better than `less` over the source images that have a value in both; None: in none."""
    if measure.by_image is None:
        return None
    sign = -1 if measure.lower_is_better else 1
    pairs = zip(measure.by_image(full), measure.by_image(less), strict=True)
    return known([sign * (a - b) for a, b in pairs if a is not None and b is not None], 0)


def cell(value: Interval | None, digits: int, factor: float = 1.0) -> str:
    """A mean with its interval, where there is one."""
    if value is None:
        return ""
    # Adding 0 turns -0.00 into 0.00.
    mean, *ends = (
        f"{round(factor * x, digits) + 0:.{digits}f}" for x in (value.mean, value.low, value.high) if x is not None
    )
    return f"{mean} ({ends[0]} .. {ends[1]})" if ends else mean
