"""Draw what an earlier image tells of motion: objects and forecast without it and with it, and what happened.

    python tools/draw_motion.py docs/motion.jpg

The worlds are synthetic ones of held-out seeds, seen once 0.2 s before as well. Objects are shown in red.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from draw_failures import FRAMES, SIZE, STEP, labelled

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.evaluation.compare import Picture
from pixel4d_ros.evaluation.synthetic_worlds import earlier_view, make_clip
from pixel4d_ros.evaluation.video import BLUE, GREY, ORANGE
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.scene import DynamicGaussians

WORLDS = {  # by seed: what there is to see, and the frame that is shown
    900_007: ("A car crosses: one image takes it for standing", 8),
    900_003: ("People: one image does not tell which way they walk", 10),
    900_006: ("Oncoming cars", 6),
}


def marked(image: Picture, scene: DynamicGaussians) -> Picture:
    """The source image with the scene's moving objects in red."""
    assert scene.camera is not None
    pixels = scene.pixels(scene.camera)
    found = np.zeros(SIZE[0] * SIZE[1], np.float32)
    found[pixels[(pixels >= 0) & (scene.object_ids > 0)].cpu().numpy()] = 1
    mask = found.reshape(SIZE[1], SIZE[0], 1) * 0.6
    return np.asarray(image * (1 - mask) + np.array((255, 30, 30)) * mask, np.uint8)


def rows(forecaster: Forecaster, seed: int) -> Picture:
    """Two rows: what moves and what comes, by one image and by two; and at their right what happened."""
    text, frame = WORLDS[seed]
    clip = make_clip(seed, "street", FRAMES, STEP, SIZE)
    images, path, time = np.asarray(clip.images), CameraPath(clip.times, clip.poses), clip.times[frame : frame + 1]
    told = {f"{text} ...": None, "... and an image of 0.2 s before": earlier_view(seed, "street", SIZE)}
    drawn = []
    for words, earlier in told.items():
        forecast = forecaster.forecast(images[0], clip.K, path, time, earlier=earlier)
        moves = marked(images[0], forecast.scene), "what moves", GREY
        comes = forecast.frames[0, 0], f"forecast, {time[0]:+.1f} s", BLUE
        drawn.append(labelled(words, moves, comes, (images[frame], "what really happened", ORANGE)))
    return np.concatenate(drawn)


def main() -> int:
    """Draw; returns the exit status."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    forecaster, path = Forecaster.load(), Path(sys.argv[1])
    picture = np.concatenate([rows(forecaster, seed) for seed in WORLDS])
    if not cv2.imwrite(str(path), picture[..., ::-1]):
        print(f"draw_motion: {path} cannot be written", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
