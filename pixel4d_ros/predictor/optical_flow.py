# SPDX-License-Identifier: Apache-2.0
"""Optical flow between two images, both ways at once: a small network, coarse to fine.

At a sixteenth of the resolution every place of one image is compared with every place of the other, so that flow of any
length is found (GMFlow, Xu et al. 2022). Then flow is refined from level to level: the other image's features are
warped by it, and compared within a few pixels around (PWC-Net, Sun et al. 2018). What is between the finest level's
places is a convex combination of their flow (RAFT, Teed and Deng 2020).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.predictor.decoders import upsampled
from pixel4d_ros.predictor.objects import pixel_grid

MULTIPLE = 16  # pixels, of both sides of an image
WIDTHS = (24, 40, 64, 96)  # channels at strides 2, 4, 8, 16
DESCRIPTOR = 32  # channels by which places are compared
HIDDEN = 32  # channels that one level leaves to the next
PIECE = 16  # places of a row that are compared at once
STRIDES, ROUNDS, RADIUS = (16, 8, 4), (1, 1, 2), (4, 4, 3)  # levels; how often each refines, within so many places


class OpticalFlow(nn.Module):
    """Flow between pairs of images."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _convolutions(before, after, after, stride=2) for before, after in zip((3, *WIDTHS), WIDTHS)
        )
        self.matched = nn.Conv2d(WIDTHS[3], 2 * DESCRIPTOR, 1)
        self.sharpness = nn.Parameter(torch.tensor(2.4))  # logarithm of the length of what is matched
        self.levels = nn.ModuleList(
            _Level(channels, radius) for channels, radius in zip(WIDTHS[:0:-1], RADIUS, strict=True)
        )
        self.weights = nn.Sequential(
            nn.Conv2d(HIDDEN, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, 9 * STRIDES[-1] ** 2, 1)
        )

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Ever finer flow from first (B, 3, H, W; 0..1) to second, and from second to first: (2B, 2, ., .).

        That of each round is in pixels of its level, the last, (2B, 2, H, W), in pixels. H and W are multiples of
        MULTIPLE.
        """
        dtype = self.matched.weight.dtype
        x, features = (torch.cat((first, second)) * 2 - 1).to(dtype), []
        for block in self.down:
            x = block(x)
            features.append(x)
        matched = F.normalize(self.matched(x).float(), dim=1) * self.sharpness.float().exp()
        flow = matched_flow(*matched.chunk(2))
        hidden = torch.zeros_like(x[:, :HIDDEN])
        found = [flow]
        for level, x, rounds in zip(self.levels, features[:0:-1], ROUNDS, strict=True):
            if x.shape[-1] > flow.shape[-1]:
                flow, hidden = 2 * upsampled(flow), upsampled(hidden)
            for _ in range(rounds):
                flow, hidden = level(x, hidden, flow)
                found.append(flow)
        return [*found, convex_upsampled(flow, self.weights(hidden).float(), STRIDES[-1])]


class _Level(nn.Module):
    """Refines flow at one resolution."""

    def __init__(self, channels: int, radius: int) -> None:
        super().__init__()
        self.radius = radius
        self.describe = nn.Conv2d(channels, DESCRIPTOR, 1)
        inputs = (2 * radius + 1) ** 2 + channels + HIDDEN + 2
        self.update = nn.Sequential(_convolutions(inputs, 72, 48), _convolutions(48, 48, HIDDEN))
        self.change = nn.Conv2d(HIDDEN, 2, 3, padding=1)
        with torch.no_grad():
            self.change.weight.mul_(0.1)

    def forward(self, features: Tensor, hidden: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Features (2B, C, h, w) of both images, hidden (2B, HIDDEN, h, w) and flow (2B, 2, h, w): new flow, hidden."""
        with torch.autocast(features.device.type, enabled=False):
            here = F.normalize(self.describe(features.to(self.describe.weight.dtype)).float(), dim=1)
            alike = similarities(here, warped(swapped(here), flow), self.radius) * DESCRIPTOR**0.5
        x = torch.cat((alike.to(features.dtype), features, hidden, (flow / 16).to(features.dtype)), 1)
        hidden = self.update(x)
        return flow + self.change(hidden).float(), hidden


def _convolutions(before: int, between: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, between, 3, stride, 1), nn.SiLU(), nn.Conv2d(between, after, 3, 1, 1), nn.SiLU()
    )


def swapped(x: Tensor) -> Tensor:
    """What belongs to first and second images (2B, ...), the other way round."""
    first, second = x.chunk(2)
    return torch.cat((second, first))


def matched_flow(a: Tensor, b: Tensor) -> Tensor:
    """Flow (2B, 2, h, w) from a to b (B, C, h, w), then from b to a: where each place's best matches are on average."""
    with torch.autocast(a.device.type, enabled=False):
        channels, h, w = a.shape[1:]
        likeness = a.flatten(2).transpose(1, 2) @ b.flatten(2) / channels**0.5
        grid = pixel_grid(h, w, a.device).permute(2, 0, 1)
        likeness = torch.cat((likeness, likeness.transpose(1, 2)))
        place = likeness.softmax(2) @ grid.flatten(1).T
        return torch.unflatten(place.transpose(1, 2), 2, (h, w)) - grid


def similarities(here: Tensor, there: Tensor, radius: int) -> Tensor:
    """Scalar products (B, (2 radius + 1)^2, h, w) of features (B, C, h, w) with those around the same place there.

    Pieces of rows are multiplied as matrices, of whose products the diagonals are taken: faster than place by place.
    """
    (b, c, h, w), side, found = here.shape, 2 * radius + 1, []
    pieces = -(-w // PIECE)
    more = pieces * PIECE - w
    own = F.pad(here, (0, more)).permute(2, 0, 3, 1).reshape(h, b * pieces, PIECE, c)
    around = F.pad(there, (radius, radius + more, radius, radius)).unfold(3, PIECE + 2 * radius, PIECE)
    around = around.permute(2, 0, 3, 1, 4).reshape(h + 2 * radius, b * pieces, c, PIECE + 2 * radius)
    for y in range(side):
        products = own @ around[y : y + h]  # (h, B pieces, PIECE, PIECE + 2 radius)
        strides = products.stride()
        found.append(products.as_strided((h, b * pieces, PIECE, side), (*strides[:2], strides[2] + 1, 1)))
    rows = torch.cat(found, 3).view(h, b, pieces * PIECE, side**2)
    return rows[:, :, :w].permute(1, 3, 0, 2)


def warped(features: Tensor, flow: Tensor) -> Tensor:
    """Features (B, C, h, w) where the flow (B, 2, h, w) leads; 0 outside."""
    h, w = flow.shape[2:]
    places = pixel_grid(h, w, flow.device) + flow.permute(0, 2, 3, 1)
    x, y = places.unbind(-1)
    places = torch.stack((x * (2 / max(w - 1, 1)) - 1, y * (2 / max(h - 1, 1)) - 1), -1)
    return F.grid_sample(features.float(), places, align_corners=True).to(features.dtype)


def convex_upsampled(flow: Tensor, weights: Tensor, factor: int) -> Tensor:
    """Flow at `factor` times the resolution: convex combinations of 3 x 3 neighbours (as in RAFT).

    weights (B, 9 factor^2, h, w) are logits.
    """
    b, _, h, w = flow.shape
    share = weights.view(b, 1, 9, factor, factor, h, w).softmax(2)
    around = F.unfold(factor * flow, 3, padding=1).view(b, 2, 9, 1, 1, h, w)
    fine = (share * around).sum(2).permute(0, 1, 4, 2, 5, 3)
    return fine.reshape(b, 2, factor * h, factor * w)
