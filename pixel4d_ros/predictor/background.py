# SPDX-License-Identifier: Apache-2.0
"""The background: a wall and a sphere of Gaussians behind everything, so that no view has holes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.predictor.input_view import mirror, reflected
from pixel4d_ros.predictor.lifting import BACKGROUND_DEPTH, Layer, surface_gaussians

BACKGROUND_CELL = 8  # pixels of the input view per Gaussian of the background
BACKGROUND_MARGIN = 0.5  # of the input view, on each side
BACKGROUND_FADE = 4.0  # cells over which the background's colours fade to the mean of their row
SPHERE_STEP = 0.1  # radians between the Gaussians of the sphere behind the background


@dataclass(frozen=True)
class Background:
    """A coarse wall far behind everything and beside the view, and a sphere behind that."""

    means: Tensor  # (B, N, 3)
    quaternions: Tensor  # (B, N, 4)
    scales: Tensor  # (B, N, 3)
    opacities: Tensor  # (B, N)
    mirror: Tensor  # (H, W) of the wall: which cell of the view it shows
    margin: int  # cells of the wall above and below the view
    near: Tensor  # (H, W) of the wall: 1 in the view, falling to 0 away from it
    rows: Tensor  # (B, M): rows of the wall that are as high as the sphere's Gaussians

    @staticmethod
    def of(K: Tensor, width: int, height: int, depth_scale: Tensor) -> Background:
        """The background around input views of width x height pixels, cameras K (B, 3, 3)."""
        columns, rows = width // BACKGROUND_CELL, height // BACKGROUND_CELL
        margin_x, margin_y = int(columns * BACKGROUND_MARGIN), int(rows * BACKGROUND_MARGIN)
        margins = (margin_x, margin_x, margin_y, margin_y)
        near = torch.exp(-_distances(rows, columns, margins, K.device) / BACKGROUND_FADE)
        K = K.clone()
        K[:, :2] /= BACKGROUND_CELL
        K[:, 0, 2] += margin_x + 0.5 / BACKGROUND_CELL - 0.5
        K[:, 1, 2] += margin_y + 0.5 / BACKGROUND_CELL - 0.5
        inverse = (1 / (BACKGROUND_DEPTH * depth_scale))[:, None, None].expand(-1, *near.shape)
        means, quaternions, scales = surface_gaussians(inverse, K, torch.full_like(inverse, 0.8))
        directions = _sphere(K.device)
        radius = (1.5 * BACKGROUND_DEPTH * depth_scale)[:, None, None]
        # The height on the wall at which a direction's colour is looked up.
        height_of = directions[:, 1] / directions[:, ::2].norm(dim=-1).clamp(min=1e-3)
        row = (K[:, 1, 1, None] * height_of + K[:, 1, 2, None]).round().long().clamp(0, near.shape[0] - 1)
        b, n = len(K), len(directions)
        upright = F.pad(torch.ones_like(directions[:, :1]), (0, 3)).expand(b, n, 4)
        return Background(
            torch.cat((means, radius * directions), 1),
            torch.cat((quaternions, upright), 1),
            torch.cat((scales, (0.8 * SPHERE_STEP * radius).expand(b, n, 3)), 1),
            torch.full((b, means.shape[1] + n), 0.999, device=K.device),
            mirror(columns, rows, margins, K.device),
            margin_y,
            near,
            row,
        )


def background_layer(drawn: Tensor, background: Background) -> Layer:
    """The background in blurred colours of the input view, drawn (B, 3, H, W).

    Away from the view, colours fade to the mean of their row: the guess with the least error for cameras that turn.
    """
    colors = F.avg_pool2d(drawn, BACKGROUND_CELL)
    rows = F.avg_pool2d(colors.mean(3, keepdim=True), (5, 1), 1, (2, 0), count_include_pad=False)
    means_of_rows = F.pad(rows, (0, 0, background.margin, background.margin), mode="replicate")
    colors = torch.lerp(means_of_rows, reflected(colors, background.mirror), background.near)
    round_colors = torch.gather(means_of_rows[..., 0], 2, background.rows[:, None].expand(-1, 3, -1))
    return Layer(
        background.means,
        background.quaternions,
        background.scales,
        background.opacities,
        torch.cat((colors.flatten(2), round_colors), 2).transpose(1, 2),
    )


def _distances(height: int, width: int, margins: tuple[int, int, int, int], device: torch.device) -> Tensor:
    """Cells from each cell of a padded grid to the grid of height x width inside it: (H, W)."""
    left, right, top, bottom = margins
    x = torch.arange(-left, width + right, device=device)
    y = torch.arange(-top, height + bottom, device=device)
    beside = (x - x.clamp(0, width - 1)).abs()
    return torch.hypot(beside[None, :].float(), (y - y.clamp(0, height - 1)).abs()[:, None].float())


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _sphere(device: torch.device) -> Tensor:
    """Unit vectors (N, 3) all around, about SPHERE_STEP apart."""
    count = round(math.pi / SPHERE_STEP)
    rings = [(i + 0.5) / count * math.pi - math.pi / 2 for i in range(count)]
    around = [max(1, round(2 * math.pi * math.cos(e) / SPHERE_STEP)) for e in rings]
    elevation = torch.cat([torch.full((n,), e) for n, e in zip(around, rings)])
    azimuth = torch.cat([torch.arange(n) * (2 * math.pi / n) for n in around])
    level = torch.cos(elevation)
    vectors = torch.stack((level * torch.sin(azimuth), torch.sin(elevation), level * torch.cos(azimuth)), -1)
    return vectors.to(device)
