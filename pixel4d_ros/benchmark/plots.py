# SPDX-License-Identifier: Apache-2.0
"""A benchmark as a picture: time by stage, and its growth with frames, samples, trajectories and pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pixel4d_ros.benchmark.report import size_name
from pixel4d_ros.benchmark.results import Benchmark, ForecastTimes, SizeTimes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")
REST = "rest"  # of the whole: checks, uncertainty, waiting for the host

Points = Sequence[tuple[float, float]]


def check_plot(path: Path) -> None:
    """Raise ValueError when no picture can be drawn to this path."""
    from importlib.util import find_spec

    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--plot {path}: name a file that ends in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ValueError(f"--plot {path}: there is no folder {path.parent}, make it first")
    if find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: pip install matplotlib")


def draw(benchmark: Benchmark, path: Path) -> None:
    """Draw to a file. Raises ValueError as check_plot does."""
    check_plot(path)
    if not benchmark.sizes:
        raise ValueError("--plot: there are no forecasts of the library in this benchmark, only the node's")
    from matplotlib.figure import Figure

    panels = _panels(benchmark.sizes)
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.4 * columns, 3.7 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, place in zip(panels, axes):
        panel(place)
    for place in axes[len(panels) :]:
        place.set_axis_off()
    figure.suptitle(f"pixel4d benchmark: {benchmark.machine.device}, {benchmark.path}; medians", fontsize=11)
    figure.savefig(path, dpi=110)


def _panels(sizes: Sequence[SizeTimes]) -> list[Callable[[Axes], None]]:
    """Panels: time by stage, and growth with each quantity that was measured more than once."""
    growths = (
        ("frames of one forecast", frame_points),
        ("sampled futures", sample_points),
        ("trajectories from one prediction", candidate_points),
    )
    panels: list[Callable[[Axes], None]] = [partial(_draw_stages, sizes=sizes)]
    for what, points in growths:
        if any(len(points(size)) > 1 for size in sizes):
            panels.append(partial(_draw_growth, sizes=sizes, what=what, points=points))
    if len(sizes) > 1:
        panels.append(partial(_draw_resolution, sizes=sizes))
    if memory := memory_bars(sizes):
        panels.append(partial(_draw_memory, bars=memory))
    return panels


def frame_points(size: SizeTimes) -> Points:
    """(frames, ms) of the forecasts with the first number of samples."""
    first = size.forecasts[0].samples
    return sorted((f.frames, f.total.p50) for f in size.forecasts if f.samples == first)


def sample_points(size: SizeTimes) -> Points:
    """(samples, ms) of the forecasts with the first number of frames."""
    first = size.forecasts[0].frames
    return sorted((f.samples, f.total.p50) for f in size.forecasts if f.frames == first)


def candidate_points(size: SizeTimes) -> Points:
    """Pairs of number of trajectories and median milliseconds."""
    return sorted((c.candidates, c.total.p50) for c in size.candidates)


def stage_parts(times: ForecastTimes) -> dict[str, float]:
    """Median ms of each stage, and the rest of the whole forecast."""
    parts = {name: spread.p50 for name, spread in times.stages.items()}
    return {**parts, REST: max(0.0, times.total.p50 - sum(parts.values()))}


def _draw_stages(axes: Axes, sizes: Sequence[SizeTimes]) -> None:
    """A bar per size and number of samples, of forecasts with the first number of frames."""
    frames = sizes[0].forecasts[0].frames
    bars = [(f"{size_name(s)}, {f.samples} x {frames}", f) for s in sizes for f in s.forecasts if f.frames == frames]
    names, left = [name for name, _ in bars], [0.0] * len(bars)
    for part in stage_parts(bars[0][1]):
        lengths = [stage_parts(times)[part] for _, times in bars]
        axes.barh(names, lengths, left=left, label=part)
        left = [a + b for a, b in zip(left, lengths)]
    lower_bounds = [(i, f.lower_bounds.total) for i, (_, f) in enumerate(bars) if f.lower_bounds is not None]
    if lower_bounds:
        places, times = zip(*lower_bounds)
        axes.scatter(times, places, marker="|", s=250, c="black", label="lower bounds")
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.set_xlabel("ms")
    axes.set_title("where the time goes (samples x frames)", fontsize=10)
    axes.legend(fontsize=7)


def _draw_growth(axes: Axes, sizes: Sequence[SizeTimes], what: str, points: Callable[[SizeTimes], Points]) -> None:
    for size in sizes:
        found = points(size)
        if found:
            axes.plot([x for x, _ in found], [y for _, y in found], "o-", label=size_name(size))
    _finish(axes, what)


def _draw_resolution(axes: Axes, sizes: Sequence[SizeTimes]) -> None:
    """Whole, predict and render against the number of pixels."""
    megapixels = [1e-6 * size.size[0] * size.size[1] for size in sizes]
    first = [size.forecasts[0] for size in sizes]
    lines = {
        "whole": [f.total.p50 for f in first],
        **{stage: [f.stages[stage].p50 for f in first] for stage in ("predict", "render")},
    }
    if all(f.lower_bounds is not None for f in first):
        lines["lower bounds"] = [f.lower_bounds.total for f in first if f.lower_bounds is not None]
    for name, values in lines.items():
        axes.plot(megapixels, values, "o-", label=name)
    _finish(axes, "megapixels")


def memory_bars(sizes: Sequence[SizeTimes]) -> list[tuple[str, float]]:
    """(case, MiB of GPU memory); none on the CPU."""
    return [
        (f"{size_name(s)}, {name}", memory.allocated)
        for s in sizes
        for name, memory in [
            *((f"{f.samples} x {f.frames}", f.memory) for f in s.forecasts),
            *((f"{c.candidates} paths", c.memory) for c in s.candidates),
        ]
        if memory is not None
    ]


def _draw_memory(axes: Axes, bars: list[tuple[str, float]]) -> None:
    axes.set_title("most GPU memory at a time (samples x frames)", fontsize=10)
    axes.barh([name for name, _ in bars], [mib for _, mib in bars])
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)
    axes.set_xlabel("MiB")


def _finish(axes: Axes, what: str) -> None:
    axes.set_xlabel(what)
    axes.set_ylabel("ms")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)
