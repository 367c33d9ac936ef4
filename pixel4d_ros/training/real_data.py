"""Real clips, held on the training device, and random augmented samples of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.rotations import FloatArray, rigid_inverse
from pixel4d_ros.training.augmentation import Crop, change_colors, crop_grids
from pixel4d_ros.training.batch import Batch

LONGEST_STEP = 13  # frames between a source and its targets
STEREO_FOCAL, STEREO_BASELINE = 483.35, 0.5327  # pixels at 832 wide, metres (KITTI stereo 2015)
STEREO_CENTER = (408.17, 117.84)


@dataclass(frozen=True)
class _Bank:
    """All images of one native size, one after another, on the device."""

    images: Tensor  # (F, 3, H, W) uint8
    depth: Tensor  # (F, H, W) float16 metres, 0 where unknown


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


def read_stereo_folder(folder: Path) -> list[Clip]:
    """Stereo pairs with dense disparity as clips of one frame; the layout of KITTI stereo 2015 at 832 x 256."""
    clips = []
    for path in sorted((folder / "left").glob("*")):
        left, right = (_read_rgb(folder / side / path.name) for side in ("left", "right"))
        disparity = cv2.imread(str(folder / "disparity" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        if left is None or right is None or disparity is None:
            raise ValueError(f"stereo pair {path.name} in {folder} is incomplete: left, right and disparity are needed")
        known = disparity > 0
        depth = np.where(known, STEREO_FOCAL * STEREO_BASELINE / np.maximum(disparity / 256.0, 1e-3), 0).astype(
            np.float32
        )
        K = np.array([[STEREO_FOCAL, 0, STEREO_CENTER[0]], [0, 492.57, STEREO_CENTER[1]], [0, 0, 1]])
        beside = np.eye(4)[None].copy()
        beside[0, 0, 3] = STEREO_BASELINE
        pair = Clip(path.stem, right[None], K, beside, np.zeros(1))
        clips.append(Clip(f"stereo_{path.stem}", left[None], K, np.eye(4)[None], np.zeros(1), depth[None], stereo=pair))
    if not clips:
        raise ValueError(f"no stereo pairs in {folder}: expected left/, right/ and disparity/")
    return clips


def _read_rgb(path: Path) -> np.ndarray | None:
    image = cv2.imread(str(path))
    return None if image is None else image[..., ::-1].copy()


class RealData:
    """Draws augmented batches from clips: one crop, zoom, aspect, flip and colour change for all views of a sample.

    A clip's share grows with the square root of its length, so that long drives do not drown short ones, times its
    weight (1 where weights are not given).
    """

    def __init__(
        self, clips: list[Clip], rng: Generator, device: torch.device, weights: Sequence[float] | None = None
    ) -> None:
        self.rng, self.device = rng, device
        self.banks, self.entries = _fill_banks(clips, device)
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
        source = int(rng.integers(max(1, len(clip) - 1)))
        ahead = range(source + 1, min(len(clip), source + LONGEST_STEP + 1))
        chosen = [int(i) for i in rng.choice(ahead, views - 1, replace=len(ahead) < views - 1)] if ahead else []
        frames = [(i, False) for i in (source, *chosen)]
        if clip.stereo is not None and (not chosen or rng.random() < 0.5):
            frames = [*frames[: views - 1], (source, True)]
        frames += [frames[-1]] * (views - len(frames))
        crop = Crop.draw(clip.images.shape[2], clip.images.shape[1], size, rng)
        poses, intrinsics = zip(*(_pose_and_intrinsics(clip, source, i, right) for i, right in frames))
        return _Sample(
            entry.bank,
            [i + (entry.first_right if right else entry.first) for i, right in frames],
            entry.first + max(chosen, default=source),
            np.stack([crop.pose(T) for T in poses]),
            np.stack([crop.intrinsics(K) for K in intrinsics]),
            np.array([clip.times[i] - clip.times[source] for i, _ in frames]),
            crop,
            entry.static,
        )

    def _cut(self, bank: _Bank, samples: list[_Sample], size: tuple[int, int]) -> Batch:
        """Cut all samples of one bank at once."""
        device, (b, v) = self.device, (len(samples), len(samples[0].frames))
        frames = torch.tensor([[*s.frames, s.later] for s in samples], device=device)
        fine = crop_grids([s.crop for s in samples], bank.images, 2).repeat_interleave(v + 1, 0)
        sampled = F.grid_sample(
            bank.images[frames.flatten()].float() / 255,
            fine,
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )
        # Sampled at twice the resolution and averaged, against aliasing.
        images = change_colors(F.avg_pool2d(sampled, 2).view(b, v + 1, 3, size[1], size[0]), self.rng)
        coarse = crop_grids([s.crop for s in samples], bank.images, 1)
        # Nearest, so that known and unknown depth do not mix.
        depth = F.grid_sample(bank.depth[frames[:, 0], None].float(), coarse, mode="nearest", align_corners=False)[:, 0]
        static = torch.tensor([s.static for s in samples], device=device)
        return Batch(
            images=images[:, :v],
            K=_tensor(np.stack([s.K for s in samples]), device),
            T_source_camera=_tensor(np.stack([s.poses for s in samples]), device),
            times=_tensor(np.stack([s.times for s in samples]), device),
            depth=depth,
            object_ids=torch.where(static, 0, -1)[:, None, None].expand(-1, size[1], size[0]),
            motions=torch.zeros(b, 1, 4, 3, device=device),
            centroids=torch.zeros(b, 1, 3, device=device),
            later=images[:, v],
        )


@dataclass(frozen=True)
class _Sample:
    """One sample before its pixels are cut."""

    bank: int
    frames: list[int]  # indices in the bank, the source first
    later: int  # index of the frame that the posterior sees
    poses: FloatArray  # (V, 4, 4) T_source_camera
    K: FloatArray  # (V, 3, 3)
    times: FloatArray  # (V,)
    crop: Crop
    static: bool


def _fill_banks(clips: list[Clip], device: torch.device) -> tuple[list[_Bank], list[_Entry]]:
    sizes = sorted({clip.images.shape[1:3] for clip in clips})
    parts: list[list[Clip]] = [[] for _ in sizes]
    entries = []
    for clip in clips:
        bank = sizes.index(clip.images.shape[1:3])
        first = sum(len(c) for c in parts[bank])
        parts[bank] += [clip] if clip.stereo is None else [clip, clip.stereo]
        entries.append(_Entry(clip, bank, first, first + len(clip), is_room(clip)))
    banks = []
    for group in parts:
        images = torch.cat([torch.from_numpy(np.ascontiguousarray(c.images)).to(device) for c in group])
        depth = [
            np.zeros(c.images.shape[:3], np.float16) if c.depth is None else c.depth.astype(np.float16) for c in group
        ]
        banks.append(_Bank(images.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(np.concatenate(depth)).to(device)))
    return banks, entries


def _tensor(array: FloatArray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device, non_blocking=True)


def _pose_and_intrinsics(clip: Clip, source: int, target: int, right: bool) -> tuple[FloatArray, FloatArray]:
    other = clip.stereo if right and clip.stereo is not None else clip
    return rigid_inverse(clip.poses[source]) @ other.poses[target], other.K
