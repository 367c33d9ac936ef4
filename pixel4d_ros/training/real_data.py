# SPDX-License-Identifier: Apache-2.0
"""Random augmented samples of real clips, whose frames are held on the training device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.rendering.streams import to_device
from pixel4d_ros.training.augmentation import Crop, change_colors, crop_grids
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.flow import frame_gaps, frame_period, is_stills
from pixel4d_ros.training.flow_teacher import FlowTeacher
from pixel4d_ros.training.frame_bank import Bank, BankEntry, fill_banks

LONGEST, LONGEST_STATIC = 1.3, 2.0  # seconds between a source and its targets; hand-held cameras are slower
LONGEST_STILL_STEP = 3  # frames: photographs are farther apart
STILL_TIME = 0.1  # seconds between photographs, as input of the network: their own times are nominal
USUAL_REFERENCE, OLDEST_REFERENCE = 0.1, 0.55  # seconds before the source
USUAL_SHARE = 0.6  # of the samples, whose reference is about USUAL_REFERENCE old
STEREO_SHARE = 0.15  # of the samples of stereo clips, whose reference is the other camera's image


class RealData:
    """Draws augmented batches from clips: one crop, zoom, aspect, flip and colour change for all views of a sample.

    A clip's share grows with the square root of its length, so that long drives do not drown short ones, times its
    weight (1 where weights are not given). With match, stereo pairs tell depth where no sensor does; with a teacher,
    so do posed frames. With images_only, neither depth nor motion is read or measured. Each sample has an earlier
    frame of its clip, or sometimes the other camera's, as reference, if there is one.
    """

    def __init__(
        self,
        clips: list[Clip],
        rng: Generator,
        device: torch.device,
        weights: Sequence[float] | None = None,
        match: bool = True,
        teacher: FlowTeacher | None = None,
        images_only: bool = False,
    ) -> None:
        self.rng, self.device = rng, device
        self.banks, self.entries = fill_banks(clips, device, match, teacher, images_only)
        shares = np.sqrt([len(clip) for clip in clips]) * (1.0 if weights is None else np.asarray(weights))
        self.shares = shares / shares.sum()

    def batch(self, count: int, views: int, size: tuple[int, int]) -> Batch:
        """count samples of `views` views (the source first) at size (width, height)."""
        picks = self.rng.choice(len(self.entries), count, p=self.shares)
        samples = [self._sample(self.entries[i], views, size) for i in picks]
        groups = [[s for s in samples if s.bank == bank] for bank in range(len(self.banks))]
        return Batch.join([self._cut(self.banks[i], group, size) for i, group in enumerate(groups) if group])

    def _sample(self, entry: BankEntry, views: int, size: tuple[int, int]) -> _Sample:
        """Choose a source frame, its targets (later frames, sometimes the other camera) and the augmentation."""
        clip, rng = entry.clip, self.rng
        step = frame_gaps(clip)[0]
        source = int(rng.integers(max(1, len(clip) - step)))
        frames = [(i, False) for i in self._targets(entry, source, step, views)]
        if clip.stereo is not None and (len(frames) < 3 or rng.random() < 0.5):
            frames = [*frames[: views - 1], (source, True)]
        frames += [frames[-1]] * (views - len(frames))
        earlier, beside = self._reference(clip, source), clip.stereo is not None
        beside = beside and (earlier is None or rng.random() < STEREO_SHARE)
        frames.append((source if beside or earlier is None else earlier, beside))
        crop = Crop.draw(clip.images.shape[2], clip.images.shape[1], size, rng)
        place = entry.first + source
        poses, intrinsics = zip(*(_pose_and_intrinsics(clip, source, i, right) for i, right in frames))
        times = np.array([_seconds(clip, source, i) for i, _ in frames])
        times[-1] = np.nan if earlier is None and not beside else times[-1]
        return _Sample(
            entry.bank,
            [i + (entry.first_right if right else entry.first) for i, right in frames],
            np.stack([crop.pose(T) for T in poses]),
            np.stack([crop.intrinsics(K) for K in intrinsics]),
            times,
            crop,
            place,
            _speed(clip, source),
            clip.metric,
        )

    def _targets(self, entry: BankEntry, source: int, step: int, views: int) -> list[int]:
        """The source, the frame `step` later, whose flow is known, and others."""
        clip = entry.clip
        seconds = LONGEST_STATIC if entry.static else LONGEST
        longest = LONGEST_STILL_STEP if is_stills(clip) else max(step, round(seconds / frame_period(clip)))
        ahead = [i for i in range(source + 1, min(len(clip), source + longest + 1)) if i != source + step]
        soon = [source + step] if source + step < len(clip) else []
        count = max(0, views - 2)
        chosen = [int(i) for i in self.rng.choice(ahead, count, replace=len(ahead) < count)] if ahead else []
        return [source, *soon, *chosen][:views]

    def _reference(self, clip: Clip, source: int) -> int | None:
        """An earlier frame, mostly USUAL_REFERENCE old; None where there is none that young."""
        if is_stills(clip):
            return source - 1 if source > 0 else None
        age = clip.times[source] - clip.times[:source]
        young = np.flatnonzero(age <= OLDEST_REFERENCE)
        if not len(young):
            return None
        if self.rng.random() < USUAL_SHARE:
            return int(young[np.argmin(np.abs(age[young] - USUAL_REFERENCE))])
        return int(self.rng.choice(young))

    def _cut(self, bank: Bank, samples: list[_Sample], size: tuple[int, int]) -> Batch:
        """Cut all samples of one bank at once."""
        device, (b, v) = self.device, (len(samples), len(samples[0].frames))
        crops = [s.crop for s in samples]
        frames = to_device(np.array([s.frames for s in samples]), device)
        fine = crop_grids(crops, bank.images, 2).repeat_interleave(v, 0)
        pixels = bank.images[frames.flatten()].float() / 255
        sampled = F.grid_sample(pixels, fine, mode="bilinear", padding_mode="border", align_corners=False)
        # Sampled at twice the resolution and averaged, against aliasing.
        images = change_colors(F.avg_pool2d(sampled, 2).view(b, v, 3, size[1], size[0]), self.rng)
        coarse = crop_grids(crops, bank.images, 1)

        def nearest(values: Tensor) -> Tensor:  # so that known and unknown do not mix
            return F.grid_sample(values[:, None].float(), coarse, mode="nearest", align_corners=False)[:, 0]

        def stacked(values: list[NDArray[np.float32]]) -> Tensor:
            return to_device(np.stack(values, dtype=np.float32), device)

        depth = nearest(bank.depth[frames[:, 0]])
        velocities = stacked([s.crop.vectors(bank.velocities[s.place]) for s in samples])
        motions = torch.full((b, velocities.shape[1], 4, 3), torch.nan, device=device)
        motions[:, :, 0] = velocities
        moving = stacked([bank.moving[s.place] for s in samples])
        motions = torch.where((moving == 0)[:, :, None, None] & torch.isfinite(motions[:, :, :1]), 0.0, motions)
        K, poses, times = (stacked([getattr(s, name) for s in samples]) for name in ("K", "poses", "times"))
        known = torch.isfinite(times[:, -1])
        return Batch(
            images=images[:, :-1],
            K=K[:, :-1],
            T_source_camera=poses[:, :-1],
            times=times[:, :-1],
            depth=depth.clamp(min=0),
            matched=(-depth).clamp(min=0),
            hidden_depth=torch.zeros_like(depth),
            object_ids=nearest(bank.object_ids[frames[:, 0]]).round().long(),
            motions=motions,
            centroids=stacked([s.crop.vectors(bank.centroids[s.place]) for s in samples]),
            moving=moving,
            flow=_cut_flow(bank, frames[:, 0], crops, coarse),
            speed=stacked([np.float32(s.speed) for s in samples]),
            metric=to_device(np.array([s.metric for s in samples]), device),
            reference=images[:, -1] * known[:, None, None, None],
            reference_K=K[:, -1],
            T_source_reference=poses[:, -1],
            reference_time=times[:, -1],
        )


@dataclass(frozen=True)
class _Sample:
    """One sample before its pixels are cut; its views are the source, its targets, and last the reference."""

    bank: int
    frames: list[int]  # indices in the bank; the source in place of a reference that is missing
    poses: FloatArray  # (V + 1, 4, 4) T_source_camera
    K: FloatArray  # (V + 1, 3, 3)
    times: FloatArray  # (V + 1,) seconds after the source; NaN of a reference that is missing
    crop: Crop
    place: int  # the source's index in the bank
    speed: float  # m/s forward; NaN where unknown
    metric: bool


def _cut_flow(bank: Bank, frames: Tensor, crops: list[Crop], grid: Tensor) -> Tensor:
    """Flow (B, 2, H, W) of the bank's frames (B,) in pixels of the crops."""
    flow = F.grid_sample(bank.flow[frames].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    height, width = bank.images.shape[-2:]
    scales = [(width * c.size[0] / c.width * (-1 if c.mirrored else 1), height * c.size[1] / c.height) for c in crops]
    return flow * to_device(np.array(scales, np.float32), flow.device)[:, :, None, None]


def _seconds(clip: Clip, source: int, target: int) -> float:
    """Time from the source to a frame."""
    return STILL_TIME * (target - source) if is_stills(clip) else float(clip.times[target] - clip.times[source])


def _speed(clip: Clip, source: int) -> float:
    if source + 1 >= len(clip) or is_stills(clip) or not clip.metric:
        return float("nan")
    forward = (rigid_inverse(clip.poses[source]) @ clip.poses[source + 1])[2, 3]
    return float(forward / (clip.times[source + 1] - clip.times[source]))


def _pose_and_intrinsics(clip: Clip, source: int, target: int, right: bool) -> tuple[FloatArray, FloatArray]:
    other = clip.stereo if right and clip.stereo is not None else clip
    return rigid_inverse(clip.poses[source]) @ other.poses[target], other.K
