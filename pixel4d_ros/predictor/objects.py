# SPDX-License-Identifier: Apache-2.0
"""From per-pixel votes to rigid objects: ids, centroids, and one motion per object.

Objects are found as in Panoptic-DeepLab (Cheng et al. 2020): peaks of a centre heat map, and each moving pixel goes
to the peak nearest to where its offset points. Votes are cast in cells of 4 x 4 pixels, all of which belong to one
object, so that sums over objects are sums over cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_OBJECTS = 16
CELL = 4  # pixels on each side
PEAK = math.log(0.4 / 0.6)  # logit of a centre's score, 0.4; lower ones are seldom objects in real images
MOVING = math.log(0.8 / 0.2)  # logit of mobility, 0.8, from which a pixel moves: a false motion costs more than none
CONVINCING = 0.86  # mean mobility of an object's moving pixels: of cars that wait only a few are above MOVING
MAX_VOTE_DISTANCE = 12.0  # cells between a vote and its object's centre
MIN_PIXELS = 12  # pixels of the input view: fewer are not an object
OFFSET_SCALE = 8.0  # cells per unit of the offset map
LINEAR_SCALE, ANGULAR_SCALE = 5.0, 0.5  # m/s (m/s^2) and rad/s (rad/s^2) per unit of the motion maps


@dataclass(frozen=True)
class ObjectCells:
    """What finding objects on an input view of h x w cells takes besides the network's maps; made once."""

    order: Tensor  # (h, w): 0, 1, 2, ... row by row
    places: Tensor  # (2, h, w): x, y of each cell
    numbers: Tensor  # (MAX_OBJECTS + 1,): 0, 1, 2, ...
    least: Tensor  # (MAX_OBJECTS + 1, 1): how many cells' worth of pixels make an object; of the background none do
    units: Tensor  # (4, 3), as motion_units gives them
    nowhere: Tensor  # () minus infinity

    @staticmethod
    def of(height: int, width: int, depth_scale: Tensor) -> ObjectCells:
        """The cells of an input view of height x width pixels; depth_scale (1,) metres per canonical metre."""
        device, (h, w) = depth_scale.device, (height // CELL, width // CELL)
        order, places = torch.arange(h * w, device=device).view(h, w), pixel_grid(h, w, device).permute(2, 0, 1)
        least = torch.full((MAX_OBJECTS + 1, 1), MIN_PIXELS / CELL**2, device=device)
        least[0] = torch.inf
        numbers, nowhere = torch.arange(MAX_OBJECTS + 1, device=device), torch.full((), -torch.inf, device=device)
        return ObjectCells(order, places.contiguous(), numbers, least, motion_units(depth_scale)[0], nowhere)


@dataclass(frozen=True)
class Objects:
    """The objects of one image. Always as many places for them: nothing waits for the device to count those taken."""

    ids: Tensor  # (H, W) int64 of the pixels of the input view: 0 static, 1..MAX_OBJECTS
    centroids: Tensor  # (MAX_OBJECTS + 1, 3) metres; 0 for the background and for places that are not taken
    motion: Tensor  # (MAX_OBJECTS + 1, S, 4, 3): v, a, w, a_w in m/s, m/s^2, rad/s, rad/s^2; 0 like the centroids


def motion_units(depth_scale: Tensor) -> Tensor:
    """(B, 4, 3): x, y, z of v, a, w, a_w in m/s, m/s^2, rad/s, rad/s^2 per unit of the motion maps.

    A longer lens scales what the network takes for depth, so the z parts of linear motion scale with depth_scale (B,).
    """
    one = torch.ones_like(depth_scale)
    linear, angular = torch.stack((one, one, depth_scale), -1), torch.stack((one, one, one), -1)
    return torch.stack((LINEAR_SCALE * linear,) * 2 + (ANGULAR_SCALE * angular,) * 2, 1)


def decode_motion(maps: Tensor, depth_scale: Tensor) -> Tensor:
    """Motion maps (B, S, 12, h, w) -> v, a, w, a_w (B, S, 4, 3, h, w) in m/s, m/s^2, rad/s, rad/s^2."""
    return torch.unflatten(maps.float(), 2, (4, 3)) * motion_units(depth_scale)[:, None, :, :, None, None]


def nearest_peaks(center: Tensor, offset: Tensor, cells: ObjectCells, peak: float = PEAK) -> Tensor:
    """Whose centre each cell's vote comes nearest to (h, w) int64: 1..MAX_OBJECTS by their score, 0 where none is near.

    Centre logits (h, w), of which those above peak are centres; offsets (2, h, w).
    """
    logits, places = _peaks(center, cells)
    centers = cells.places.flatten(1)[:, places]
    centers = torch.where(logits > peak, centers, cells.nowhere)
    votes = torch.add(cells.places, offset, alpha=OFFSET_SCALE)
    distances = torch.linalg.vector_norm(votes[:, None] - centers[..., None, None], dim=0)
    return F.pad(distances, (0, 0, 0, 0, 1, 0), value=MAX_VOTE_DISTANCE).argmin(0)


def _peaks(center: Tensor, cells: ObjectCells) -> tuple[Tensor, Tensor]:
    """Logits and cells of the MAX_OBJECTS highest peaks among centre logits (h, w)."""
    number = min(MAX_OBJECTS, math.ceil(center.shape[0] / 3) * math.ceil(center.shape[1] / 3))
    if torch.onnx.is_in_onnx_export():  # TensorRT's pooling gives no indices; in float32 no two scores are equal
        peaks = torch.where(F.max_pool2d(center[None], 5, 1, 2) == center, center, cells.nowhere)
        return peaks.flatten().topk(number)
    # Where cells of one score are the highest, as half precision has it at times, the first of them is the peak.
    _, highest = F.max_pool2d(center[None], 5, 1, 2, return_indices=True)
    peaks = torch.where(highest == cells.order, center, cells.nowhere)
    # No two peaks are within 3 x 3 cells, so that one number stands for those: fewer are left to sort.
    best, places = F.max_pool2d(peaks, 3, 3, ceil_mode=True, return_indices=True)
    logits, order = best.flatten().topk(number)
    return logits, places.flatten()[order]


def find_objects(
    nearest_center_ids: Tensor, mobility: Tensor, confidence: Tensor, points: Tensor, motion: Tensor, cells: ObjectCells
) -> Objects:
    """Group the moving pixels of one image; what is too small to be an object, or not CONVINCING, is background.

    nearest_center_ids (h, w) as nearest_peaks gives it; mobility (H, W) 0..1, 0 where nothing moves; confidence (H, W):
    each pixel's weight in the means, 0 where it does not move; points (3, H, W) metres, times that; motion
    (S * 12, h, w).
    """
    moving = mobility > 0
    counted = F.avg_pool2d(
        torch.cat((moving[None].to(confidence.dtype), mobility[None], confidence[None], points)), CELL
    )
    sums = object_sums(torch.cat((counted, motion * counted[2])), nearest_center_ids, cells)
    counts, mobilities, weights, totals = torch.split(sums, [1, 1, 1, len(sums[0]) - 3], 1)
    found = (counts >= cells.least) & (mobilities >= CONVINCING * counts)
    means = totals / weights.clamp(min=1e-6) * found
    numbers = (cells.numbers * found[:, 0])[nearest_center_ids]
    ids = numbers[:, None, :, None] * moving.view(len(nearest_center_ids), CELL, -1, CELL)
    return Objects(ids.view(moving.shape), means[:, :3], means[:, 3:].reshape(len(means), -1, 4, 3) * cells.units)


def object_sums(values: Tensor, ids: Tensor, cells: ObjectCells) -> Tensor:
    """Sums (MAX_OBJECTS + 1, C) over each object of values (C, h, w), ids (h, w).

    Row by row, since one product over all cells would keep a GPU waiting.
    """
    members = (ids[..., None] == cells.numbers).to(values.dtype)
    return torch.bmm(members.transpose(1, 2), values.permute(1, 2, 0)).sum(0)


def pixel_grid(height: int, width: int, device: torch.device) -> Tensor:
    """(h, w, 2) pixel coordinates x, y."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack((x, y), -1).float()
