# SPDX-License-Identifier: Apache-2.0
"""Augmentation: random crops (zoom, aspect, mirror) with their cameras, and colour changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.rendering.streams import to_device

LARGEST_ZOOM = 1.7


@dataclass(frozen=True)
class Crop:
    """A window of an image, resampled to size (width, height), perhaps mirrored.

    Edges in pixels from the image's corner.
    """

    left: float
    top: float
    width: float
    height: float
    size: tuple[int, int]
    mirrored: bool

    @staticmethod
    def draw(native_width: int, native_height: int, size: tuple[int, int], rng: Generator) -> Crop:
        """A random window of an image of native_width x native_height pixels."""
        aspect = size[0] / size[1] * float(np.exp(rng.uniform(-0.12, 0.12)))
        width = min(native_width, native_height * aspect) / rng.uniform(1.0, LARGEST_ZOOM)
        height = width / aspect
        left, top = rng.uniform(0, 1) * (native_width - width), rng.uniform(0, 1) * (native_height - height)
        return Crop(left, top, width, height, size, bool(rng.random() < 0.5))

    def intrinsics(self, K: FloatArray) -> FloatArray:
        """K (3, 3) of the window, from the image's; pixel centres at integers."""
        sx, sy = self.size[0] / self.width, self.size[1] / self.height
        shift = np.array([[sx, 0, (0.5 - self.left) * sx - 0.5], [0, sy, (0.5 - self.top) * sy - 0.5], [0, 0, 1]])
        K = shift @ K
        if self.mirrored:
            K[0, 2] = self.size[0] - 1 - K[0, 2]
        return K

    def pose(self, T: FloatArray) -> FloatArray:
        """A relative pose (4, 4) as the mirrored world has it."""
        mirror = np.diag([-1.0, 1, 1, 1])
        return mirror @ T @ mirror if self.mirrored else T

    def vectors(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points or velocities (..., 3) in the camera's frame as the mirrored world has them."""
        return vectors * np.array([-1, 1, 1], np.float32) if self.mirrored else vectors


def crop_grids(crops: list[Crop], images: Tensor, factor: int) -> Tensor:
    """Sampling grids (B, h * factor, w * factor, 2) of crops of one size, for images (..., H, W) of one native size."""
    (w, h), (native_height, native_width) = crops[0].size, images.shape[-2:]
    windows = [(c.left + c.mirrored * c.width, c.top, c.width * (1 - 2 * c.mirrored), c.height) for c in crops]
    left, top, width, height = to_device(np.array(windows, np.float32), images.device).T[..., None]
    x = left + (torch.arange(w * factor, device=images.device) + 0.5) * width / (w * factor)
    y = top + (torch.arange(h * factor, device=images.device) + 0.5) * height / (h * factor)
    x = (x / native_width * 2 - 1)[:, None, :].expand(-1, h * factor, -1)
    y = (y / native_height * 2 - 1)[:, :, None].expand(-1, -1, w * factor)
    return torch.stack((x, y), -1)


def change_colors(images: Tensor, rng: Generator) -> Tensor:
    """Images (B, V, 3, H, W) with a random gain per channel, gamma and contrast per sample; some turn grey."""
    b = len(images)

    def drawn(low: float, high: float, channels: int = 1) -> Tensor:
        values = torch.from_numpy(rng.uniform(low, high, (b, 1, channels, 1, 1)).astype(np.float32))
        return values.to(images.device, non_blocking=True)

    gain = torch.exp(drawn(-0.25, 0.25) + drawn(-0.08, 0.08, 3))
    changed = images.clamp(min=1e-4) ** torch.exp(drawn(-0.25, 0.25)) * gain
    changed = ((changed - 0.5) * drawn(0.8, 1.2) + 0.5).clamp(0, 1)
    return torch.where(drawn(0, 1) < 0.1, changed.mean(2, keepdim=True), changed)


def sparse_depth(depth: Tensor) -> Tensor:
    """Depth (B, H, W) in metres as a sensor might give it: for half of the samples none; else some points, with noise.

    Some sensors see a dense map, some only what is near, some nothing above a line. 0 where unknown.
    """
    shape, device = (len(depth), 1, 1), depth.device

    def drawn(low: float, high: float) -> Tensor:
        return torch.empty(shape, device=device).uniform_(low, high)

    share = 10 ** drawn(-2.5, 0.3)  # above 1: all points
    rows = torch.arange(depth.shape[1], device=device)[None, :, None] / depth.shape[1]
    kept = torch.rand(depth.shape, device=device) < share
    kept &= rows > drawn(-0.5, 0.5)
    kept &= depth < 10 ** drawn(0.7, 2.3)
    kept &= drawn(0, 1) < 0.5
    noisy = depth * (1 + 0.03 * drawn(0, 1) * torch.randn(depth.shape, device=device))
    return torch.where(kept & torch.isfinite(depth), noisy, torch.zeros_like(depth))
