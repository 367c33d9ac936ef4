# SPDX-License-Identifier: Apache-2.0
"""Small charts as inline SVG: no plotting library at run time, sharp at any size, readable in light and dark pages.

Colours come from the page's CSS: classes s0, s1 for series, `grid`, `axis`, and `dim` for secondary text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from pixel4d_ros.evaluation.calibration import ReliabilityBin

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 130, 16, 44  # space for axis labels, and for the names of the series on the right


@dataclass(frozen=True)
class Series:
    """One line of a chart; values are NaN where unknown."""

    name: str
    values: Sequence[float]


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that cover low..high."""
    span = max(high - low, 1e-9)
    raw = span / max(about, 1)
    magnitude = 10.0 ** np.floor(np.log10(raw))
    step = next(float(m * magnitude) for m in (1, 2, 5, 10) if m * magnitude >= raw * (1 - 1e-9))
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    return [float(np.round(i * step, 10)) for i in np.arange(first, last + 1)]


def line_chart(times: Sequence[float], series: Sequence[Series], unit: str, x_label: str) -> str:
    """Lines over time with a dot per value; each dot shows its value under the pointer."""
    values = np.array([s.values for s in series], np.float64)
    finite = values[np.isfinite(values)]
    if not len(times) or not finite.size:
        return '<p class="dim">nothing to plot</p>'
    y_ticks = nice_ticks(float(finite.min()), float(finite.max()))
    x_ticks = nice_ticks(0, max(times), 7)
    axes = _Axes((0, x_ticks[-1]), (y_ticks[0], max(y_ticks[-1], y_ticks[0] + 1e-9)))
    parts = [axes.grid(x_ticks, y_ticks, x_label, unit)]
    names = _spread([axes.y(_last(row)) for row in values], 16)
    for i, (s, row, name_y) in enumerate(zip(series, values, names, strict=True)):
        known = [(t, v) for t, v in zip(times, row, strict=True) if np.isfinite(v)]
        points = " ".join(f"{axes.x(t):.1f},{axes.y(v):.1f}" for t, v in known)
        parts.append(f'<polyline class="line s{i}" points="{points}"/>')
        parts += [
            f'<circle class="dot s{i}" cx="{axes.x(t):.1f}" cy="{axes.y(v):.1f}" r="3.5">'
            f"<title>{escape(s.name)} at +{t:.2f} s: {v:.2f} {escape(unit)}</title></circle>"
            for t, v in known
        ]
        if known:
            x, name = WIDTH - RIGHT + 10, escape(s.name)
            parts.append(f'<text class="name s{i}" x="{x}" y="{name_y + 4:.1f}">{name}</text>')
    return _svg(parts, f"{' and '.join(s.name for s in series)}, {unit}")


def histogram(values: ArrayLike, unit: str, x_label: str, bins: int = 20) -> str:
    """Counts of values in equal bins."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if not known.size:
        return '<p class="dim">nothing to plot</p>'
    x_ticks = nice_ticks(float(known.min()), float(known.max()), 7)
    if len(x_ticks) == 1:
        x_ticks.append(x_ticks[0] + 1)
    counts, edges = np.histogram(known, bins=bins, range=(x_ticks[0], x_ticks[-1]))
    y_ticks = [t for t in nice_ticks(0, int(counts.max()), 4) if t == int(t)]
    axes = _Axes((x_ticks[0], x_ticks[-1]), (0, y_ticks[-1]))
    parts = [axes.grid(x_ticks, y_ticks, f"{x_label}, {unit}", "forecasts")]
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            x, y = axes.x(low), axes.y(count)
            parts.append(
                f'<rect class="bar" x="{x + 1:.1f}" y="{y:.1f}" width="{axes.x(high) - x - 2:.1f}" '
                f'height="{axes.y(0) - y:.1f}"><title>{low:.3g} to {high:.3g} {escape(unit)}: {count}</title></rect>'
            )
    return _svg(parts, f"histogram of {x_label}")


def reliability_diagram(bins: Sequence[ReliabilityBin]) -> str:
    """Observed frequency of moving over predicted probability; a calibrated predictor is on the diagonal."""
    axes = _Axes((0, 1), (0, 1))
    ticks = [0.2 * i for i in range(6)]
    parts = [axes.grid(ticks, ticks, "predicted probability of moving", "share that moves")]
    points = " ".join(f"{axes.x(v):.1f},{axes.y(v):.1f}" for v in (0, 1))
    parts.append(f'<polyline class="line s1" points="{points}"/>')
    points = " ".join(f"{axes.x(b.probability):.1f},{axes.y(b.frequency):.1f}" for b in bins)
    parts.append(f'<polyline class="line s0" points="{points}"/>')
    most = max(b.count for b in bins)
    for b in bins:
        x, y, radius = axes.x(b.probability), axes.y(b.frequency), 3.5 + 8.5 * (b.count / most) ** 0.5
        parts.append(
            f'<circle class="dot s0" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>'
            f"probability {b.probability:.2f}: {b.frequency:.0%} of {b.count} objects move</title></circle>"
        )
    return _svg(parts, "reliability diagram of the probability of moving")


@dataclass(frozen=True)
class _Axes:
    """From values to pixels of the drawing."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return float(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT))

    def y(self, value: float) -> float:
        low, high = self.y_range
        return float(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM))

    def grid(self, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str) -> str:
        """Horizontal lines, tick labels and the axes' names."""
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        parts = []
        for tick in y_ticks:
            y = self.y(tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" text-anchor="end" x="{LEFT - 8}" y="{y + 4:.1f}">{tick:g}</text>')
        for tick in x_ticks:
            x = self.x(tick)
            parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
            parts.append(f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{bottom + 18}">{tick:g}</text>')
        middle = (LEFT + right) / 2
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" text-anchor="middle" x="{middle}" y="{HEIGHT - 6}">{escape(x_label)}</text>')
        parts.append(f'<text class="tick" x="{LEFT + 4}" y="{TOP - 3}">{escape(y_label)}</text>')
        return "".join(parts)


def _spread(positions: Sequence[float], gap: float) -> list[float]:
    """Positions of labels, moved down where two would overlap."""
    placed = list(positions)
    order = sorted(range(len(placed)), key=lambda i: placed[i])
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + gap)
    return placed


def _last(row: np.ndarray) -> float:
    known = row[np.isfinite(row)]
    return float(known[-1]) if known.size else 0.0


def _svg(parts: Sequence[str], label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
