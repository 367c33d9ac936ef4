# SPDX-License-Identifier: Apache-2.0
"""Comparison of one recorded forecast with the true images, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.evaluation.metrics import psnr, ssim
from pixel4d_ros.evaluation.recording import RecordedForecast, Truth
from pixel4d_ros.geometry.rotations import FloatArray

Picture = NDArray[np.uint8]  # (H, W, 3) RGB


@dataclass(frozen=True)
class Comparison:
    """A forecast of T frames and the truth, all of one size; NaN and None where the log has no image of that time."""

    stamp: int  # ns, of the source image
    times: FloatArray  # (T,) s after it
    source: Picture
    forecast: tuple[Picture, ...]
    truth: tuple[Picture | None, ...]
    psnr: FloatArray  # (T,) dB
    ssim: FloatArray  # (T,)
    repeat_psnr: FloatArray  # (T,) dB, of repeating the source image
    repeat_ssim: FloatArray  # (T,)
    confidence: NDArray[np.float32]  # (T,) or empty

    @property
    def is_complete(self) -> bool:
        """Whether the log has an image for every time of the forecast."""
        return all(image is not None for image in self.truth)

    def step_at(self, time: float) -> int:
        """The frame whose time is nearest to `time` seconds after the source image."""
        return int(np.abs(self.times - time).argmin())


def compare(forecast: RecordedForecast, truth: Truth) -> Comparison | None:
    """Score a recorded forecast against the log; None when the log has no image of the forecast's stamp."""
    truth.start_at(forecast.stamp)
    frames = tuple(forecast.image(i) for i in range(len(forecast.messages)))
    size = frames[0].shape[1], frames[0].shape[0]
    source = truth.at(forecast.stamp, size)
    if source is None:
        return None
    real = tuple(truth.at(forecast.stamp + round(1e9 * t), size) for t in forecast.times)
    nothing = np.full(len(frames), np.nan)
    scores = {name: nothing.copy() for name in ("psnr", "ssim", "repeat_psnr", "repeat_ssim")}
    for i, (frame, image) in enumerate(zip(frames, real, strict=True)):
        if image is not None:
            scores["psnr"][i], scores["ssim"][i] = psnr(frame, image), ssim(frame, image)
            scores["repeat_psnr"][i], scores["repeat_ssim"][i] = psnr(source, image), ssim(source, image)
    return Comparison(forecast.stamp, forecast.times, source, frames, real, confidence=forecast.confidence, **scores)
