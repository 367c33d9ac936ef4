# SPDX-License-Identifier: Apache-2.0
"""`pixel4d export`: a moving scene as 3DGS PLY or SPZ files, one per time step; or the network as an ONNX graph."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from pixel4d_ros.camera import Camera
from pixel4d_ros.commands.arguments import image_size
from pixel4d_ros.commands.forecast import LONGEST_STEP, MOST_STEPS, add_intrinsics_argument, read_intrinsics
from pixel4d_ros.files import check_folder, check_target, replacing

MIN_SIDE = 32  # pixels of a camera's image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `pixel4d export`."""
    parser.add_argument("scene", type=Path, nargs="?", help="a scene written by `pixel4d forecast --scene`")
    parser.add_argument("out", type=Path, nargs="?", help="folder for the files")
    parser.add_argument("--format", choices=("ply", "spz"), default="ply", help="of the files (default %(default)s)")
    parser.add_argument("--steps", type=int, default=14, help="number of files (default %(default)s)")
    parser.add_argument("--step", type=float, default=0.1, help="seconds between them (default %(default)s)")
    parser.add_argument("--sample", type=int, default=0, help="which sampled future (default %(default)s)")
    parser.add_argument("--min-opacity", type=float, default=0.02, help="omit fainter Gaussians (default %(default)s)")
    onnx = parser.add_argument_group("the predictor for one camera, in place of a scene")
    onnx.add_argument("--onnx", type=Path, metavar="FILE", help="write the predictor as an ONNX graph")
    onnx.add_argument(
        "--size",
        type=partial(image_size, smallest=MIN_SIDE),
        metavar="WxH",
        help="of the camera's images in pixels, e.g. 1280x720",
    )
    add_intrinsics_argument(onnx)
    onnx.add_argument("--weights", type=Path, help="predictor weights (default: those of the package)")


def run(args: argparse.Namespace) -> int:
    """Write the files. Raises ValueError with one line for the user."""
    if args.onnx is not None:
        return _write_onnx(args)
    if args.scene is None or args.out is None:
        raise ValueError("export needs a scene and a folder, or --onnx FILE --size WxH")
    from tqdm import tqdm

    from pixel4d_ros.outputs.spz import check_spz, save_spz
    from pixel4d_ros.scene import DynamicGaussians

    if not 1 <= args.steps <= MOST_STEPS or not 0 <= args.step <= LONGEST_STEP:
        raise ValueError(
            f"--steps must be 1 to {MOST_STEPS} and --step 0 to {LONGEST_STEP:g} s, got {args.steps} and {args.step:g}"
        )
    if not args.scene.is_file():
        raise ValueError(
            f"scene {args.scene} does not exist: write one with `pixel4d forecast IMAGE --scene {args.scene}`"
        )
    scene = DynamicGaussians.load(args.scene)
    if not 0 <= args.sample < scene.num_samples:
        raise ValueError(f"--sample {args.sample} asked for, but the scene holds {scene.num_samples} (from 0)")
    scene = scene.sample(args.sample)
    scene = scene.select(scene.opacities >= args.min_opacity)
    if not len(scene):
        raise ValueError(f"no Gaussian of {args.scene} has an opacity of --min-opacity {args.min_opacity:g} or more")
    if args.format == "spz":
        check_spz()
    check_folder(args.out)
    paths = [args.out / f"scene_{i:03d}_{i * args.step:.2f}s.{args.format}" for i in range(args.steps)]
    if older := sorted(set(args.out.glob(f"scene_*s.{args.format}")) - set(paths)):
        raise ValueError(
            f"{args.out} holds {older[0].name} of another export, {len(older)} such files in all, which would stay"
            " among the new ones: choose another folder, or remove them"
        )
    for i, path in enumerate(tqdm(paths, unit="file")):
        moved = scene.at(i * args.step)
        with replacing(path) as part:
            save_spz(moved, part) if args.format == "spz" else moved.save_ply(part)
    print(f"{args.steps} files of {len(scene)} Gaussians: {args.out}")
    return 0


def _write_onnx(args: argparse.Namespace) -> int:
    if args.scene is not None or args.out is not None:
        raise ValueError("--onnx exports the predictor and needs no scene or folder")
    if args.size is None:
        raise ValueError("--onnx needs the size of the images, e.g. --size 1280x720")
    width, height = args.size
    check_target(args.onnx, (".onnx",))
    camera = Camera(read_intrinsics(args.intrinsics, width, height), width, height)
    import torch

    from pixel4d_ros.predictor import Predictor
    from pixel4d_ros.predictor.onnx_export import INPUTS, OUTPUTS, export_onnx

    predictor = Predictor.load(args.weights, torch.device("cpu"))
    with replacing(args.onnx) as part:
        try:
            export_onnx(predictor, camera, part)
        except ImportError as error:
            raise ValueError(str(error)) from error
    print(f"{', '.join(INPUTS)} -> {', '.join(OUTPUTS)}: {args.onnx}")
    return 0
