"""From per-pixel votes to rigid objects: ids, centroids, and one motion per object.

Objects are found as in Panoptic-DeepLab (Cheng et al. 2020): peaks of a centre heat map, and each moving pixel goes
to the peak nearest to where its offset points.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.scene import Motion

MAX_OBJECTS = 16
PEAK_SCORE = 0.4  # lower ones are seldom objects in real images
MOVING = 0.6  # mobility from which a pixel moves: a false motion costs more than a missed one
MAX_VOTE_DISTANCE = 12.0  # quarter resolution pixels between a vote and its object's centre
MIN_PIXELS = 12  # canvas pixels: fewer are not an object
OFFSET_SCALE = 8.0  # quarter resolution pixels per unit of the offset map
LINEAR_SCALE, ANGULAR_SCALE = 5.0, 0.5  # m/s (m/s^2) and rad/s (rad/s^2) per unit of the motion maps


def decode_motion(maps: Tensor, depth_scale: Tensor) -> Tensor:
    """Motion maps (B, S, 12, h, w) -> v, a, w, a_w (B, S, 4, 3, h, w) in m/s, m/s^2, rad/s, rad/s^2.

    A longer lens scales what the network takes for depth, so the z parts of linear motion scale with depth_scale (B,).
    """
    b, s, _, h, w = maps.shape
    linear, angular = maps.view(b, s, 4, 3, h, w).float().split(2, 2)
    along = depth_scale[:, None, None, None, None, None]
    linear = torch.cat((linear[:, :, :, :2], linear[:, :, :, 2:] * along), 3)
    return torch.cat((linear * LINEAR_SCALE, angular * ANGULAR_SCALE), 2)


def find_objects(mobility: Tensor, center: Tensor, offset: Tensor) -> Tensor:
    """Group moving pixels of one image: ids (H, W) int64, 0 static, 1..MAX_OBJECTS.

    Mobility logits (H, W), centre logits (h, w), offsets (2, h, w) at a quarter. Objects are numbered by their score,
    and what is too small to be one has no pixels. There are always as many places for objects: nothing here waits for
    the device to count them.
    """
    height, width = mobility.shape
    moving = torch.sigmoid(mobility) > MOVING
    score = torch.sigmoid(center)
    peaks = (F.max_pool2d(score[None, None], 5, 1, 2)[0, 0] == score) & (score > PEAK_SCORE)
    scores, places = torch.where(peaks, score, torch.zeros_like(score)).flatten().topk(min(MAX_OBJECTS, score.numel()))
    centers = torch.stack((places % score.shape[1], places // score.shape[1]), -1).float()
    votes = pixel_grid(score.shape[0], score.shape[1], score.device) + offset.permute(1, 2, 0) * OFFSET_SCALE
    distances = torch.cdist(votes.reshape(-1, 2), centers).masked_fill(scores <= 0, torch.inf)
    distance, nearest = distances.min(1)
    quarter = torch.where(distance <= MAX_VOTE_DISTANCE, nearest + 1, 0).view(1, 1, *score.shape)
    ids = F.interpolate(quarter.float(), (height, width), mode="nearest")[0, 0].long() * moving
    large = members(ids).sum((0, 1)) >= MIN_PIXELS
    return ids * large[ids]


def members(ids: Tensor) -> Tensor:
    """Which object each of the ids (...) names: (..., MAX_OBJECTS + 1) of 0 and 1."""
    return (ids[..., None] == torch.arange(MAX_OBJECTS + 1, device=ids.device)).float()


def pixel_grid(height: int, width: int, device: torch.device) -> Tensor:
    """(h, w, 2) pixel coordinates x, y."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack((x, y), -1).float()


def object_means(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean (MAX_OBJECTS + 1, C) over each object of values (h, w, C), weights (h, w, MAX_OBJECTS + 1).

    Zero for the background and where empty. Row by row, since one product over all pixels would keep a GPU waiting.
    """
    counted = torch.cat((values, torch.ones_like(values[..., :1])), -1)
    sums = torch.bmm(weights.transpose(1, 2), counted).sum(0)
    means = sums[:, :-1] / sums[:, -1:].clamp(min=1e-6)
    means[0] = 0
    return means


def object_motion(motion: Tensor, membership: Tensor, count: int) -> Motion:
    """Per-object motion (MAX_OBJECTS + 1, 4, 3) spread over count Gaussians.

    membership (N, MAX_OBJECTS + 1) is that of the first N; the rest stands still.
    """
    spread = F.pad(membership @ motion.flatten(1), (0, 0, 0, count - len(membership)))
    return Motion(*spread.view(count, 4, 3).unbind(1))
