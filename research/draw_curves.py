# SPDX-License-Identifier: Apache-2.0
"""Draw how depth and forecasts of the unseen street kitti_0002 changed while runs trained, as one PNG.

    python research/draw_curves.py docs/lab/depth_over_time.csv docs/lab/depth_over_time.png      # needs matplotlib

The CSV holds a row per look of a run: the run, the samples that it had seen, and the gain over repeating the image and
AbsRel that `pixel4d train` printed. docs/lab/training_log.md describes the runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from draw_runs import draw_table, read_rows

GAIN, ABS_REL = 4.7, 0.11  # what is asked for: dB, share


@dataclass(frozen=True)
class Look:
    """The EMA weights of a run at one time, on kitti_0002."""

    run: str
    samples: int  # seen so far
    gain_db: float
    abs_rel: float


def read_looks(path: Path) -> list[Look]:
    """The rows of the CSV. Raises ValueError naming the line that is not a look."""

    def parse(row: dict[str, str]) -> Look:
        return Look(row["run"], int(row["samples"]), float(row["gain_db"]), float(row["abs_rel"]))

    return read_rows(path, parse)


def draw(looks: list[Look], path: Path) -> None:
    """AbsRel and gain over the samples seen, a curve per run; green lines: asked for."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name, asked in ((left, "abs_rel", ABS_REL), (right, "gain_db", GAIN)):
        for run, members in groupby(looks, lambda look: look.run):
            points = [(look.samples / 1000, getattr(look, name)) for look in members]
            axes.plot([x for x, _ in points], [y for _, y in points], "o-", ms=4, label=run)
        axes.axhline(asked, color="tab:green", ls="--", label="asked for")
        axes.set_xlabel("thousand samples")
        axes.grid(alpha=0.3)
    left.set(ylabel="depth AbsRel", yscale="log", yticks=(0.11, 0.15, 0.2, 0.3, 0.5))
    left.set_yticklabels(["0.11", "0.15", "0.2", "0.3", "0.5"])
    right.set_ylabel("gain over repeating the image, dB")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.suptitle("kitti_0002, never trained on; one image; 8 source images", fontsize=10)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    raise SystemExit(draw_table("draw_curves", __doc__, lambda table, picture: draw(read_looks(table), picture)))
