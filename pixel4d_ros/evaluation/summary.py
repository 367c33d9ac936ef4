"""Means over sources, with bootstrap confidence intervals: what an evaluation reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pixel4d_ros.evaluation.benchmark import SourceScore
from pixel4d_ros.evaluation.metrics import DepthErrors
from pixel4d_ros.evaluation.protocol import Protocol

BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """A mean over sources and its 95 % bootstrap confidence interval (None with fewer than two sources)."""

    mean: float
    low: float | None
    high: float | None


def bootstrap(values: ArrayLike, seed: int = 0) -> Interval:
    """Mean of values (n,) and its 95 % percentile interval (B. Efron, 1979), resampling the values with a seed."""
    values = np.asarray(values, np.float64)
    if len(values) == 0:
        raise ValueError("nothing to average: no source was evaluated")
    if len(values) == 1:
        return Interval(float(values[0]), None, None)
    draws = np.random.default_rng(seed).integers(0, len(values), (BOOTSTRAP_DRAWS, len(values)))
    low, high = np.percentile(values[draws].mean(1), [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))


@dataclass(frozen=True)
class Step:
    """Means over sources for one frame of the horizon; "_mean" and "_best" over the sampled futures."""

    step: int
    time: float  # s after the source image, mean
    psnr: float
    repeat_psnr: float
    ssim: float
    repeat_ssim: float
    psnr_mean: float | None = None
    psnr_best: float | None = None
    ssim_mean: float | None = None
    ssim_best: float | None = None


@dataclass(frozen=True)
class Depth:
    """Depth errors of frame 0 against the sensor; metric, and with one scale per image."""

    sources: int
    abs_rel: Interval
    delta1: Interval
    scaled_abs_rel: Interval
    scaled_delta1: Interval


@dataclass(frozen=True)
class Timing:
    """Wall time of one forecast in milliseconds; the first one also loads kernels and stands apart."""

    first: float
    median: float
    worst: float


@dataclass(frozen=True)
class Source:
    """One source image: means over +1..+(T-1) of sample 0, and its depth errors."""

    stamp: float  # s
    frame0_psnr: float
    psnr: float
    repeat_psnr: float
    ssim: float
    repeat_ssim: float
    abs_rel: float | None
    scale: float
    milliseconds: float


@dataclass(frozen=True)
class Evaluation:
    """All numbers of one log. Means are over +1..+(T-1), of sample 0 unless said."""

    log: str
    protocol: Protocol
    weights: str  # sha256
    device: str
    package_version: str
    size: tuple[int, int]  # (width, height) pixels
    frames: int  # with frame 0; fewer than the protocol's when the log is short
    sources: int
    frame0_psnr: Interval
    frame0_ssim: Interval
    psnr: Interval
    repeat_psnr: Interval
    gain: Interval  # psnr - repeat_psnr, dB
    ssim: Interval
    repeat_ssim: Interval
    ssim_gain: Interval
    psnr_mean: Interval | None  # mean over the sampled futures
    psnr_best: Interval | None  # of the future whose video has the highest PSNR
    scale: Interval | None  # of the camera paths, when aligned to depth
    depth: Depth | None
    timing_ms: Timing
    steps: tuple[Step, ...]
    per_source: tuple[Source, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def summarise(
    scores: Sequence[SourceScore],
    protocol: Protocol,
    log: str,
    size: tuple[int, int],
    weights: str,
    device: str,
    package_version: str,
    notes: Sequence[str] = (),
) -> Evaluation:
    """Average the scores of one log's sources. Raises ValueError when there are none."""
    if not scores:
        raise ValueError(f"{log}: no source frame could be evaluated")

    def over(value: Callable[[SourceScore], float]) -> Interval:
        return bootstrap([value(s) for s in scores], protocol.seed)

    several = len(scores[0].psnr) > 1
    return Evaluation(
        log=log,
        protocol=protocol,
        weights=weights,
        device=device,
        package_version=package_version,
        size=size,
        frames=len(scores[0].times),
        sources=len(scores),
        frame0_psnr=over(lambda s: s.psnr[0, 0]),
        frame0_ssim=over(lambda s: s.ssim[0, 0]),
        psnr=over(lambda s: s.psnr[0, 1:].mean()),
        repeat_psnr=over(lambda s: s.repeat_psnr[1:].mean()),
        gain=over(lambda s: s.psnr[0, 1:].mean() - s.repeat_psnr[1:].mean()),
        ssim=over(lambda s: s.ssim[0, 1:].mean()),
        repeat_ssim=over(lambda s: s.repeat_ssim[1:].mean()),
        ssim_gain=over(lambda s: s.ssim[0, 1:].mean() - s.repeat_ssim[1:].mean()),
        psnr_mean=over(lambda s: s.psnr[:, 1:].mean()) if several else None,
        psnr_best=over(lambda s: s.psnr[best_sample(s), 1:].mean()) if several else None,
        scale=over(lambda s: s.scale) if protocol.align_scale else None,
        depth=_depth(scores, protocol.seed),
        timing_ms=_timing(scores),
        steps=_steps(scores, several),
        per_source=tuple(map(_source, scores)),
        notes=tuple(notes),
    )


def best_sample(score: SourceScore) -> int:
    """The sampled future whose frames +1.. have the highest mean PSNR: one choice per video, not per frame."""
    return int(score.psnr[:, 1:].mean(1).argmax())


def _source(score: SourceScore) -> Source:
    return Source(
        stamp=score.stamp,
        frame0_psnr=float(score.psnr[0, 0]),
        psnr=float(score.psnr[0, 1:].mean()),
        repeat_psnr=float(score.repeat_psnr[1:].mean()),
        ssim=float(score.ssim[0, 1:].mean()),
        repeat_ssim=float(score.repeat_ssim[1:].mean()),
        abs_rel=None if score.depth is None else score.depth.abs_rel,
        scale=score.scale,
        milliseconds=score.milliseconds,
    )


def _steps(scores: Sequence[SourceScore], several: bool) -> tuple[Step, ...]:
    def mean(value: Callable[[SourceScore], Any]) -> list[float]:
        return [float(v) for v in np.mean([value(s) for s in scores], 0)]

    columns: dict[str, list[float]] = {
        "time": mean(lambda s: s.times),
        "psnr": mean(lambda s: s.psnr[0]),
        "repeat_psnr": mean(lambda s: s.repeat_psnr),
        "ssim": mean(lambda s: s.ssim[0]),
        "repeat_ssim": mean(lambda s: s.repeat_ssim),
    }
    if several:
        columns["psnr_mean"] = mean(lambda s: s.psnr.mean(0))
        columns["psnr_best"] = mean(lambda s: s.psnr[best_sample(s)])
        columns["ssim_mean"] = mean(lambda s: s.ssim.mean(0))
        columns["ssim_best"] = mean(lambda s: s.ssim[best_sample(s)])
    return tuple(Step(i, **{k: v[i] for k, v in columns.items()}) for i in range(len(columns["time"])))


def _depth(scores: Sequence[SourceScore], seed: int) -> Depth | None:
    metric: list[DepthErrors] = [s.depth for s in scores if s.depth is not None]
    scaled: list[DepthErrors] = [s.scaled_depth for s in scores if s.scaled_depth is not None]
    if not metric:
        return None
    return Depth(
        sources=len(metric),
        abs_rel=bootstrap([d.abs_rel for d in metric], seed),
        delta1=bootstrap([d.delta1 for d in metric], seed),
        scaled_abs_rel=bootstrap([d.abs_rel for d in scaled], seed),
        scaled_delta1=bootstrap([d.delta1 for d in scaled], seed),
    )


def _timing(scores: Sequence[SourceScore]) -> Timing:
    first, *later = (s.milliseconds for s in scores)
    later = later or [first]
    return Timing(first, float(np.median(later)), max(later))
