"""Pictures and videos of an evaluation: forecast, truth, repeated image and error side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from pixel4d_ros.evaluation.compare import Picture
from pixel4d_ros.evaluation.scoring import Judged
from pixel4d_ros.evaluation.video import (
    BACKGROUND,
    BLUE,
    CAPTION,
    GREY,
    MARGIN,
    ORANGE,
    VideoWriter,
    encode_jpeg,
    paste,
    write_text,
)

PANEL_WIDTH = 480
MOST_PLAYED = 20  # source images of a clip that its video plays
PICTURES = 2  # source images of a clip of which pictures are shown
ERROR_GAIN = 2.0  # differences are shown twice as large


@dataclass(frozen=True)
class Exhibit:
    """What there is to see of one clip."""

    name: str
    video: str | None  # file name beside the page
    pictures: list[tuple[str, bytes]] = field(default_factory=list)  # caption and JPEG


@dataclass(frozen=True)
class Gallery:
    """Videos go into the folder while a clip is evaluated, pictures into its exhibit."""

    folder: Path
    exhibits: list[Exhibit] = field(default_factory=list)

    @contextmanager
    def clip(self, name: str) -> Iterator[Callable[[Judged], None]]:
        """A place for one clip: the function given takes what was judged of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", name) or "clip"
        taken = {exhibit.video for exhibit in self.exhibits}
        video = next(v for i in range(len(taken) + 2) if (v := f"{stem}{f'_{i}' if i else ''}.mp4") not in taken)
        exhibit = Exhibit(name, video)
        count = 0

        def show(judged: Judged) -> None:
            nonlocal count
            if count < MOST_PLAYED:
                for i in range(len(judged.window)):
                    writer.add(panels(judged, i, name))
            if count < PICTURES:
                last = len(judged.window) - 1
                for i in dict.fromkeys((max(1, last // 3), last)):
                    caption = f"t = {judged.score.stamp:.2f} s, {judged.score.times[i]:+.2f} s"
                    exhibit.pictures.append((caption, encode_jpeg(panels(judged, i, name), 1000)))
            count += 1

        with VideoWriter(self.folder / video, fps=10) as writer:
            yield show
        self.exhibits.append(exhibit if writer.frames else Exhibit(name, None))


def panels(judged: Judged, i: int, title: str) -> Picture:
    """Frame i: forecast and truth above, the repeated source image and the forecast's error below."""
    truth = np.asarray(judged.window.images[i])
    height, width = truth.shape[:2]
    size = (PANEL_WIDTH, 2 * round(PANEL_WIDTH * height / width / 2))
    left, right = MARGIN, 2 * MARGIN + PANEL_WIDTH
    upper = MARGIN + 2 * CAPTION
    lower = upper + size[1] + CAPTION
    canvas = np.full((lower + size[1] + MARGIN, 2 * PANEL_WIDTH + 3 * MARGIN, 3), BACKGROUND, np.uint8)
    score, time = judged.score, judged.score.times[i]
    write_text(canvas, f"{title}, t = {score.stamp:.2f} s", (left, MARGIN + CAPTION), GREY)
    forecast = f"forecast, {time:+.2f} s, {score.futures[0].psnr[i]:.1f} dB"
    repeated = f"image repeated, {score.repeat.psnr[i]:.1f} dB"
    for image, caption, corner, color in (
        (judged.forecast[i], forecast, (left, upper), BLUE),
        (truth, "what really happened", (right, upper), ORANGE),
        (np.asarray(judged.window.images[0]), repeated, (left, lower), GREY),
        (error_picture(judged.forecast[i], truth), f"error of the forecast, x {ERROR_GAIN:g}", (right, lower), GREY),
    ):
        write_text(canvas, caption, corner, color)
        paste(canvas, image, corner, size)
    return canvas


def error_picture(frame: Picture, truth: Picture) -> Picture:
    """Mean absolute difference over the channels, from black over red to white."""
    difference = cv2.absdiff(frame, truth).mean(-1) * ERROR_GAIN
    colors = cv2.applyColorMap(difference.clip(0, 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(colors[..., ::-1])
