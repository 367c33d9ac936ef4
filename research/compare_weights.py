# SPDX-License-Identifier: Apache-2.0
"""Evaluate several weights files on the same held-out data and print one table, a column per file.

    python research/compare_weights.py                                         # the shipped weights alone
    python research/compare_weights.py OLD.safetensors NEW.safetensors         # side by side, in Markdown
    python research/compare_weights.py NEW.safetensors --images 20 --device cuda --json out/new.json
    python research/compare_weights.py --only kitti_0052 rooms                 # some of the cases

"shipped" names the weights of the package. The data are the logs, pairs and stereo pairs of ../shared (--shared), and
synthetic streets with held-out seeds. On two CPU cores and 4 images a case takes one or two minutes per file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixel4d_ros.datasets.box_labels import box_file, with_box_labels
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.depth_images import read_depth_folder
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.datasets.stereo_pairs import read_stereo_folder
from pixel4d_ros.errors import DeviceError
from pixel4d_ros.evaluation.intervals import Interval
from pixel4d_ros.evaluation.protocol import Protocol, find_sequences
from pixel4d_ros.evaluation.results import Evaluation
from pixel4d_ros.evaluation.runner import Options, evaluate_clip, evaluate_images, evaluate_worlds
from pixel4d_ros.evaluation.synthetic_worlds import WorldSet
from pixel4d_ros.evaluation.tables import table
from pixel4d_ros.forecaster import Forecaster

SHIPPED = "shipped"
ROOMS = ("indoor_desk", "indoor_room5", "indoor_livingroom")

Value = Callable[[Evaluation], float | None]


@dataclass(frozen=True)
class Measure:
    """A row: its name, how a value is taken from each evaluation of its case, digits, and what is asked for."""

    name: str
    value: Value
    digits: int = 3
    target: str = ""


def interval(value: Callable[[Evaluation], Interval | None], factor: float = 1.0) -> Value:
    """The mean of an interval that an evaluation may have."""

    def mean(evaluation: Evaluation) -> float | None:
        found = value(evaluation)
        return None if found is None else factor * found.mean

    return mean


def depth(name: str) -> Value:
    """A field of the evaluation's depth."""
    return interval(lambda e: None if e.depth is None else getattr(e.depth, name))


def motion(name: str, factor: float = 1.0) -> Value:
    """A field of the evaluation's motion."""
    return interval(lambda e: None if e.motion is None else getattr(e.motion, name), factor)


def found_share(evaluation: Evaluation) -> float | None:
    """Moving objects that were found, %."""
    m = evaluation.motion
    return None if m is None or not m.objects else 100 * m.found / m.objects


def brier(evaluation: Evaluation) -> float | None:
    """Brier score of the probability of moving."""
    return None if evaluation.motion is None else evaluation.motion.brier


def movers(found_target: str, error_target: str, gain_target: str = "") -> tuple[Measure, ...]:
    """Rows about moving objects."""
    return (
        Measure("moving objects found, %", found_share, 0, found_target),
        Measure("velocity error, median of all, %", motion("velocity_error", 100), 0, error_target),
        Measure("inside: gain over motion off, dB", interval(lambda e: e.inside_gain), 2, gain_target),
        Measure("false objects per image", motion("false_objects"), 2),
        Measure("Brier score of moving", brier),
    )


QUIET = (
    Measure("static pixels called moving, %", motion("false_moving", 100), 2, "1"),
    Measure("false objects per image", motion("false_objects"), 2, "0.1"),
    Measure("boxes over 25 m or floating, per image", motion("impossible_boxes"), 2, "0"),
)
GAIN = interval(lambda e: e.gain)
SHARE = Measure(
    "Gaussians in labelled boxes, %", interval(lambda e: e.shape.gaussians if e.shape else None, 100), 1, "60"
)
SENSOR = Measure("(the sensor's points in them, %)", interval(lambda e: e.shape.sensor if e.shape else None, 100), 1)


@dataclass(frozen=True)
class Data:
    """Where the data are, and how much of them is used."""

    shared: Path
    images: int  # source images of each clip, about

    def log(self, name: str) -> Clip:
        """A log with its boxes. Raises LogError."""
        folder = self.shared / "logs"
        path = next((p for p in folder.glob(f"*/{name}.mcap")), folder / f"{name}.mcap")
        clip, labels = read_clip(path), box_file(path, name)
        return clip if labels is None else with_box_labels(clip, labels)

    def drive(self, forecaster: Forecaster, name: str, frames: int = 14, two: bool = False) -> Evaluation:
        """Evaluate a log, from one image or from two."""
        clip = self.log(name)
        stride = max(1, round(len(find_sequences(clip.times, frames, 0.1)) / self.images))
        return evaluate_clip(
            forecaster, clip, Protocol(frames=frames, stride=stride), name, Options(reference_view=two)
        )

    def rooms(self, forecaster: Forecaster) -> list[Evaluation]:
        """The rooms, one scale per image."""
        return [evaluate_clip(forecaster, self.log(n), Protocol(align="image-scale"), n) for n in ROOMS]

    def single(self, forecaster: Forecaster, name: str) -> Evaluation:
        """The held-out images of a folder."""
        read = read_stereo_folder if name == "stereo2015" else read_depth_folder
        clips = read(self.shared / name, "held_out")
        stride = max(1, round(len(clips) / (2 * self.images)))
        return evaluate_images(forecaster, clips, Protocol(stride=stride), name)

    def streets(self, forecaster: Forecaster, two: bool = False) -> Evaluation:
        """Synthetic streets with held-out seeds."""
        return evaluate_worlds(
            forecaster, WorldSet("street", self.images, size=(832, 256)), Protocol(), Options(reference_view=two)
        )


@dataclass(frozen=True)
class Case:
    """What is evaluated, and which rows that gives; several evaluations are averaged."""

    name: str
    run: Callable[[Data, Forecaster], Evaluation | list[Evaluation]]
    measures: tuple[Measure, ...]


CASES = (
    Case(
        "kitti_0002",
        lambda d, f: d.drive(f, "kitti_0002"),
        (
            Measure("AbsRel", depth("abs_rel"), 3, "0.11"),
            Measure("delta1", depth("delta1"), 3, "0.89"),
            Measure("delta1 beside depth edges", depth("edge_delta1"), 3, "0.82"),
            Measure("gain over repeating the image, dB", GAIN, 2, "4.7"),
            Measure("first frame, dB", interval(lambda e: e.frame0_psnr), 2, "35"),
            *QUIET,
        ),
    ),
    Case(
        "stereo2015",
        lambda d, f: d.single(f, "stereo2015"),
        (
            Measure("AbsRel", depth("abs_rel"), 3, "0.08"),
            Measure("delta1 beside depth edges", depth("edge_delta1")),
            Measure("boundary F1", depth("boundary_f1"), 4, "3 x today's"),
        ),
    ),
    Case(
        "pairs",
        lambda d, f: d.single(f, "pairs"),
        (
            Measure("AbsRel, one scale", depth("scaled_abs_rel"), 3, "0.12"),
            Measure("boundary F1", depth("boundary_f1"), 4),
        ),
    ),
    Case(
        "rooms",
        lambda d, f: d.rooms(f),
        (
            Measure("AbsRel, one scale", depth("scaled_abs_rel"), 3, "0.12"),
            Measure("gain over repeating the image, dB", GAIN, 2, "5.5"),
        ),
    ),
    Case(
        "streets",
        lambda d, f: d.streets(f),
        (
            Measure("AbsRel", depth("abs_rel"), 3, "0.05"),
            Measure("boundary F1", depth("boundary_f1"), 4, "0.6"),
            *movers("", ""),
        ),
    ),
    Case("streets, two images", lambda d, f: d.streets(f, True), movers("95", "8", "2.5")),
    Case("kitti_0052", lambda d, f: d.drive(f, "kitti_0052"), (SHARE, SENSOR, *movers("40", "", ""))),
    Case("kitti_0052, two images", lambda d, f: d.drive(f, "kitti_0052", two=True), movers("90", "20", "3")),
    Case("kitti_0005", lambda d, f: d.drive(f, "kitti_0005", 2), (SHARE, SENSOR)),
    Case("kitti_0056", lambda d, f: d.drive(f, "kitti_0056", 11), movers("", "", "")),
    Case("kitti_0056, two images", lambda d, f: d.drive(f, "kitti_0056", 11, True), movers("90", "20")),
    Case(
        "kitti_0002, two images",
        lambda d, f: d.drive(f, "kitti_0002", two=True),
        (Measure("AbsRel", depth("abs_rel"), 3, "0.09"), Measure("gain, dB", GAIN, 2, "5.2"), *QUIET),
    ),
)


def values(case: Case, evaluations: Evaluation | list[Evaluation]) -> Iterator[float | None]:
    """The case's measures, means over evaluations that have them."""
    several = evaluations if isinstance(evaluations, list) else [evaluations]
    for measure in case.measures:
        known = [v for v in map(measure.value, several) if v is not None]
        yield float(np.mean(known)) if known else None


def compare(weights: Sequence[Path | None], cases: Sequence[Case], data: Data, device: str) -> list[list[float | None]]:
    """One column of values per weights file, the cases' measures in order; progress goes to stderr."""
    columns = []
    for path in weights:
        forecaster = Forecaster.load(path, device)
        column: list[float | None] = []
        for case in cases:
            began = time.perf_counter()
            new = list(values(case, case.run(data, forecaster)))
            column += new
            found = ", ".join("" if v is None else f"{v:.4g}" for v in new)
            print(f"{label(path)}: {case.name}, {time.perf_counter() - began:.0f} s: {found}", file=sys.stderr)
        columns.append(column)
    return columns


def label(path: Path | None) -> str:
    """What the table calls a weights file."""
    return SHIPPED if path is None else path.stem


def markdown(weights: Sequence[Path | None], cases: Sequence[Case], columns: Sequence[Sequence[float | None]]) -> str:
    """The table."""
    names = [(case.name, measure) for case in cases for measure in case.measures]
    rows = []
    for i, (case, measure) in enumerate(names):
        cells = ["" if column[i] is None else f"{column[i]:.{measure.digits}f}" for column in columns]
        rows.append([f"{case}: {measure.name}", *cells, measure.target])
    return table(["measure", *map(label, weights), "asked for"], rows, markdown=True)


def parser() -> argparse.ArgumentParser:
    """The tool's options."""
    p = argparse.ArgumentParser(description="Several weights files on the same held-out data.", allow_abbrev=False)
    p.add_argument("weights", nargs="*", default=[SHIPPED], help=f"weights files, or {SHIPPED} (default: {SHIPPED})")
    p.add_argument("--shared", type=Path, default=Path("../shared"), help="folder of logs/, pairs/ and stereo2015/")
    p.add_argument("--images", type=int, default=4, help="source images of each clip, about (default: 4)")
    p.add_argument("--only", nargs="+", metavar="CASE", help=f"cases, by what their names begin with: {_names()}")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the numbers, too")
    return p


def _names() -> str:
    return ", ".join(f'"{case.name}"' for case in CASES)


def main(given: Sequence[str] | None = None) -> int:
    """Evaluate and print; returns the exit status."""
    args = parser().parse_args(given)
    cases = [case for case in CASES if args.only is None or any(case.name.startswith(name) for name in args.only)]
    weights = [None if name == SHIPPED else Path(name) for name in args.weights]
    try:
        if not cases:
            raise ValueError(f"--only {' '.join(args.only)}: there is no such case; the cases are {_names()}")
        columns = compare(weights, cases, Data(args.shared, args.images), args.device)
    except (ValueError, OSError, DeviceError) as error:
        print(f"research/compare_weights.py: {error}", file=sys.stderr)
        return 1
    print(markdown(weights, cases, columns))
    if args.json is not None:
        keys = [f"{case.name}: {measure.name}" for case in cases for measure in case.measures]
        numbers = {label(path): dict(zip(keys, column, strict=True)) for path, column in zip(weights, columns)}
        args.json.write_text(json.dumps(numbers, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
