# SPDX-License-Identifier: Apache-2.0
"""Draw vehicles and people, and which of them move, in held-out images of drives: a picture of two columns.

    python research/draw_motion.py docs/motion.jpg

Left, what the movable decoder finds in one image. Right, what a reference image says: moving objects with their speed
and the probability that they move. Boxes are labels: white stands, green moves and is found, red moves and is missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from picture_command import picture_parser, write_picture

from pixel4d_ros.datasets.box_labels import labelled
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.evaluation.depth_picture import Picture
from pixel4d_ros.evaluation.labelled_objects import labelled_objects
from pixel4d_ros.evaluation.motion_metrics import moving_ids, moving_probabilities, visible_objects
from pixel4d_ros.evaluation.video import GREY, sheet
from pixel4d_ros.evaluation.windows import cut, reference_view
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.two_view.object_motion import SeenMaps
from pixel4d_ros.two_view.two_images import Ids

WIDTH = 640  # pixels of a panel
IMAGES = {"kitti_0052": (9, 30), "kitti_0056": (6, 12), "kitti_0002": (5,), "kitti_0095": (72, 126)}  # log -> images
WHITE, GREEN, RED = (255, 255, 255), (0, 220, 0), (255, 60, 60)


def windows(shared: Path) -> Iterator[tuple[Clip, Clip]]:
    """Clips, and windows of two images each; the labels of kitti_0052 and kitti_0056 are tests, kitti_0095 has none."""
    for name, frames in IMAGES.items():
        (path,) = (shared / "logs").glob(f"*/{name}.mcap")
        clip = labelled(read_clip(path), path)
        for frame in frames:
            yield clip, cut(clip, np.array([frame, frame + 1]))


def colored(image: NDArray[np.uint8], ids: Ids) -> Picture:
    """An image (H, W, 3), each id but 0 in a colour of its own."""
    colors = np.random.default_rng(3).integers(60, 255, (64, 3))
    shown = ids[..., None] > 0
    return np.asarray(np.where(shown, image // 2 + colors[ids % 64] // 2, image), np.uint8)


def row(forecaster: Forecaster, clip: Clip, window: Clip) -> Picture:
    """Both panels of a window's first image."""
    image, reference = np.asarray(window.images[0]), reference_view(clip, window)
    scene = forecaster.predict(image, window.K, reference=reference).to("cpu")
    assert scene.camera is not None
    instances = SeenMaps.of(scene, scene.pixels(scene.camera), scene.camera).instance_ids
    ids, fast, probabilities = visible_objects(scene, window), moving_ids(scene), moving_probabilities(scene)
    height, width = image.shape[:2]
    scale = WIDTH / width
    size = WIDTH, round(height * scale)
    left, right = (
        cv2.resize(colored(image, numbers), size, interpolation=cv2.INTER_LINEAR)
        for numbers in (instances, np.where(np.isin(ids, list(fast)), ids, 0))
    )
    for thing in labelled_objects(window) or ():
        v, u = np.nonzero(thing.mask)
        inside = ids[thing.mask & (ids >= 0)]
        found = inside.size > 0 and int(np.bincount(inside).argmax()) in fast
        color = WHITE if not thing.moving else GREEN if found else RED
        first, last = ((int(at(u) * scale), int(at(v) * scale)) for at in (np.min, np.max))
        cv2.rectangle(right, first, last, color, 1)
    velocities = scene.per_object(scene.velocities).norm(dim=1)
    for k in fast:
        v, u = np.nonzero(ids == k)
        if len(u):
            place = int(u.mean() * scale) - 30, int(v.mean() * scale)
            text = f"{velocities[k]:.0f} m/s, {100 * probabilities[k]:.0f} %"
            cv2.putText(right, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, WHITE, 1, cv2.LINE_AA)
    panels = [(left, f"{clip.name}: vehicles and people", GREY), (right, "which of them move", GREY)]
    return sheet([panels], size)


def main(given: Sequence[str] | None = None) -> int:
    """Draw and write; returns the exit status."""
    args = picture_parser("Vehicles and people in held-out images, and which of them move.").parse_args(given)

    def draw(forecaster: Forecaster) -> Picture:
        return np.concatenate([row(forecaster, clip, window) for clip, window in windows(args.shared)])

    return write_picture("research/draw_motion.py", args, draw)


if __name__ == "__main__":
    raise SystemExit(main())
