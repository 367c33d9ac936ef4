# SPDX-License-Identifier: Apache-2.0
"""What each part of the network is worth: evaluate it with all parts, then with one part off at a time.

    python research/ablation.py                               # parts switched off at inference; prints Markdown tables
    python research/ablation.py --trained out/ablation        # besides networks trained without, NAME.safetensors
    python research/ablation.py --trained out/ablation --into docs/lab/ablation.md    # puts the tables there

docs/lab/ablation.md describes what is compared and how the networks of a --trained folder are made and called. With
--into the tables replace the last ones, or go to the end of a file that has none; research/paste_results.py repeats
them, too.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ablated_network import PARTS, AblatedNetwork
from ablation_table import BASELINE, Measured, Row, section
from paste_results import BLOCK, format_block
from safetensors import SafetensorError, safe_open

from pixel4d_ros.checks import check_device
from pixel4d_ros.datasets.open import open_clips
from pixel4d_ros.errors import DeviceError, WeightsError
from pixel4d_ros.evaluation.protocol import Protocol
from pixel4d_ros.evaluation.results import Evaluation
from pixel4d_ros.evaluation.runner import evaluate_clip, evaluate_worlds
from pixel4d_ros.evaluation.synthetic_worlds import WorldSet
from pixel4d_ros.evaluation.tables import weights_line
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.predictor import Predictor
from pixel4d_ros.predictor.checkpoint import shipped_weights, weights_hash

COMMAND = "python research/ablation.py"
ROAD = "kitti_0002"
ROOMS = ("indoor_desk", "indoor_room5", "indoor_livingroom")
LABELS = {part: f"without {part}" for part in PARTS} | {"hidden": "without the second layer"}
TRAINED = {  # what a --trained folder may hold: name -> row, part missing by the metadata of the weights
    "baseline": (BASELINE, ""),
    "baseline_again": (f"{BASELINE}, another seed", ""),
    **{f"without_{part}": (label, part) for part, label in LABELS.items()},
    "without_synthetic": ("without synthetic data", ""),
    "without_imagenet": ("without ImageNet weights", ""),
}


def load_forecaster(
    weights: Path | None, device: str, without: Collection[str] = ()
) -> tuple[Forecaster, tuple[str, ...]]:
    """A forecaster without these PARTS of its network, and all parts that it lacks, in the order of PARTS.

    Parts that the weights were trained without stay off. weights None: those of the package. Raises WeightsError,
    DeviceError.
    """
    path = weights or shipped_weights()
    network = AblatedNetwork.load(path, without)
    predictor = Predictor(network, check_device(device), weights_hash(path))
    return Forecaster(predictor), tuple(part for part in PARTS if part in network.without)


@dataclass(frozen=True)
class Grounds:
    """What every network is evaluated on, and where."""

    logs: Path  # the folder of ROAD and ROOMS
    stride: int  # every N-th possible source image of the road is used
    worlds: WorldSet
    samples: int
    device: str

    def measure(self, label: str, weights: Path, *without: str) -> Row:
        """Evaluate one network, with parts of it off. Raises ValueError where a log or the weights are not there."""
        print(f"{label} ({weights.name})", file=sys.stderr)
        forecaster, off = load_forecaster(weights, self.device, without)

        def log(name: str, protocol: Protocol) -> Evaluation:
            (clip,) = open_clips(self.logs / f"{name}.mcap")
            return evaluate_clip(forecaster, clip, protocol, name)

        road = log(ROAD, Protocol(stride=self.stride))
        rooms = tuple(log(name, Protocol(align="image-scale")) for name in ROOMS)
        streets = evaluate_worlds(forecaster, self.worlds, Protocol(samples=self.samples))
        return Row(label, Measured(road, rooms, streets), without=off)

    def describe(self, first: Row) -> str:
        """What was measured, on how much, by which network."""
        m = first.measured
        return (
            f"Road: {ROAD}, stride {self.stride}: {m.road.sources} source images, {m.road.frames} frames each. "
            f"Rooms: {', '.join(ROOMS)}, one source image each, one scale per image. "
            f"Streets: {m.streets.subject.log}, one source image each, {self.samples} samples. "
            "In parentheses 95 % intervals over source images. "
            f"Network of the first row: {weights_line(m.road.subject)}, {m.road.subject.device}."
        )


def ablation_rows(weights: Path, grounds: Grounds) -> list[Row]:
    """One network with all it has, then with each part of it off."""
    first = grounds.measure(BASELINE, weights)
    there = [part for part in PARTS if part not in first.without]
    parts = [grounds.measure(LABELS[part], weights, part) for part in there]
    return [first, *parts]


def find_trained(folder: Path) -> dict[str, Path]:
    """Weights of TRAINED in a folder. Raises ValueError without a baseline or anything to compare with it."""
    found = {name: folder / f"{name}.safetensors" for name in TRAINED if (folder / f"{name}.safetensors").is_file()}
    if "baseline" not in found or len(found) < 2:
        others = ", ".join(name for name in TRAINED if name != "baseline")
        raise ValueError(f"{folder} needs baseline.safetensors and, to compare with it, at least one of {others}")
    return found


def steps_of(path: Path, part: str) -> str:
    """For how many steps weights were trained; raises WeightsError when that was not without `part` ("": with all)."""
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise WeightsError(f"{path} is damaged or not safetensors ({error}): train it again") from error
    lacks = metadata.get("without", "")
    if lacks != part:
        raise WeightsError(
            f"{path} was trained without {lacks or 'nothing'}, its name claims {part or 'nothing'}: rename it"
        )
    return str(metadata.get("steps", "?"))


def trained(folder: Path, grounds: Grounds) -> tuple[list[Row], list[str]]:
    """The networks of a folder, baseline first, and the names of those that are not there."""
    found = find_trained(folder)
    # All are looked at before the first is evaluated, which takes minutes.
    steps = {name: steps_of(path, TRAINED[name][1]) for name, path in found.items()}
    rows = [replace(grounds.measure(TRAINED[name][0], path), steps=steps[name]) for name, path in found.items()]
    return rows, [name for name in TRAINED if name not in found]


def tables(args: argparse.Namespace) -> str:
    """All that was asked for, as Markdown."""
    grounds = Grounds(args.logs, args.stride, WorldSet("street", args.worlds), args.samples, args.device)
    blocks: list[str] = []
    if args.trained is not None:
        rows, missing = trained(args.trained, grounds)
        blocks += ["### Trained without", grounds.describe(rows[0]), *section(rows)]
        blocks += [f"Not trained, so not in these tables: {', '.join(missing)}."] if missing else []
    rows = ablation_rows(args.weights or shipped_weights(), grounds)
    return "\n\n".join(["### Switched off at inference", grounds.describe(rows[0]), *section(rows), *blocks])


def command_of(args: argparse.Namespace) -> str:
    """The command that prints these tables again."""
    default = parser().get_default
    given = [(name, value) for name, value in vars(args).items() if name != "into" and value != default(name)]
    return shlex.join([*COMMAND.split(), *(word for name, value in given for word in (f"--{name}", str(value)))])


def paste_into(text: str, command: str, output: str) -> str:
    """A Markdown text with the tables in place of the last ones, or at its end."""
    block = format_block(command, output)
    last = next((found for found in BLOCK.finditer(text) if found["command"].startswith(COMMAND)), None)
    if last is None:
        return f"{text.rstrip()}\n\n## Results\n\n{block}\n"
    return text[: last.start()] + block + text[last.end() :]


def parser() -> argparse.ArgumentParser:
    """The tool's options."""
    p = argparse.ArgumentParser(description="What each part of the network is worth.", allow_abbrev=False)
    p.add_argument("--weights", type=Path, help="weights whose parts are switched off (default: the shipped ones)")
    p.add_argument("--trained", type=Path, metavar="FOLDER", help=f"weights trained without: {', '.join(TRAINED)}")
    p.add_argument("--logs", type=Path, default=Path("../shared/logs/val"), help=f"folder of {ROAD}.mcap and the rooms")
    p.add_argument(
        "--stride", type=int, default=5, help="use every N-th possible source image of the road (default: 5)"
    )
    p.add_argument("--worlds", type=int, default=4, help="synthetic streets (default: 4)")
    p.add_argument("--samples", type=int, default=8, help="sampled futures on them (default: 8)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    p.add_argument(
        "--into", type=Path, metavar="FILE", help="Markdown file to put the tables into (default: print them)"
    )
    return p


def main(given: Sequence[str] | None = None) -> int:
    """Measure, and print or paste; returns the exit status."""
    args = parser().parse_args(given)
    try:
        output = tables(args)
        if args.into is None:
            print(output)
        else:
            args.into.write_text(paste_into(args.into.read_text(), command_of(args), output))
    except (ValueError, OSError, DeviceError) as error:
        print(f"research/ablation.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
