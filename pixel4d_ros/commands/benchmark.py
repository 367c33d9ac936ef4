# SPDX-License-Identifier: Apache-2.0
"""`pixel4d benchmark`: forecast times on this machine, compared with lower bounds."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pixel4d_ros.commands.arguments import count, image_size
from pixel4d_ros.files import check_target

if TYPE_CHECKING:
    from pixel4d_ros.benchmark.measure import BenchmarkPlan
    from pixel4d_ros.benchmark.node_times import Feed, NodeTimes

GPU_SIZES, CPU_SIZES = ((400, 120), (832, 256), (1280, 384)), ((400, 120),)
NODE_SIZE = (832, 256)  # of --node on CUDA
NODE_CANDIDATES = (30,)
GPU_CANDIDATES, CPU_CANDIDATES = (1, 16, 64), (1, 4)
GPU_RUNS, CPU_RUNS, NODE_RUNS = 500, 10, 30
GPU_WARM_UP, CPU_WARM_UP, NODE_WARM_UP = 20, 1, 3
SMALLEST = 32  # pixels along a side


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `pixel4d benchmark`."""
    what = parser.add_argument_group("measured cases")
    what.add_argument(
        "--sizes",
        type=partial(image_size, smallest=SMALLEST),
        nargs="+",
        metavar="WxH",
        help="image sizes (default: 400x120, on CUDA 832x256 1280x384 too)",
    )
    what.add_argument(
        "--frames",
        type=count,
        nargs="+",
        default=[14],
        metavar="N",
        help="frames per forecast; all but the first with the first number of samples only (default: 14)",
    )
    what.add_argument(
        "--samples", type=count, nargs="+", default=[1, 4], metavar="N", help="sampled futures (default: 1 4)"
    )
    what.add_argument(
        "--candidates",
        type=count,
        nargs="*",
        metavar="N",
        help="trajectories rendered from one prediction, with --node in one request to the service; no number: none "
        "(default: 1 16 64, on the CPU 1 4, with --node 30)",
    )
    what.add_argument(
        "--runs",
        type=int,
        metavar="N",
        help=f"with --node: requests (default: {GPU_RUNS}, on the CPU {CPU_RUNS}, with --node on CUDA {NODE_RUNS})",
    )
    what.add_argument(
        "--warm-up",
        type=int,
        metavar="N",
        help=f"unmeasured runs (default: {GPU_WARM_UP}, on the CPU {CPU_WARM_UP}, with --node on CUDA {NODE_WARM_UP})",
    )
    what.add_argument(
        "--image",
        type=Path,
        metavar="FILE",
        help="an image, or a log, whose first image is used (default: a synthetic street)",
    )
    what.add_argument(
        "--reference-image",
        "--motion-from-flow",
        dest="motion_from_flow",
        action="store_true",
        help="time forecasts with a reference image, from which object motion is estimated",
    )
    what.add_argument("--weights", type=Path, help="predictor weights (default: those of the package)")
    what.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    node = parser.add_argument_group("the node instead (needs ROS)")
    node.add_argument(
        "--node",
        type=float,
        metavar="SECONDS",
        help="feed the real node over DDS for this long, then call its service with the candidates",
    )
    node.add_argument("--rate", type=float, default=30.0, metavar="HZ", help="images per second (default: 30)")
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to a file")
    output.add_argument("--plot", type=Path, metavar="FILE", help="plot the times (png, svg or pdf; needs matplotlib)")
    output.add_argument("--read", type=Path, metavar="JSON", help="print and plot a file of --json; measure nothing")
    output.add_argument("--markdown", action="store_true", help="print the tables as Markdown")


def _measure_node(feed: Feed) -> NodeTimes:
    from pixel4d_ros.ros.benchmark.node import measure_node

    return measure_node(feed)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Exit code 1 if forecasts differ too much from eager float32."""
    from pixel4d_ros.benchmark.report import describe
    from pixel4d_ros.benchmark.results import Benchmark

    _check_outputs(args)
    if args.read is not None:
        benchmark = Benchmark.read(args.read)
    else:
        from pixel4d_ros.benchmark.measure import run_benchmark

        benchmark = run_benchmark(_plan(args), _measure_node)
    print(describe(benchmark, args.markdown))
    if args.json is not None:
        benchmark.write(args.json)
    if args.plot is not None:
        from pixel4d_ros.benchmark.plots import draw

        draw(benchmark, args.plot)
    for failure in benchmark.failures:
        print(f"pixel4d benchmark: {failure}", file=sys.stderr)
    return 1 if benchmark.failures else 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Raise ValueError for invalid options before measuring."""
    inputs = (args.image, args.weights)
    if args.json is not None:
        check_target(args.json, inputs=inputs)
    if args.plot is not None:
        from pixel4d_ros.benchmark.plots import check_plot

        check_plot(args.plot)
        check_target(args.plot, inputs=inputs)
        if args.node is not None:
            raise ValueError("--plot shows times of the library: omit --node, or omit --plot")
    if args.motion_from_flow and args.node is not None:
        raise ValueError("--motion-from-flow times the library: omit --node")
    if args.node is not None and importlib.util.find_spec("rclpy") is None:
        raise ValueError("--node needs ROS 2: source its setup script, or env.sh after `make setup`")


def _plan(args: argparse.Namespace) -> BenchmarkPlan:
    """The plan of the arguments; defaults depend on the device."""
    import torch

    from pixel4d_ros.benchmark.measure import BenchmarkPlan
    from pixel4d_ros.benchmark.stopwatch import Effort

    cuda = args.device.startswith("cuda") or (args.device == "auto" and torch.cuda.is_available())
    runs, warm_up = (GPU_RUNS, GPU_WARM_UP) if cuda else (CPU_RUNS, CPU_WARM_UP)
    sizes: tuple[tuple[int, int], ...] = GPU_SIZES if cuda else CPU_SIZES
    candidates: tuple[int, ...] = GPU_CANDIDATES if cuda else CPU_CANDIDATES
    if args.node is not None:
        sizes, candidates = (NODE_SIZE,) if cuda else CPU_SIZES, NODE_CANDIDATES
        if cuda:
            runs, warm_up = NODE_RUNS, NODE_WARM_UP
    return BenchmarkPlan(
        sizes=tuple(args.sizes or sizes),
        frames=tuple(args.frames),
        samples=tuple(args.samples),
        candidates=tuple(candidates if args.candidates is None else args.candidates),
        effort=Effort(
            runs if args.runs is None else args.runs,
            warm_up if args.warm_up is None else args.warm_up,
        ),
        weights=args.weights,
        device=args.device,
        image=args.image,
        motion_from_flow=args.motion_from_flow,
        node_seconds=args.node,
        node_rate=args.rate,
    )
