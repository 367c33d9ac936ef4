# SPDX-License-Identifier: Apache-2.0
"""Triton operations around the rasterizer's kernels: motion, blended channels, depth, tiles and frames.

Real numbers are float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 256  # Gaussians or pixels per program


def moved_gaussians(
    means: Tensor, quaternions: Tensor, centroids: Tensor, objects: Tensor, motion: Sequence[Tensor],
    index: Tensor, t: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What scene.moved_gaussians gives for M of N Gaussians at U instants: means (U, M, 3), quaternions (U, M, 4).

    means (N, 3), quaternions (N, 4), centroids (K, 3) in metres, objects (N,) int64 into the K; motion: the fields of
    scene.Motion, (N, 3) each; index (M,) int64 into the N; t: U numbers, seconds.
    """
    from pixel4d_ros.rendering.triton_kernels import kernels

    if any(m.stride() != motion[0].stride() for m in motion):  # a prediction's are four columns of one tensor
        motion = [m.contiguous() for m in motion]
    still = (tensor.contiguous() for tensor in (means, quaternions, centroids, objects))
    count, instants = len(index), t.numel()
    moved = means.new_empty(instants, count, 3), means.new_empty(instants, count, 4)
    with torch.cuda.device(means.device):  # Triton launches on the current device, not on that of the tensors
        kernels.moved_gaussians[math.ceil(count / BLOCK), instants](
            *still, *motion, index.contiguous(), t.contiguous(), *moved, count, *motion[0].stride(), BLOCK
        )
    return moved


def blended_channels(features: Tensor, depths: Tensor, width: int, near: float) -> Tensor:
    """Features (V, N, C), then 1/z and 1/z^2 of depths z (V, N) metres, at least near, then zeros: (V, N, width).

    The features' strides may be 0; width is at least C + 2.
    """
    from pixel4d_ros.rendering.triton_kernels import kernels

    v, count, given = features.shape
    channels = depths.new_empty(v, count, width)
    per_view, per_gaussian, per_channel = features.stride()
    lanes = 1 << (width - 1).bit_length()
    with torch.cuda.device(depths.device):
        kernels.blended_channels[math.ceil(count / BLOCK), v](
            features, depths.contiguous(), channels, count, per_view, per_channel, near,
            per_gaussian, given, width, lanes, BLOCK,
        )  # fmt: skip
    return channels


def depth_from_inverses(inverse: Tensor, square: Tensor) -> Tensor:
    """What rasterizer.depth_from_inverses gives (V, H, W) metres; two channels of a (V, H, W, C) are not copied."""
    from pixel4d_ros.rendering.triton_kernels import kernels

    depth = inverse.new_empty(inverse.shape)
    inverse, square = inverse.reshape(-1), square.reshape(-1)
    count = depth.numel()
    with torch.cuda.device(depth.device):
        kernels.depth_from_inverses[(math.ceil(count / BLOCK),)](
            inverse, square, depth, count, inverse.stride(0), square.stride(0), BLOCK
        )
    return depth


def pictures(features: Tensor, seen_above: float) -> tuple[Tensor, Tensor]:
    """Frames (V, H, W, 3) uint8 of colours 0..1, and the share (V,) of pixels whose fourth channel is above a limit.

    features (V, H, W, at least 4), of which the first channels of more are not copied. The share is that of a count,
    the same in each run.
    """
    from pixel4d_ros.rendering.triton_kernels import kernels

    frames = features.new_empty(*features.shape[:3], 3, dtype=torch.uint8)
    pixels = features.flatten(1, 2)
    v, count, blocks = len(pixels), pixels.shape[1], math.ceil(pixels.shape[1] / BLOCK)
    known = features.new_empty(v, blocks, dtype=torch.int32)
    per_view, per_pixel, per_channel = pixels.stride()
    with torch.cuda.device(features.device):
        kernels.pictures[blocks, v](
            pixels, frames, known, count, per_view, per_channel, seen_above, per_pixel, BLOCK
        )  # fmt: skip
    return frames, known.sum(1) / count


def touched_tiles(means: Tensor, radii: Tensor, columns: int, rows: int, tile: int) -> Tensor:
    """What rendering.tiles.touched_tiles gives (V, rows, columns): means (V, N, 2), radii (V, N, 2) int32 pixels."""
    from pixel4d_ros.rendering.triton_kernels import kernels

    v, count = means.shape[:2]
    tiles = torch.zeros(v, rows, columns, dtype=torch.uint8, device=means.device)
    with torch.cuda.device(means.device):
        kernels.touched_tiles[math.ceil(count / BLOCK), v](
            means.contiguous(), radii.contiguous(), tiles, count, columns, rows, tile, BLOCK
        )
    return tiles.view(torch.bool)


def radii_within(means: Tensor, radii: Tensor, sums: Tensor, tile: int) -> Tensor:
    """What rendering.tiles.radii_within gives, from the tiles' sums (V, h, w) int32 over all to the left and above."""
    from pixel4d_ros.rendering.triton_kernels import kernels

    v, count = means.shape[:2]
    rows, columns = sums.shape[1:]
    found = radii.new_empty(radii.shape)
    with torch.cuda.device(means.device):
        kernels.radii_within[math.ceil(count / BLOCK), v](
            means.contiguous(), radii.contiguous(), sums.contiguous(), found, count, columns, rows, tile, BLOCK
        )
    return found


def changed_tiles(
    tiles: Tensor, blended: Tensor, alpha: Tensor, old_features: Tensor, old_depth: Tensor, old_alpha: Tensor, tile: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (V, H, W, C), depth and alpha (V, H, W): new ones in tiles (V, h, w) bool, the old ones elsewhere.

    blended (V, H, W, at least C + 2) holds features, then inverse depth and its square. The old features may be the
    first channels of more.
    """
    from pixel4d_ros.rendering.triton_kernels import kernels

    v, height, width, given = old_features.shape
    rows, columns = tiles.shape[1:]
    features = old_features.new_empty(old_features.shape)
    old_features = old_features.flatten(0, 2)
    per_pixel, per_channel = old_features.stride()
    depth, seen = (alpha.new_empty(alpha.shape) for _ in range(2))
    lanes = 1 << (given - 1).bit_length()
    with torch.cuda.device(blended.device):
        kernels.changed_tiles[math.ceil(height * width / BLOCK), v](
            tiles.contiguous().view(torch.uint8), blended.contiguous(), alpha.contiguous(),
            old_features, old_depth.contiguous(), old_alpha.contiguous(), features, depth, seen,
            width, height, columns, rows, per_channel, per_pixel, blended.shape[-1], given, lanes, tile, BLOCK,
        )  # fmt: skip
    return features, depth, seen


def scaled_variances(levels: Tensor) -> Tensor:
    """S^2 times the variance over S samples of bytes (S, ...): whole numbers, as float32."""
    from pixel4d_ros.rendering.triton_kernels import kernels

    levels = levels.contiguous()
    result = levels.new_empty(levels.shape[1:], dtype=torch.float32)
    size = result.numel()
    with torch.cuda.device(levels.device):
        kernels.scaled_variances[(math.ceil(size / BLOCK),)](levels, result, len(levels), size, BLOCK)
    return result
