# SPDX-License-Identifier: Apache-2.0
"""`pixel4d synthesize OUT.mcap`: write the synthetic street as a driving log."""

from __future__ import annotations

import argparse
from pathlib import Path

from pixel4d_ros.commands.arguments import image_size
from pixel4d_ros.commands.convert import check_replaceable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("out", type=Path, metavar="OUT.mcap", help="the driving log to write")
    parser.add_argument("--seed", type=int, default=0, help="which street (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=100, help="images at 10 Hz (default: %(default)s)")
    parser.add_argument(
        "--size", type=image_size, default=(416, 128), metavar="WxH", help="of images (default: 416x128)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing log")


def run(args: argparse.Namespace) -> int:
    """Write the log. Raises ValueError for invalid numbers."""
    if args.frames < 1 or args.seed < 0:
        raise ValueError("--frames must be at least 1 and --seed at least 0")
    check_replaceable(args.out, args.force)
    from pixel4d_ros.synthetic.log import write_street_log

    write_street_log(args.out, args.seed, args.frames, args.size)
    print(f"{args.out}: {args.frames} frames of {args.size[0]}x{args.size[1]} pixels")
    return 0
