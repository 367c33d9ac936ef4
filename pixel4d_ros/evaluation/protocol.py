"""Which frames of a clip are forecast, and against which frames they are judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.clip import Clip

DEFAULT_SOURCES = 20
SPACING_TOLERANCE = 0.4  # of a step: real 10 Hz cameras run at 9.7 Hz, a lost frame doubles the step


@dataclass(frozen=True)
class Protocol:
    """How a log is evaluated. Frame 0 of a forecast is its source image, the rest follow at `step` seconds."""

    frames: int = 14  # with frame 0
    step: float = 0.1  # s, nominal: forecasts are made for the true times of the frames
    stride: int | None = None  # every stride-th possible source; None: about DEFAULT_SOURCES of them
    size: tuple[int, int] | None = None  # (width, height) pixels that images are resized to; None: the log's own
    samples: int = 1  # sampled futures per source
    static: bool = False  # switch the forecast's motion off
    align_scale: bool = False  # scale each source's camera path by predicted / sensor depth
    seed: int = 0

    def __post_init__(self) -> None:
        if self.frames < 2:
            raise ValueError(f"--frames must be at least 2 (the source and one later frame), got {self.frames}")
        if not self.step > 0:
            raise ValueError(f"--step must be positive seconds, got {self.step}")
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"--stride must be at least 1, got {self.stride}")
        if self.samples < 1:
            raise ValueError(f"--samples must be at least 1, got {self.samples}")
        if self.size is not None and min(self.size) < 16:
            raise ValueError(f"--size must be at least 16x16 pixels, got {self.size[0]}x{self.size[1]}")


def find_sequences(times: ArrayLike, frames: int, step: float) -> list[NDArray[np.intp]]:
    """Index sequences into times (T,), one per possible source: `frames` frames spaced by about `step` seconds.

    When no run of the times is that long, sequences of the longest possible length (at least 2) are returned instead.
    Raises ValueError when no two frames are `step` apart.
    """
    times = np.asarray(times, np.float64)
    if len(times) < 2:
        raise ValueError(f"evaluation needs at least 2 images with poses, got {len(times)}: use a longer log")
    interval = float(np.median(np.diff(times)))
    every = max(1, round(step / interval))
    spacing = times[every:] - times[:-every] if every < len(times) else np.empty(0)
    good = np.abs(spacing - step) <= SPACING_TOLERANCE * step
    follows = np.zeros(len(times), np.intp)  # how many frames can follow each frame
    for i in range(len(good) - 1, -1, -1):
        follows[i] = follows[i + every] + 1 if good[i] else 0
    length = min(frames, int(follows.max()) + 1)
    if length < 2:
        raise ValueError(
            f"no two images are {step:g} s apart, the log has one every {interval:.3g} s:"
            " set --step to a multiple of that"
        )
    return [i + every * np.arange(length) for i in np.flatnonzero(follows >= length - 1)]


def choose_sequences(times: ArrayLike, protocol: Protocol) -> list[NDArray[np.intp]]:
    """The sequences that the protocol evaluates, thinned by its stride."""
    sequences = find_sequences(times, protocol.frames, protocol.step)
    stride = protocol.stride or max(1, round(len(sequences) / DEFAULT_SOURCES))
    return sequences[::stride]


def cut(clip: Clip, sequence: NDArray[np.intp]) -> Clip:
    """The frames of one sequence as a clip (views where the spacing allows), without the stereo camera."""
    every = int(sequence[1] - sequence[0])
    return replace(clip, stereo=None).part(int(sequence[0]), int(sequence[-1]) + 1, every)


def resized(clip: Clip, size: tuple[int, int] | None) -> Clip:
    """The clip with images and depth resampled to size (width, height); None leaves it as it is."""
    height, width = clip.images.shape[1:3]
    if size is None or size == (width, height):
        return clip
    camera = Camera(clip.K, width, height).resized(*size)
    images = np.stack([resize_image(image, size) for image in clip.images])
    depth = clip.depth
    if depth is not None:
        # Nearest: a mean of LiDAR returns and empty pixels would be no depth at all.
        depth = np.stack([cv2.resize(d, size, interpolation=cv2.INTER_NEAREST) for d in depth])
    return replace(clip, images=images, K=camera.K, depth=depth, object_ids=None, stereo=None)


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image (H, W, 3) resampled to size (width, height); area averaging when it shrinks."""
    if (image.shape[1], image.shape[0]) == tuple(size):
        return image
    shrinks = size[0] < image.shape[1] or size[1] < image.shape[0]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8)


def clip_windows(clip: Clip, protocol: Protocol) -> Iterator[Clip]:
    """One clip per source: its first frame is the source, the rest is what really happened."""
    for sequence in choose_sequences(clip.times, protocol):
        yield resized(cut(clip, sequence), protocol.size)
