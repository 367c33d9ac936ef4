# SPDX-License-Identifier: Apache-2.0
"""Draw the README's animated picture: the one image, its forecast and what happened, from a real driving log.

    python research/draw_animation.py ../shared/logs/val/kitti_0002.mcap docs/forecast.webp [START ...]

START are numbers of source images in the log (default: four, evenly spread). Each is forecast for 1.3 s along the
camera's true path and shown in real time, with a pause at the end. The picture is an animated WebP below 4 MB.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.evaluation.alignment import source_poses
from pixel4d_ros.evaluation.compare import Picture
from pixel4d_ros.evaluation.video import BACKGROUND, BLUE, CAPTION, GREY, MARGIN, ORANGE, paste, write_text
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.logs.reader import LogError

FRAMES = 14
PAUSE_MS = 900
WIDTH = 440  # pixels of a panel
LIMIT = 4_000_000  # bytes, so that the README opens quickly
QUALITY = 70


def scenes(forecaster: Forecaster, clip: Clip) -> list[Picture]:
    """The pictures of one source image, the first frame of the clip: one for each of its FRAMES frames."""
    images = np.asarray(clip.images)
    times = clip.times - clip.times[0]
    forecast = forecaster.forecast(images[0], clip.K, CameraPath(times, source_poses(clip)), times).frames[0]
    return [panels(images[0], forecast[i], images[i], times[i]) for i in range(len(images))]


def panels(source: Picture, forecast: Picture, truth: Picture, time: float) -> Picture:
    """The source image above; below it the forecast and the true frame side by side."""
    height = round(source.shape[0] * WIDTH / source.shape[1])
    canvas = np.full((2 * (height + CAPTION) + 3 * MARGIN, 2 * WIDTH + 3 * MARGIN, 3), BACKGROUND, np.uint8)
    below = height + CAPTION + 2 * MARGIN
    for image, caption, color, corner in (
        (source, "the one image given", GREY, (MARGIN + (WIDTH + MARGIN) // 2, CAPTION)),
        (forecast, f"forecast {time:+.1f} s", BLUE, (MARGIN, below + CAPTION)),
        (truth, "what happened", ORANGE, (2 * MARGIN + WIDTH, below + CAPTION)),
    ):
        write_text(canvas, caption, corner, color)
        paste(canvas, image, corner, (WIDTH, height))
    return canvas


def encode(pictures: list[Picture], durations: list[int]) -> NDArray[np.uint8]:
    """An animated WebP below LIMIT bytes, at the highest quality that allows it. Raises ValueError if none does."""
    animation = cv2.Animation()
    animation.frames = [np.ascontiguousarray(picture[..., ::-1]) for picture in pictures]
    animation.durations = durations
    for quality in range(QUALITY, 0, -10):
        done, data = cv2.imencodeanimation(".webp", animation, [cv2.IMWRITE_WEBP_QUALITY, quality])
        if done and len(data) < LIMIT:
            return np.asarray(data, np.uint8)
    raise ValueError(f"{len(pictures)} pictures do not fit into {LIMIT} bytes: name fewer source images")


def main() -> int:
    """Draw; returns the exit status."""
    if len(sys.argv) < 3:
        print(__doc__)
        return 2
    log, out = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        clip = read_clip(log)
    except LogError as error:
        print(f"draw_animation: {error}", file=sys.stderr)
        return 1
    last = len(clip) - FRAMES
    if last < 0:
        print(f"draw_animation: {log} has {len(clip)} images, fewer than the {FRAMES} of a forecast", file=sys.stderr)
        return 1
    starts = [int(word) for word in sys.argv[3:]] or sorted({round(x) for x in np.linspace(0, last, 4)})
    if not all(0 <= start <= last for start in starts):
        print(f"draw_animation: START must be 0..{last} for {log}", file=sys.stderr)
        return 1
    forecaster = Forecaster.load()
    pictures: list[Picture] = []
    durations: list[int] = []
    for start in starts:
        part = clip.part(start, start + FRAMES)
        pictures += scenes(forecaster, part)
        durations += [round(step * 1000) for step in np.diff(part.times)] + [PAUSE_MS]
    out.write_bytes(encode(pictures, durations).tobytes())
    print(f"{out}: {len(pictures)} pictures, {out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
