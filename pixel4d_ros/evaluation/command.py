"""`pixel4d evaluate LOG`: how good the forecasts are on a driving log, as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixel4d_ros.datasets.clip import Clip
    from pixel4d_ros.evaluation.protocol import Protocol
    from pixel4d_ros.evaluation.summary import Evaluation
    from pixel4d_ros.forecaster import Forecaster


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `pixel4d evaluate`."""
    parser.add_argument("log", type=Path, help="an MCAP, rosbag2 or rosbag1 log with images, CameraInfo and poses")
    parser.add_argument("--camera", help="image topic of the camera to evaluate (default: the first colour camera)")
    parser.add_argument("--weights", type=Path, help="weights file (default: the one shipped with the package)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--frames", type=int, default=14, help="frames per forecast, with the source image (default: 14)"
    )
    parser.add_argument("--step", type=float, default=0.1, help="seconds between frames (default: 0.1)")
    parser.add_argument("--stride", type=int, help="use every N-th possible source (default: about 20 sources; 1: all)")
    parser.add_argument("--start", type=int, default=0, help="skip the log's first images (default: 0)")
    parser.add_argument("--count", type=int, help="read so many images only: all are held in memory (default: all)")
    parser.add_argument("--size", type=_size, metavar="WxH", help="resize images, e.g. 400x120 (default: as logged)")
    parser.add_argument("--samples", type=int, default=1, metavar="K", help="sampled futures: also mean and best of K")
    parser.add_argument("--static", action="store_true", help="switch the forecast's motion off")
    parser.add_argument("--align-scale", action="store_true", help="scale camera paths to predicted / sensor depth")
    parser.add_argument("--seed", type=int, default=0, help="for sampled futures and confidence intervals (default: 0)")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write all numbers; - or nothing: to stdout"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print; returns the exit status."""
    from pixel4d_ros.datasets.driving_log import read_clip
    from pixel4d_ros.evaluation.protocol import Protocol
    from pixel4d_ros.evaluation.tables import describe
    from pixel4d_ros.forecaster import Forecaster

    protocol = Protocol(
        frames=args.frames,
        step=args.step,
        stride=args.stride,
        size=args.size,
        samples=args.samples,
        static=args.static,
        align_scale=args.align_scale,
        seed=args.seed,
    )
    if args.start < 0 or (args.count is not None and args.count < 2):
        raise ValueError("--start must be at least 0 and --count at least 2")
    forecaster = Forecaster.load(args.weights, args.device)
    clip = read_clip(args.log, args.camera, args.start, args.count)
    evaluation = evaluate_clip(forecaster, clip, protocol, args.log.stem)
    # With JSON on stdout the table must not break it for whoever parses it.
    print(describe(evaluation, args.markdown), file=sys.stderr if args.json == "-" else sys.stdout)
    if args.json:
        text = json.dumps(evaluation.as_dict(), indent=2)
        if args.json == "-":
            print(text)
        else:
            Path(args.json).write_text(text + "\n")
    return 0


def evaluate_clip(forecaster: Forecaster, clip: Clip, protocol: Protocol, name: str) -> Evaluation:
    """Score the protocol's sources of a clip, with a progress bar on stderr. Raises ValueError when none can be."""
    from tqdm import tqdm

    from pixel4d_ros.evaluation.benchmark import evaluate
    from pixel4d_ros.evaluation.environment import device_name, package_version
    from pixel4d_ros.evaluation.protocol import choose_sequences, clip_windows
    from pixel4d_ros.evaluation.summary import summarise

    if protocol.align_scale and clip.depth is None:
        raise ValueError(f"{name} has no depth to align the camera path with: leave --align-scale out")
    sequences = choose_sequences(clip.times, protocol)
    notes = []
    if len(sequences[0]) < protocol.frames:
        notes.append(
            f"the log has no {protocol.frames} frames in a row about {protocol.step:g} s apart:"
            f" {len(sequences[0])} were used"
        )
    windows = tqdm(clip_windows(clip, protocol), "evaluate", len(sequences), unit="forecast", leave=False)
    scores = list(evaluate(forecaster, windows, protocol))
    if len(scores) < len(sequences):
        notes.append(f"{len(sequences) - len(scores)} source images without sensor depth were left out")
    height, width = clip.images.shape[1:3]
    return summarise(
        scores,
        protocol,
        log=name,
        size=protocol.size or (width, height),
        weights=forecaster.weights_hash,
        device=device_name(forecaster.device),
        package_version=package_version(),
        notes=notes,
    )


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write WIDTHxHEIGHT, e.g. 400x120")
    return int(width), int(height)
