# SPDX-License-Identifier: Apache-2.0
"""Draw how training runs fared on the unseen street kitti_0002, beside what is asked for, as one PNG.

    python research/draw_runs.py docs/lab/training_runs.csv docs/lab/training_runs.png      # needs matplotlib

The CSV holds a row per weights file: its name, the series it belongs to, and what `pixel4d evaluate
../shared/logs/val/kitti_0002.mcap` printed: PSNR of frame 0, gain over repeating the image, AbsRel.
docs/lab/training_log.md describes the runs.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = TypeVar("Row")
FIRST_FRAME, GAIN, ABS_REL = 34.0, 4.2, 0.18  # what is asked for: dB, dB, share


@dataclass(frozen=True)
class Run:
    """One weights file on kitti_0002."""

    weights: str
    series: str
    first_frame_db: float
    gain_db: float
    abs_rel: float


def read_rows(path: Path, parse: Callable[[dict[str, str]], Row]) -> list[Row]:
    """The rows of a CSV. Raises ValueError naming the line that lacks a figure."""
    rows = []
    with path.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                rows.append(parse(row))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: {error} is missing or no number") from None
    return rows


def read_runs(path: Path) -> list[Run]:
    """The rows of the CSV. Raises ValueError naming the line that is not a run."""

    def parse(row: dict[str, str]) -> Run:
        return Run(row["weights"], row["series"], *(float(row[n]) for n in ("first_frame_db", "gain_db", "abs_rel")))

    return read_rows(path, parse)


def draw(runs: list[Run], path: Path) -> None:
    """Gain over the first frame's PSNR, and over AbsRel; the corners that are asked for are shaded."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _scatter(left, runs, "first_frame_db")
    _scatter(right, runs, "abs_rel")
    for axes, asked, side in ((left, FIRST_FRAME, max), (right, ABS_REL, min)):
        limits, top = axes.get_xlim(), axes.get_ylim()[1]
        axes.fill_between(sorted((asked, side(limits))), GAIN, top, color="tab:green", alpha=0.15, lw=0)
        axes.set(xlim=limits, ylim=(None, top))
    left.set_xlabel("PSNR of the first frame, dB")
    left.set_ylabel("gain over repeating the image, dB")
    right.set_xlabel("depth AbsRel")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle("kitti_0002, never trained on; green: asked for", fontsize=10)
    figure.savefig(path, dpi=90)


def _scatter(axes: Axes, runs: list[Run], name: str) -> None:
    for series, members in groupby(runs, lambda run: run.series):
        points = [(getattr(run, name), run.gain_db, run.weights) for run in members]
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "o", label=series)
        for x, y, label in points:
            axes.annotate(label, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=6.5)
    axes.grid(alpha=0.3)


def draw_table(name: str, usage: str | None, draw_file: Callable[[Path, Path], None]) -> int:
    """Draw the table to the picture that the command line names; returns the exit status."""
    if len(sys.argv) != 3:
        print(usage)
        return 2
    try:
        draw_file(Path(sys.argv[1]), Path(sys.argv[2]))
    except (ImportError, OSError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(draw_table("draw_runs", __doc__, lambda table, picture: draw(read_runs(table), picture)))
