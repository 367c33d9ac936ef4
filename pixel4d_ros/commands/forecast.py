# SPDX-License-Identifier: Apache-2.0
"""`pixel4d forecast`: a video and a moving scene from one image, without ROS."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pixel4d_ros.camera import DEFAULT_FOV, Camera, CameraPath, check_intrinsics, check_pinhole, intrinsics_from_fov
from pixel4d_ros.camera_path_file import read_camera_path, warn_of_turn
from pixel4d_ros.files import VIDEO_SUFFIXES, check_target, replacing
from pixel4d_ros.geometry.interpolation import FASTEST
from pixel4d_ros.geometry.rotations import FloatArray

if TYPE_CHECKING:
    from pixel4d_ros.scene import DynamicGaussians

logger = logging.getLogger(__name__)
SPEED_MPS, FASTEST_TURN = 8.0, 20.0  # m/s without a path, and rad/s
MOST_STEPS, LONGEST_STEP, MOST_SAMPLES = 1000, 2.0, 64  # frames are kept in memory; as the node's parameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `pixel4d forecast`."""
    parser.add_argument("image", type=Path, help="an RGB image file")
    parser.add_argument(
        "--path", type=Path, metavar="CSV", help="camera path: lines of t x y z qx qy qz qw (metres, optical frame)"
    )
    parser.add_argument("--speed", type=float, help=f"without --path: forward speed, m/s (default {SPEED_MPS:g})")
    parser.add_argument("--yaw-rate", type=float, help="without --path: turn to the right, rad/s (default 0)")
    add_intrinsics_argument(parser)
    parser.add_argument("--steps", type=int, default=14, help="frames (default %(default)s)")
    parser.add_argument("--step", type=float, default=0.1, help="seconds between frames (default %(default)s)")
    parser.add_argument(
        "--samples",
        type=int,
        default=1,
        help="sampled futures; the video shows them below each other (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the samples (default %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=Path("forecast.mp4"), help="video (default %(default)s)")
    parser.add_argument("--ply", type=Path, help="also write the scene at t = 0 as a 3DGS PLY file")
    parser.add_argument("--scene", type=Path, help="also write the moving scene (safetensors) for `pixel4d export`")
    parser.add_argument("--weights", type=Path, help="predictor weights (default: those of the package)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default %(default)s)")


def add_intrinsics_argument(parser: argparse._ActionsContainer) -> None:
    """The option --intrinsics, which read_intrinsics reads."""
    parser.add_argument(
        "--intrinsics",
        type=float,
        nargs=4,
        metavar=("FX", "FY", "CX", "CY"),
        help=f"pixels of the image as stored (default: {DEFAULT_FOV:g} degrees across the upright image)",
    )


def run(args: argparse.Namespace) -> int:
    """Forecast and write the files."""
    from pixel4d_ros.datasets.image_files import depth_doubt, read_rgb
    from pixel4d_ros.evaluation.video import VideoWriter
    from pixel4d_ros.forecaster import Forecaster
    from pixel4d_ros.logs.images import picture_doubt
    from pixel4d_ros.two_view.moving_probability import moving_count

    if not 1 <= args.steps <= MOST_STEPS or not 0 < args.step <= LONGEST_STEP:
        raise ValueError(
            f"--steps must be 1 to {MOST_STEPS} and --step above 0 and at most {LONGEST_STEP:g} s, got {args.steps} and"
            f" {args.step:g}"
        )
    if not 1 <= args.samples <= MOST_SAMPLES or not 0 <= args.seed < 2**63:
        raise ValueError(f"--samples must be 1 to {MOST_SAMPLES} and --seed from 0, got {args.samples} and {args.seed}")
    inputs = (args.image, args.path, args.weights)
    check_target(args.output, VIDEO_SUFFIXES, inputs=inputs)
    for path, suffix in ((args.ply, ".ply"), (args.scene, ".safetensors")):
        if path is not None:
            check_target(path, (suffix,), inputs=inputs)
    image = read_rgb(args.image, upright=args.intrinsics is None)
    if doubt := picture_doubt(image) or depth_doubt(args.image):
        logger.warning("%s: %s", args.image, doubt)
    times = np.arange(args.steps) * args.step
    camera_path = _camera_path(args, float(times[-1]))
    K = read_intrinsics(args.intrinsics, image.shape[1], image.shape[0])
    forecaster = Forecaster.load(args.weights, args.device)
    forecast = forecaster.forecast(image, K, camera_path, times, args.samples, args.seed)
    with replacing(args.output) as part, VideoWriter(part, 1 / args.step) as video:
        for frame in forecast.frames.swapaxes(0, 1):
            video.add(np.concatenate(list(frame)))
    written = [args.output]
    if args.ply:
        with replacing(args.ply) as part:
            forecast.scene.save_ply(part)
        written.append(args.ply)
    if args.scene:
        with replacing(args.scene) as part:
            _save_scene(forecast.scene, part, args.scene)
        written.append(args.scene)
    objects = moving_count(forecast.scene)
    print(f"{len(forecast.scene)} Gaussians, {objects} moving objects: {', '.join(map(str, written))}")
    return 0


def _save_scene(scene: DynamicGaussians, part: Path, name: Path) -> None:
    from safetensors import SafetensorError

    try:
        scene.save(part)
    except SafetensorError as error:
        raise OSError(f"{name} could not be written: {error}") from error


def read_intrinsics(given: list[float] | None, width: int, height: int) -> FloatArray:
    """K (3, 3) of --intrinsics; None: of DEFAULT_FOV. Raises ValueError."""
    from pixel4d_ros.geometry.camera_info import warn_of_size

    if given is None:
        return intrinsics_from_fov(width, height)
    fx, fy, cx, cy = given
    K = check_intrinsics(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))
    check_pinhole(K, width, height, "--intrinsics")
    warn_of_size(Camera(K, width, height), "--intrinsics")
    return K


def _camera_path(args: argparse.Namespace, horizon: float) -> CameraPath:
    if args.path is not None:
        if args.speed is not None or args.yaw_rate is not None:
            raise ValueError("--path gives the camera's motion: omit --speed and --yaw-rate, or omit --path")
        return read_camera_path(args.path, horizon)
    speed = SPEED_MPS if args.speed is None else args.speed
    yaw_rate = args.yaw_rate or 0.0
    if not (abs(speed) <= FASTEST and abs(yaw_rate) <= FASTEST_TURN):
        raise ValueError(
            f"--speed must be at most {FASTEST:g} m/s and --yaw-rate at most {FASTEST_TURN:g} rad/s, got {speed:g} and"
            f" {yaw_rate:g}"
        )
    warn_of_turn(abs(yaw_rate) * horizon, horizon)
    return CameraPath.constant_twist([0, 0, speed], [0, yaw_rate, 0], max(horizon, args.step))
