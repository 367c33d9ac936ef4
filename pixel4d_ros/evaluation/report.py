# SPDX-License-Identifier: Apache-2.0
"""The report of a replayed log: recorded forecasts against what really happened, as video, JSON and one HTML page."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pixel4d_ros.datasets.damaged_images import left_out
from pixel4d_ros.datasets.driving_log import image_messages
from pixel4d_ros.datasets.pose_agreement import warn_of_wrong_log_poses
from pixel4d_ros.evaluation.compare import Comparison, compare
from pixel4d_ros.evaluation.environment import environment
from pixel4d_ros.evaluation.intervals import Interval, bootstrap, nanmean
from pixel4d_ros.evaluation.node_record import NodeRecord, read_node_record
from pixel4d_ros.evaluation.recording import Truth, forecast_topic, read_forecasts
from pixel4d_ros.evaluation.report_page import page
from pixel4d_ros.evaluation.report_results import HorizonStep, Report, Strip, summary, without_nan
from pixel4d_ros.evaluation.video import VideoWriter, add_comparison, encode_jpeg
from pixel4d_ros.files import printable, staging
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.logs.calibration import calibration_change, camera_frame, read_image_camera
from pixel4d_ros.logs.images import TRIES
from pixel4d_ros.logs.reader import LogError, LogReader
from pixel4d_ros.logs.streams import pick_streams

logger = logging.getLogger(__name__)
__all__ = ["summary", "write_report"]

MAX_SCORED = 100  # forecasts that are scored, evenly spread over a long recording
MAX_PLAYED = 20  # forecasts that the video plays
STRIPS = 4  # forecasts whose pictures the page shows
STRIP_TIMES = (0.5, 1.3)  # s after the source image
SCORES = ("psnr", "ssim", "repeat_psnr", "repeat_ssim", "confidence")


@dataclass
class _Findings:
    """What one pass over a recording collects; pictures only of those forecasts that are shown."""

    received: list[tuple[int, int]] = field(default_factory=list)  # stamp and time of recording, ns
    stamps: list[int] = field(default_factory=list)  # ns, of the source images scored
    scores: list[FloatArray] = field(default_factory=list)  # (5, T): SCORES
    times: FloatArray = field(default_factory=lambda: np.zeros(0))
    strips: list[Strip] = field(default_factory=list)
    samples: int = 1
    size: tuple[int, int] = (0, 0)


def write_report(
    log: Path,
    recorded: Path,
    out: Path,
    camera: str | None = None,
    most_scored: int | None = MAX_SCORED,
    rectified: bool | None = None,
) -> dict[str, Any]:
    """Compare the forecasts in `recorded` with `log`; writes forecast.mp4, report.json, report.html and scores.jsonl.

    All of them or none: those of an earlier report stay as they were until all are written. rectified: see
    read_image_camera.
    camera: the log's image topic that the node was given (None: the one that pick_streams chooses). most_scored: so
    many source images at most, evenly spread (None: all). Returns the contents of report.json. Raises LogError when one
    of the two cannot be read, or they do not belong together. A line of scores.jsonl is one forecast (sample 0): its
    stamp in ns, and lists over its frames of time (s), psnr and ssim, those of repeating the source image, and
    confidence; null where the log shows nothing of that time.
    """
    out.mkdir(parents=True, exist_ok=True)
    warn_of_wrong_log_poses(log, camera, rectified)
    with staging(out) as made:
        return _write(log, recorded, made, camera, most_scored, rectified)


def _write(
    log: Path, recorded: Path, out: Path, camera: str | None, most_scored: int | None, rectified: bool | None
) -> dict[str, Any]:
    with LogReader(log) as source, LogReader(recorded) as record:
        streams = pick_streams(source, camera)
        info = streams.camera_info
        images = [message for _, message in islice(image_messages(source, streams.image.name), TRIES)]
        calibrated = read_image_camera(source, streams.image, info, images, rectified) if info and images else None
        frame = camera_frame(source, images[0], info) if images else ""
        truth = Truth(source, streams.image.name, calibrated, calibration_change(source, info, frame))
        video_path = out / "forecast.mp4"
        with VideoWriter(video_path, fps=10) as video:
            findings = _collect(record, truth, video, f"{source.path.stem}: pixel4d_ros forecast", most_scored)
        if truth.faults:
            count = source.topics[streams.image.name].count
            logger.warning("%s: %s", source.path, left_out(list(truth.faults.values()), count))
        if not findings.scores:
            raise LogError(
                f"no forecast in {recorded} was made from an image of {log}: their stamps differ; "
                "pass the log that was replayed"
            )
        node = read_node_record(record, findings.received)
    report = _summarise(findings, node, printable(source.path.stem), record.path.name)
    numbers = report.as_dict()
    (out / "report.json").write_text(json.dumps(numbers, indent=2) + "\n")
    (out / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _lines(findings)))
    (out / "report.html").write_text(page(report, video_path), encoding="utf-8")
    return numbers


def _collect(record: LogReader, truth: Truth, video: VideoWriter, title: str, most_scored: int | None) -> _Findings:
    found = _Findings()
    topic = forecast_topic(record)
    total = record.topics[topic].count
    for forecast in tqdm(read_forecasts(record, topic), "report", total, unit="forecast", leave=False):
        found.samples = max(found.samples, forecast.sample_count)
        if forecast.sample_index != 0:
            continue
        index = len(found.received)
        found.received.append((forecast.stamp, forecast.recorded))
        sources = math.ceil(total / found.samples)
        if most_scored is not None and index % math.ceil(sources / most_scored):
            continue
        comparison = compare(forecast, truth)
        if comparison is None:
            continue
        _add_scores(found, comparison)
        later = [image for image in comparison.truth[1:] if image is not None]
        if later and index % math.ceil(sources / MAX_PLAYED) == 0:
            seconds = 1e-9 * (forecast.stamp - truth.first_stamp)
            add_comparison(video, comparison, title, seconds)
            if comparison.is_complete:
                found.strips.append(_strip(comparison, seconds))
    return found


def _add_scores(found: _Findings, comparison: Comparison) -> None:
    confidence = comparison.confidence
    if len(confidence) != len(comparison.times):
        confidence = np.full(len(comparison.times), np.nan, np.float32)
    rows = (comparison.psnr, comparison.ssim, comparison.repeat_psnr, comparison.repeat_ssim, confidence)
    if found.scores and len(comparison.times) != len(found.times):
        warnings.warn(
            f"a forecast of {len(comparison.times)} frames among those of {len(found.times)} is left out", stacklevel=2
        )
        return
    found.times = comparison.times
    found.size = comparison.source.shape[1], comparison.source.shape[0]
    found.stamps.append(comparison.stamp)
    found.scores.append(np.stack(rows).astype(np.float64))


def _lines(found: _Findings) -> Iterator[dict[str, Any]]:
    """The lines of scores.jsonl, one per forecast."""
    for stamp, scores in zip(found.stamps, found.scores, strict=True):
        lists = dict(zip(SCORES, scores.tolist(), strict=True))
        yield without_nan({"stamp": stamp, "time": found.times.tolist(), **lists})


def _strip(comparison: Comparison, seconds: float) -> Strip:
    pairs = []
    for i in dict.fromkeys(comparison.step_at(t) for t in STRIP_TIMES):
        real = comparison.truth[i]
        if real is not None:
            pairs.append((float(comparison.times[i]), encode_jpeg(comparison.forecast[i]), encode_jpeg(real)))
    return Strip(seconds, encode_jpeg(comparison.source), tuple(pairs))


def _summarise(found: _Findings, node: NodeRecord, log: str, recording: str) -> Report:
    scores = np.stack(found.scores)  # (n, 5, T)
    later = scores[:, :, 1:]

    def over(value: Callable[[np.ndarray], np.ndarray]) -> Interval | None:
        per_source = nanmean(value(later), -1)
        known = per_source[np.isfinite(per_source)]
        return bootstrap(known) if known.size else None

    frame0 = scores[:, 0, 0]
    chosen = np.unique(np.linspace(0, len(found.strips) - 1, min(STRIPS, len(found.strips))).round().astype(int))
    return Report(
        log=log,
        recording=recording,
        forecasts=len(found.received),
        scored=len(scores),
        samples=found.samples,
        size=found.size,
        frame0_psnr=bootstrap(frame0[np.isfinite(frame0)]) if np.isfinite(frame0).any() else None,
        psnr=over(lambda s: s[:, 0]),
        repeat_psnr=over(lambda s: s[:, 2]),
        gain=over(lambda s: s[:, 0] - s[:, 2]),
        ssim=over(lambda s: s[:, 1]),
        repeat_ssim=over(lambda s: s[:, 3]),
        steps=_steps(scores, found.times),
        node=node,
        environment=environment(),
        strips=tuple(found.strips[i] for i in chosen),
    )


def _steps(scores: np.ndarray, times: Sequence[float] | FloatArray) -> tuple[HorizonStep, ...]:
    means = nanmean(scores, 0)  # (5, T)
    counts = np.isfinite(scores[:, 0]).sum(0)
    return tuple(
        HorizonStep(time=float(t), count=int(count), **dict(zip(SCORES, column.tolist(), strict=True)))
        for t, count, column in zip(times, counts, means.T, strict=True)
    )
