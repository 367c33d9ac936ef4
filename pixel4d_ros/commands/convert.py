# SPDX-License-Identifier: Apache-2.0
"""`pixel4d convert KIND SRC OUT.mcap`: convert a clip of a data set to a driving log."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixel4d_ros.datasets.clip import Clip


OTHER_SUFFIXES = (".bag", ".db3", ".mp4", ".zip", ".tar")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("kind", choices=("kitti", "waymo", "re10k", "dl3dv"), help="the data set; see docs/datasets.md")
    parser.add_argument("source", type=Path, metavar="SRC", help="a drive, segment, camera file or scene, or a folder")
    parser.add_argument("out", type=Path, metavar="OUT", help="the .mcap file to write; for several clips a folder")
    parser.add_argument("--camera", help="0..3 of KITTI (default 2), FRONT, SIDE_LEFT ... of Waymo (default FRONT)")
    parser.add_argument("--split", choices=("tulsiani", "eigen"), help="only KITTI's drives of this split")
    parser.add_argument("--part", help="part of the split: train, val, test (default: test)")
    parser.add_argument(
        "--scale", type=float, metavar="METRES", help="length of the unit of RealEstate10K and DL3DV (default: 1)"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="only the first N images")
    parser.add_argument("--force", action="store_true", help="replace existing logs")


def run(args: argparse.Namespace) -> int:
    """Write the log or logs. Exit code 1 if some of several failed. Raises ValueError if there is none."""
    from pixel4d_ros.datasets.open import good_clips, open_clips
    from pixel4d_ros.files import check_folder

    if args.frames is not None and args.frames < 1:
        raise ValueError(f"--frames must be at least 1, got {args.frames}")
    if args.scale is not None and not args.scale > 0:
        raise ValueError(f"--scale must be a positive length in metres, got {args.scale:g}")
    if args.part is not None and args.split is None:
        raise ValueError(f"--part {args.part} is of no split: name it with --split tulsiani or eigen, or omit --part")
    clips = open_clips(args.source, args.kind, args.camera, args.split, args.part or "test", stop=args.frames)
    if args.out.suffix == ".mcap":
        check_replaceable(args.out, args.force)
        _write(args.out, _only_clip(clips, args.out), args)
        return 0
    if args.out.suffix in OTHER_SUFFIXES:
        raise ValueError(f"cannot write {args.out}: logs are written as MCAP; name a .mcap file, or a folder")
    check_folder(args.out)
    failures: list[str] = []
    for clip in good_clips(clips, failures):
        path = args.out / f"{clip.name}.mcap"
        try:
            check_replaceable(path, args.force)
            _write(path, clip, args)
        except ValueError as error:
            failures.append(str(error))
    for failure in failures:
        print(f"left out: {failure}", file=sys.stderr)
    return 1 if failures else 0


def check_replaceable(path: Path, force: bool) -> None:
    """Raise ValueError if a log exists and must not be replaced."""
    if path.exists() and not force:
        raise ValueError(f"{path} exists: choose another name, or pass --force to replace it")


def _only_clip(clips: Iterator[Clip], out: Path) -> Clip:
    first = next(clips, None)
    if first is None:
        raise ValueError("the source holds no clips")
    second = next(clips, None)
    if second is not None:
        raise ValueError(
            f"the source holds several clips ({first.name}, {second.name} ...): name one of them as SRC, or a folder as"
            f" OUT instead of {out}"
        )
    return first


def _write(path: Path, clip: Clip, args: argparse.Namespace) -> None:
    from pixel4d_ros.datasets.clip_log import write_clip
    from pixel4d_ros.datasets.pose_agreement import warn_of_wrong_poses
    from pixel4d_ros.logs.writer import LogWriter

    clip = _scaled(clip, args.scale)
    warn_of_wrong_poses(clip)
    with LogWriter(path) as log:
        write_clip(log, clip)
    print(f"{path}: {len(clip)} frames of {clip.images.shape[2]}x{clip.images.shape[1]} pixels")


def _scaled(clip: Clip, scale: float | None) -> Clip:
    """The clip with its unit of length set to `scale` metres."""
    if clip.metric:
        if scale is not None:
            raise ValueError(f"{clip.name} is in metres already: omit --scale")
        return clip
    if scale is None:
        print(f"{clip.name}: its positions have no known unit; 1 unit is written as 1 m (set --scale)")
    poses = clip.poses.copy()
    poses[:, :3, 3] *= scale or 1.0
    return replace(clip, poses=poses, metric=scale is not None)
