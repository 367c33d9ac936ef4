# SPDX-License-Identifier: Apache-2.0
"""Evaluate whole clips: choose the windows, align the camera, score, summarise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from pixel4d_ros import __version__
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation import synthetic_worlds
from pixel4d_ros.evaluation.alignment import PROBED, clip_scale
from pixel4d_ros.evaluation.baselines import known_height
from pixel4d_ros.evaluation.environment import device_name
from pixel4d_ros.evaluation.protocol import Protocol, choose_sequences
from pixel4d_ros.evaluation.results import Evaluation, Subject
from pixel4d_ros.evaluation.scoring import ScoredWindow, Setting, SourceScore, Video, score_windows
from pixel4d_ros.evaluation.summary import summarise
from pixel4d_ros.evaluation.synthetic_worlds import WorldSet, make_clip
from pixel4d_ros.evaluation.windows import clip_windows, reference_view, resized, windows_of
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.reference_view import ReferenceView

if TYPE_CHECKING:
    from pixel4d_ros.forecaster import Forecaster


@dataclass(frozen=True)
class Options:
    """Options of an evaluation beside its protocol."""

    camera_height: float | None = None  # metres above flat ground; None: known for some data sets
    perceptual: Callable[[Video, Video], FloatArray] | None = None  # LPIPS (T,) of two videos
    video_features: Callable[[Video], FloatArray] | None = None  # (D,) of a video, for FVD
    flip: Callable[[Video, Video], FloatArray] | None = None  # FLIP (T,) of two videos
    notes: tuple[str, ...] = ()
    reference_view: bool = False  # what moved since an earlier image is measured
    watch: Callable[[ScoredWindow], None] = field(default=lambda scored: None)  # is called with every scored window


def evaluate_clip(
    forecaster: Forecaster, clip: Clip, protocol: Protocol, name: str, options: Options | None = None
) -> Evaluation:
    """Score the protocol's sources of a clip, with a progress bar on stderr. Raises ValueError when none can be."""
    options = options or Options()
    sequences = choose_sequences(clip.times, protocol)
    notes = [*options.notes, *_missing(clip)]
    if len(sequences[0]) < protocol.frames:
        notes.append(
            f"the log has no {protocol.frames} frames in a row about {protocol.step:g} s apart:"
            f" {len(sequences[0])} were used"
        )
    if options.reference_view and not clip.metric:
        raise ValueError(f"{name} has poses without a metric scale: --reference-image needs metres")
    align = protocol.align or ("given" if clip.metric else "clip-scale")
    height = options.camera_height or known_height(name)
    if height is None:
        notes.append("no flat ground: the camera's height above it is not known (--camera-height, metres)")
    scale = 1.0
    if align == "clip-scale":
        probed = [sequences[i] for i in np.unique(np.linspace(0, len(sequences) - 1, PROBED).round().astype(int))]
        scale = clip_scale(forecaster, list(windows_of(clip, probed, protocol)), protocol.seed)
    setting = Setting(align, scale, height, options.perceptual, options.video_features, options.flip)
    if options.reference_view:
        setting = replace(setting, reference=partial(reference_view, clip))
    windows = tqdm(clip_windows(clip, protocol), "evaluate", len(sequences), unit="forecast", leave=False)
    scores = _scores(score_windows(forecaster, windows, protocol, setting), options)
    if len(scores) < len(sequences):
        notes.append(f"{len(sequences) - len(scores)} source images without sensor depth were left out")
    size = protocol.image_size(clip.images.shape[2], clip.images.shape[1])
    return summarise(scores, protocol, _subject(forecaster, name, size, align, notes))


def evaluate_worlds(
    forecaster: Forecaster, worlds: WorldSet, protocol: Protocol, options: Options | None = None
) -> Evaluation:
    """Score synthetic worlds, one source image of each."""
    from pixel4d_ros.synthetic.street import make_street

    options = options or Options()
    scores = []
    size = protocol.size or protocol.image_size(*worlds.size)
    for seed in tqdm(worlds.seeds, "worlds", leave=False, unit="world"):
        clip = make_clip(seed, worlds.kind, protocol.frames, protocol.step, size)
        height = None
        if worlds.kind == "street":
            height = float(make_street(seed, max(3.0, float(clip.times[-1]))).camera(np.zeros(1))[0, 2, 3])
        setting = Setting(
            protocol.align or "given", 1.0, height, options.perceptual, options.video_features, options.flip
        )
        if options.reference_view:
            seen = synthetic_worlds.reference_view(seed, worlds.kind, size)
            setting = replace(setting, reference=partial(_same, seen))
        if setting.align == "clip-scale":
            raise ValueError("synthetic worlds have one source image each: --align image-scale is what fits them")
        scores += _scores(score_windows(forecaster, clip_windows(clip, protocol), protocol, setting), options)
    notes = options.notes if worlds.kind == "street" else (*options.notes, "no flat ground: rooms are all walls")
    return summarise(scores, protocol, _subject(forecaster, worlds.name, size, protocol.align or "given", notes))


def evaluate_images(
    forecaster: Forecaster, clips: Sequence[Clip], protocol: Protocol, name: str, options: Options | None = None
) -> Evaluation:
    """Score single images with depth, which have no later frames: depth, boundaries and frame 0 alone.

    Raises ValueError without images.
    """
    options = options or Options()
    if options.reference_view:
        raise ValueError(f"{name} has single images: --reference-image needs earlier ones")
    scores, sizes = [], set()
    setting = Setting(perceptual=options.perceptual, flip=options.flip)
    for clip in tqdm(clips[:: protocol.stride or 1], "images", leave=False, unit="image"):
        size = protocol.image_size(clip.images.shape[2], clip.images.shape[1])
        sizes.add(size)
        window = resized(replace(clip, stereo=None).in_memory(), size)
        scores += _scores(score_windows(forecaster, [window], protocol, setting), options)
    notes = (*options.notes, "single images: the first frame and its depth are scored, nothing is forecast")
    size = max(sizes, default=(0, 0))
    return summarise(scores, protocol, _subject(forecaster, name, size, "given", notes))


def _scores(scored: Iterator[ScoredWindow], options: Options) -> list[SourceScore]:
    scores = []
    for found in scored:
        options.watch(found)
        scores.append(found.score)
    return scores


def _same(seen: ReferenceView, _: Clip) -> ReferenceView:
    """The reference view of a world's only source image."""
    return seen


def _missing(clip: Clip) -> Iterator[str]:
    if clip.moving_mask(0) is None:
        yield "no labels of motion: no figures inside moving objects (--moving residual finds them in the frames)"
    if clip.depth is None:
        yield "no depth to compare with"


def _subject(forecaster: Forecaster, name: str, size: tuple[int, int], align: str, notes: Iterable[str]) -> Subject:
    weights, device = forecaster.weights_hash, device_name(forecaster.device)
    return Subject(name, size, weights, device, __version__, align, tuple(notes))
