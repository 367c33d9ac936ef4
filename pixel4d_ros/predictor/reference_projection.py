# SPDX-License-Identifier: Apache-2.0
"""Where a reference camera sees the pixels of the source image, and what is to be seen there."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.predictor.heads import ReferenceInput

STRIDE = 4  # pixels of the finer view per cell of the compared maps
IN_FRONT = 1e-2  # canonical metres: what is nearer to the reference camera, or behind it, is not seen


def reference_places(reference: ReferenceInput, depths: Tensor) -> tuple[Tensor, Tensor]:
    """Where the reference camera sees the pixels at canonical depths (B, D, h, w): pixels (B, D, h, w, 2), and if so.

    The pixels are those of the finer view, which the maps have at STRIDE.
    """
    return projected(reference.K, reference_points(reference, depths))


def projected(K: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (B, D, h, w, 2) of points (B, 3, D, h, w) of a camera's frame with K (B, 3, 3), and which are in front."""
    z = points[:, 2].clamp(min=IN_FRONT)
    x, y = (K[:, i, i, None, None, None] * points[:, i] / z + K[:, i, 2, None, None, None] for i in (0, 1))
    return torch.stack((x, y), -1), points[:, 2] > IN_FRONT


def reference_points(reference: ReferenceInput, depths: Tensor) -> Tensor:
    """The pixels at canonical depths (B, D, h, w) as points (B, 3, D, h, w) of the reference camera's frame."""
    height, width = depths.shape[-2:]
    device, K, T = depths.device, reference.source_K, reference.T_reference_source
    x = torch.arange(width, device=device) * float(STRIDE) + (STRIDE - 1) / 2 - K[:, 0, 2, None]
    y = torch.arange(height, device=device) * float(STRIDE) + (STRIDE - 1) / 2 - K[:, 1, 2, None]
    x, y = (x / K[:, 0, 0, None])[:, None, None, :], (y / K[:, 1, 1, None])[:, None, :, None]
    # Written out: autocast and TF32 would round matrix products, and pixels need more digits.
    right, down, ahead, shift = T[:, :, :, None, None].unbind(2)
    turned = right * x + down * y + ahead  # (B, 3, h, w)
    return turned[:, :, None] * depths[:, None] + shift[:, :, None]


def sample_places(features: Tensor, places: Tensor, front: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, C, h, w) at places (B, D, h, w, 2): (B, C, D, h, w), and whether there are any (B, 1, D, h, w)."""
    height, width = features.shape[-2:]
    # -1 and 1 at the outer edges of the outer pixels
    x, y = ((p + 0.5) * (2 / (STRIDE * n)) - 1 for p, n in zip(places.unbind(-1), (width, height)))
    grid = torch.stack((x, y), -1)
    inside = front & (grid.abs() < 1).all(-1)
    grid = torch.where(inside[..., None], grid, 4.0)
    sampled = F.grid_sample(features, grid.flatten(1, 2), align_corners=False)
    return torch.unflatten(sampled, 2, tuple(places.shape[1:3])), inside[:, None].float()
