# SPDX-License-Identifier: Apache-2.0
"""A benchmark as tables."""

from __future__ import annotations

from pixel4d_ros.benchmark.node_times import describe_node
from pixel4d_ros.benchmark.results import Benchmark, ForecastTimes, SizeTimes
from pixel4d_ros.benchmark.statistics import Spread
from pixel4d_ros.benchmark.stopwatch import Memory
from pixel4d_ros.evaluation.tables import Table, counted, table

SPREAD = ("p50 ms", "p99 ms", "worst ms")


def describe(benchmark: Benchmark, markdown: bool = False) -> str:
    """Everything that was measured."""
    blocks = [headline(benchmark)]
    for size in benchmark.sizes:
        blocks.append(f"{'### ' if markdown else ''}{size_name(size)}: {size.gaussians} Gaussians, {size.image}")
        tables = [forecast_table(size), *([candidate_table(size)] if size.candidates else [])]
        blocks += [table(header, rows, markdown) for header, rows in tables]
    blocks += [describe_node(node, markdown) for node in benchmark.nodes]
    blocks += [f"Note: {note}" for note in benchmark.notes]
    return "\n\n".join(blocks)


def headline(benchmark: Benchmark) -> str:
    """Device and versions in one line."""
    m = benchmark.machine
    versions = [f"torch {m.torch}", *([f"CUDA {m.cuda}", f"gsplat {m.gsplat}"] if m.cuda else [])]
    return (
        f"{m.device}; {', '.join(versions)}, Python {m.python}, {m.system}; pixel4d_ros {m.package}, "
        f"weights {benchmark.weights[:12]}; path: {benchmark.path}"
    )


def forecast_table(size: SizeTimes) -> Table:
    """Whole forecasts, their stages, lower bounds and memory."""
    rows = [row for times in size.forecasts for row in _forecast_rows(times)]
    return ("forecast", *SPREAD, "runs", "GPU MiB", "of lower bounds", "PSNR, worst frame"), rows


def _forecast_rows(times: ForecastTimes) -> list[list[str]]:
    name = f"{counted(times.samples, 'sample')} of {counted(times.frames, 'frame')}"
    ratio = "" if times.ratio is None else f"{times.ratio:.2f}"
    closeness = f"{times.agreement.worst_frame:.1f} dB"
    rows = [[name, *_cells(times.total), _memory(times.memory), ratio, closeness]]
    parts = [*times.stages.items(), ("render, per frame", times.render_per_frame)]
    if times.lower_bounds is not None:
        parts += [
            ("lower bound: encoders alone", times.lower_bounds.encoder),
            ("lower bound: rasterizer alone", times.lower_bounds.rasterizer),
        ]
    return rows + [[f"  {part}", *_cells(spread), "", "", ""] for part, spread in parts]


def candidate_table(size: SizeTimes) -> Table:
    """Candidate trajectories from one prediction."""
    rows = [
        [f"{counted(c.candidates, 'path')} of {counted(c.frames, 'frame')}", *_cells(c.total), _memory(c.memory)]
        for c in size.candidates
    ]
    return ("trajectories from one prediction", *SPREAD, "runs", "GPU MiB"), rows


def size_name(size: SizeTimes) -> str:
    """The size as WIDTHxHEIGHT."""
    return f"{size.size[0]}x{size.size[1]}"


def _cells(spread: Spread) -> list[str]:
    digits = 2 if spread.p50 < 100 else 0
    return [*(f"{value:.{digits}f}" for value in (spread.p50, spread.p99, spread.worst)), str(spread.runs)]


def _memory(memory: Memory | None) -> str:
    """Peak of allocated, and in parentheses of reserved memory, MiB."""
    return "" if memory is None else f"{memory.allocated:.0f} ({memory.reserved:.0f})"
