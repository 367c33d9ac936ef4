# SPDX-License-Identifier: Apache-2.0
"""H.264 videos, sheets of captioned pictures, and forecasts beside the true image."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.evaluation.compare import Comparison, Picture
from pixel4d_ros.evaluation.windows import resize_image
from pixel4d_ros.files import printable

if TYPE_CHECKING:
    from typing_extensions import Self

Color = tuple[int, int, int]
Panel = tuple[Picture, str, Color]  # a picture, its caption and the caption's colour

MARGIN = 16
PANEL_WIDTH = 640
CAPTION = 30  # height of a line of text, pixels
BACKGROUND, WHITE, GREY = (22, 24, 29), (240, 240, 240), (150, 155, 165)
BLUE, ORANGE = (90, 160, 255), (255, 170, 80)  # the forecast's and the truth's colour in report and video


class VideoWriter:
    """`with VideoWriter(path, fps) as video: video.add(frame)`: MP4, H.264, yuv420p, which every player shows.

    Frames are RGB (H, W, 3) uint8 of one size; an odd size loses its last row or column, since yuv420p needs even ones.
    The file appears with the first frame. Raises OSError at the end if not all frames can be read from it: a full disk.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        self.path, self.fps = Path(path), fps
        self.frames = 0
        self._size = (0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self.frames:
            return
        self._stream.close()
        if kind is None and self._readable() < self.frames:
            raise OSError(errno.EIO, "the video is not whole: is the disk full?", str(self.path))

    def _readable(self) -> int:
        """The number of frames in the file."""
        video, found = cv2.VideoCapture(str(self.path.absolute())), 0
        while video.grab():
            found += 1
        return found

    def add(self, frame: Picture) -> None:
        """Append a frame."""
        height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        if not self.frames:
            self._open((width, height))
        if self._size != (width, height):
            raise ValueError(f"a video has one size: it is {self._size[0]}x{self._size[1]}, the frame {width}x{height}")
        self._stream.send(np.ascontiguousarray(frame[:height, :width]))
        self.frames += 1

    def _open(self, size: tuple[int, int]) -> None:
        import imageio_ffmpeg

        self._size = size
        self._stream = imageio_ffmpeg.write_frames(
            str(self.path.absolute()),  # ffmpeg takes -x.mp4 for an option, a:b.mp4 for a protocol
            size,
            fps=self.fps,
            codec="libx264",
            pix_fmt_out="yuv420p",
            quality=None,
            macro_block_size=2,
            output_params=["-crf", "20", "-preset", "veryfast", "-movflags", "+faststart"],
            ffmpeg_log_level="error",
        )
        self._stream.send(None)


def add_comparison(video: VideoWriter, comparison: Comparison, title: str, seconds: float, hold: int = 5) -> None:
    """Play one forecast beside the truth, then hold its last frame; seconds: the source image's time in the log."""
    last = max(i for i, image in enumerate(comparison.truth) if image is not None)
    for i in [*range(last + 1), *[last] * hold]:
        video.add(side_by_side(comparison, i, title, seconds))


def side_by_side(comparison: Comparison, i: int, title: str, seconds: float) -> Picture:
    """Frame i of a forecast (left) and the true image (right), below the source image."""
    height, width = comparison.source.shape[:2]
    panel = (PANEL_WIDTH, 2 * round(PANEL_WIDTH * height / width / 2))
    small = (PANEL_WIDTH // 2, 2 * round(panel[1] / 4))
    top = MARGIN + CAPTION
    middle = top + small[1] + MARGIN + CAPTION
    canvas = np.full((middle + panel[1] + MARGIN, 2 * PANEL_WIDTH + 3 * MARGIN, 3), BACKGROUND, np.uint8)
    left, right = MARGIN, 2 * MARGIN + PANEL_WIDTH
    write_text(canvas, f"the newest image it sees, t = {seconds:.2f} s", (left, top), GREY)
    paste(canvas, comparison.source, (left, top), small)
    write_text(canvas, f"forecast, {comparison.times[i]:+.2f} s", (left, middle), BLUE)
    paste(canvas, comparison.forecast[i], (left, middle), panel)
    write_text(canvas, f"what really happened, t = {seconds + comparison.times[i]:.2f} s", (right, middle), ORANGE)
    truth = comparison.truth[i]
    if truth is None:
        write_text(canvas, "the log has no image of this time", (right, middle + panel[1] // 2), GREY)
    else:
        paste(canvas, truth, (right, middle), panel)
    _legend(canvas, comparison, i, title, (left + small[0] + MARGIN, top))
    return canvas


def _legend(canvas: Picture, comparison: Comparison, i: int, title: str, corner: tuple[int, int]) -> None:
    """Title, time bar and the PSNR of this frame, to the right of the source image."""
    x, y = corner
    end = canvas.shape[1] - MARGIN
    write_text(canvas, title, (x, y), WHITE)
    bar = y + 14
    cv2.line(canvas, (x, bar), (end, bar), (60, 64, 72), 6, cv2.LINE_AA)
    share = comparison.times[i] / max(comparison.times[-1], 1e-9)
    cv2.line(canvas, (x, bar), (x + round(share * (end - x)), bar), BLUE, 6, cv2.LINE_AA)
    write_text(
        canvas, f"{comparison.times[i]:+.2f} s of {comparison.times[-1]:.2f} s", (x, bar + 2 * CAPTION - 16), WHITE
    )
    if i and np.isfinite(comparison.psnr[i]):
        write_text(canvas, f"PSNR {comparison.psnr[i]:.1f} dB", (x, bar + 3 * CAPTION - 16), BLUE)
        repeat = f"repeating the image: {comparison.repeat_psnr[i]:.1f} dB"
        write_text(canvas, repeat, (x + 200, bar + 3 * CAPTION - 16), GREY)


def sheet(rows: Sequence[Sequence[Panel]], size: tuple[int, int], title: str = "") -> Picture:
    """Rows of panels, each resized to size (width, height) and below its caption, under a title."""
    width, height = size
    top = MARGIN + CAPTION if title else MARGIN
    shape = top + len(rows) * (CAPTION + height) + MARGIN, max(map(len, rows)) * (width + MARGIN) + MARGIN, 3
    canvas = np.full(shape, BACKGROUND, np.uint8)
    write_text(canvas, title, (MARGIN, top), WHITE)
    for i, row in enumerate(rows):
        for k, (picture, caption, color) in enumerate(row):
            corner = MARGIN + k * (width + MARGIN), top + CAPTION + i * (CAPTION + height)
            write_text(canvas, caption, corner, color)
            paste(canvas, picture, corner, size)
    return canvas


def write_text(canvas: Picture, text: str, corner: tuple[int, int], color: Color) -> None:
    """A line of text above `corner` (x, y)."""
    text = printable(text)  # OpenCV crashes otherwise
    cv2.putText(canvas, text, (corner[0], corner[1] - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.6, color, 1, cv2.LINE_AA)


def paste(canvas: Picture, image: Picture, corner: tuple[int, int], size: tuple[int, int]) -> None:
    """An image, resized to size (width, height), with its upper left at `corner` (x, y)."""
    x, y = corner
    canvas[y : y + size[1], x : x + size[0]] = resize_image(image, size)


def encode_jpeg(image: Picture, max_width: int = 640, quality: int = 88) -> bytes:
    """An image as JPEG, made smaller when it is wider than max_width."""
    if image.shape[1] > max_width:
        image = resize_image(image, (max_width, round(image.shape[0] * max_width / image.shape[1])))
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError(f"a picture of {image.shape[1]}x{image.shape[0]} could not be encoded as JPEG")
    encoded: NDArray[np.uint8] = data
    return encoded.tobytes()
