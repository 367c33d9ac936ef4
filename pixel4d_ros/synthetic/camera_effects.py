# SPDX-License-Identifier: Apache-2.0
"""Camera effects on rendered images: blur, vignetting, glare, noise, exposure, compression, drawn per sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

JPEG_BLOCK = 8  # pixels
# Luminance quantisation table of JPEG's annex K, at quality 50.
_QUANTISATION = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def apply_camera(rgb: Tensor, seeds: Sequence[int]) -> Tensor:
    """Apply to sRGB images (B, V, H, W, 3), 0..1, the effects drawn from each sample's seed; its views share them.

    The same seed gives the same effects; the noise differs from view to view.
    """
    b, device = len(rgb), rgb.device
    numbers = np.stack([_numbers(seed) for seed in seeds]).astype(np.float32)
    blur, vignette, glare, noise, quality, contrast, compressed = (
        torch.from_numpy(numbers[:, k]).to(device) for k in range(numbers.shape[1])
    )
    images = rgb.permute(0, 1, 4, 2, 3).flatten(1, 2)  # (B, 3 V, H, W)
    wide = _blurred(images, torch.full((b,), 6.0, device=device), 13)
    images = _blurred(images, blur, 5)
    images = images + glare.view(-1, 1, 1, 1) * wide.clamp(min=0.6).sub(0.6)
    images = torch.unflatten(images, 1, (-1, 3))
    images = images * _vignette(vignette, images.shape[-2:]).view(b, 1, 1, *images.shape[-2:])
    images = (images - 0.5) * contrast.view(-1, 1, 1, 1, 1) + 0.5
    images = images + _grain(images, noise, seeds)
    coded = _compressed(images, quality)
    images = torch.where(compressed.view(-1, 1, 1, 1, 1) > 0.5, coded, images)
    return images.clamp(0, 1).permute(0, 1, 3, 4, 2)


def _numbers(seed: int) -> np.ndarray:
    """Of one camera: blur sigma (pixels), vignetting, glare, noise, quantisation scale, contrast, compression."""
    rng = np.random.default_rng([seed, 8])
    return np.array(
        [
            rng.uniform(0.35, 0.75) if rng.uniform() < 0.8 else rng.uniform(0.75, 1.4),
            rng.uniform(0, 0.35) * (rng.uniform() < 0.6),
            rng.uniform(0, 0.9) * (rng.uniform() < 0.5),
            0.03 * rng.uniform() ** 2,
            np.exp(rng.uniform(np.log(0.15), np.log(1.2))),
            rng.uniform(0.85, 1.2),
            float(rng.uniform() < 0.6),
        ]
    )


def _blurred(images: Tensor, sigma: Tensor, taps: int) -> Tensor:
    """Gaussian blur of images (B, C, H, W), sigma (B,) pixels, separable over `taps` pixels."""
    b, c, height, width = images.shape
    x = torch.arange(taps, device=images.device) - taps // 2
    kernel = torch.exp(-0.5 * (x / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)
    r = taps // 2
    flat = F.pad(images, (r, r, r, r), mode="replicate").reshape(1, b * c, height + 2 * r, width + 2 * r)
    flat = F.conv2d(flat, kernel.view(-1, 1, 1, taps), groups=b * c)
    return F.conv2d(flat, kernel.view(-1, 1, taps, 1), groups=b * c).view(b, c, height, width)


def _vignette(strength: Tensor, size: torch.Size) -> Tensor:
    """Share of light (B, H, W) that reaches each pixel."""
    y, x = (torch.linspace(-1, 1, n, device=strength.device) for n in size)
    radius = (y[:, None] ** 2 + x[None] ** 2) * 0.5
    return 1 - strength.view(-1, 1, 1) * radius


def _grain(images: Tensor, noise: Tensor, seeds: Sequence[int]) -> Tensor:
    """Sensor noise for images (B, V, 3, H, W), independent per channel, stronger in the shadows."""
    generators = [torch.Generator(images.device).manual_seed(int(seed)) for seed in seeds]
    shape = images.shape[1:]
    drawn = torch.stack([torch.randn(shape, generator=g, device=images.device) for g in generators])
    return drawn * noise.view(-1, 1, 1, 1, 1) * (0.5 + 0.5 * (1 - images.clamp(0, 1)))


def _compressed(images: Tensor, scale: Tensor) -> Tensor:
    """Images (B, V, 3, H, W) whose 8 x 8 blocks of luminance are quantised as JPEG does; scale (B,) of its table."""
    b, v, _, height, width = images.shape
    pad = (0, -width % JPEG_BLOCK, 0, -height % JPEG_BLOCK)
    basis, table = _cosines(images.device)
    weights = images.new_tensor([0.299, 0.587, 0.114])
    gray = (images * weights[:, None, None]).sum(2)
    blocks = F.pad(gray, pad, mode="replicate")
    rows, columns = blocks.shape[-2] // JPEG_BLOCK, blocks.shape[-1] // JPEG_BLOCK
    blocks = blocks.view(b, v, rows, JPEG_BLOCK, columns, JPEG_BLOCK).transpose(3, 4)
    step = (table * scale.view(-1, 1, 1)).view(b, 1, 1, 1, JPEG_BLOCK, JPEG_BLOCK) / 255
    spectrum = basis @ blocks @ basis.T
    spectrum = (spectrum / step).round() * step
    blocks = (basis.T @ spectrum @ basis).transpose(3, 4)
    coded = blocks.reshape(b, v, rows * JPEG_BLOCK, columns * JPEG_BLOCK)[..., :height, :width]
    # Colours are coded at half the resolution.
    chroma = images - gray[:, :, None]
    small = F.avg_pool2d(chroma.flatten(0, 1), 2, ceil_mode=True)
    chroma = F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
    return coded[:, :, None] + torch.unflatten(chroma, 0, (b, v))


@lru_cache(maxsize=4)
def _cosines(device: torch.device) -> tuple[Tensor, Tensor]:
    """The orthonormal DCT of 8 samples (8, 8) and the quantisation table (8, 8)."""
    k, n = np.mgrid[:JPEG_BLOCK, :JPEG_BLOCK]
    basis = np.cos(math.pi * (2 * n + 1) * k / (2 * JPEG_BLOCK)) * np.where(k == 0, math.sqrt(0.125), 0.5)
    table = torch.tensor(_QUANTISATION, dtype=torch.float32, device=device)
    return torch.tensor(basis, dtype=torch.float32, device=device), table
