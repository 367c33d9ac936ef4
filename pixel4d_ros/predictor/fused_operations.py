# SPDX-License-Identifier: Apache-2.0
"""What a prediction computes: Gaussians from depth, and normalised features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 256  # pixels per program
PARTS = 64  # of an image, which are summed up side by side


def surface_gaussians(inverse: Tensor, K: Tensor, pixels: Tensor, max_slant: float) -> tuple[Tensor, Tensor, Tensor]:
    """What lifting.surface_gaussians gives: inverse (B, H, W) 1/m, K (B, 3, 3), pixels (B, H, W), all float32."""
    from pixel4d_ros.predictor import fused_kernels as kernels

    b, height, width = inverse.shape
    inverse, K, pixels = inverse.contiguous(), K.contiguous(), pixels.contiguous()
    means, quaternions, scales = (inverse.new_empty(b, height * width, n) for n in (3, 4, 3))
    with torch.cuda.device(inverse.device):  # Triton launches on the current device, not on that of the tensors
        kernels.surface_gaussians[math.ceil(height * width / BLOCK), b](
            inverse, K, pixels, means, quaternions, scales, height, width, max_slant, BLOCK
        )
    return means, quaternions, scales


def group_norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """silu(group_norm(x)) of one image (1, C, H, W) with its channels last; weight and bias hold C numbers."""
    from pixel4d_ros.predictor import fused_kernels as kernels

    channels, count = x.shape[1], x.shape[2] * x.shape[3]
    each = channels // groups
    lanes = 1 << (each - 1).bit_length()
    x = x.contiguous(memory_format=torch.channels_last)
    sums = torch.empty(2, groups, PARTS, dtype=torch.float32, device=x.device)
    result = torch.empty_like(x)
    share = math.ceil(count / PARTS)
    with torch.cuda.device(x.device):
        kernels.group_sums[PARTS, groups](x, sums, count, channels, each, share, PARTS, lanes, BLOCK)
        kernels.normalise[math.ceil(count / BLOCK), groups](
            x, sums, weight, bias, result, count, channels, each, eps, PARTS, lanes, BLOCK
        )
    return result


def rows(table: Tensor, index: Tensor) -> Tensor:
    """table.index_select(0, index): (M, W) and (N,) -> (N, W); torch's takes 0.2 ms where rows are short and many."""
    from pixel4d_ros.predictor import fused_kernels as kernels

    width = table.shape[1]
    result = table.new_empty(len(index), width)
    with torch.cuda.device(table.device):
        kernels.rows[(math.ceil(result.numel() / BLOCK),)](
            table.contiguous(), index.contiguous(), result, result.numel(), width, BLOCK
        )
    return result
