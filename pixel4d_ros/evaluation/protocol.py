# SPDX-License-Identifier: Apache-2.0
"""Evaluation protocols: which frames, which pixels, which camera path."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

DEFAULT_SOURCES = 20
RATE_TOLERANCE = 0.15  # of a step: how far the usual spacing of frames may be off
SPACING_TOLERANCE = 0.4  # of a step: real 10 Hz cameras run at 9.7 Hz, a lost frame doubles the step
PROTOCOLS = ("robot", "paper")
ALIGNMENTS = {
    "given": "given poses",
    "image-scale": "given poses, one scale per source image",
    "clip-scale": "given poses, one scale per clip",
    "poses": "poses found from the frames (they look at the true frames)",
}


@dataclass(frozen=True)
class Protocol:
    """How a clip is evaluated. Frame 0 of a forecast is its source image, the rest follow at `step` seconds."""

    name: str = "robot"  # one of PROTOCOLS
    frames: int = 14  # with frame 0
    step: float = 0.1  # s, nominal: forecasts are made for the true times of the frames
    stride: int | None = None  # every stride-th possible source; None: about DEFAULT_SOURCES of them
    size: tuple[int, int] | None = None  # (width, height) pixels that images are resized to; None: the clip's own
    centre: tuple[int, int] | None = None  # (width, height) pixels of the middle that is scored; None: everything
    samples: int = 1  # sampled futures per source
    align: str | None = None  # one of ALIGNMENTS; None: given, but clip-scale where poses have no metric scale
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise ValueError(f"--protocol must be one of {', '.join(PROTOCOLS)}, got {self.name}")
        if self.align is not None and self.align not in ALIGNMENTS:
            raise ValueError(f"--align must be one of {', '.join(ALIGNMENTS)}, got {self.align}")
        if self.frames < 2:
            raise ValueError(f"--frames must be at least 2 (the source and one later frame), got {self.frames}")
        if not self.step > 0:
            raise ValueError(f"--step must be positive seconds, got {self.step}")
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"--stride must be at least 1, got {self.stride}")
        if self.seed < 0:
            raise ValueError(f"--seed must be at least 0, got {self.seed}")
        if self.samples < 1:
            raise ValueError(f"--samples must be at least 1, got {self.samples}")
        if self.size is not None and min(self.size) < 16:
            raise ValueError(f"--size must be at least 16x16 pixels, got {self.size[0]}x{self.size[1]}")

    @staticmethod
    def paper(**changes: object) -> Protocol:
        """Pixel-to-4D's: 14 frames at 10 fps, shorter side 256 (KITTI: 832x256), scored on the 256x256 centre."""
        return replace(Protocol(name="paper", centre=(256, 256)), **changes)  # type: ignore[arg-type]

    def image_size(self, width: int, height: int) -> tuple[int, int]:
        """Size (width, height) at which images of width x height pixels are forecast.

        The paper's protocol resizes to 832x256, as the paper does with KITTI and Waymo, where that changes the aspect
        ratio by less than a tenth, and else so that the shorter side has 256 pixels.
        """
        if self.size is not None:
            return self.size
        if self.name != "paper":
            return width, height
        if abs(width / height * 256 / 832 - 1) < 0.1:
            return 832, 256
        shrink = 256 / min(width, height)
        return round(width * shrink), round(height * shrink)

    def scored(self, width: int, height: int) -> tuple[slice, slice]:
        """Scored rows and columns of an image of width x height pixels."""
        w, h = (width, height) if self.centre is None else (min(width, self.centre[0]), min(height, self.centre[1]))
        left, top = (width - w) // 2, (height - h) // 2
        return slice(top, top + h), slice(left, left + w)

    def describe(self) -> str:
        """The protocol in a few words."""
        pixels = "all pixels" if self.centre is None else f"the {self.centre[0]}x{self.centre[1]} centre"
        return f"{self.name} protocol, {pixels}"


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
    fits = abs(every * interval - step) <= RATE_TOLERANCE * step  # else frames count as of other times than theirs
    good = fits & (np.abs(spacing - step) <= SPACING_TOLERANCE * step)
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
    """The sequences that the protocol evaluates, subsampled by its stride."""
    sequences = find_sequences(times, protocol.frames, protocol.step)
    stride = protocol.stride or max(1, round(len(sequences) / DEFAULT_SOURCES))
    return sequences[::stride]
