# SPDX-License-Identifier: Apache-2.0
"""Losses, each a plain function of tensors, and their weighted sum."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.predictor.heads import MAX_DEPTH, DepthModes, PixelMaps, decode_log_depth
from pixel4d_ros.predictor.input_view import InputView
from pixel4d_ros.predictor.latent import Latent
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.motion_losses import member_loss, mobility_loss, moving_pixels, object_loss, spread_loss
from pixel4d_ros.training.rendering import Prediction, RenderedPrediction, inside_view
from pixel4d_ros.training.two_view_losses import two_view_losses

DEPTH_TRUSTED_FROM = 0.15  # of the run: before, depth that is wrong would pass for motion
FREE_BITS = 0.002  # nats per latent element that cost nothing
MOVER_DEPTH = 3.0  # weight of depth where something moves: half of what the forecast of movers lacks is their depth
STEPS = (1, 2, 4, 8)  # pixels between those whose difference in depth is compared
NORMAL_STEP, SMOOTH = 2, 1.1  # pixels between the points of a normal; farthest by nearest of them, beyond is an edge
SCALE_POWER = 0.5  # of a pixel's scale of log depth, that its likelihood is weighted by
HIDDEN_BEND = 0.1  # weight of the bends of the surface behind


WEIGHTS = {
    "color": 1.0,
    "edges": 0.3,
    "normals": 0.05,
    "smooth": 0.01,
    "behind": 0.1,
    "flow": 0.03,
    "mobility": 0.2,
    "member": 0.1,
    "objects": 0.2,
    "spread": 0.04,
    "planes": 0.05,
    "coarse": 0.1,
    "residual": 0.1,
    "hidden": 0.005,
    "latent": 0.002,
}


def total_loss(
    prediction: RenderedPrediction, batch: Batch, depth_weight: float, matched_weight: float, progress: float = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum, and its unweighted parts for the progress line; progress (0 to 1) is how far the run is."""
    maps, view, scale = prediction.maps, prediction.view, prediction.depth_scale[:, None, None]
    depth = inside_view(maps.depth, view)[:, 0]  # canonical, as all that it is compared with here
    limit = MAX_DEPTH * torch.ones_like(scale)
    truth, trust = known_depth(batch, matched_weight)
    measured = batch.depth / scale
    parts = {
        "color": color_loss(prediction.views, batch.images),
        "depth": mixture_loss(modes_inside(maps, view), truth / scale, trust),
        "edges": gradient_loss(depth, measured, limit),
        "normals": normal_loss(depth * scale, batch.depth, batch.K[:, 0]),
        "smooth": smoothness_loss(1 / depth, batch.images[:, 0]),
        "behind": behind_loss(inside_view(maps.static["hidden_depth"], view)[:, 0], batch.hidden_depth / scale),
        "flow": flow_loss(prediction, batch.flow, moving_pixels(batch), guess=progress >= DEPTH_TRUSTED_FROM),
        **_motion_parts(prediction, batch),
        **two_view_losses(prediction, batch, truth, trust),
        "hidden": torch.sigmoid(maps.static["hidden_opacity"]).mean(),
        "latent": latent_loss(prediction.posterior),
    }
    return _weighted(parts, {**WEIGHTS, "depth": depth_weight})


def motion_loss(prediction: Prediction, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """As total_loss, of what moves and how alone: all that the dynamic branch learns from labels."""
    truth, trust = known_depth(batch, 0.0)
    residual = {"residual": two_view_losses(prediction, batch, truth, trust)["residual"]}
    return _weighted({**_motion_parts(prediction, batch), **residual}, WEIGHTS)


def _motion_parts(prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
    return {
        "mobility": mobility_loss(prediction, batch),
        "member": member_loss(prediction, batch),
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


def known_depth(batch: Batch, matched_weight: float) -> tuple[Tensor, Tensor]:
    """What is known of the depth (B, H, W), and how far to trust it: what was measured on movers most."""
    measured = batch.depth > 0
    trust = torch.where(batch.object_ids > 0, MOVER_DEPTH, 1.0)
    trust = torch.where(measured, trust, matched_weight * (batch.matched > 0))
    return torch.where(measured, batch.depth, batch.matched), trust


def modes_inside(maps: PixelMaps, view: InputView) -> DepthModes:
    """The modes of depth of the pixels that the camera saw."""
    names = ("depth", "depth_spread", "depth_choice")
    return DepthModes.of({name: inside_view(maps.static[name], view) for name in names})


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


def behind_loss(logit: Tensor, truth: Tensor) -> Tensor:
    """Mean |log error| of the surface behind where it is known (B, H, W); elsewhere it bends as little as it can."""
    log_depth, known = decode_log_depth(logit), truth > 0
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


def flow_loss(prediction: RenderedPrediction, measured: Tensor, moving: Tensor, guess: bool = False) -> Tensor:
    """Mean log distance in pixels between predicted and measured flow (B, 2, H, W), where there is any.

    Where something is known to move, as moving_pixels (B, H, W) has it, it tells the motion, elsewhere the depth, and
    both from further away than colours do. With guess, where that is unknown, motion explains what it explains better
    than depth. The logarithm, because large errors are often the measurement's.
    """
    known = torch.isfinite(measured).all(1)
    measured = torch.nan_to_num(measured)
    moved, static = (
        (flow - measured).square().sum(1).add(1e-2).sqrt() for flow in (prediction.flow, prediction.static_flow)
    )
    moves = (moving > 0) | (torch.isnan(moving) & (moved < static) & guess)
    return (torch.log1p(torch.where(moves, moved, static)) * known).sum() / known.sum().clamp(min=1)


def latent_loss(posterior: Latent | None) -> Tensor:
    """KL divergence to the unit Gaussian per latent element, above the free bits."""
    assert posterior is not None
    mean, log_variance = posterior.mean.float(), posterior.log_variance.float()
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
    return divergence.mean((0, 2, 3)).clamp(min=FREE_BITS).sum()
