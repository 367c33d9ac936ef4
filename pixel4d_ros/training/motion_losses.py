"""Losses of what moves and how: a pixel's and an object's probability of moving, objects, their motion and spread."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.predictor.objects import OFFSET_SCALE, decode_motion, pixel_grid
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.rendering import Prediction, inside_view

LEAST_SPREAD = 1e-3  # m/s and the like
CENTER_SIGMA = 2.0  # quarter resolution pixels
SLOW = 2.0  # m/s: errors of motion count in relation to the speed and this
POOLED = 0.3  # weight of the probability of whole objects beside that of pixels


def moving_pixels(batch: Batch) -> Tensor:
    """(B, H, W) 1 where something moves on its own, 0 where it stands, NaN where unknown."""
    b = len(batch.images)
    states = torch.cat((batch.moving.new_full((b, 1), torch.nan), batch.moving), 1)
    states[:, 1] = 0  # the background stands
    return torch.gather(states, 1, (batch.object_ids + 1).flatten(1)).view(batch.object_ids.shape)


def mobility_loss(prediction: Prediction, batch: Batch) -> Tensor:
    """Cross entropy of the probability of moving: of pixels, and of objects, by their mean logit.

    Unweighted, so that the probability is calibrated; what is unknown does not count. Large and small objects count
    alike in the second part.
    """
    logit = inside_view(prediction.maps.static["mobility"], prediction.view)[:, 0]
    pixels = _known_entropy(logit, moving_pixels(batch))
    quarter = _quarter_size(batch)
    members = _members(batch, quarter)
    mass = members.sum((1, 2))
    coarse = _coarse(logit, quarter)
    pooled = torch.einsum("bhwm,bhw->bm", members, coarse) / mass.clamp(min=1)
    objects = torch.where(mass > 1, batch.moving[:, 1:], torch.nan)
    return pixels + POOLED * _known_entropy(pooled, objects)


def member_loss(prediction: Prediction, batch: Batch) -> Tensor:
    """Cross entropy of belonging to something that can move, where that is known."""
    logit = inside_view(prediction.maps.static["object"], prediction.view)[:, 0]
    truth = torch.where(batch.object_ids >= 0, (batch.object_ids > 0).float(), torch.nan)
    return _known_entropy(logit, truth)


def _known_entropy(logit: Tensor, truth: Tensor) -> Tensor:
    """Mean binary cross entropy where truth is not NaN."""
    known = torch.isfinite(truth)
    entropy = F.binary_cross_entropy_with_logits(logit, torch.nan_to_num(truth), reduction="none")
    return (entropy * known).sum() / known.sum().clamp(min=1)


def object_loss(prediction: Prediction, batch: Batch) -> Tensor:
    """Centre heat map, votes and motion of the objects, as far as they are known; motion of those that move."""
    quarter = _quarter_size(batch)
    center = quarter_maps(prediction.maps.objects["center"], prediction, quarter)[:, 0]
    offset = quarter_maps(prediction.maps.objects["offset"], prediction, quarter)
    motion = quarter_maps(prediction.motion.flatten(1, 2), prediction, quarter)
    members, count = _members(batch, quarter), batch.motions.shape[1]
    grid = pixel_grid(*quarter, members.device)
    mass = members.sum((1, 2))
    centers = torch.einsum("bhwm,hwc->bmc", members, grid) / mass.clamp(min=1)[..., None]
    distance = ((grid[None, :, :, None] - centers[:, None, None]) ** 2).sum(-1)
    heat = (
        (torch.exp(-distance / (2 * CENTER_SIGMA**2)) * (mass > 1)[:, None, None]).amax(-1) if count > 1 else 0 * center
    )
    known = _coarse(batch.object_ids, quarter) >= 0
    entropy = F.binary_cross_entropy_with_logits(center, heat.detach(), reduction="none") * (1 + 8 * heat.detach())
    loss = (entropy * known).sum() / known.sum().clamp(min=1) * 4
    if count == 1:
        return loss
    target = torch.einsum("bhwm,bmc->bchw", members, centers) - grid.permute(2, 0, 1)
    votes = (offset - target / OFFSET_SCALE).abs().mean(1)
    truth, told = _true_motion(batch, members)
    v, a, w, a_w = ((motion - truth).abs() * told).unflatten(1, (4, 3)).sum(2).unbind(1)
    fast = torch.linalg.vector_norm(torch.nan_to_num(batch.motions[:, 1:, 0]), dim=-1)
    # A large object counts for more than a small one, but not by its area.
    share = members / mass.clamp(min=1).sqrt()[:, None, None]
    errors = (v + w + 0.3 * (a + a_w)) * (share / (fast + SLOW)[:, None, None]).sum(-1)
    moving, measured = share.sum(-1), share.sum(-1) * told.amax(1)
    return loss + (votes * moving).sum() / moving.sum().clamp(min=1) + errors.sum() / measured.sum().clamp(min=1)


def spread_loss(prediction: Prediction, batch: Batch) -> Tensor:
    """Mean negative log likelihood of the known motion of objects in a Laplace distribution around its mode.

    Only the spread learns from it: the mode shall not trade accuracy where it is unsure.
    """
    quarter = _quarter_size(batch)
    maps = prediction.maps
    mode, spread = (
        quarter_maps(decode_motion(m[:, None], prediction.depth_scale)[:, 0].flatten(1, 2), prediction, quarter)
        for m in (maps.mode.detach(), maps.spread)
    )
    truth, told = _true_motion(batch, _members(batch, quarter))
    spread = spread + LEAST_SPREAD
    surprise = torch.log(spread) + (truth - mode).abs() / spread
    return (surprise * told).sum() / told.sum().clamp(min=1)


def _quarter_size(batch: Batch) -> tuple[int, int]:
    return batch.images.shape[-2] // 4, batch.images.shape[-1] // 4


def _coarse(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, H, W) at a quarter of the resolution (B, h, w)."""
    return maps[:, 2::4, 2::4][:, : size[0], : size[1]]


def _members(batch: Batch, size: Sequence[int]) -> Tensor:
    """Which quarter resolution pixel belongs to which object: (B, h, w, M), 0 or 1."""
    return F.one_hot(_coarse(batch.object_ids, size).clamp(min=0), batch.motions.shape[1])[..., 1:].float()


def _true_motion(batch: Batch, members: Tensor) -> tuple[Tensor, Tensor]:
    """The motion of each pixel's object (B, 12, h, w), and 1 where it is known; both zero elsewhere.

    Only objects that move count: what is predicted is the motion of an object that does.
    """
    motions = batch.motions[:, 1:].flatten(2)
    moves = batch.moving[:, 1:, None] != 0
    pair = torch.nan_to_num(motions), (torch.isfinite(motions) & moves).float()
    truth, told = (torch.einsum("bhwm,bmc->bchw", members, values) for values in pair)
    return truth, told


def quarter_maps(maps: Tensor, prediction: Prediction, size: Sequence[int]) -> Tensor:
    """The part of maps at a quarter of the resolution (..., h, w) that the camera saw."""
    view = prediction.view
    top, left = view.top // 4, view.left // 4
    return maps[..., top : top + size[0], left : left + size[1]]
