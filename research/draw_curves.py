# SPDX-License-Identifier: Apache-2.0
"""Draw how depth and forecasts of the unseen street kitti_0002 changed while runs trained, as one PNG.

    python research/draw_curves.py docs/lab/depth_over_time.csv docs/lab/depth_over_time.png      # needs matplotlib

The CSV holds a row per look of a run: the run, the samples that it had seen, and the gain over repeating the image and
AbsRel that `pixel4d train` printed. docs/lab/training_log.md describes the runs.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

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
    with path.open(newline="") as file:
        looks = []
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                looks.append(Look(row["run"], int(row["samples"]), float(row["gain_db"]), float(row["abs_rel"])))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: {error} is missing or no number") from None
    return looks


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


def main() -> int:
    """Draw; returns the exit status."""
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    try:
        draw(read_looks(Path(sys.argv[1])), Path(sys.argv[2]))
    except (ImportError, OSError, ValueError) as error:
        print(f"draw_curves: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
