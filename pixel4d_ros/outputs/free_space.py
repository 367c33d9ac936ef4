# SPDX-License-Identifier: Apache-2.0
"""Cells of the ground, and which of them rays crossed on their way to ground farther away."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.outputs.ground import Ground, to_frame
from pixel4d_ros.outputs.obstacles import MIN_OPACITY, OBSERVED, Obstacles
from pixel4d_ros.scene import DynamicGaussians

RAY_STEP = math.radians(0.25)  # width of a sector of rays
ROUND = 2 * math.pi
QUARTERS = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))  # places in a cell that are looked at
CROSSED = 2  # of these, how many rays must have crossed


@dataclass(frozen=True)
class Cells:
    """Square cells in the x-y plane of a fixed frame."""

    columns: int  # along x
    rows: int  # along y
    resolution: float  # metres
    origin: FloatArray  # (2,) metres: the corner of cell (0, 0) with the least x and y
    T_fixed_scene: FloatArray

    @property
    def count(self) -> int:
        """How many cells there are."""
        return self.rows * self.columns

    def index(self, points: Tensor) -> Tensor:
        """Cell (...) of points (..., 3) of the scene's frame, row by row; `count` outside."""
        # Float64, as odometry frames may begin far away.
        places = to_frame(points, self.T_fixed_scene)[..., :2] - torch.as_tensor(self.origin).to(points.device)
        column, row = (places / self.resolution).floor().long().unbind(-1)
        inside = (column >= 0) & (column < self.columns) & (row >= 0) & (row < self.rows)
        return torch.where(inside, row * self.columns + column, self.count)

    def places(self, within: tuple[float, float], device: torch.device) -> Tensor:
        """Places (count, 2) in the fixed frame, at the same share of each cell along x and y."""
        y, x = torch.meshgrid(torch.arange(self.rows), torch.arange(self.columns), indexing="ij")
        corners = torch.stack((x, y), -1).double().view(-1, 2).to(device)
        offset = torch.tensor(within, dtype=torch.float64, device=device)
        return (corners + offset) * self.resolution + torch.as_tensor(self.origin).to(device)


def crossed_cells(
    scene: DynamicGaussians,
    ground: Ground,
    T_base_scene: FloatArray,
    obstacles: Obstacles,
    low: float,
    cells: Cells,
) -> Tensor:
    """Which cells (count,) rays crossed that ended on the ground, before the first obstacle in their direction.

    Ground are Gaussians that the image showed, less than `low` metres above it.
    """
    T_ground_scene = ground.T_ground_base @ T_base_scene
    eye = torch.as_tensor(T_ground_scene[:2, 3], device=scene.means.device)
    seen = scene.opacities >= MIN_OPACITY
    if scene.observed is not None:
        seen &= scene.observed >= OBSERVED
    points = to_frame(scene.means[torch.nonzero(seen)[:, 0]], T_ground_scene)
    points = points[torch.nonzero(ground.heights(points) < low)[:, 0]]
    step = RAY_STEP if scene.camera is None else max(RAY_STEP, 2.0 / float(scene.camera.K[0, 0]))
    count = math.ceil(ROUND / step)
    sector, reach = _polar(points[:, :2] - eye, count)
    farthest = torch.zeros(count, dtype=torch.float64, device=reach.device).scatter_reduce(0, sector, reach, "amax")
    nearest = torch.full_like(farthest, math.inf).scatter_reduce(0, sector, reach, "amin")
    sector, reach = _polar(obstacles.points[obstacles.observed][:, :2] - eye, count)
    blocked = torch.full_like(farthest, math.inf).scatter_reduce(0, sector, reach, "amin")
    start, end = nearest - cells.resolution / 2, torch.minimum(farthest + cells.resolution / 2, blocked)
    # Places at the ground's height, as the camera sees them.
    T_ground_fixed = T_ground_scene @ rigid_inverse(cells.T_fixed_scene)
    height = float(rigid_inverse(T_ground_fixed)[2, 3])
    hits = torch.zeros(cells.count, dtype=torch.int8, device=eye.device)
    for within in QUARTERS:
        places = torch.nn.functional.pad(cells.places(within, eye.device), (0, 1), value=height)
        sector, reach = _polar(to_frame(places, T_ground_fixed)[:, :2] - eye, count)
        hits += (reach >= start[sector]) & (reach <= end[sector])
    return hits >= CROSSED


def _polar(offsets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sector (N,) among count and distance (N,) of offsets (N, 2) from the camera."""
    angle = torch.atan2(offsets[:, 1], offsets[:, 0]) + math.pi
    return (angle / ROUND * count).long().clamp(0, count - 1), offsets.norm(dim=1)
