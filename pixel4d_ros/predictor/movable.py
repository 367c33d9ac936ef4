# SPDX-License-Identifier: Apache-2.0
"""Vehicles and people in one image, whether they move or not: what a reference image is asked about.

One image hardly tells whether a car stands or drives, but it tells well where cars are. Instances are found as in
Panoptic-DeepLab (Cheng et al. 2020), like the moving objects of objects.py, at a quarter of the finer view.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.predictor.decoders import conv_block, upsampled
from pixel4d_ros.predictor.encoder import FEATURE_CHANNELS
from pixel4d_ros.predictor.heads import MOVABLE_MAPS, decode_log_depth, decode_spread
from pixel4d_ros.predictor.objects import MAX_OBJECTS, ObjectCells, nearest_peaks

WIDTHS = (128, 128, 96, 64)  # at strides 32, 16, 8, 4
# Logits of scores from which a cell is part of an instance, and a peak its centre: low, since the images decide whether
# an instance moves, and what is no vehicle does not.
LIKELY, LIKELY_CENTER = math.log(0.25 / 0.75), math.log(0.2 / 0.8)
STATIC_ERROR = 0.13  # of log depth of vehicles, the static branch's (held-out stereo pairs, kitti_0052, kitti_0056)
ALIKE = 9  # cells over which the change of an object's log depth is averaged
UNNUMBERED = MAX_OBJECTS + 1  # the number of what is part of instances whose centres are not found
DROPPED = 0.1  # share of the features' channels left out in training: few vehicles are labelled


class MovableDecoder(nn.Module):
    """The surface branch's features -> MOVABLE_MAPS."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout2d(DROPPED)
        inputs = (FEATURE_CHANNELS[4] + 2, *(FEATURE_CHANNELS[i] for i in (3, 2, 1)))
        above = (0, *WIDTHS[:-1])
        self.levels = nn.ModuleList(conv_block(a + n, width) for a, n, width in zip(above, inputs, WIDTHS))
        self.head = nn.Conv2d(WIDTHS[-1], sum(MOVABLE_MAPS.values()), 3, padding=1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias = nn.Parameter(torch.tensor([-3.0, -4.0, 0.0, 0.0, 0.8, -1.0]))

    def forward(self, features: list[Tensor], rays: Tensor) -> Tensor:
        """Features at strides 2 to 32 and rays (B, 2, H, W) of the finer view -> (B, C, H / 4, W / 4)."""
        places = F.interpolate(rays, features[4].shape[-2:], mode="bilinear", align_corners=False)
        x = self.levels[0](torch.cat((self.drop(features[4]), places), 1))
        for level, i in zip(self.levels[1:], (3, 2, 1)):
            x = level(torch.cat((upsampled(x), self.drop(features[i])), 1))
        return cast(Tensor, self.head(x))


def distance_shift(maps: dict[str, Tensor], log_depth: Tensor) -> Tensor:
    """What MOVABLE_MAPS add to blend_structure's log depth (B, 1, h, w) on vehicles and people: (B, 1, H / 4, W / 4).

    Both estimates are weighted by their errors' variances. What is added changes little within an object.
    """
    probability = torch.sigmoid(maps["movable"])
    spread = decode_spread(maps["distance_spread"])
    base = F.interpolate(log_depth.float(), probability.shape[-2:], mode="bilinear", align_corners=False)
    difference = (decode_log_depth(maps["distance"]) - base) * (STATIC_ERROR**2 / (STATIC_ERROR**2 + spread**2))
    total, share = F.avg_pool2d(
        torch.cat((probability * difference, probability), 1), ALIKE, 1, ALIKE // 2, count_include_pad=False
    ).chunk(2, 1)
    return probability * total / share.clamp(min=1e-3)


def instance_numbers(maps: dict[str, Tensor], cells: ObjectCells) -> Tensor:
    """MOVABLE_MAPS of one image -> which instance each cell belongs to (h, w) int64: 1, 2, ...; 0 where there is none.

    What is hardly likely to be part of one belongs to none. What votes for no centre is UNNUMBERED: of large vehicles
    the centre is often missed.
    """
    nearest = nearest_peaks(maps["center"][0, 0], maps["offset"][0], cells, LIKELY_CENTER)
    return torch.where(nearest > 0, nearest, UNNUMBERED) * (maps["movable"][0, 0] > LIKELY)
