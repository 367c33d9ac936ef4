# SPDX-License-Identifier: Apache-2.0
"""Losses, each a plain function of tensors, and their weighted sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.predictor.heads import MAX_DEPTH, MIN_DEPTH, decode_depth, decode_log_depth, decode_spread
from pixel4d_ros.predictor.input_view import InputView
from pixel4d_ros.predictor.latent import Latent
from pixel4d_ros.predictor.objects import OFFSET_SCALE, decode_motion, pixel_grid
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.rendering import PredictedMaps, RenderedPrediction, inside_view, nearest_of_cells
from pixel4d_ros.training.surface_losses import SCALE_POWER, depth_loss, gradient_loss, known_depth, surface_losses

DEPTH_TRUSTED_FROM = 0.15  # of the run: before, depth that is wrong would pass for motion
LEAST_SPREAD = 1e-3  # m/s and the like
FREE_BITS = 0.002  # nats per latent element that cost nothing
STILL_PRIOR = 0.03  # weight of a pixel whose motion is unknown, counted as static
CENTER_SIGMA = 2.0  # quarter resolution pixels
SLOW = 2.0  # m/s: errors of motion count in relation to the speed and this


WEIGHTS = {
    "color": 1.0,
    "edges": 0.3,
    "normals": 0.05,
    "smooth": 0.01,
    "behind": 0.1,
    "coarse": 0.5,
    "flow": 0.03,
    "mobility": 0.2,
    "objects": 0.2,
    "spread": 0.04,
    "hidden": 0.005,
    "latent": 0.002,
    "sweep": 0.15,
}
STRUCTURE_DEPTH = 2.0  # weight of the static branch's depth where nothing is rendered
REFERENCE_SWEEP, REFERENCE_FLOW = 0.5, 0.1  # weights where nothing but the correction of depth is trained


def total_loss(
    prediction: RenderedPrediction,
    batch: Batch,
    coarse: Batch,
    depth_weight: float,
    matched_weight: float,
    progress: float = 1.0,
    only_surface: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum, and its unweighted parts for the progress line; progress (0 to 1) is how far the run is.

    only_surface leaves out what the surface branch does not change.
    """
    parts = {
        "color": color_loss(prediction.views, batch.images),
        "flow": flow_loss(prediction, batch.flow, batch.object_ids, guess=progress >= DEPTH_TRUSTED_FROM),
        **surface_losses(prediction, batch, coarse, matched_weight),
    }
    if not only_surface:
        parts["coarse"] = _coarse_depth_loss(_coarse_depth(prediction), coarse, matched_weight)
        parts |= {**_motion_parts(prediction, coarse), "latent": latent_loss(prediction.posterior)}
        if prediction.maps.correction is not None:
            parts["sweep"] = sweep_loss(prediction, batch, matched_weight)[0]
    return _weighted(parts, {**WEIGHTS, "depth": depth_weight})


def motion_loss(prediction: PredictedMaps, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """As total_loss, of what moves and how alone: all that the dynamic branch learns from labels."""
    return _weighted(_motion_parts(prediction, batch), WEIGHTS)


def structure_loss(prediction: PredictedMaps, batch: Batch, matched_weight: float) -> tuple[Tensor, dict[str, Tensor]]:
    """As total_loss, of what labels alone tell the static branch and the dynamic decoder: nothing is rendered."""
    depth, scale, limit = predicted = _coarse_depth(prediction)
    parts = {
        "coarse": _coarse_depth_loss(predicted, batch, matched_weight),
        **_motion_parts(prediction, batch),
        "edges": gradient_loss(depth, batch.depth / scale, limit),
    }
    return _weighted(parts, {**WEIGHTS, "coarse": STRUCTURE_DEPTH})


def sweep_loss(prediction: PredictedMaps, batch: Batch, matched_weight: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Negative log likelihood of known depth where a reference image corrects it, weighted as mixture_loss weights.

    The other parts are mean absolute errors of log depth, before and after the correction.
    """
    correction = prediction.maps.correction
    assert correction is not None
    size = prediction.fine.height, prediction.fine.width
    known = torch.isfinite(correction.scale)
    maps = (correction.base, correction.base + correction.shift, torch.where(known, correction.scale, 1.0))
    stacked = F.interpolate(torch.cat(maps, 1).float(), size, mode="bilinear", align_corners=False)
    before, after, scale = inside_view(stacked, prediction.fine).unbind(1)
    truth, trust = known_depth(batch, matched_weight)
    log_truth = torch.log((truth / prediction.depth_scale[:, None, None]).clamp(min=MIN_DEPTH, max=MAX_DEPTH))
    trust = trust * known[:, :, 0, 0][..., None]
    weight = trust * scale.detach() ** SCALE_POWER
    surprise = torch.log(2 * scale) + (after - log_truth).abs() / scale
    loss = (surprise * weight).sum() / weight.sum().clamp(min=1e-6)
    errors = [((maps - log_truth).abs() * trust).sum() / trust.sum().clamp(min=1) for maps in (before, after)]
    return loss, {"sweep": loss.detach(), "before": errors[0].detach(), "after": errors[1].detach()}


def _coarse_depth(prediction: PredictedMaps) -> tuple[Tensor, Tensor, Tensor]:
    """Canonical depth (B, h, w) of the static branch, metres per unit of it, and the farthest (B, 1, 1)."""
    scale = prediction.depth_scale[:, None, None]
    depth = inside_view(decode_depth(prediction.maps.static["depth"]), prediction.view)[:, 0]
    return depth, scale, MAX_DEPTH * torch.ones_like(scale)


def _coarse_depth_loss(predicted: tuple[Tensor, Tensor, Tensor], batch: Batch, matched_weight: float) -> Tensor:
    """Error of what _coarse_depth predicts where depth is known."""
    depth, scale, limit = predicted
    truth, trust = known_depth(batch, matched_weight)
    return depth_loss(depth, truth / scale, trust, limit)


def _motion_parts(prediction: PredictedMaps, batch: Batch) -> dict[str, Tensor]:
    mobility = inside_view(prediction.maps.static["mobility"], prediction.view)[:, 0]
    return {
        "mobility": mobility_loss(mobility, batch.object_ids),
        "objects": object_loss(prediction, batch),
        "spread": spread_loss(prediction, batch),
    }


def _weighted(parts: dict[str, Tensor], weights: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
    total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
    return total, dict(zip(parts, torch.stack([value.detach() for value in parts.values()])))


def color_loss(rendered: Tensor, target: Tensor) -> Tensor:
    """L1 and SSIM at full, and L1 at a quarter resolution, which finds misplaced structure from further away.

    Of the later views also log MSE, which is PSNR in other units: it prefers a blurred guess to a sharp one in the
    wrong place. (The source view, where nothing is misplaced, would rule it.)
    """
    later = torch.log10((rendered[:, 1:] - target[:, 1:]).square().mean((2, 3, 4)) + 1e-3).mean()
    rendered, target = rendered.flatten(0, 1), target.flatten(0, 1)
    coarse = F.l1_loss(F.avg_pool2d(rendered, 4), F.avg_pool2d(target, 4))
    fine = 0.6 * F.l1_loss(rendered, target) + 0.12 * (1 - similarity(rendered, target))
    return fine + 0.3 * coarse + 0.25 * (later + 3)


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM (Wang et al. 2004) of images (B, 3, H, W) in 0..1, over 7 x 7 boxes around every other pixel."""
    mean_a, mean_b, aa, bb, ab = (F.avg_pool2d(x, 7, 2) for x in (a, b, a * a, b * b, a * b))
    var_a, var_b, covariance = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (numerator / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


def flow_loss(prediction: RenderedPrediction, measured: Tensor, ids: Tensor, guess: bool = False) -> Tensor:
    """Mean log distance in pixels between predicted and measured flow (B, 2, H, W), where there is any.

    Its gradient reaches motion where ids (B, H, W) mark moving objects, elsewhere depth, over larger distances than
    that of colours. With guess, flow of unknown ids counts for motion where motion fits it better than depth. The
    logarithm, because large errors are often the measurement's.
    """
    known = torch.isfinite(measured).all(1)
    measured = torch.nan_to_num(measured)
    moved, static = (
        (flow - measured).square().sum(1).add(1e-2).sqrt() for flow in (prediction.flow, prediction.static_flow)
    )
    moves = (ids > 0) | ((ids < 0) & (moved < static) & guess)
    return (torch.log1p(torch.where(moves, moved, static)) * known).sum() / known.sum().clamp(min=1)


def mobility_loss(logit: Tensor, ids: Tensor) -> Tensor:
    """Binary cross entropy where motion is known; unknown pixels count as static with a small weight."""
    weight = torch.where(ids >= 0, 1.0, STILL_PRIOR)
    entropy = F.binary_cross_entropy_with_logits(
        logit, (ids > 0).float(), pos_weight=torch.full((), 3.0, device=logit.device), reduction="none"
    )
    return (entropy * weight).sum() / weight.sum()


def object_loss(prediction: PredictedMaps, batch: Batch) -> Tensor:
    """Centre heat map, votes and motion of the objects, as far as they are known."""
    quarter = batch.images.shape[-2] // 4, batch.images.shape[-1] // 4
    center = _quarter(prediction.maps.objects["center"], prediction.view, quarter)[:, 0]
    offset = _quarter(prediction.maps.objects["offset"], prediction.view, quarter)
    motion = _quarter(prediction.motion.flatten(1, 2), prediction.view, quarter)
    members, count = _members(batch, quarter), batch.motions.shape[1]
    loss, votes = _center_losses(center, offset, members, _coarse_ids(batch, quarter) >= 0)
    if count == 1:
        return loss
    mass = members.sum((1, 2))
    truth, motion_known = _true_motion(batch, members)
    v, a, w, a_w = torch.unflatten((motion - truth).abs() * motion_known, 1, (4, 3)).sum(2).unbind(1)
    fast = torch.nan_to_num(batch.motions[:, 1:, 0]).norm(dim=-1)
    # A large object counts for more than a small one, but not by its area.
    share = members / mass.clamp(min=1).sqrt()[:, None, None]
    errors = (v + w + 0.3 * (a + a_w)) * (share / (fast + SLOW)[:, None, None]).sum(-1)
    moving, measured = share.sum(-1), share.sum(-1) * motion_known.amax(1)
    vote_loss: Tensor = (votes * moving).sum() / moving.sum().clamp(min=1)
    velocity_loss: Tensor = errors.sum() / measured.sum().clamp(min=1)
    return loss + vote_loss + velocity_loss


def _center_losses(center: Tensor, offset: Tensor, members: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of the centres' heat map (B, h, w) where that is known, and each cell's error of its vote.

    offset (B, 2, h, w); members (B, h, w, M): which cell belongs to which object.
    """
    grid = pixel_grid(center.shape[1], center.shape[2], members.device)
    mass = members.sum((1, 2))
    centers = torch.einsum("bhwm,hwc->bmc", members, grid) / mass.clamp(min=1)[..., None]
    distance = ((grid[None, :, :, None] - centers[:, None, None]) ** 2).sum(-1)
    heat = torch.exp(-distance / (2 * CENTER_SIGMA**2)) * (mass > 1)[:, None, None]
    heat = heat.amax(-1).detach() if members.shape[-1] else torch.zeros_like(center)
    entropy = F.binary_cross_entropy_with_logits(center, heat, reduction="none") * (1 + 8 * heat)
    target = torch.einsum("bhwm,bmc->bchw", members, centers) - grid.permute(2, 0, 1)
    votes = (offset - target / OFFSET_SCALE).abs().mean(1)
    return (entropy * known).sum() / known.sum().clamp(min=1) * 4, votes


def reference_loss(
    prediction: RenderedPrediction, batch: Batch, matched_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """All that a reference image's correction of depth learns from: known depth, flow, and rendered later views.

    The last two reach where no laser does.
    """
    likelihood, parts = sweep_loss(prediction, batch, matched_weight)
    color, flow = color_loss(prediction.views, batch.images), flow_loss(prediction, batch.flow, batch.object_ids)
    parts = {**parts, "color": color.detach(), "flow": flow.detach()}
    return REFERENCE_SWEEP * likelihood + WEIGHTS["color"] * color + REFERENCE_FLOW * flow, parts


def movable_loss(prediction: PredictedMaps, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Where vehicles and people are, their centres and votes for these, at a quarter of the finer view.

    Cells count alike whether their object moves or stands; of what is not known nothing is learned.
    """
    quarter = batch.images.shape[-2] // 4, batch.images.shape[-1] // 4
    maps = {name: _quarter(values, prediction.fine, quarter) for name, values in prediction.maps.movable.items()}
    ids, members = _coarse_ids(batch, quarter), _members(batch, quarter)
    known, inside = ids >= 0, ids > 0
    logit = maps["movable"][:, 0]
    entropy = F.binary_cross_entropy_with_logits(logit, inside.float(), reduction="none")
    area = (entropy * known).sum() / known.sum().clamp(min=1)
    centers, votes = _center_losses(maps["center"][:, 0], maps["offset"], members, known)
    share = (members / members.sum((1, 2)).clamp(min=1).sqrt()[:, None, None]).sum(-1)
    truth = nearest_of_cells(batch.depth, 4)[:, : quarter[0], : quarter[1]] / prediction.depth_scale[:, None, None]
    log_truth = torch.log(truth.clamp(min=MIN_DEPTH, max=MAX_DEPTH))
    error = (decode_log_depth(maps["distance"][:, 0]) - log_truth).abs()
    scale = decode_spread(maps["distance_spread"][:, 0])
    measured = share * (truth > 0) * torch.isfinite(truth)

    def mean(values: Tensor, weight: Tensor) -> Tensor:
        return (values * weight).sum() / weight.sum().clamp(min=1e-6)

    distance = mean(torch.log(2 * scale) + error / scale, measured)
    parts = {"movable": area, "centers": centers, "votes": mean(votes, share), "distance": distance}
    loss, parts = _weighted(parts, {"movable": 1.0, "centers": 0.3, "votes": 0.1, "distance": 0.1})
    return loss, {**parts, "error": mean(error, measured).detach()}


def spread_loss(prediction: PredictedMaps, batch: Batch) -> Tensor:
    """Mean negative log likelihood of the known motion of objects in a Laplace distribution around its mode.

    Gradients reach the spread only: the mode must not give up accuracy where it is uncertain.
    """
    quarter = batch.images.shape[-2] // 4, batch.images.shape[-1] // 4
    maps = prediction.maps
    mode, spread = (
        _quarter(decode_motion(m[:, None], prediction.depth_scale)[:, 0].flatten(1, 2), prediction.view, quarter)
        for m in (maps.mode.detach(), maps.spread)
    )
    truth, motion_known = _true_motion(batch, _members(batch, quarter))
    spread = spread + LEAST_SPREAD
    surprise = torch.log(spread) + (truth - mode).abs() / spread
    return (surprise * motion_known).sum() / motion_known.sum().clamp(min=1)


def _coarse_ids(batch: Batch, size: Sequence[int]) -> Tensor:
    """Object ids (B, h, w) at a quarter of the resolution."""
    return batch.object_ids[:, 2::4, 2::4][:, : size[0], : size[1]]


def _members(batch: Batch, size: Sequence[int]) -> Tensor:
    """Which quarter resolution pixel belongs to which moving object: (B, h, w, M), 0 or 1."""
    return F.one_hot(_coarse_ids(batch, size).clamp(min=0), batch.motions.shape[1])[..., 1:].float()


def _true_motion(batch: Batch, members: Tensor) -> tuple[Tensor, Tensor]:
    """The motion of each pixel's object (B, 12, h, w), and 1 where it is known; both zero elsewhere."""
    motions = batch.motions[:, 1:].flatten(2)
    pair = torch.nan_to_num(motions), torch.isfinite(motions).float()
    truth, motion_known = (torch.einsum("bhwm,bmc->bchw", members, values) for values in pair)
    return truth, motion_known


def _quarter(maps: Tensor, view: InputView, size: Sequence[int]) -> Tensor:
    top, left = view.top // 4, view.left // 4
    return maps[..., top : top + size[0], left : left + size[1]]


def latent_loss(posterior: Latent | None) -> Tensor:
    """KL divergence to the unit Gaussian per latent element, above the free bits."""
    assert posterior is not None
    mean, log_variance = posterior.mean.float(), posterior.log_variance.float()
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
    return divergence.mean((0, 2, 3)).clamp(min=FREE_BITS).sum()
