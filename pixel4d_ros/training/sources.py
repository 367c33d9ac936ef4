# SPDX-License-Identifier: Apache-2.0
"""All that a run trains on: real clips mixed by weight, and a pool of synthetic batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.random import Generator
from tqdm import tqdm

from pixel4d_ros.datasets.box_labels import labelled
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.depth_images import is_depth_folder, read_depth_folder
from pixel4d_ros.datasets.open import open_clips
from pixel4d_ros.datasets.splits import HELD_OUT_LOGS, check_trainable
from pixel4d_ros.datasets.stereo_pairs import is_stereo_folder, read_stereo_folder
from pixel4d_ros.synthetic.assets import read_assets
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.config import TrainingConfig, TrainingSource
from pixel4d_ros.training.flow_teacher import FlowTeacher
from pixel4d_ros.training.frame_bank import is_wide
from pixel4d_ros.training.real_data import RealData
from pixel4d_ros.training.synthetic_data import make_batches, varied
from pixel4d_ros.training.taught_flow import TaughtFlow

Size = tuple[int, int]  # width, height
logger = logging.getLogger(__name__)
RENEW_EVERY = 32  # calls between renewals of a synthetic pool: making worlds costs more than a step can spare


@dataclass(frozen=True)
class WeightedClip:
    """A clip, how much more often than others it is drawn, and the source that it comes from."""

    clip: Clip
    weight: float
    source: Path


class TrainingData:
    """Batches of one process, in crops of two shapes: mostly wide ones of streets, for a share of the steps tall ones.

    Tall crops show rooms, places outdoors and images of squarer formats. Synthetic samples are streets, then rooms.
    Each step has its own random numbers, so that a resumed run draws the same samples as an unbroken one.
    """

    def __init__(self, config: TrainingConfig, rank: int, device: torch.device, wide: Size, tall: Size) -> None:
        self.config, self.seed, self.wide, self.tall = config, (config.seed, rank), wide, tall
        self.views = config.targets + 1
        self.rng = np.random.default_rng(self.seed)
        clips = read_sources(config, quiet=rank > 0)
        teacher = self._teacher(rank, device)
        self.taught_flow = TaughtFlow(teacher, self.seed) if teacher is not None and config.only == "flow" else None
        self.roads = self._real([c for c in clips if is_wide(c.clip)], device, teacher)
        self.rooms = self._real([c for c in clips if not is_wide(c.clip)], device, teacher)

        assets = read_assets(config.assets) if config.assets else None

        def pool(size: Size, kind: str, number: int) -> SyntheticPool:
            def make(rng: Generator) -> list[Batch]:
                return make_batches(config.synthetic_batch, self.views, size, rng, device, kind, assets)

            return SyntheticPool(make, config.synthetic_pool, (*self.seed, number))

        self.synthetic, self.synthetic_rooms = pool(wide, "mixed", 0), pool(tall, "room", 1)

    def batch(self, step: int) -> Batch:
        """The batch of a step; a later step may follow any earlier one."""
        self.rng.bit_generator.state = np.random.default_rng((*self.seed, step)).bit_generator.state
        config = self.config
        rooms_before = self._room_steps(step)
        indoors = self._room_steps(step + 1) > rooms_before
        real, synthetic = (self.rooms, self.synthetic_rooms) if indoors else (self.roads, self.synthetic)
        parts = []
        if real is not None and config.batch:
            parts.append(real.batch(config.batch, self.views, self.tall if indoors else self.wide))
        if config.synthetic_batch:
            made = synthetic.batch(rooms_before if indoors else step - rooms_before, self.rng)
            parts.append(varied(made, self.rng))
        return Batch.join(parts)

    def _room_steps(self, step: int) -> int:
        """How many of the first `step` steps train on rooms."""
        if self.rooms is None:
            return 0
        return step if self.roads is None else int(step * self.config.room_share)

    def _real(self, clips: list[WeightedClip], device: torch.device, teacher: FlowTeacher | None) -> RealData | None:
        if not clips:
            return None
        match = self.config.matched_weight > 0
        images_only = self.taught_flow is not None
        weights = [c.weight for c in clips]
        return RealData([c.clip for c in clips], self.rng, device, weights, match, teacher, images_only)

    def _teacher(self, rank: int, device: torch.device) -> FlowTeacher | None:
        path, world = self.config.flow_teacher, dist.get_world_size() if dist.is_initialized() else 1
        return FlowTeacher(path, self.config.out.parent / "labels", device, rank, world) if path else None


class SyntheticPool:
    """Batches made every RENEW_EVERY calls, the latest `limit` of them; its content follows from the call's number.

    make(rng) returns some batches; its i-th time draws from (seed, 1, i).
    """

    def __init__(self, make: Callable[[Generator], list[Batch]], limit: int, seed: Sequence[int]) -> None:
        self.make, self.limit, self.seed = make, limit, seed
        self.made: dict[int, list[Batch]] = {}  # by the time they were made

    def batch(self, call: int, rng: Generator) -> Batch:
        """One of the batches that are there at a call."""
        last = 1 + call // RENEW_EVERY  # made twice before the first call, so that it may choose
        if last not in self.made:
            self._renew(last)
        pool = [batch for time in sorted(self.made) for batch in self.made[time]][-self.limit :]
        return pool[int(rng.integers(len(pool)))]

    def _renew(self, last: int) -> None:
        """Make what is missing, newest first, and drop what the pool has no room for."""
        kept: dict[int, list[Batch]] = {}
        for time in range(last, -1, -1):
            kept[time] = self.made.get(time) or self.make(np.random.default_rng((*self.seed, 1, time)))
            if sum(map(len, kept.values())) >= self.limit:
                break
        self.made = kept


def read_sources(config: TrainingConfig, quiet: bool = False) -> list[WeightedClip]:
    """The clips of all sources. Raises ValueError or OSError naming the source that cannot be read."""
    sources = [*config.sources, *([TrainingSource(config.stereo)] if config.stereo else [])]
    clips = []
    for source in tqdm(sources, desc="reading sources", unit="source", disable=quiet):
        found = read_clips(source)
        if not found:
            raise ValueError(f"{source.path} holds nothing to train on: all of it is held out for evaluation")
        # A source is drawn by the square root of its frames, however many clips they are in.
        roots = sum(len(clip) ** 0.5 for clip in found)
        weight = source.weight * sum(len(clip) for clip in found) ** 0.5 / roots
        clips += [WeightedClip(clip, weight, source.path) for clip in found]
    if not quiet:
        for line in _shares(clips):
            logger.info(line)
    return clips


def read_clips(source: TrainingSource) -> list[Clip]:
    """All clips of a data set at a path, a log, or a folder of logs, stereo pairs or images with depth."""
    path = source.path
    check_trainable(path)
    if is_stereo_folder(path):
        clips = read_stereo_folder(path, "train")
    elif is_depth_folder(path):
        clips = read_depth_folder(path, "train")
    else:
        clips = [labelled(clip, path) for clip in open_clips(path) if clip.name not in HELD_OUT_LOGS]
    return clips if source.labels else [_unlabelled(clip) for clip in clips]


def _unlabelled(clip: Clip) -> Clip:
    return replace(clip, object_ids=None, object_motions=None, object_centroids=None, boxes=None, boxes_complete=True)


def _shares(clips: list[WeightedClip]) -> list[str]:
    """A line for each source: its share of the samples, of wide and of tall crops by themselves."""
    sums: dict[tuple[bool, Path], float] = {}
    for c in clips:
        key = (not is_wide(c.clip), c.source)
        sums[key] = sums.get(key, 0.0) + c.weight * len(c.clip) ** 0.5
    totals = {kind: sum(v for (k, _), v in sums.items() if k == kind) for kind in (False, True)}
    names = {False: "wide", True: "tall"}
    return [f"{names[kind]} {100 * v / totals[kind]:3.0f} %  {path}" for (kind, path), v in sums.items()]
