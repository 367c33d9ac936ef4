# SPDX-License-Identifier: Apache-2.0
"""The numbers of an evaluation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pixel4d_ros.evaluation.calibration import ReliabilityBin
from pixel4d_ros.evaluation.intervals import Interval
from pixel4d_ros.evaluation.protocol import Protocol
from pixel4d_ros.evaluation.report_results import without_nan


@dataclass(frozen=True)
class Method:
    """The forecast or a baseline: means over +1..+(T-1) and sources."""

    psnr: Interval
    ssim: Interval
    inside: Interval | None  # PSNR inside moving objects
    outside: Interval | None
    lpips: Interval | None
    fvd: float | None
    flip: Interval | None = None


@dataclass(frozen=True)
class Step:
    """Mean PSNR over sources for one frame of the horizon, by method; inside: of moving objects."""

    step: int
    time: float  # s after the source image, mean
    psnr: dict[str, float]
    ssim: dict[str, float]
    inside: dict[str, float]


@dataclass(frozen=True)
class MotionResults:
    """Motion metrics over the source images."""

    sources: int  # source images in which something moves
    mask_iou: Interval | None
    false_moving: Interval  # share of static pixels predicted to move
    objects: int  # of known motion, large enough to be scored
    found: int
    velocity_error: Interval | None  # median over objects of |v - v_true| / |v_true|; standing still where not found
    found_velocity_error: Interval | None  # the same over the objects that were found
    false_objects: Interval  # per image: predicted moving objects that move in no label
    impossible_boxes: Interval  # per image: predicted moving objects longer than 25 m, or floating
    brier: float | None  # of the probabilities of moving, over labelled objects and false ones; None without any
    reliability: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class DepthResults:
    """Depth errors of frame 0 against the sensor; metric, and with one scale per image."""

    sources: int
    abs_rel: Interval
    delta1: Interval
    scaled_abs_rel: Interval
    scaled_delta1: Interval
    edge_abs_rel: Interval | None  # beside depth edges; None where there are none
    edge_delta1: Interval | None
    scaled_edge_abs_rel: Interval | None
    scaled_edge_delta1: Interval | None
    boundary_f1: Interval | None  # None without dense truth
    boundary_precision: Interval | None
    boundary_recall: Interval | None


@dataclass(frozen=True)
class ShapeResults:
    """Of what lies in the outlines of labelled vehicles, the shares inside their 3D boxes, means over vehicles."""

    objects: int
    gaussians: Interval
    sensor: Interval | None  # of the sensor's points, which a perfect depth map would reach; None without any


@dataclass(frozen=True)
class Timing:
    """Wall time of one forecast in milliseconds; the first one also loads kernels and stands apart."""

    first: float
    median: float
    worst: float


@dataclass(frozen=True)
class SourceResult:
    """One source image: means over +1..+(T-1) of sample 0."""

    stamp: float  # s
    frame0_psnr: float
    psnr: float
    repeat_psnr: float
    inside: float | None
    inside_still: float | None
    abs_rel: float | None
    scale: float
    milliseconds: float


@dataclass(frozen=True)
class Subject:
    """What was evaluated, on what, and how: everything that is no number."""

    log: str
    size: tuple[int, int]  # (width, height) pixels
    weights: str  # sha256
    device: str
    package_version: str
    align: str = "given"  # one of protocol.ALIGNMENTS
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """All numbers of one clip. Means are over +1..+(T-1), of sample 0 unless noted."""

    subject: Subject
    protocol: Protocol
    frames: int  # with frame 0; fewer than the protocol's when the clip is short
    sources: int
    frame0_psnr: Interval
    frame0_ssim: Interval
    gain: Interval | None  # PSNR of the forecast - PSNR of repeating the image, dB; None for single images
    ssim_gain: Interval | None
    inside_gain: Interval | None  # PSNR inside moving objects: forecast - the same with its motion off, dB
    best_inside_gain: Interval | None  # PSNR inside moving objects: best of K - sample 0, dB
    methods: dict[str, Method]
    motion: MotionResults | None
    scale: Interval | None  # of the camera paths, unless they are as given
    depth: DepthResults | None
    shape: ShapeResults | None
    timing_ms: Timing
    steps: tuple[Step, ...]
    per_source: tuple[SourceResult, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: None for what is unknown."""
        return dict(without_nan(asdict(self)))
