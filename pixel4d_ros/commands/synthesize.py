# SPDX-License-Identifier: Apache-2.0
"""`pixel4d synthesize OUT.mcap`: write the synthetic street as a driving log; `--benchmark` measures the renderer."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from pixel4d_ros.commands.arguments import image_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT.mcap", help="the driving log to write")
    parser.add_argument("--seed", type=int, default=0, help="which street (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=100, help="images at 10 Hz (default: %(default)s)")
    parser.add_argument(
        "--size", type=image_size, default=(416, 128), metavar="WxH", help="of images (default: 416x128)"
    )
    parser.add_argument("--benchmark", action="store_true", help="measure frames per second, on CUDA if present")
    parser.add_argument(
        "--preview", type=Path, metavar="PNG", help="write a contact sheet of twelve worlds instead of a log"
    )
    parser.add_argument(
        "--kind", choices=("street", "room", "mixed"), default="street", help="worlds of --benchmark and --preview"
    )
    parser.add_argument("--samples", type=int, choices=(1, 4), default=1, help="rays per pixel of the same")


def run(args: argparse.Namespace) -> int:
    """Write the log, or measure, or draw. Raises ValueError if there is nothing to do."""
    if args.frames < 1 or args.seed < 0:
        raise ValueError("--frames must be at least 1 and --seed at least 0")
    if args.benchmark:
        return _benchmark(args)
    if args.preview:
        return _preview(args)
    if args.out is None:
        raise ValueError("name the log to write, e.g. `pixel4d synthesize out.mcap`, or pass --benchmark or --preview")
    from pixel4d_ros.synthetic.log import write_street_log

    write_street_log(args.out, args.seed, args.frames, args.size)
    print(f"{args.out}: {args.frames} frames of {args.size[0]}x{args.size[1]} pixels")
    return 0


def _benchmark(args: argparse.Namespace) -> int:
    """Time whole batches, with layouts and upload, after one warm-up batch."""
    import torch

    from pixel4d_ros.synthetic.views import sample_views

    cuda = torch.cuda.is_available()
    worlds, rounds = (8, 10) if cuda else (1, 3)
    times = torch.tensor([[0.0, 0.3, 0.7, 1.2]] * worlds)
    device = "cuda" if cuda else "cpu"
    started = 0.0
    for k in range(rounds + 1):
        if k == 1:
            started = time.perf_counter()
        seeds = range(args.seed + k * worlds, args.seed + (k + 1) * worlds)
        rgb = sample_views(seeds, times, args.size, device, args.kind, args.samples).rgb
        float(rgb.sum())  # waits for the device
    seconds = time.perf_counter() - started
    frames = rounds * times.numel()
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{frames / seconds:.1f} frames/s ({seconds / frames:.3f} s each) of {args.size[0]}x{args.size[1]}, "
        f"{args.kind}, "
        f"batches of {times.numel()}, {args.samples} ray(s) per pixel, on {name}"
    )
    return 0


def _preview(args: argparse.Namespace) -> int:
    import cv2
    import numpy as np
    import torch

    from pixel4d_ros.files import check_target, replacing
    from pixel4d_ros.synthetic.views import sample_views

    check_target(args.preview, (".png", ".jpg"))
    width, height = args.size
    rows = []
    for row in range(6):
        seeds = [args.seed + 2 * row, args.seed + 2 * row + 1]
        views = sample_views(seeds, torch.zeros(2, 1), args.size, kind=args.kind, samples=args.samples)
        rows.append(views.rgb[:, 0].permute(1, 0, 2, 3).reshape(height, 2 * width, 3).numpy())
    with replacing(args.preview) as part:
        cv2.imwrite(str(part), (np.concatenate(rows)[..., ::-1] * 255).round().astype(np.uint8))
    print(args.preview)
    return 0
