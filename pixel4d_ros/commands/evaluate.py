# SPDX-License-Identifier: Apache-2.0
"""`pixel4d evaluate DATA`: metrics of forecasts on logs, data sets and synthetic worlds."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pixel4d_ros.commands.arguments import image_size
from pixel4d_ros.evaluation.protocol import ALIGNMENTS, PROTOCOLS, Protocol
from pixel4d_ros.files import check_folder, check_target, write_text
from pixel4d_ros.logs.options import RECTIFIED

if TYPE_CHECKING:
    from pixel4d_ros.datasets.clip import Clip
    from pixel4d_ros.evaluation.frechet import FeaturePool
    from pixel4d_ros.evaluation.gallery import Gallery
    from pixel4d_ros.evaluation.results import Evaluation
    from pixel4d_ros.evaluation.runner import Options
    from pixel4d_ros.evaluation.scoring import ScoredWindow
    from pixel4d_ros.forecaster import Forecaster

HIGHEST_CAMERA = 50.0  # metres above flat ground
MOST_IN_FULL = 4  # clips of which all tables are printed
LEFT_OUT = "was left out: "  # in the notes of clips that could not be evaluated


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `pixel4d evaluate`."""
    parser.add_argument(
        "data",
        nargs="+",
        help="MCAP, rosbag2 or rosbag1 logs (labelled boxes in NAME.boxes.json beside them are used), folders of data "
        "sets, folders of stereo pairs or of images with depth (those held out), synthetic-street:COUNT, "
        "synthetic-room:COUNT",
    )
    parser.add_argument("--kind", help="log, kitti, waymo, re10k or dl3dv (default: by what the path looks like)")
    parser.add_argument("--split", help="drives of KITTI raw to use: tulsiani or eigen, their test part (default: all)")
    parser.add_argument(
        "--camera", help="image topic of a log, or a data set's camera (default: the first, or the left, colour camera)"
    )
    parser.add_argument("--rectified", action="store_const", const=True, help=RECTIFIED)
    parser.add_argument("--weights", type=Path, help="weights file (default: those of the package)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    _add_protocol(parser)
    weights = parser.add_argument_group("metrics that need other packages or weights")
    weights.add_argument(
        "--lpips",
        type=Path,
        nargs=2,
        metavar=("BACKBONE", "LINEAR"),
        help="torchvision's AlexNet or VGG16 file, and the lpips package's weights/v0.1 file for it",
    )
    weights.add_argument("--flip", action="store_true", help="FLIP of some frames (slow; pip install flip-evaluator)")
    weights.add_argument("--fvd", type=Path, metavar="I3D", help="i3d_torchscript.pt")
    outputs = parser.add_argument_group("outputs for planners, scored instead of forecasts")
    outputs.add_argument(
        "--ids",
        action="store_true",
        help="track predicted objects through every image: ids and predicted paths against labelled boxes "
        "(--reference-image: from two images)",
    )
    outputs.add_argument(
        "--occupancy", action="store_true", help="the occupancy grid at the image's time against the log's LiDAR depth"
    )
    outputs.add_argument(
        "--clearance", action="store_true", help="distances along probe paths against LiDAR and labelled moving boxes"
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write all numbers; - or nothing: to stdout"
    )
    output.add_argument("--out", type=Path, metavar="FOLDER", help="write evaluation.html, .md, .json and videos")
    output.add_argument(
        "--brief", action="store_true", help="print no frame-by-frame table, of several clips one table"
    )
    output.add_argument("--markdown", action="store_true", help="print the tables as Markdown")


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    p = parser.add_argument_group("protocol")
    p.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="robot",
        help="robot: whole images; paper: shorter side 256 (KITTI 832x256), the 256x256 centre scored (default: robot)",
    )
    p.add_argument("--frames", type=int, default=14, help="frames per forecast, with the source image (default: 14)")
    p.add_argument("--step", type=float, default=0.1, help="seconds between frames (default: 0.1)")
    p.add_argument("--stride", type=int, help="use every N-th possible source (default: about 20 sources; 1: all)")
    p.add_argument("--start", type=int, default=0, help="skip a log's first images (default: 0)")
    p.add_argument("--count", type=int, help="read only this many images of a log (default: all)")
    p.add_argument("--size", type=image_size, metavar="WxH", help="resize images, e.g. 400x120 (default: as recorded)")
    p.add_argument("--samples", type=int, default=1, metavar="K", help="sampled futures: also mean and best of K")
    p.add_argument(
        "--align", choices=tuple(ALIGNMENTS), help="camera paths: " + "; ".join(map(": ".join, ALIGNMENTS.items()))
    )
    p.add_argument("--align-scale", action="store_const", const="image-scale", dest="align", help="--align image-scale")
    p.add_argument(
        "--moving",
        choices=("known", "residual"),
        default="known",
        help="moving pixels: known: labels, if any; residual: from flow and depth (default: known)",
    )
    p.add_argument(
        "--reference-image",
        "--motion-from-flow",
        dest="motion_from_flow",
        action="store_true",
        help="give the forecaster an earlier image and its pose, for depth and motion (the node's reference.enabled)",
    )
    p.add_argument("--camera-height", type=float, metavar="M", help="camera above flat ground (default: where known)")
    p.add_argument("--seed", type=int, default=0, help="for sampled futures and confidence intervals (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print. Exit code 1 if clips were left out."""
    from pixel4d_ros.evaluation.frechet import FeaturePool
    from pixel4d_ros.evaluation.gallery import Gallery
    from pixel4d_ros.evaluation.pages import write_page
    from pixel4d_ros.forecaster import Forecaster

    protocol = _protocol(args)
    _check_unused(args)
    if args.json not in (None, "-"):
        check_target(Path(args.json), inputs=[*map(Path, args.data), args.weights])
    if args.out is not None:
        check_folder(args.out)
    if args.start < 0 or (args.count is not None and args.count < 2):
        raise ValueError("--start must be at least 0 and --count at least 2")
    if args.camera_height is not None and not 0 < args.camera_height <= HIGHEST_CAMERA:
        raise ValueError(f"--camera-height must be 0 to {HIGHEST_CAMERA:g} metres, got {args.camera_height:g}")
    forecaster = Forecaster.load(args.weights, args.device)
    if args.ids or args.occupancy or args.clearance:
        return _score_outputs(args, forecaster, protocol)
    options = _options(args, forecaster)
    gallery = None if args.out is None else Gallery(args.out)
    notes: list[str] = []
    pool = FeaturePool()
    found = list(_evaluations(forecaster, args, protocol, options, _Audience(gallery, pool), notes))
    if not found:
        raise ValueError("; ".join(notes) or f"no clip in {', '.join(args.data)}")
    notes += pool.describe()
    # JSON on stdout must stay parseable, so the tables go to stderr.
    print(_text(found, args.markdown, args.brief, notes), file=sys.stderr if args.json == "-" else sys.stdout)
    numbers = [evaluation.as_dict() for evaluation in found]
    left_out = any(LEFT_OUT in note for note in notes)
    single = len(numbers) == 1 and not left_out
    text = json.dumps(numbers[0] if single else {"clips": numbers, "notes": notes}, indent=2)
    if args.json == "-":
        print(text)
    elif args.json:
        write_text(Path(args.json), text + "\n")
    if gallery is not None:
        write_text(args.out / "evaluation.json", text + "\n")
        write_text(args.out / "evaluation.md", _text(found, True, False, notes) + "\n")
        print(write_page(args.out, found, gallery.exhibits, notes), file=sys.stderr)
    return 1 if left_out else 0


def _check_unused(args: argparse.Namespace) -> None:
    """Raise ValueError for options of forecasts beside those that score outputs for planners."""
    unused = [f"--{name}" for name in ("out", "lpips", "flip", "fvd") if getattr(args, name)]
    if unused and (args.ids or args.occupancy or args.clearance):
        raise ValueError(
            f"--ids, --occupancy and --clearance are scored instead of forecasts: omit {', '.join(unused)}; --json"
            " writes their numbers"
        )


def _score_outputs(args: argparse.Namespace, forecaster: Forecaster, protocol: Protocol) -> int:
    """Print how ids last, and how grids and distances agree with LiDAR, in each clip; with --json the numbers."""
    from pixel4d_ros.evaluation.scene_outputs import predictor_of, score_outputs
    from pixel4d_ros.evaluation.tables import table

    stream = sys.stderr if args.json == "-" else sys.stdout
    numbers: dict[str, dict[str, object]] = {}
    notes: list[str] = []
    for data in args.data:
        several = len(args.data) > 1 or Path(data).is_dir()
        for clip in _clips(data, args, forecaster, notes if several else None):
            # Logs of different folders may have one name.
            free = (f"{clip.name}{f'_{i}' if i else ''}" for i in range(len(numbers) + 1))
            name = next(name for name in free if name not in numbers)
            predict = predictor_of(forecaster, clip, protocol, args.motion_from_flow)
            try:
                found, tables = score_outputs(predict, clip, name, protocol, args.ids, args.occupancy, args.clearance)
            except ValueError as error:
                if not several:
                    raise
                notes.append(f"{name} {LEFT_OUT}{error}")
                continue
            numbers[name] = found
            print("\n\n".join(table(*content, args.markdown) for content in tables), file=stream)
    if not numbers:
        raise ValueError("; ".join(notes) or f"no clip in {', '.join(args.data)}")
    if args.json is not None:
        text = json.dumps(numbers, indent=2)
        print(text) if args.json == "-" else write_text(Path(args.json), text + "\n")
    for note in notes:
        print(note, file=sys.stderr)
    return 1 if notes else 0


def _text(found: list[Evaluation], markdown: bool, brief: bool, notes: list[str]) -> str:
    """The tables of each clip if they are few, and the overview of several."""
    from pixel4d_ros.evaluation.tables import describe, overview

    full = len(found) <= (1 if brief else MOST_IN_FULL)
    blocks = [describe(evaluation, markdown, brief) for evaluation in found] if full else []
    return "\n\n\n".join([*blocks, overview(found, markdown, notes)] if len(found) > 1 else blocks)


def _evaluations(
    forecaster: Forecaster,
    args: argparse.Namespace,
    protocol: Protocol,
    options: Options,
    audience: _Audience,
    notes: list[str],
) -> Iterator[Evaluation]:
    """One evaluation per clip or set of worlds; clips that could not be evaluated are appended to notes."""
    from pixel4d_ros.datasets.pose_agreement import warn_of_wrong_poses
    from pixel4d_ros.evaluation.runner import evaluate_clip, evaluate_images, evaluate_worlds
    from pixel4d_ros.evaluation.synthetic_worlds import WorldSet
    from pixel4d_ros.evaluation.tables import counted

    for data in args.data:
        worlds = WorldSet.parse(data)
        if worlds is not None:
            with audience.watch(options, worlds.name) as watched:
                yield evaluate_worlds(forecaster, worlds, protocol, watched)
            continue
        images = _held_out_images(Path(data))
        if images:
            warn_of_wrong_poses(images[0])
            name = f"{Path(data).resolve().name}, {counted(len(images), 'held-out image')}"
            with audience.watch(options, name) as watched:
                yield evaluate_images(forecaster, images, protocol, name, watched)
            continue
        several = len(args.data) > 1 or Path(data).is_dir()
        for clip in _clips(data, args, forecaster, notes if several else None):
            try:
                with audience.watch(options, clip.name) as watched:
                    evaluation = evaluate_clip(forecaster, clip, protocol, clip.name, watched)
            except ValueError as error:
                if not several:
                    raise
                notes.append(f"{clip.name} {LEFT_OUT}{error}")
                continue
            yield evaluation


@dataclass(frozen=True)
class _Audience:
    """Receivers of each scored window besides the tables."""

    gallery: Gallery | None
    pool: FeaturePool

    @contextmanager
    def watch(self, options: Options, name: str) -> Iterator[Options]:
        """The options that pass windows of a clip to the receivers."""
        if self.gallery is None:
            yield replace(options, watch=self.pool.add)
            return
        with self.gallery.clip(name) as show:

            def watch(scored: ScoredWindow) -> None:
                show(scored)
                self.pool.add(scored)

            yield replace(options, watch=watch)


def _held_out_images(path: Path) -> list[Clip]:
    """The held-out images of a folder of stereo pairs or of single images with depth; else none."""
    from pixel4d_ros.datasets.depth_images import is_depth_folder, read_depth_folder
    from pixel4d_ros.datasets.stereo_pairs import is_stereo_folder, read_stereo_folder

    if is_stereo_folder(path):
        return read_stereo_folder(path, "held_out")
    return read_depth_folder(path, "held_out") if path.is_dir() and is_depth_folder(path) else []


def _clips(data: str, args: argparse.Namespace, forecaster: Forecaster, notes: list[str] | None) -> Iterator[Clip]:
    """The clips at a path. notes: receives those that cannot be opened (None: the first one raises ValueError)."""
    from pixel4d_ros.datasets.box_labels import labelled
    from pixel4d_ros.datasets.open import good_clips, open_clips
    from pixel4d_ros.datasets.pose_agreement import warn_of_wrong_poses
    from pixel4d_ros.datasets.residual_motion import with_residual_masks

    failures: list[str] = []
    try:
        stop = None if args.count is None else args.start + args.count
        clips = open_clips(
            data, args.kind, args.camera, args.split, rectified=args.rectified, start=args.start, stop=stop
        )
    except ValueError as error:
        if notes is None:
            raise
        clips, failures = iter(()), [str(error)]
    for clip in clips if notes is None else good_clips(clips, failures):
        clip = labelled(clip, Path(data))
        warn_of_wrong_poses(clip, forecaster.predict)
        yield with_residual_masks(clip) if args.moving == "residual" else clip
    if notes is not None:
        notes.extend(f"a clip {LEFT_OUT}{failure}" for failure in failures)


def _options(args: argparse.Namespace, forecaster: Forecaster) -> Options:
    from pixel4d_ros.evaluation.perceptual import load_flip, load_lpips, load_video_features
    from pixel4d_ros.evaluation.runner import Options

    notes = []
    if args.motion_from_flow:
        notes.append("depth was corrected and object motion measured with an earlier image (--reference-image)")
    missing = [name for name, given in (("LPIPS", args.lpips), ("FVD", args.fvd)) if given is None]
    if missing:
        notes.append(f"no {' and no '.join(missing)}: these need third-party weights (--lpips, --fvd)")
    return Options(
        camera_height=args.camera_height,
        perceptual=args.lpips and load_lpips(args.lpips[0], args.lpips[1], forecaster.device),
        flip=load_flip() if args.flip else None,
        video_features=args.fvd and load_video_features(args.fvd, forecaster.device),
        notes=tuple(notes),
        reference_view=args.motion_from_flow,
    )


def _protocol(args: argparse.Namespace) -> Protocol:
    names = ("frames", "step", "stride", "size", "samples", "align", "seed")
    given = {name: getattr(args, name) for name in names}
    return Protocol.paper(**given) if args.protocol == "paper" else Protocol(**given)
