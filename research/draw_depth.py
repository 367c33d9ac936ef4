# SPDX-License-Identifier: Apache-2.0
"""Draw what the network takes for the depth of held-out images: image, predicted depth, measured depth, as one PNG.

    python research/draw_depth.py docs/depth.jpg                                    # the shipped weights
    python research/draw_depth.py out/depth.png --weights out/ema.safetensors --device cuda
    python research/draw_depth.py docs/depth_reference.jpg --reference          # drives, with an earlier image

Log depth in turbo's colours, each row in the range of its measured depth; one scale per image. Data: ../shared
(--shared) and synthetic streets with held-out seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from picture_command import picture_parser, write_picture

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.depth_images import read_depth_folder
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.datasets.stereo_pairs import read_stereo_folder
from pixel4d_ros.evaluation.depth_metrics import depth_ratio, is_dense
from pixel4d_ros.evaluation.depth_picture import Picture, depth_picture, depth_range, filled
from pixel4d_ros.evaluation.synthetic_worlds import HELD_OUT, make_clip
from pixel4d_ros.evaluation.video import GREY, sheet
from pixel4d_ros.evaluation.windows import reference_view
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.two_view.reference_view import ReferenceView

WIDTH = 480  # pixels of a panel
LOGS = {"kitti_0002": 20, "kitti_0052": 40}  # log -> image
DRIVES = {"kitti_0002": (18, 34, 60), "kitti_0056": (4, 14), "kitti_0052": (40,)}  # with an earlier image
STEREO, PAIRS = (0, 4, 8), (2, 9)  # which of the held-out images
POINT = 5  # pixels: sparse depth is drawn as squares of this size


def images(shared: Path) -> Iterator[Clip]:
    """Held-out images with depth, clips of one frame."""
    stereo, pairs = (
        read_stereo_folder(shared / "stereo2015", "held_out"),
        read_depth_folder(shared / "pairs", "held_out"),
    )
    yield from (stereo[i] for i in STEREO)
    for name, frame in LOGS.items():
        (path,) = (shared / "logs").glob(f"*/{name}.mcap")
        yield read_clip(path).part(frame, frame + 1)
    yield make_clip(HELD_OUT, "street", 1, 0.1, (832, 256))
    yield from (pairs[i] for i in PAIRS)


def drives(shared: Path) -> Iterator[tuple[Clip, ReferenceView | None]]:
    """Held-out images of drives with their reference images, clips of one frame."""
    for name, frames in DRIVES.items():
        (path,) = (shared / "logs").glob(f"*/{name}.mcap")
        clip = read_clip(path)
        for frame in frames:
            window = clip.part(frame, frame + 1)
            yield window, reference_view(clip, window)


def predicted_depth(forecaster: Forecaster, clip: Clip, reference: ReferenceView | None = None) -> NDArray[np.float32]:
    """Rendered depth (H, W) of a clip's first frame."""
    image, K = np.asarray(clip.images[0]), clip.K
    scene = forecaster.predict(image, K, reference=reference, measure_motion=False)
    depth: NDArray[np.float32] = forecaster.views(scene, np.eye(4)[None], np.zeros(1)).depth[0]
    return depth


def row(forecaster: Forecaster, clip: Clip, reference: ReferenceView | None = None) -> Picture:
    """Image, predicted depth and measured depth of a clip's first frame.

    With a reference image, depth without and with it, in metres; else with the scale of the measured depth.
    """
    image = np.asarray(clip.images[0])
    height, width = image.shape[:2]
    assert clip.depth is not None
    truth, alone = np.asarray(clip.depth[0]), predicted_depth(forecaster, clip)
    predicted = {"predicted depth": alone / depth_ratio(alone, truth)}
    if reference is not None:
        ago = (reference.wider or reference).seconds
        predicted = {
            "from one image": alone,
            f"and one of {ago:.1f} s before": predicted_depth(forecaster, clip, reference),
        }
    limits = depth_range(truth)
    measured = truth if is_dense(truth) and (truth > 0).mean() > 0.5 else filled(truth, POINT)
    span = f"{limits[0]:.1f} to {limits[1]:.0f} m"
    panels = [
        (image, clip.name, GREY),
        *((depth_picture(depth, limits), name, GREY) for name, depth in predicted.items()),
        (depth_picture(measured, limits), f"measured depth, {span}", GREY),
    ]
    return sheet([panels], (WIDTH, round(WIDTH * height / width)))


def all_rows(forecaster: Forecaster, clips: Iterable[tuple[Clip, ReferenceView | None]]) -> Picture:
    """One row per clip."""
    return np.concatenate([row(forecaster, replace(clip, stereo=None), reference) for clip, reference in clips])


def main(given: Sequence[str] | None = None) -> int:
    """Draw and write; returns the exit status."""
    p = picture_parser("Image, predicted depth and measured depth of held-out images.")
    p.add_argument("--reference", action="store_true", help="drives, without and with a reference image")
    args = p.parse_args(given)

    def draw(forecaster: Forecaster) -> Picture:
        clips = drives(args.shared) if args.reference else ((clip, None) for clip in images(args.shared))
        return all_rows(forecaster, clips)

    return write_picture("research/draw_depth.py", args, draw)


if __name__ == "__main__":
    raise SystemExit(main())
