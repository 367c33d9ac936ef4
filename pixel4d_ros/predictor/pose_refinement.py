# SPDX-License-Identifier: Apache-2.0
"""The attitude of a reference image, refined on the images themselves.

Odometry is some hundredths of a degree off from image to image. That moves the image by as much as the parallax of what
is farther than some ten metres, so a plane sweep would see wrong depths. Turns are found by direct alignment
(Lucas and Kanade 1981) of both images, reduced to the plane sweep's resolution, given the predicted depth.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.predictor.heads import ReferenceInput
from pixel4d_ros.predictor.reference_projection import IN_FRONT, STRIDE, projected, reference_points, sample_places

ROUNDS = 5  # of Gauss and Newton
NOISE = 0.03  # of grey values in 0..1; differences several times as large are outliers
TURN = 0.0015  # radians, standard deviation of the pose's errors
EVIDENCE = 200.0  # number of independent pixels that an image counts as
DEPTH_ERROR = 1.15  # factor by which depth may be wrong: pixels that this would move tell less
MOVED = 0.3  # pixels by which it moves a pixel that counts half: the far field tells turns, whatever its depth
SURROUNDINGS = 9  # cells over which the local mean of the grey values is taken away: exposures differ


@torch.no_grad()
def with_refined_attitude(reference: ReferenceInput, source: Tensor, base: Tensor) -> ReferenceInput:
    """The reference with T_reference_source turned so that the images agree.

    source (B, 3, H, W) image in the finer view; base (B, 1, h, w) log of canonical depth at STRIDE.
    """
    with torch.autocast(source.device.type, enabled=False):
        here, there = _contrast(source), _contrast(reference.image)
        slopes = _slopes(there)
        depth = base.float().exp()
        for _ in range(ROUNDS):
            turn = _turn(reference, here, torch.cat((there, slopes), 1), depth)
            R = small_rotation(torch.where(reference.known[:, None], turn, 0.0))
            T = (R[:, :, :, None] * reference.T_reference_source[:, None]).sum(2)
            reference = replace(reference, T_reference_source=T)
        return reference


def _turn(reference: ReferenceInput, here: Tensor, there: Tensor, depth: Tensor) -> Tensor:
    """One step: a small rotation (B, 3) of the reference camera; there (B, 3, h, w): grey values and their slopes."""
    points = reference_points(reference, torch.cat((depth, depth * DEPTH_ERROR), 1))  # (B, 3, 2, h, w)
    places, in_front = projected(reference.K, points)
    sampled, inside = sample_places(there, places[:, :1], in_front[:, :1])
    seen, slope_x, slope_y = sampled[:, :, 0].unbind(1)
    moved = (places[:, 1] - places[:, 0]).square().sum(-1)
    error = here[:, 0] - seen
    weight = inside[:, 0, 0] / (1 + (error / NOISE) ** 2) / (1 + moved / MOVED**2)
    x, y = (points[:, :2, 0] / points[:, 2:, 0].clamp(min=IN_FRONT)).unbind(1)
    by_x, by_y = slope_x * reference.K[:, 0, 0, None, None], slope_y * reference.K[:, 1, 1, None, None]
    # Of p + w x p, projected.
    J = torch.stack(
        (-x * y * by_x - (1 + y * y) * by_y, (1 + x * x) * by_x + x * y * by_y, x * by_y - y * by_x), 1
    ).flatten(2)  # (B, 3, h w)
    share = (weight / weight.sum((1, 2), keepdim=True).clamp(min=1.0)).flatten(1)[:, None] * (EVIDENCE / NOISE**2)
    normal = (J[:, :, None] * (J * share)[:, None]).sum(3) + torch.eye(3, device=J.device) / TURN**2
    return (_inverse(normal) * (J * share * error.flatten(1)[:, None]).sum(2)[:, None]).sum(2)


def _contrast(image: Tensor) -> Tensor:
    """Grey values (B, 1, H / STRIDE, W / STRIDE) less their local mean."""
    grey = F.avg_pool2d(image.float().mean(1, keepdim=True), STRIDE)
    return grey - F.avg_pool2d(grey, SURROUNDINGS, 1, SURROUNDINGS // 2, count_include_pad=False)


def _slopes(grey: Tensor) -> Tensor:
    """Change of grey values (B, 1, h, w) per pixel of the finer view, along x and y: (B, 2, h, w)."""
    wide = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    x, y = wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2], wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]
    return torch.cat((x, y), 1) / (2 * STRIDE)


def _inverse(matrix: Tensor) -> Tensor:
    """Inverse of matrices (B, 3, 3), written out: torch's own may wait for the device."""
    a, b, c = matrix.unbind(1)
    cofactors = torch.stack((torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)), 2)
    return cofactors / (a * cofactors[:, :, 0]).sum(1)[:, None, None]


def small_rotation(turn: Tensor) -> Tensor:
    """Rotation matrices (B, 3, 3) of small rotation vectors (B, 3), to second order."""
    x, y, z = turn.unbind(1)
    zero = torch.zeros_like(x)
    skew = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), 1).view(-1, 3, 3)
    return torch.eye(3, device=turn.device) + skew + 0.5 * (skew[:, :, :, None] * skew[:, None]).sum(2)
