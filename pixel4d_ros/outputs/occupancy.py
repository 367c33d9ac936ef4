"""A scene of Gaussians as an occupancy map: what of it stands above the ground, seen from above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixel4d_ros.geometry.rotations import FloatArray, quaternion_to_matrix
from pixel4d_ros.scene import DynamicGaussians

UNKNOWN = -1
SHOWN = 0.5  # Gaussians that the image showed less than this are guesses: they make cells neither free nor occupied


@dataclass(frozen=True)
class MapExtent:
    """Which part of the ground a map covers, and what is an obstacle there."""

    size: tuple[float, float]  # metres along the fixed frame's x and y
    resolution: float  # metres per cell
    heights: tuple[float, float]  # metres above the base's origin between which things are obstacles

    @property
    def shape(self) -> tuple[int, int]:
        """Cells along x and y."""
        return max(1, round(self.size[0] / self.resolution)), max(1, round(self.size[1] / self.resolution))


@dataclass(frozen=True)
class OccupancyMap:
    """Cells in a fixed frame."""

    origin: FloatArray  # (2,) metres: the corner of cell (0, 0) with the least x and y
    resolution: float  # metres per cell
    cells: NDArray[np.int8]  # (rows along y, columns along x): 0 free .. 100 occupied, -1 unknown


def occupancy_map(
    scene: DynamicGaussians, T_fixed_base: FloatArray, T_base_scene: FloatArray, extent: MapExtent
) -> OccupancyMap:
    """The scene at its t = 0 as a map around the base.

    A cell's value is how much of the light would not pass it, in percent: 1 - product of (1 - opacity) of the Gaussians
    that reach into it between extent.heights; 0 where only lower things, the ground, do. A Gaussian reaches to its mean
    and one standard deviation along each of its axes. Cells lie on multiples of the resolution, so that the maps of a
    moving base match.
    """
    columns, rows = extent.shape
    half = np.array([columns, rows]) * extent.resolution / 2
    origin = np.round((T_fixed_base[:2, 3] - half) / extent.resolution) * extent.resolution
    shown = scene if scene.observed is None else scene.select(torch.nonzero(scene.observed >= SHOWN)[:, 0])
    points = _points(shown)
    heights = _coordinates(points, T_base_scene)[..., 2]
    # Float64, as odometry frames may begin far away.
    places = _coordinates(points, T_fixed_base @ T_base_scene)[..., :2] - torch.as_tensor(origin).to(points.device)
    column, row = (places / extent.resolution).floor().long().unbind(-1)
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows) & (heights <= extent.heights[1])
    index = torch.where(inside, row * columns + column, rows * columns)  # the cell after the last takes what is outside
    obstacle = heights >= extent.heights[0]
    cells = torch.full((rows * columns + 1,), UNKNOWN, dtype=torch.float32, device=points.device)
    cells[index[~obstacle]] = 0
    blocked, light = _light_through(torch.where(obstacle, index, rows * columns), shown.opacities, rows * columns + 1)
    cells = torch.where(blocked, ((1 - light) * 100).round(), cells)[:-1]
    return OccupancyMap(origin, extent.resolution, cells.reshape(rows, columns).to(torch.int8).cpu().numpy())


def _light_through(index: Tensor, opacities: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Which of the cells the Gaussians with points in cells index (N, 7) reach, and the share of light they let by."""
    index = index.sort(1).values
    first = torch.ones_like(index, dtype=torch.bool)
    first[:, 1:] = index[:, 1:] != index[:, :-1]  # a Gaussian counts once in a cell
    optical_depth = -torch.log1p(-opacities.float().clamp(0, 0.999))[:, None].expand(-1, index.shape[1])
    total = torch.zeros(count, device=index.device).index_add(0, index[first], optical_depth[first])
    return total > 0, torch.exp(-total)


def _points(scene: DynamicGaussians) -> Tensor:
    """Points (N, 7, 3) to which the Gaussians reach."""
    axes = quaternion_to_matrix(scene.quaternions).transpose(1, 2) * scene.scales[..., None]  # (N, axis, 3)
    offsets = torch.cat((torch.zeros_like(axes[:, :1]), axes, -axes), 1)
    return scene.means[:, None] + offsets


def _coordinates(points: Tensor, T: FloatArray) -> Tensor:
    M = torch.as_tensor(T, dtype=torch.float64, device=points.device)
    return points.double() @ M[:3, :3].T + M[:3, 3]
