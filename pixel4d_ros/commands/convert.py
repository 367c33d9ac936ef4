"""`pixel4d convert KIND SRC OUT.mcap`: a data set's clip as a driving log that replays."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixel4d_ros.datasets.clip import Clip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("kind", choices=("kitti", "waymo", "re10k", "dl3dv"), help="the data set; see docs/datasets.md")
    parser.add_argument("source", type=Path, metavar="SRC", help="a drive, segment, camera file or scene, or a folder")
    parser.add_argument("out", type=Path, metavar="OUT", help="the .mcap file to write; for several clips a folder")
    parser.add_argument("--camera", help="0..3 of KITTI (default 2), FRONT, SIDE_LEFT ... of Waymo (default FRONT)")
    parser.add_argument("--split", choices=("tulsiani", "eigen"), help="only KITTI's drives of this split")
    parser.add_argument("--part", default="test", help="part of the split: train, val, test (default: %(default)s)")
    parser.add_argument(
        "--scale", type=float, metavar="METRES", help="length of the unit of RealEstate10K and DL3DV (default: 1)"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="only the first N images")


def run(args: argparse.Namespace) -> int:
    """Write the log or logs; raises ValueError for what cannot be read or written."""
    from pixel4d_ros.datasets.clip_log import write_clip
    from pixel4d_ros.datasets.open import open_clips
    from pixel4d_ros.logs.writer import LogWriter

    if args.frames is not None and args.frames < 1:
        raise ValueError(f"--frames must be at least 1, got {args.frames}")
    if args.scale is not None and not args.scale > 0:
        raise ValueError(f"--scale must be a positive length in metres, got {args.scale:g}")
    clips = open_clips(args.source, args.kind, args.camera, args.split, args.part)
    for path, clip in _targets(args.out, clips):
        if args.frames is not None:
            clip = clip.part(0, args.frames)
        clip = _scaled(clip, args.scale)
        with LogWriter(path) as log:
            write_clip(log, clip)
        print(f"{path}: {len(clip)} frames of {clip.images.shape[2]}x{clip.images.shape[1]} pixels")
    return 0


def _targets(out: Path, clips: Iterator[Clip]) -> Iterator[tuple[Path, Clip]]:
    """Each clip's log: `out` for the only one, else a file in the folder `out`."""
    if out.suffix != ".mcap":
        for clip in clips:
            yield out / f"{clip.name}.mcap", clip
        return
    first = next(clips, None)
    if first is None:
        raise ValueError("the source holds no clips")
    second = next(clips, None)
    if second is not None:
        raise ValueError(
            f"the source holds several clips ({first.name}, {second.name} ...): name one of them as SRC, or a folder as"
            f" OUT instead of {out}"
        )
    yield out, first


def _scaled(clip: Clip, scale: float | None) -> Clip:
    """The clip with its unit of length replaced by `scale` metres."""
    if clip.metric:
        if scale is not None:
            raise ValueError(f"{clip.name} is in metres already: leave --scale out")
        return clip
    if scale is None:
        print(f"{clip.name}: its positions have no known unit; 1 unit is written as 1 m (set --scale)")
    poses = clip.poses.copy()
    poses[:, :3, 3] *= scale or 1.0
    return replace(clip, poses=poses, metric=scale is not None)
