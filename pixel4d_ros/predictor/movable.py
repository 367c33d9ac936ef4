# SPDX-License-Identifier: Apache-2.0
"""Vehicles and people in one image, whether they move or not: what a reference image is asked about.

One image hardly tells whether a car stands or drives, but it tells well where cars are. Instances are found as in
Panoptic-DeepLab (Cheng et al. 2020), like the moving objects of objects.py, at a quarter of the finer view.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.predictor.decoders import conv_block, upsampled
from pixel4d_ros.predictor.encoder import FEATURE_CHANNELS
from pixel4d_ros.predictor.heads import MOVABLE_MAPS
from pixel4d_ros.predictor.objects import ObjectCells, nearest_peaks

WIDTHS = (128, 128, 96, 64)  # at strides 32, 16, 8, 4
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


def instance_numbers(maps: dict[str, Tensor], cells: ObjectCells) -> Tensor:
    """MOVABLE_MAPS of one image -> which instance each cell belongs to (h, w) int64: 1, 2, ...; 0 where there is none.

    What is more likely background, and what votes for no centre, belongs to none.
    """
    nearest = nearest_peaks(maps["center"][0, 0], maps["offset"][0], cells)
    return nearest * (maps["movable"][0, 0] > 0)
