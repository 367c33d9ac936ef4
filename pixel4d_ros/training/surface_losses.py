# SPDX-License-Identifier: Apache-2.0
"""Losses of the visible and the hidden surface: depth as a distribution, edges, normals, smoothness."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.predictor.heads import MAX_DEPTH, DepthModes
from pixel4d_ros.predictor.input_view import InputView
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.rendering import RenderedPrediction, inside_view

MOVER_DEPTH = 3.0  # weight of depth where something moves: half of what the forecast of movers lacks is their depth
STEPS = (1, 2, 4, 8)  # pixels between those whose difference in depth is compared
NORMAL_STEP, SMOOTH = 2, 1.1  # pixels between the points of a normal; farthest by nearest of them, beyond is an edge
SCALE_POWER = 0.5  # of a pixel's scale of log depth, that its likelihood is weighted by
HIDDEN_BEND = 0.1  # weight of the bends of the surface behind


def surface_losses(
    prediction: RenderedPrediction, batch: Batch, coarse: Batch, matched_weight: float
) -> dict[str, Tensor]:
    """The unweighted losses of the surface maps; coarse is the batch at the resolution of the hidden layer."""
    surface, view, scale = prediction.maps.surface, prediction.fine, prediction.depth_scale[:, None, None]
    depth = inside_view(surface.depth, view)[:, 0]  # canonical, as all that it is compared with here
    limit = MAX_DEPTH * torch.ones_like(scale)
    truth, trust = known_depth(batch, matched_weight)
    measured = batch.depth / scale
    hidden = inside_view(surface.hidden_depth, prediction.view)[:, 0]
    return {
        "depth": mixture_loss(modes_inside(surface.modes, view), truth / scale, trust),
        "edges": gradient_loss(depth, measured, limit),
        "normals": normal_loss(depth * scale, batch.depth, batch.K[:, 0]),
        "smooth": smoothness_loss(1 / depth, batch.images[:, 0]),
        "behind": behind_loss(torch.log(hidden), coarse.hidden_depth / scale),
        "hidden": torch.sigmoid(surface.hidden_opacity).mean(),
    }


def known_depth(batch: Batch, matched_weight: float) -> tuple[Tensor, Tensor]:
    """What is known of the depth (B, H, W), and how far to trust it: what was measured on movers most."""
    measured = batch.depth > 0
    trust = torch.where(batch.object_ids > 0, MOVER_DEPTH, 1.0)
    trust = torch.where(measured, trust, matched_weight * (batch.matched > 0))
    return torch.where(measured, batch.depth, batch.matched), trust


def modes_inside(modes: DepthModes, view: InputView) -> DepthModes:
    """The modes of depth of the pixels that the camera saw."""
    return DepthModes(*(inside_view(part, view) for part in (modes.log_depth, modes.scale, modes.log_weight)))


def depth_loss(depth: Tensor, truth: Tensor, trust: Tensor, limit: Tensor) -> Tensor:
    """Mean |log depth error|, weighted by trust (B, H, W), 0 where depth is unknown; sky (inf) is the farthest."""
    error = torch.log(depth) - torch.log(torch.minimum(truth, limit).clamp(min=1e-3))
    return (error.abs() * trust).sum() / trust.sum().clamp(min=1)


def mixture_loss(modes: DepthModes, truth: Tensor, trust: Tensor) -> Tensor:
    """Mean negative log likelihood of known depth (B, H, W), canonical metres; sky is the farthest.

    (SMD-Nets, Tosi et al. 2021.) Each pixel is weighted by trust and by a power of its predicted scale. The gradient of
    a Laplace likelihood is the inverse of the scale, so that near roads alone would teach four times as much as trees
    and far houses (beta-NLL, Seitzer et al. 2022).
    """
    log_truth = torch.log(truth.clamp(min=1e-3, max=MAX_DEPTH))
    weight = trust * modes.most_likely()[1][:, 0].detach() ** SCALE_POWER
    return -(modes.log_density(log_truth) * weight).sum() / weight.sum().clamp(min=1e-6)


def gradient_loss(depth: Tensor, truth: Tensor, limit: Tensor) -> Tensor:
    """Mean |difference of log depth steps| between pixels STEPS apart that are both known: edges of any height count.

    (Gradient matching at several scales, as MiDaS has it, Ranftl et al. 2020.)
    """
    known = truth > 0
    log_depth, log_truth = torch.log(depth), torch.log(torch.minimum(truth, limit).clamp(min=1e-3))
    total = depth.new_zeros(())
    for step in STEPS:
        for dim in (1, 2):
            size = truth.shape[dim] - step
            if size < 1:
                continue
            both = known.narrow(dim, step, size) & known.narrow(dim, 0, size)
            steps = [t.narrow(dim, step, size) - t.narrow(dim, 0, size) for t in (log_depth, log_truth)]
            total = total + ((steps[0] - steps[1]).abs() * both).sum() / both.sum().clamp(min=1)
    return total / len(STEPS)


def normal_loss(depth: Tensor, truth: Tensor, K: Tensor) -> Tensor:
    """Mean 1 - cosine between the normals of predicted and known surfaces, (B, H, W) metres, away from edges."""
    (own, _), (true, smooth) = (_normals(d, K) for d in (depth, torch.nan_to_num(truth, posinf=0.0)))
    return ((1 - (own * true).sum(1)) * smooth).sum() / smooth.sum().clamp(min=1)


def _normals(depth: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Unit normals (B, 3, H - s, W - s) from points NORMAL_STEP = s apart, and where all are of one surface."""
    s, (_, height, width) = NORMAL_STEP, depth.shape
    x = (torch.arange(width, device=K.device) - K[:, 0, 2, None]) / K[:, 0, 0, None]
    y = (torch.arange(height, device=K.device) - K[:, 1, 2, None]) / K[:, 1, 1, None]
    points = torch.stack((x[:, None, :] * depth, y[:, :, None] * depth, depth), 1)
    corner, across, down = points[..., :-s, :-s], points[..., :-s, s:], points[..., s:, :-s]
    normals = torch.linalg.cross(across - corner, down - corner, dim=1)
    nearest = torch.minimum(torch.minimum(corner[:, 2], across[:, 2]), down[:, 2])
    farthest = torch.maximum(torch.maximum(corner[:, 2], across[:, 2]), down[:, 2])
    return F.normalize(normals, dim=1, eps=1e-8), (nearest > 0) & (farthest < SMOOTH * nearest)


def behind_loss(log_depth: Tensor, truth: Tensor) -> Tensor:
    """Mean |log error| of the surface behind where it is known (B, H, W); elsewhere it bends as little as it can."""
    known = truth > 0
    error = (log_depth - torch.log(truth.clamp(min=1e-3, max=MAX_DEPTH))).abs()
    inverse, bend = torch.exp(-log_depth), log_depth.new_zeros(())
    inverse = inverse / inverse.mean((1, 2), keepdim=True)
    for dim in (1, 2):
        bend = bend + inverse.diff(n=2, dim=dim).abs().mean()
    return (error * known).sum() / known.sum().clamp(min=1) + HIDDEN_BEND * bend


def smoothness_loss(inverse: Tensor, image: Tensor) -> Tensor:
    """Edge-aware second-order smoothness of inverse depth, which leaves planes alone."""
    inverse = inverse / inverse.mean((1, 2), keepdim=True)
    total = inverse.new_zeros(())
    for dim in (1, 2):
        bend = inverse.diff(n=2, dim=dim).abs()
        edge = image.diff(dim=dim + 1).abs().mean(1)
        edge = torch.maximum(edge.narrow(dim, 0, bend.shape[dim]), edge.narrow(dim, 1, bend.shape[dim]))
        total = total + (bend * torch.exp(-10 * edge)).mean()
    return total
