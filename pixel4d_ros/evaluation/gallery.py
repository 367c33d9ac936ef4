# SPDX-License-Identifier: Apache-2.0
"""Pictures and videos of an evaluation: forecast, truth, repeated image, error and depth side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from pixel4d_ros.evaluation.depth_metrics import is_dense
from pixel4d_ros.evaluation.depth_picture import Picture, depth_picture, depth_range, filled
from pixel4d_ros.evaluation.scoring import ScoredWindow
from pixel4d_ros.evaluation.video import BLUE, GREY, ORANGE, VideoWriter, encode_jpeg, sheet

PANEL_WIDTH = 480
MOST_PLAYED = 20  # source images of a clip that its video plays
PICTURES = 2  # source images of a clip of which pictures are shown
SINGLE_PICTURES = 8  # the same of a set of single images
ERROR_GAIN = 2.0  # differences are shown twice as large
POINT = 3  # pixels: sparse sensor depth is drawn as squares of this size


@dataclass(frozen=True)
class Exhibit:
    """The video and the pictures of one clip."""

    name: str
    video: str | None  # file name beside the page
    pictures: list[tuple[str, bytes]] = field(default_factory=list)  # caption and JPEG


@dataclass(frozen=True)
class Gallery:
    """Collects videos in a folder, and pictures in exhibits, while clips are evaluated."""

    folder: Path
    exhibits: list[Exhibit] = field(default_factory=list)

    @contextmanager
    def clip(self, name: str) -> Iterator[Callable[[ScoredWindow], None]]:
        """Collect one clip: yields a function to call with each of its scored windows."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", name) or "clip"
        taken = {exhibit.video for exhibit in self.exhibits}
        video = next(v for i in range(len(taken) + 2) if (v := f"{stem}{f'_{i}' if i else ''}.mp4") not in taken)
        exhibit = Exhibit(name, video)
        count = 0

        def show(scored: ScoredWindow) -> None:
            nonlocal count
            single = len(scored.window) == 1
            if count < MOST_PLAYED and not single:
                for i in range(len(scored.window)):
                    writer.add(panels(scored, i, name))
            if count < (SINGLE_PICTURES if single else PICTURES):
                exhibit.pictures.extend(_pictures(scored, name))
            count += 1

        with VideoWriter(self.folder / video, fps=10) as writer:
            yield show
        self.exhibits.append(exhibit if writer.frames else Exhibit(name, None, exhibit.pictures))


def _pictures(scored: ScoredWindow, name: str) -> Iterator[tuple[str, bytes]]:
    """Captions and JPEGs of one source image: its depth, and two frames of its forecast."""
    if len(scored.window) == 1:
        yield f"{scored.window.name}: depth", encode_jpeg(depth_panels(scored), 1500)
        return
    stamp, last = f"t = {scored.score.stamp:.2f} s", len(scored.window) - 1
    yield f"{stamp}: depth", encode_jpeg(depth_panels(scored), 1500)
    for i in dict.fromkeys((max(1, last // 3), last)):
        yield f"{stamp}, {scored.score.times[i]:+.2f} s", encode_jpeg(panels(scored, i, name), 1000)


def _panel_size(image: Picture) -> tuple[int, int]:
    return PANEL_WIDTH, 2 * round(PANEL_WIDTH * image.shape[0] / image.shape[1] / 2)


def depth_panels(scored: ScoredWindow) -> Picture:
    """The source image, its predicted depth and, where there is some, the sensor's, in the same colours."""
    image = np.asarray(scored.window.images[0])
    sensor = None if scored.window.depth is None else np.asarray(scored.window.depth[0])
    limits = depth_range(scored.depth if sensor is None or not (sensor > 0).any() else sensor)
    predicted = f"predicted depth, {limits[0]:.1f} to {limits[1]:.1f} m"
    row = [(image, "source image", GREY), (depth_picture(scored.depth, limits), predicted, GREY)]
    if sensor is not None:
        measured = depth_picture(sensor if is_dense(sensor) else filled(sensor, POINT), limits)
        row.append((measured, "measured depth", GREY))
    return sheet([row], _panel_size(image))


def panels(scored: ScoredWindow, i: int, title: str) -> Picture:
    """Frame i: forecast and truth above, the repeated source image and the forecast's error below."""
    truth = np.asarray(scored.window.images[i])
    frame, score, time = scored.forecast[i], scored.score, scored.score.times[i]
    above = [
        (frame, f"forecast, {time:+.2f} s, {score.futures[0].psnr[i]:.1f} dB", BLUE),
        (truth, "what really happened", ORANGE),
    ]
    below = [
        (np.asarray(scored.window.images[0]), f"image repeated, {score.repeat.psnr[i]:.1f} dB", GREY),
        (error_picture(frame, truth), f"error of the forecast, x {ERROR_GAIN:g}", GREY),
    ]
    return sheet([above, below], _panel_size(truth), f"{title}, t = {score.stamp:.2f} s")


def error_picture(frame: Picture, truth: Picture) -> Picture:
    """Mean absolute difference over the channels, from black over red to white."""
    difference = cv2.absdiff(frame, truth).mean(-1) * ERROR_GAIN
    colors = cv2.applyColorMap(difference.clip(0, 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(colors[..., ::-1])
