# SPDX-License-Identifier: Apache-2.0
"""The contents of a replay's report: numbers and pictures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from pixel4d_ros.evaluation.environment import Environment
from pixel4d_ros.evaluation.intervals import Interval
from pixel4d_ros.evaluation.node_record import NodeRecord


@dataclass(frozen=True)
class HorizonStep:
    """Means over all forecasts for one time after the source image; NaN becomes None in JSON."""

    time: float  # s
    count: int  # forecasts for which the log shows this time
    psnr: float
    repeat_psnr: float
    ssim: float
    repeat_ssim: float
    confidence: float  # mean share of the frame that the source image showed


@dataclass(frozen=True)
class Strip:
    """Pictures of one forecast as JPEG: the source image, then (time, forecast, truth) for some times."""

    seconds: float  # of the source image, since the log's first
    source: bytes
    pairs: tuple[tuple[float, bytes, bytes], ...]


@dataclass(frozen=True)
class Report:
    """All numbers of a replay. Means are over the frames after frame 0, of sample 0."""

    log: str
    recording: str
    forecasts: int  # source images
    scored: int
    samples: int
    size: tuple[int, int]  # (width, height) pixels of the forecast
    frame0_psnr: Interval | None
    psnr: Interval | None
    repeat_psnr: Interval | None
    gain: Interval | None
    ssim: Interval | None
    repeat_ssim: Interval | None
    steps: tuple[HorizonStep, ...]
    node: NodeRecord
    environment: Environment
    strips: tuple[Strip, ...] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: no pictures, None for what is unknown."""
        values = asdict(self)
        del values["strips"], values["node"]["ages"]
        finite: dict[str, Any] = without_nan(values)
        return finite


def without_nan(value: Any) -> Any:
    """Plain values for JSON, which has no NaN: None in its place."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary(numbers: dict[str, Any]) -> str:
    """The contents of report.json in a few lines of text."""

    def mean(name: str) -> str:
        interval = numbers.get(name)
        return f"{interval['mean']:.1f} dB" if isinstance(interval, dict) else "unknown"

    node = numbers["node"]
    age = node.get("age_s")
    lines = [
        f"{numbers['forecasts']} forecasts of {numbers['size'][0]}x{numbers['size'][1]}",
        f"PSNR {mean('psnr')} over the horizon, repeating the image {mean('repeat_psnr')}, gain {mean('gain')}",
    ]
    if age:
        lines.append(f"age when published {age['p50']:.2f} s (median), {age['worst']:.2f} s (worst)")
    if node.get("dropped") is not None:
        lines.append(f"{node['received']} images received, {node['dropped']} dropped as newer ones came")
    return "\n".join(lines)
