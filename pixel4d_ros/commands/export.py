# SPDX-License-Identifier: Apache-2.0
"""`pixel4d export`: a moving scene as 3DGS PLY or SPZ files, one per time step."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `pixel4d export`."""
    parser.add_argument("scene", type=Path, help="a scene written by `pixel4d forecast --scene`")
    parser.add_argument("out", type=Path, help="folder for the files")
    parser.add_argument("--format", choices=("ply", "spz"), default="ply", help="of the files (default %(default)s)")
    parser.add_argument("--steps", type=int, default=14, help="number of files (default %(default)s)")
    parser.add_argument("--step", type=float, default=0.1, help="seconds between them (default %(default)s)")
    parser.add_argument("--sample", type=int, default=0, help="which sampled future (default %(default)s)")
    parser.add_argument("--min-opacity", type=float, default=0.02, help="omit fainter Gaussians (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Write the files."""
    from tqdm import tqdm

    from pixel4d_ros.files import check_folder, replacing
    from pixel4d_ros.outputs.spz import check_spz, save_spz
    from pixel4d_ros.scene import DynamicGaussians

    if args.steps < 1 or not 0 <= args.step < float("inf"):
        raise ValueError(f"--steps must be at least 1 and --step not negative, got {args.steps} and {args.step:g}")
    if not args.scene.is_file():
        raise ValueError(
            f"scene {args.scene} does not exist: write one with `pixel4d forecast IMAGE --scene {args.scene}`"
        )
    scene = DynamicGaussians.load(args.scene)
    if not 0 <= args.sample < scene.num_samples:
        raise ValueError(f"--sample {args.sample} asked for, but the scene holds {scene.num_samples} (from 0)")
    scene = scene.sample(args.sample)
    scene = scene.select(scene.opacities >= args.min_opacity)
    if args.format == "spz":
        check_spz()
    check_folder(args.out)
    for i in tqdm(range(args.steps), unit="file"):
        path = args.out / f"scene_{i:03d}_{i * args.step:.2f}s.{args.format}"
        moved = scene.at(i * args.step)
        with replacing(path) as part:
            save_spz(moved, part) if args.format == "spz" else moved.save_ply(part)
    print(f"{args.steps} files of {len(scene)} Gaussians: {args.out}")
    return 0
