"""Real clips, held on the training device, and random augmented samples of them."""

from __future__ import annotations

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
from pixel4d_ros.training.batch import Batch

LONGEST_STEP = 13  # frames between a source and its targets
STEREO_FOCAL, STEREO_BASELINE = 483.35, 0.5327  # pixels at 832 wide, metres (KITTI stereo 2015)
STEREO_CENTER = (408.17, 117.84)


@dataclass(frozen=True)
class DeviceClip:
    """A clip with its images and depth on the device."""

    clip: Clip  # poses, times, K; its arrays on the host are not used
    images: Tensor  # (T, 3, H, W) uint8
    depth: Tensor | None  # (T, H, W) float16 metres
    right: Tensor | None  # (T, 3, H, W) uint8
    static: bool  # nothing moves on its own in it

    @staticmethod
    def of(clip: Clip, device: torch.device) -> DeviceClip:
        def images(c: Clip) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(c.images)).to(device).permute(0, 3, 1, 2).contiguous()

        depth = None if clip.depth is None else torch.from_numpy(clip.depth.astype(np.float16)).to(device)
        right = None if clip.stereo is None else images(clip.stereo)
        return DeviceClip(clip, images(clip), depth, right, "indoor" in clip.name)


def read_stereo_folder(folder: Path) -> list[Clip]:
    """Stereo pairs with dense disparity as clips of one frame; the layout of KITTI stereo 2015 at 832 x 256."""
    clips = []
    for path in sorted((folder / "left").glob("*")):
        left, right = (_read_rgb(folder / side / path.name) for side in ("left", "right"))
        disparity = cv2.imread(str(folder / "disparity" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        if left is None or right is None or disparity is None:
            raise ValueError(f"stereo pair {path.name} in {folder} is incomplete: left, right and disparity are needed")
        known = disparity > 0
        depth = np.where(known, STEREO_FOCAL * STEREO_BASELINE / np.maximum(disparity / 256.0, 1e-3), 0).astype(np.float32)
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
    """Draws augmented batches from clips: one crop, zoom, aspect, flip and colour change for all views of a sample."""

    def __init__(self, clips: list[DeviceClip], weights: list[float], rng: Generator) -> None:
        self.clips = clips
        self.shares = np.asarray(weights) / np.sum(weights)
        self.rng = rng

    def batch(self, count: int, views: int, size: tuple[int, int]) -> Batch:
        """count samples of `views` views (the source first) at size (width, height)."""
        picks = self.rng.choice(len(self.clips), count, p=self.shares)
        samples = [self._sample(self.clips[i], views, size) for i in picks]
        return Batch.join(samples)

    def _sample(self, data: DeviceClip, views: int, size: tuple[int, int]) -> Batch:
        clip, rng = data.clip, self.rng
        source = int(rng.integers(max(1, len(clip) - 1)))
        ahead = [i for i in range(source + 1, min(len(clip), source + LONGEST_STEP + 1))]
        chosen = [int(i) for i in rng.choice(ahead, views - 1, replace=len(ahead) < views - 1)] if ahead else []
        later = max(chosen, default=source)
        frames = [(source, False)] + [(i, False) for i in chosen]
        if clip.stereo is not None and (not chosen or rng.random() < 0.5):
            frames = frames[: views - 1] + [(source, True)]
        frames += [frames[-1]] * (views - len(frames))

        crop = _Crop.draw(clip, size, rng)
        images = torch.cat([crop.cut((data.right if right else data.images)[i : i + 1]) for i, right in frames])
        future = crop.cut(data.images[later : later + 1])
        colors = _ColorChange.draw(rng, images.device)
        T, K = zip(*(_pose_and_intrinsics(clip, source, i, right) for i, right in frames))
        device = images.device
        if data.depth is None:
            depth = torch.zeros(size[1], size[0], device=device)
        else:
            depth = crop.cut_depth(data.depth[source])
        return Batch(
            images=colors(images)[None],
            K=_tensor(np.stack([crop.intrinsics(k) for k in K]), device)[None],
            T_source_camera=_tensor(np.stack([crop.pose(t) for t in T]), device)[None],
            times=_tensor(np.array([clip.times[i] - clip.times[source] for i, _ in frames]), device)[None],
            depth=depth[None],
            object_ids=torch.full((1, size[1], size[0]), 0 if data.static else -1, device=device),
            motions=torch.zeros(1, 1, 4, 3, device=device),
            centroids=torch.zeros(1, 1, 3, device=device),
            later=colors(future),
        )


def _tensor(array: FloatArray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device, non_blocking=True)


def _pose_and_intrinsics(clip: Clip, source: int, target: int, right: bool) -> tuple[FloatArray, FloatArray]:
    other = clip.stereo if right and clip.stereo is not None else clip
    return rigid_inverse(clip.poses[source]) @ other.poses[target], other.K


@dataclass(frozen=True)
class _Crop:
    """A window of the native image (left, top, width, height), resampled to size, perhaps mirrored."""

    left: float
    top: float
    width: float
    height: float
    size: tuple[int, int]
    mirrored: bool

    @staticmethod
    def draw(clip: Clip, size: tuple[int, int], rng: Generator) -> _Crop:
        native_height, native_width = clip.images.shape[1:3]
        aspect = size[0] / size[1] * float(np.exp(rng.uniform(-0.12, 0.12)))
        widest = min(native_width, native_height * aspect)
        width = widest / rng.uniform(1.0, 1.7)
        height = width / aspect
        left, top = rng.uniform(0, native_width - width), rng.uniform(0, max(native_height - height, 1e-6))
        return _Crop(left - 0.5, top - 0.5, width, height, size, bool(rng.random() < 0.5))

    def intrinsics(self, K: FloatArray) -> FloatArray:
        sx, sy = self.size[0] / self.width, self.size[1] / self.height
        shift = np.array([[sx, 0, -self.left * sx - 0.5], [0, sy, -self.top * sy - 0.5], [0, 0, 1]])
        K = shift @ K
        if self.mirrored:
            K[0, 2] = self.size[0] - 1 - K[0, 2]
        return K

    def pose(self, T: FloatArray) -> FloatArray:
        mirror = np.diag([-1.0, 1, 1, 1])
        return mirror @ T @ mirror if self.mirrored else T

    def _grid(self, like: Tensor, factor: int) -> Tensor:
        (w, h), (native_height, native_width) = self.size, like.shape[-2:]
        x = self.left + 0.5 + (torch.arange(w * factor, device=like.device) + 0.5) * (self.width / (w * factor))
        y = self.top + 0.5 + (torch.arange(h * factor, device=like.device) + 0.5) * (self.height / (h * factor))
        if self.mirrored:
            x = x.flip(0)
        return torch.stack(torch.meshgrid(x / native_width * 2 - 1, y / native_height * 2 - 1, indexing="xy"), -1)[None]

    def cut(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, 3, h, w) float 0..1, sampled at twice the resolution against aliasing."""
        grid = self._grid(images, 2).expand(len(images), -1, -1, -1)
        fine = F.grid_sample(images.float() / 255, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return F.avg_pool2d(fine, 2)

    def cut_depth(self, depth: Tensor) -> Tensor:
        """(H, W) -> (h, w): nearest, so that unknown and known do not mix."""
        grid = self._grid(depth, 1)
        return F.grid_sample(depth[None, None].float(), grid, mode="nearest", align_corners=False)[0, 0]


@dataclass(frozen=True)
class _ColorChange:
    """Gain per channel, gamma and contrast; grey for some samples."""

    gain: Tensor
    gamma: float
    contrast: float
    grey: bool

    @staticmethod
    def draw(rng: Generator, device: torch.device) -> _ColorChange:
        gain = _tensor(np.exp(rng.uniform(-0.25, 0.25) + rng.uniform(-0.08, 0.08, (1, 3, 1, 1))), device)
        return _ColorChange(gain, float(np.exp(rng.uniform(-0.25, 0.25))), float(rng.uniform(0.8, 1.2)), rng.random() < 0.1)

    def __call__(self, images: Tensor) -> Tensor:
        changed = images.clamp(min=1e-4) ** self.gamma * self.gain
        changed = ((changed - 0.5) * self.contrast + 0.5).clamp(0, 1)
        return changed.mean(1, keepdim=True).expand(-1, 3, -1, -1) if self.grey else changed
