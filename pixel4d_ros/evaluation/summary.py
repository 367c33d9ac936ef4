# SPDX-License-Identifier: Apache-2.0
"""Summary of an evaluation: means and intervals over the scores of a clip's source images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pixel4d_ros.evaluation.calibration import brier_score, reliability
from pixel4d_ros.evaluation.depth_metrics import Boundaries, DepthErrors
from pixel4d_ros.evaluation.frechet import frechet_distance
from pixel4d_ros.evaluation.intervals import Interval, bootstrap, known, nanmean
from pixel4d_ros.evaluation.protocol import Protocol
from pixel4d_ros.evaluation.results import (
    DepthResults,
    Evaluation,
    Method,
    MotionResults,
    ShapeResults,
    SourceResult,
    Step,
    Subject,
    Timing,
)
from pixel4d_ros.evaluation.scoring import SourceScore, VideoScore
from pixel4d_ros.geometry.rotations import FloatArray

FORECAST, STILL, PLANE, REPEAT = "forecast", "motion off", "flat ground", "image repeated"
Chooser = Callable[[SourceScore], VideoScore]


def summarise(scores: Sequence[SourceScore], protocol: Protocol, subject: Subject) -> Evaluation:
    """Average the scores of one clip's sources. Raises ValueError when there are none."""
    if not scores:
        raise ValueError(f"{subject.log}: no source frame could be evaluated")
    seed = protocol.seed

    def over(value: Callable[[SourceScore], float]) -> Interval:
        return bootstrap([value(s) for s in scores], seed)

    several = len(scores[0].futures) > 1
    return Evaluation(
        subject=subject,
        protocol=protocol,
        frames=len(scores[0].times),
        sources=len(scores),
        frame0_psnr=over(lambda s: s.futures[0].psnr[0]),
        frame0_ssim=over(lambda s: s.futures[0].ssim[0]),
        gain=known([later(s.futures[0].psnr) - later(s.repeat.psnr) for s in scores], seed),
        ssim_gain=known([later(s.futures[0].ssim) - later(s.repeat.ssim) for s in scores], seed),
        inside_gain=known([later(s.futures[0].inside) - later(s.still.inside) for s in scores], seed),
        best_inside_gain=known([later(best_inside(s).inside) - later(s.futures[0].inside) for s in scores], seed)
        if several
        else None,
        methods=_methods(scores, seed) if len(scores[0].times) > 1 else {},
        motion=_motion(scores, seed),
        scale=over(lambda s: s.scale) if subject.align.endswith("scale") else None,
        depth=_depth(scores, seed),
        shape=_shape(scores, seed),
        timing_ms=_timing(scores),
        steps=_steps(scores),
        per_source=tuple(map(_source_result, scores)),
    )


def later(values: FloatArray | None) -> float:
    """Mean over the frames after frame 0 that have a value; NaN when none has."""
    return float("nan") if values is None else float(nanmean(values[1:]))


def best_future(score: SourceScore) -> VideoScore:
    """The sampled future whose frames +1.. have the highest mean PSNR: one choice per video, not per frame."""
    return max(score.futures, key=lambda f: later(f.psnr))


def best_inside(score: SourceScore) -> VideoScore:
    """The sampled future with the highest mean PSNR inside moving objects; sample 0 where nothing moves."""
    return max(score.futures, key=lambda f: np.nan_to_num(later(f.inside), nan=-np.inf))


def choosers(score: SourceScore) -> dict[str, tuple[Chooser, Chooser]]:
    """By method: functions that take from a score its video, and its video for scores inside moving objects."""
    out: dict[str, tuple[Chooser, Chooser]] = {FORECAST: (lambda s: s.futures[0],) * 2}
    if len(score.futures) > 1:
        out[f"best of {len(score.futures)}"] = (best_future, best_inside)
    out[STILL] = (lambda s: s.still,) * 2
    if score.plane is not None:
        out[PLANE] = (lambda s: s.plane,) * 2
    out[REPEAT] = (lambda s: s.repeat,) * 2
    return out


def _methods(scores: Sequence[SourceScore], seed: int) -> dict[str, Method]:
    found = {}
    for name, (video, inner) in choosers(scores[0]).items():
        found[name] = _method([(video(s),) for s in scores], [(inner(s),) for s in scores], scores, seed)
    several = [s.futures for s in scores]
    if len(several[0]) > 1:
        found[f"mean of {len(several[0])}"] = _method(several, several, scores, seed)
    return found


Videos = Sequence[Sequence[VideoScore]]  # of each source, those whose scores are averaged


def _method(videos: Videos, inner: Videos, scores: Sequence[SourceScore], seed: int) -> Method:
    """Means over sources: of the videos' scores and, inside moving objects, of the inner videos'."""

    def over(value: Callable[[VideoScore], float], chosen: Videos = videos) -> list[float]:
        return [float(np.mean([value(v) for v in some])) for some in chosen]

    return Method(
        psnr=bootstrap(over(lambda v: later(v.psnr)), seed),
        ssim=bootstrap(over(lambda v: later(v.ssim)), seed),
        inside=known(over(lambda v: later(v.inside), inner), seed),
        outside=known(over(lambda v: later(v.outside)), seed),
        lpips=known(over(lambda v: later(v.lpips)), seed),
        flip=known(over(lambda v: later(v.flip)), seed),
        fvd=_fvd(videos, scores),
    )


def _fvd(videos: Videos, scores: Sequence[SourceScore]) -> float | None:
    """FVD of one video per source against the true ones; None for several per source, or without features."""
    features = [v.features for some in videos for v in some if v.features is not None and len(some) == 1]
    truth = [s.truth_features for s in scores if s.truth_features is not None]
    return frechet_distance(np.stack(features), np.stack(truth)) if len(features) > 1 and len(truth) > 1 else None


def _motion(scores: Sequence[SourceScore], seed: int) -> MotionResults | None:
    found = [s.motion for s in scores if s.motion is not None]
    if not found:
        return None
    events = [event for m in found for event in m.events]
    overlaps = [m.mask_iou for m in found if m.mask_iou is not None]
    return MotionResults(
        sources=len(overlaps),
        mask_iou=known(overlaps, seed),
        false_moving=bootstrap([m.false_moving for m in found], seed),
        objects=sum(m.objects for m in found),
        found=sum(m.found for m in found),
        velocity_error=known([e for m in found for e in m.velocity_errors], seed, np.median),
        found_velocity_error=known([e for m in found for e in m.found_errors], seed, np.median),
        false_objects=bootstrap([m.false_objects for m in found], seed),
        impossible_boxes=bootstrap([m.impossible_boxes for m in found], seed),
        brier=brier_score(events) if events else None,
        reliability=reliability(events),
    )


def _depth(scores: Sequence[SourceScore], seed: int) -> DepthResults | None:
    metric: list[DepthErrors] = [s.depth for s in scores if s.depth is not None]
    scaled: list[DepthErrors] = [s.scaled_depth for s in scores if s.scaled_depth is not None]
    contours: list[Boundaries] = [s.boundaries for s in scores if s.boundaries is not None]
    if not metric:
        return None
    return DepthResults(
        sources=len(metric),
        abs_rel=bootstrap([d.abs_rel for d in metric], seed),
        delta1=bootstrap([d.delta1 for d in metric], seed),
        scaled_abs_rel=bootstrap([d.abs_rel for d in scaled], seed),
        scaled_delta1=bootstrap([d.delta1 for d in scaled], seed),
        edge_abs_rel=known([d.edge_abs_rel for d in metric], seed),
        edge_delta1=known([d.edge_delta1 for d in metric], seed),
        scaled_edge_abs_rel=known([d.edge_abs_rel for d in scaled], seed),
        scaled_edge_delta1=known([d.edge_delta1 for d in scaled], seed),
        boundary_f1=known([c.f1 for c in contours], seed),
        boundary_precision=known([c.precision for c in contours], seed),
        boundary_recall=known([c.recall for c in contours], seed),
    )


def _shape(scores: Sequence[SourceScore], seed: int) -> ShapeResults | None:
    shares = [share for s in scores for share in s.box_shares]
    gaussians = known([share.gaussians for share in shares], seed)
    if gaussians is None:
        return None
    return ShapeResults(len(shares), gaussians, known([share.sensor for share in shares], seed))


def _timing(scores: Sequence[SourceScore]) -> Timing:
    first, *others = (s.milliseconds for s in scores)
    others = others or [first]
    return Timing(first, float(np.median(others)), max(others))


def _steps(scores: Sequence[SourceScore]) -> tuple[Step, ...]:
    times = np.mean([s.times for s in scores], 0)
    columns = choosers(scores[0])

    def means(value: Callable[[VideoScore], FloatArray | None], inner: bool) -> dict[str, FloatArray]:
        """Mean (T,) of the known values over sources, by method; NaN where none is known."""
        return {name: _mean_known([value(pair[inner](s)) for s in scores]) for name, pair in columns.items()}

    psnr, ssim = means(lambda v: v.psnr, False), means(lambda v: v.ssim, False)
    inside = means(lambda v: v.inside, True)

    def at(i: int, values: dict[str, FloatArray]) -> dict[str, float]:
        return {name: float(row[i]) for name, row in values.items() if len(row) > i and np.isfinite(row[i])}

    return tuple(Step(i, float(t), at(i, psnr), at(i, ssim), at(i, inside)) for i, t in enumerate(times))


def _mean_known(rows: Sequence[FloatArray | None]) -> FloatArray:
    length = max(0 if row is None else len(row) for row in rows)
    return nanmean(np.stack([np.full(max(1, length), np.nan) if row is None else row for row in rows]), 0)


def _source_result(score: SourceScore) -> SourceResult:
    first = score.futures[0]
    return SourceResult(
        stamp=score.stamp,
        frame0_psnr=float(first.psnr[0]),
        psnr=later(first.psnr),
        repeat_psnr=later(score.repeat.psnr),
        inside=later(first.inside),
        inside_still=later(score.still.inside),
        abs_rel=None if score.depth is None else score.depth.abs_rel,
        scale=score.scale,
        milliseconds=score.milliseconds,
    )
