"""Losses of the comparison with a reference image: the plane sweep's depth, the coarse depth and the flow beside it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.predictor.heads import MAX_DEPTH, MIN_DEPTH
from pixel4d_ros.predictor.matching import STRIDE, Projection, plane_log_depths
from pixel4d_ros.scene import Motion, moved_gaussians
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.motion_losses import moving_pixels, quarter_maps
from pixel4d_ros.training.rendering import Prediction

FARTHEST_MATCH = 96.0  # pixels beside the still scene's place, beyond which no window reaches
MOVER_FLOW = 5.0  # weight of the flow of what moves


def two_view_losses(prediction: Prediction, batch: Batch, truth: Tensor, trust: Tensor) -> dict[str, Tensor]:
    """planes, coarse and residual; truth (B, H, W) metres with trust 0 where unknown."""
    maps = prediction.maps.two_view
    assert maps is not None
    height, width = truth.shape[1] // STRIDE, truth.shape[2] // STRIDE
    size = height, width
    depth, weight, moving = (_coarse(t, size) for t in (truth, trust, moving_pixels(batch)))
    log_depth = torch.log((depth / prediction.depth_scale[:, None, None]).clamp(MIN_DEPTH, MAX_DEPTH))
    planes = quarter_maps(maps.plane_logits, prediction, size)
    coarse = quarter_maps(maps.coarse_log_depth, prediction, size)[:, 0]
    still = weight * torch.isfinite(depth) * (moving == 0) * maps.valid[:, None, None]
    return {
        "planes": _mean(_plane_entropy(planes, log_depth), still),
        "coarse": _mean((coarse - log_depth).abs(), weight),
        "residual": _residual_loss(prediction, batch, depth, moving),
    }


def _plane_entropy(logits: Tensor, log_depth: Tensor) -> Tensor:
    """Cross entropy (B, h, w) of the two planes that depth lies between, by its nearness to each."""
    planes = plane_log_depths(logits.device)
    place = ((log_depth - planes[0]) / (planes[1] - planes[0])).clamp(0, len(planes) - 1.001)
    lower = place.floor().long()
    share = place - lower
    log_share = F.log_softmax(logits, 1)
    below, above = (torch.gather(log_share, 1, (lower + i)[:, None])[:, 0] for i in (0, 1))
    return -(below * (1 - share) + above * share)


def _residual_loss(prediction: Prediction, batch: Batch, depth: Tensor, moving: Tensor) -> Tensor:
    """Mean log distance in pixels between predicted and true flow beside that of a still scene of the coarse depth.

    Known where depth (B, h, w) is, and, of what moves, its motion.
    """
    maps, reference = prediction.maps.two_view, prediction.source.reference
    assert maps is not None and reference is not None
    height, width = depth.shape[1:]
    ids = _coarse(batch.object_ids, (height, width)).clamp(min=0)
    index = torch.arange(len(ids), device=ids.device)[:, None, None]
    motion = batch.motions[index, ids]  # (B, h, w, 4, 3)
    finite = torch.isfinite(depth)
    known = (depth > 0) & finite & ((moving == 0) | (moving > 0) & torch.isfinite(motion[..., 0, :]).all(3))
    K, seconds = batch.K[:, 0], torch.nan_to_num(batch.reference_time)[:, None, None, None]
    x = torch.arange(width, device=ids.device) * STRIDE + STRIDE // 2 - K[:, 0, 2, None]
    y = torch.arange(height, device=ids.device) * STRIDE + STRIDE // 2 - K[:, 1, 2, None]
    x, y = (x / K[:, 0, 0, None])[:, None, :], (y / K[:, 1, 1, None])[:, :, None]
    z = torch.where(known, depth, torch.ones_like(depth))
    points = torch.stack((x * z, y * z, z), -1)
    parts = Motion(*torch.nan_to_num(motion).unbind(3))
    upright = F.pad(torch.ones_like(z)[..., None], (0, 3))
    moved, _ = moved_gaussians(points, upright, torch.nan_to_num(batch.centroids[index, ids]), parts, seconds)
    moved = torch.where((moving > 0)[..., None], moved, points)
    R, t = batch.T_source_reference[:, None, None, :3, :3], batch.T_source_reference[:, None, None, :3, 3]
    seen = (R * (moved - t)[..., None]).sum(-2)  # R is T_source_reference's: its transpose is applied
    true = seen[..., :2] / seen[..., 2:].clamp(min=0.1)
    focal = batch.reference_K.diagonal(dim1=1, dim2=2)[:, None, None, :2]
    middle = reference.reference_K[:, None, None, :2, 2]  # of the input view, as the places are
    true = true * focal + middle
    h, w = maps.coarse_log_depth.shape[-2:]
    places, front = Projection.of(reference, h, w, STRIDE).places(maps.coarse_log_depth.detach().exp())
    both = torch.cat((places[:, 0].permute(0, 3, 1, 2), maps.residual_flow, front.float()), 1)
    places, flow, front_inside = quarter_maps(both, prediction, (height, width)).split((2, 2, 1), 1)
    target = true.permute(0, 3, 1, 2) - places
    weight = known * (front_inside[:, 0] > 0) * (target.norm(dim=1) < FARTHEST_MATCH) * maps.valid[:, None, None]
    weight = weight * torch.where(moving > 0, MOVER_FLOW, 1.0) * (seen[..., 2] > 0.5)
    distance = (flow - target.detach()).square().sum(1).add(1e-2).sqrt()
    return _mean(torch.log1p(distance), weight)


def _coarse(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps[:, 2::4, 2::4][:, : size[0], : size[1]]


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1)
