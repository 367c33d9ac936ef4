# SPDX-License-Identifier: Apache-2.0
"""Depth from matches between two posed images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.predictor.objects import pixel_grid

CONSISTENT = 1.0  # pixels between a point and where the way there and back leads
CONSISTENT_SHARE = 0.02  # of the flow's length, beside that
EPIPOLAR = 1.0  # pixels between a match and the closest point of its epipolar line
LEAST_PARALLAX = 3.0  # pixels: below, a third of a pixel of error is a tenth of the depth
TEXTURE = 0.6  # grey levels a pixel: with less, as in the sky, flow continues that of the neighbours
TEXTURE_WINDOW = 9  # pixels
AGREEMENT = 0.12  # largest difference of log depth between two estimates of one pixel


def is_there_and_back(there: Tensor, back: Tensor) -> Tensor:
    """Pixels (h, w) that flow (2, h, w) and the other image's flow lead back to; not those that leave the image."""
    h, w = there.shape[1:]
    places = pixel_grid(h, w, there.device).permute(2, 0, 1) + there
    size = there.new_tensor([w - 1, h - 1])[:, None, None]
    normalized = (places / size * 2 - 1).permute(1, 2, 0)[None]
    returned = F.grid_sample(back[None], normalized, align_corners=True)[0]
    inside = ((places >= 0) & (places <= size)).all(0)
    slack = CONSISTENT + CONSISTENT_SHARE * there.norm(dim=0)
    return inside.logical_and((there + returned).norm(dim=0) < slack)


def is_textured(image: Tensor) -> Tensor:
    """Pixels (h, w) around which an image (3, h, w; 0..255) changes along rows or columns."""
    grey = image.mean(0)[None, None]
    x, y = ((grey[..., 2:, :] - grey[..., :-2, :])[..., 1:-1], (grey[..., 2:] - grey[..., :-2])[..., 1:-1, :])
    change = F.pad((x.abs() + y.abs()) / 4, (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(change, TEXTURE_WINDOW, 1, TEXTURE_WINDOW // 2, count_include_pad=False)[0, 0] > TEXTURE


def triangulated(
    flow: Tensor, trusted: Tensor, K: FloatArray, other_K: FloatArray, T_other_camera: FloatArray
) -> tuple[Tensor, Tensor]:
    """Depth (h, w) in the unit of the poses, 0 where there is none, and parallax (h, w) in pixels.

    flow (2, h, w) leads to the other image, whose camera is at T_other_camera (4, 4). Depth z solves
    z (K' R K^-1 p) + K' t ~ match in least squares. Kept where trusted, in front of both cameras, with a match close
    to the epipolar line and enough parallax for a depth.
    """
    k, other_k, T = (torch.as_tensor(m, dtype=torch.float64) for m in (K, other_K, T_other_camera))
    ray = (other_k @ T[:3, :3] @ torch.linalg.inv(k)).to(flow)
    offset = (other_k @ T[:3, 3]).to(flow)[:, None, None]
    height, width = flow.shape[1:]
    pixels = pixel_grid(height, width, flow.device).permute(2, 0, 1)
    a = torch.einsum("ij,jhw->ihw", ray, torch.cat((pixels, torch.ones_like(pixels[:1]))))
    match = pixels + flow
    # Of each image axis: z (a_i - m_i a_z) = m_i b_z - b_i.
    slope, value = a[:2] - match * a[2:], match * offset[2:] - offset[:2]
    z = (slope * value).sum(0) / (slope * slope).sum(0).clamp(min=1e-12)
    point = z * a + offset
    seen = point[:2] / point[2:].clamp(min=1e-6)
    far = a[:2] / a[2:].clamp(min=1e-6)
    parallax = (seen - far).norm(dim=0)
    good = trusted & (z > 0) & (point[2] > 0) & (a[2] > 0) & (parallax > LEAST_PARALLAX)
    good &= (seen - match).norm(dim=0) < EPIPOLAR
    return torch.where(good, z, 0), torch.where(good, parallax, 0)


def best_of(estimates: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Depth and parallax (h, w) of the estimates with the largest parallax; 0 where another one contradicts it.

    What moves on its own contradicts itself over different times, unless it moves with the camera.
    """
    if len(estimates) == 1:
        return estimates[0]
    depth, parallax = (torch.stack(values) for values in zip(*estimates))
    largest, index = parallax.max(0)
    best = depth.gather(0, index[None])[0]
    ratio = torch.log(depth.clamp(min=1e-6) / best.clamp(min=1e-6)).abs()
    denied = ((depth > 0) & (ratio > AGREEMENT)).any(0)
    return torch.where(denied, 0, best), torch.where(denied, 0, largest)
