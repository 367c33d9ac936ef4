"""From per-pixel votes to rigid objects: ids, centroids, and one motion per object.

Objects are found as in Panoptic-DeepLab (Cheng et al. 2020): peaks of a centre heat map, and each moving pixel goes
to the peak nearest to where its offset points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.scene import Motion

MAX_OBJECTS = 16
PEAK_SCORE = 0.6  # lower ones are seldom objects in real images
MOVING = 0.8  # mobility from which a pixel moves: a false motion costs more than a missed one
MAX_VOTE_DISTANCE = 12.0  # quarter resolution pixels between a vote and its object's centre
MIN_PIXELS = 12  # canvas pixels: fewer are not an object
OFFSET_SCALE = 8.0  # quarter resolution pixels per unit of the offset map
LINEAR_SCALE, ANGULAR_SCALE = 5.0, 0.5  # m/s (m/s^2) and rad/s (rad/s^2) per unit of the motion maps


def decode_motion(maps: Tensor, depth_scale: Tensor) -> Tensor:
    """Motion maps (B, S, 12, h, w) -> v, a, w, a_w (B, S, 4, 3, h, w) in m/s, m/s^2, rad/s, rad/s^2.

    A longer lens scales what the network takes for depth, so the z parts of linear motion scale with depth_scale (B,).
    """
    b, s, _, h, w = maps.shape
    motion = maps.view(b, s, 4, 3, h, w).float()
    units = torch.tensor([LINEAR_SCALE, LINEAR_SCALE, ANGULAR_SCALE, ANGULAR_SCALE], device=maps.device)
    motion = motion * units.view(1, 1, 4, 1, 1, 1)
    stretch = torch.ones(b, 1, 4, 3, 1, 1, device=maps.device)
    stretch[:, 0, :2, 2, 0, 0] = depth_scale[:, None]
    return motion * stretch


@dataclass(frozen=True)
class ObjectMap:
    """Objects of one image on the canvas."""

    ids: Tensor  # (H, W) int64: 0 static, 1..M
    count: int


def find_objects(mobility: Tensor, center: Tensor, offset: Tensor) -> ObjectMap:
    """Group moving pixels of one image.

    Mobility logits (H, W), centre logits (h, w), offsets (2, h, w) at a quarter.
    """
    height, width = mobility.shape
    moving = torch.sigmoid(mobility) > MOVING
    score = torch.sigmoid(center)
    peaks = (F.max_pool2d(score[None, None], 5, 1, 2)[0, 0] == score) & (score > PEAK_SCORE)
    scores, places = torch.where(peaks, score, torch.zeros_like(score)).flatten().topk(min(MAX_OBJECTS, score.numel()))
    places = places[scores > 0]
    if len(places) == 0:
        return ObjectMap(torch.zeros(height, width, dtype=torch.long, device=mobility.device), 0)
    centers = torch.stack((places % score.shape[1], places // score.shape[1]), -1).float()
    votes = pixel_grid(score.shape[0], score.shape[1], score.device) + offset.permute(1, 2, 0) * OFFSET_SCALE
    distance, nearest = torch.cdist(votes.reshape(-1, 2), centers).min(1)
    quarter = torch.where(distance <= MAX_VOTE_DISTANCE, nearest + 1, 0).view(1, 1, *score.shape)
    ids = F.interpolate(quarter.float(), (height, width), mode="nearest")[0, 0].long() * moving
    # Renumber without the objects too small to be one.
    count = torch.bincount(ids.flatten(), minlength=len(places) + 1)
    kept = count >= MIN_PIXELS
    kept[0] = False
    return ObjectMap((torch.cumsum(kept, 0) * kept)[ids], int(kept.sum()))


def pixel_grid(height: int, width: int, device: torch.device) -> Tensor:
    """(h, w, 2) pixel coordinates x, y."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack((x, y), -1).float()


def object_means(values: Tensor, ids: Tensor, count: int, weights: Tensor) -> Tensor:
    """Weighted mean (count + 1, C) of values (N, C) over each object id (N,).

    Zero for the background and where empty.
    """
    total = values.new_zeros(count + 1, values.shape[1]).index_add(0, ids, values * weights[:, None])
    mass = values.new_zeros(count + 1).index_add(0, ids, weights)
    means = total / mass.clamp(min=1e-6)[:, None]
    means[0] = 0
    return means


def object_motion(motion: Tensor, ids: Tensor) -> Motion:
    """Per-object motion (M + 1, 4, 3) spread over the Gaussians (N,) of each object."""
    return Motion(*motion[ids].unbind(1))
