"""What surrounds the rasterizer's kernels: what moves, what is blended, and pictures of what was. All float32."""

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
    from pixel4d_ros.fused import rendering_kernels as kernels

    if any(m.stride() != motion[0].stride() for m in motion):  # a prediction's are four columns of one tensor
        motion = [m.contiguous() for m in motion]
    still = (tensor.contiguous() for tensor in (means, quaternions, centroids, objects))
    count, instants = len(index), t.numel()
    moved = means.new_empty(instants, count, 3), means.new_empty(instants, count, 4)
    with torch.cuda.device_of(means):  # Triton launches on the current device, wherever its tensors are
        kernels.moved_gaussians[math.ceil(count / BLOCK), instants](
            *still, *motion, index.contiguous(), t.contiguous(), *moved, count, *motion[0].stride(), BLOCK
        )
    return moved


def blended_channels(features: Tensor, depths: Tensor, width: int, near: float) -> Tensor:
    """Features (V, N, C), then 1/z and 1/z^2 of depths z (V, N) metres, at least near, then zeros: (V, N, width).

    The features' strides are welcome to be 0; width is at least C + 2.
    """
    from pixel4d_ros.fused import rendering_kernels as kernels

    v, count, given = features.shape
    channels = depths.new_empty(v, count, width)
    per_view, per_gaussian, per_channel = features.stride()
    lanes = 1 << (width - 1).bit_length()
    with torch.cuda.device_of(depths):
        kernels.blended_channels[math.ceil(count / BLOCK), v](
            features, depths.contiguous(), channels, count, per_view, per_channel, near,
            per_gaussian, given, width, lanes, BLOCK,
        )  # fmt: skip
    return channels


def depth_from_inverses(inverse: Tensor, square: Tensor) -> Tensor:
    """What rasterizer.depth_from_inverses gives (V, H, W) metres; two channels of a (V, H, W, C) are not copied."""
    from pixel4d_ros.fused import rendering_kernels as kernels

    depth = inverse.new_empty(inverse.shape)
    inverse, square = inverse.reshape(-1), square.reshape(-1)
    count = depth.numel()
    with torch.cuda.device_of(depth):
        kernels.depth_from_inverses[(math.ceil(count / BLOCK),)](
            inverse, square, depth, count, inverse.stride(0), square.stride(0), BLOCK
        )
    return depth


def pictures(features: Tensor, seen_above: float) -> tuple[Tensor, Tensor]:
    """Frames (V, H, W, 3) uint8 of colours 0..1, and the share (V,) of pixels whose fourth channel is above a limit.

    features (V, H, W, at least 4), of which the first channels of more are not copied. The share is that of a count,
    the same in each run.
    """
    from pixel4d_ros.fused import rendering_kernels as kernels

    frames = features.new_empty(*features.shape[:3], 3, dtype=torch.uint8)
    pixels = features.flatten(1, 2)
    v, count, blocks = len(pixels), pixels.shape[1], math.ceil(pixels.shape[1] / BLOCK)
    known = features.new_empty(v, blocks, dtype=torch.int32)
    per_view, per_pixel, per_channel = pixels.stride()
    with torch.cuda.device_of(features):
        kernels.pictures[blocks, v](
            pixels, frames, known, count, per_view, per_channel, seen_above, per_pixel, BLOCK
        )  # fmt: skip
    return frames, known.sum(1) / count
