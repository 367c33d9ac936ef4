"""Real clips, held on the training device, and random augmented samples of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.rendering.streams import to_device
from pixel4d_ros.training.augmentation import Crop, change_colors, crop_grids
from pixel4d_ros.training.batch import Batch, moves, no_reference
from pixel4d_ros.training.flow import FLOW_STEP, clip_flow, no_flow
from pixel4d_ros.training.given_labels import given_labels
from pixel4d_ros.training.motion_labels import MotionLabels, label_motion
from pixel4d_ros.training.stereo_depth import stereo_depth

LONGEST_STEP, LONGEST_ROOM_STEP = 13, 20  # frames between a source and its targets; hand-held cameras are slower
CLIPS_AT_ONCE = 4  # measured side by side: each takes many cores for a part of its time only


@dataclass(frozen=True)
class _Bank:
    """All images of one native size, one after another, on the device."""

    images: Tensor  # (F, 3, H, W) uint8
    depth: Tensor  # (F, H, W) float16 metres, 0 where unknown, negative where matched and not measured
    flow: Tensor  # (F, 2, h, w) float16 to the frame FLOW_STEP later, shares of width and height; NaN where unknown
    object_ids: Tensor  # (F, h, w) int8: 0 still, 1..M moving patches of the frame, -1 unknown
    velocities: NDArray[np.float32]  # (F, M + 1, 3) of the patches, m/s in the frame's camera; NaN where unknown
    centroids: NDArray[np.float32]  # (F, M + 1, 3) metres


@dataclass(frozen=True)
class _Entry:
    """Where a clip's frames lie in its bank."""

    clip: Clip  # poses, times, K; its arrays on the host are not used
    bank: int
    first: int  # index of its first frame
    first_right: int  # index of the other camera's first frame
    static: bool  # nothing moves on its own in it


def is_room(clip: Clip) -> bool:
    """Whether a clip was taken indoors by hand, where nothing moves on its own; by its name."""
    return "indoor" in clip.name


class RealData:
    """Draws augmented batches from clips: one crop, zoom, aspect, flip and colour change for all views of a sample.

    A clip's share grows with the square root of its length, so that long drives do not drown short ones, times its
    weight (1 where weights are not given). With match, stereo pairs tell depth where no sensor does.
    """

    def __init__(
        self,
        clips: list[Clip],
        rng: Generator,
        device: torch.device,
        weights: Sequence[float] | None = None,
        match: bool = True,
    ) -> None:
        self.rng, self.device = rng, device
        self.banks, self.entries = _fill_banks(clips, device, match)
        shares = np.sqrt([len(clip) for clip in clips]) * (1.0 if weights is None else np.asarray(weights))
        self.shares = shares / shares.sum()

    def batch(self, count: int, views: int, size: tuple[int, int]) -> Batch:
        """count samples of `views` views (the source first) at size (width, height)."""
        picks = self.rng.choice(len(self.entries), count, p=self.shares)
        samples = [self._sample(self.entries[i], views, size) for i in picks]
        groups = [[s for s in samples if s.bank == bank] for bank in range(len(self.banks))]
        return Batch.join([self._cut(self.banks[i], group, size) for i, group in enumerate(groups) if group])

    def _sample(self, entry: _Entry, views: int, size: tuple[int, int]) -> _Sample:
        """Choose a source frame, its targets (later frames, sometimes the other camera) and the augmentation."""
        clip, rng = entry.clip, self.rng
        source = int(rng.integers(max(1, len(clip) - FLOW_STEP)))
        longest = LONGEST_ROOM_STEP if entry.static else LONGEST_STEP
        ahead = [i for i in range(source + 1, min(len(clip), source + longest + 1)) if i != source + FLOW_STEP]
        soon = [source + FLOW_STEP] if source + FLOW_STEP < len(clip) else []
        chosen = [int(i) for i in rng.choice(ahead, views - 2, replace=len(ahead) < views - 2)] if ahead else []
        frames = [(i, False) for i in (source, *soon, *chosen)]
        if clip.stereo is not None and (not chosen or rng.random() < 0.5):
            frames = [*frames[: views - 1], (source, True)]
        frames += [frames[-1]] * (views - len(frames))
        crop = Crop.draw(clip.images.shape[2], clip.images.shape[1], size, rng)
        bank, place = self.banks[entry.bank], entry.first + source
        poses, intrinsics = zip(*(_pose_and_intrinsics(clip, source, i, right) for i, right in frames))
        return _Sample(
            entry.bank,
            [i + (entry.first_right if right else entry.first) for i, right in frames],
            np.stack([crop.pose(T) for T in poses]),
            np.stack([crop.intrinsics(K) for K in intrinsics]),
            np.array([clip.times[i] - clip.times[source] for i, _ in frames]),
            crop,
            _speed(clip, source),
            crop.vectors(bank.velocities[place]),
            crop.vectors(bank.centroids[place]),
        )

    def _cut(self, bank: _Bank, samples: list[_Sample], size: tuple[int, int]) -> Batch:
        """Cut all samples of one bank at once."""
        device, (b, v) = self.device, (len(samples), len(samples[0].frames))
        frames = to_device(np.array([s.frames for s in samples]), device)
        fine = crop_grids([s.crop for s in samples], bank.images, 2).repeat_interleave(v, 0)
        sampled = F.grid_sample(
            bank.images[frames.flatten()].float() / 255,
            fine,
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )
        # Sampled at twice the resolution and averaged, against aliasing.
        images = change_colors(F.avg_pool2d(sampled, 2).view(b, v, 3, size[1], size[0]), self.rng)
        coarse = crop_grids([s.crop for s in samples], bank.images, 1)
        # Nearest, so that known and unknown depth do not mix.
        depth = F.grid_sample(bank.depth[frames[:, 0], None].float(), coarse, mode="nearest", align_corners=False)[:, 0]
        ids = F.grid_sample(bank.object_ids[frames[:, 0], None].float(), coarse, mode="nearest", align_corners=False)
        velocities = to_device(np.stack([s.velocities for s in samples], dtype=np.float32), device)
        motions = torch.full((b, velocities.shape[1], 4, 3), torch.nan, device=device)
        motions[:, :, 0] = velocities
        K = to_device(np.stack([s.K for s in samples], dtype=np.float32), device)
        return Batch(
            images=images,
            K=K,
            T_source_camera=to_device(np.stack([s.poses for s in samples], dtype=np.float32), device),
            times=to_device(np.stack([s.times for s in samples], dtype=np.float32), device),
            depth=depth.clamp(min=0),
            matched=(-depth).clamp(min=0),
            hidden_depth=torch.zeros_like(depth),
            object_ids=ids[:, 0].round().long(),
            motions=motions,
            centroids=to_device(np.stack([s.centroids for s in samples], dtype=np.float32), device),
            moving=moves(motions),
            flow=_cut_flow(bank, frames[:, 0], [s.crop for s in samples], coarse),
            speed=to_device(np.array([s.speed for s in samples], np.float32), device),
            metric=torch.ones(b, dtype=torch.bool, device=device),
            **no_reference(images, K),
        )


@dataclass(frozen=True)
class _Sample:
    """One sample before its pixels are cut."""

    bank: int
    frames: list[int]  # indices in the bank, the source first
    poses: FloatArray  # (V, 4, 4) T_source_camera
    K: FloatArray  # (V, 3, 3)
    times: FloatArray  # (V,)
    crop: Crop
    speed: float  # m/s forward; NaN where unknown
    velocities: NDArray[np.float32]  # (M + 1, 3) of the source's patches, in the crop's world
    centroids: NDArray[np.float32]  # (M + 1, 3)


def _cut_flow(bank: _Bank, frames: Tensor, crops: list[Crop], grid: Tensor) -> Tensor:
    """Flow (B, 2, H, W) of the bank's frames (B,) in pixels of the crops."""
    flow = F.grid_sample(bank.flow[frames].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    height, width = bank.images.shape[-2:]
    scales = [(width * c.size[0] / c.width * (-1 if c.mirrored else 1), height * c.size[1] / c.height) for c in crops]
    return flow * to_device(np.array(scales, np.float32), flow.device)[:, :, None, None]


def _speed(clip: Clip, source: int) -> float:
    if source + 1 >= len(clip):
        return float("nan")
    forward = (rigid_inverse(clip.poses[source]) @ clip.poses[source + 1])[2, 3]
    return float(forward / (clip.times[source + 1] - clip.times[source]))


def _fill_banks(clips: list[Clip], device: torch.device, match: bool) -> tuple[list[_Bank], list[_Entry]]:
    sizes = sorted({clip.images.shape[1:3] for clip in clips})
    parts: list[list[_Frames]] = [[] for _ in sizes]
    entries = []
    with ThreadPoolExecutor(CLIPS_AT_ONCE) as pool:
        found = pool.map(partial(_measured, match=match), clips)
        measured = tqdm(found, "flow, depth and what moves", len(clips), leave=False, unit="clip")
        for clip, frames in zip(clips, measured):
            bank = sizes.index(clip.images.shape[1:3])
            first = sum(len(before.images) for before in parts[bank])
            parts[bank] += frames
            entries.append(_Entry(clip, bank, first, first + len(clip), is_room(clip)))
    return [_bank(group, device) for group in parts], entries


@dataclass(frozen=True)
class _Frames:
    """What a bank takes from a clip, on the host."""

    images: NDArray[np.uint8]
    depth: NDArray[np.float16]
    flow: NDArray[np.float16]
    labels: MotionLabels


def _measured(clip: Clip, match: bool) -> list[_Frames]:
    """A clip with its flow, what moves in it, and depth: the sensor's, and where that has none the stereo pair's.

    Then the other camera's images, if there is one.
    """
    clip = clip.in_memory()  # each frame is read once
    known, matched = _depth(clip), stereo_depth(clip) if match else None
    if matched is not None:
        known = np.where(known > 0, known, -matched.astype(np.float16))
    measured = _Frames(np.asarray(clip.images), known, clip_flow(clip), _labels(clip))
    return [measured] if clip.stereo is None else [measured, _seen_only(clip.stereo)]


def _labels(clip: Clip) -> MotionLabels:
    if is_room(clip):
        return MotionLabels.uniform(clip, 0)
    given = given_labels(clip)
    return label_motion(clip) if given is None else given


def _seen_only(clip: Clip) -> _Frames:
    """A clip that is never a source: only its images are looked at."""
    return _Frames(np.asarray(clip.images), _depth(clip), no_flow(clip), MotionLabels.uniform(clip, -1))


def _bank(group: list[_Frames], device: torch.device) -> _Bank:
    labels = MotionLabels.join([frames.labels for frames in group])
    most = int(labels.ids.max()) + 1
    images = torch.cat([torch.from_numpy(np.ascontiguousarray(frames.images)).to(device) for frames in group])
    flow = torch.from_numpy(np.concatenate([frames.flow for frames in group]))
    return _Bank(
        images.permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(np.concatenate([frames.depth for frames in group])).to(device),
        flow.permute(0, 3, 1, 2).contiguous().to(device),
        torch.from_numpy(labels.ids).to(device),
        labels.velocities[:, : max(1, most)],
        labels.centroids[:, : max(1, most)],
    )


def _depth(clip: Clip) -> NDArray[np.float16]:
    if clip.depth is None:
        return np.zeros(clip.images.shape[:3], np.float16)
    return np.asarray(clip.depth).astype(np.float16)


def _pose_and_intrinsics(clip: Clip, source: int, target: int, right: bool) -> tuple[FloatArray, FloatArray]:
    other = clip.stereo if right and clip.stereo is not None else clip
    return rigid_inverse(clip.poses[source]) @ other.poses[target], other.K
