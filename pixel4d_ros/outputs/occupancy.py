# SPDX-License-Identifier: Apache-2.0
"""A scene of Gaussians as occupancy grids over time: obstacles above the ground, and free space that rays crossed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixel4d_ros.geometry.quaternions import quaternion_to_matrix
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.outputs.ground import Ground, estimate_ground, to_frame
from pixel4d_ros.outputs.obstacles import MIN_OPACITY, OBSERVED, Obstacles, find_obstacles
from pixel4d_ros.scene import DynamicGaussians, moved_gaussians

UNKNOWN = -1
OCCUPIED = 0.65  # from this probability on a cell is 100, as map_server's occupied_thresh: Nav2's static layer takes
# nothing below lethal_cost_threshold (100 by default) for an obstacle
RAY_STEP = math.radians(0.25)  # width of a sector of rays
ROUND = 2 * math.pi


@dataclass(frozen=True)
class MapExtent:
    """Which part of the ground a map covers, and what is an obstacle there."""

    size: tuple[float, float]  # metres along the fixed frame's x and y
    resolution: float  # metres per cell
    heights: tuple[float, float]  # metres above the ground between which things are obstacles
    ahead: float = 0.0  # metres from the base to the map's centre, along the base's x

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
    """The scene at its t = 0, as occupancy_maps makes it."""
    return occupancy_maps(scene, [0.0], T_fixed_base, T_base_scene, extent)[0]


@torch.inference_mode()
def occupancy_maps(
    scene: DynamicGaussians,
    times: Sequence[float],
    T_fixed_base: FloatArray,
    T_base_scene: FloatArray,
    extent: MapExtent,
) -> list[OccupancyMap]:
    """Maps of the scene at times (s), all of the same cells of a fixed frame (z up), given the base's pose at t = 0.

    Obstacles are what find_obstacles finds between extent.heights above the ground, which is estimated from the scene
    (else it is the base's x-y plane). A cell's value is 1 - exp(-e) in percent, with the evidence e of the obstacles in
    it (see Obstacles), and 100 from OCCUPIED on. Free are cells that rays crossed on their way to
    ground farther away. Guesses make cells neither free nor occupied. Cells lie on multiples of the resolution, so that
    the maps of a moving base match.
    """
    ground = estimate_ground(scene, T_base_scene) or Ground.flat()
    found = find_obstacles(scene, ground, T_base_scene, extent.heights)
    keep = torch.nonzero(found.observed)[:, 0]
    columns, rows = extent.shape
    center = T_fixed_base[:2, 3] + T_fixed_base[:2, 0] * extent.ahead
    half = np.array([columns, rows]) * extent.resolution / 2
    origin = np.round((center - half) / extent.resolution) * extent.resolution
    grid = _Grid(columns, rows, extent.resolution, origin, T_fixed_base @ T_base_scene)
    free = _crossed(scene, ground, T_base_scene, found, extent, grid, T_fixed_base)
    moves = found.object_ids[keep] > 0
    static, movers = keep[~moves], keep[moves]
    standing = _evidence(scene, found, static, 0.0, grid)
    maps = []
    for t in times:
        evidence = standing + _evidence(scene, found, movers, t, grid) if len(movers) else standing
        likely = 1 - torch.exp(-evidence)
        value = torch.where(likely >= OCCUPIED, torch.ones_like(likely), likely)
        cells = torch.where(evidence > 0.01, (100 * value).round(), torch.where(free, 0.0, float(UNKNOWN)))
        maps.append(OccupancyMap(origin, extent.resolution, cells.view(rows, columns).to(torch.int8).cpu().numpy()))
    return maps


@dataclass(frozen=True)
class _Grid:
    """Where the cells are."""

    columns: int
    rows: int
    resolution: float
    origin: FloatArray
    T_fixed_scene: FloatArray

    def index(self, points: Tensor) -> Tensor:
        """Cell (...) of points (..., 3) of the scene's frame, row by row; columns * rows outside."""
        # Float64, as odometry frames may begin far away.
        places = to_frame(points, self.T_fixed_scene)[..., :2] - torch.as_tensor(self.origin).to(points.device)
        column, row = (places / self.resolution).floor().long().unbind(-1)
        inside = (column >= 0) & (column < self.columns) & (row >= 0) & (row < self.rows)
        return torch.where(inside, row * self.columns + column, self.rows * self.columns)


def _evidence(scene: DynamicGaussians, found: Obstacles, which: Tensor, t: float, grid: _Grid) -> Tensor:
    """Evidence (cells,) of some of the obstacles at a time; a Gaussian reaches one deviation along each of its axes."""
    own, evidence = scene.select(found.index[which]), found.evidence[which].float()
    means, quaternions = own.means, own.quaternions
    if t:
        means, quaternions = moved_gaussians(means, quaternions, own.centroids[own.object_ids], own.motion, t)
    total = torch.zeros(grid.rows * grid.columns + 1, device=evidence.device)
    large = own.scales.amax(1) > grid.resolution / 2
    total.index_add_(0, grid.index(means[~large]), evidence[~large])
    axes = quaternion_to_matrix(quaternions[large]).transpose(1, 2) * own.scales[large][..., None]  # (N, axis, 3)
    index = grid.index(means[large][:, None] + torch.cat((torch.zeros_like(axes[:, :1]), axes, -axes), 1))
    share = (evidence[large] / index.shape[1])[:, None].expand_as(index)
    return total.index_add(0, index.flatten(), share.flatten())[:-1]


def _crossed(
    scene: DynamicGaussians,
    ground: Ground,
    T_base_scene: FloatArray,
    found: Obstacles,
    extent: MapExtent,
    grid: _Grid,
    T_fixed_base: FloatArray,
) -> Tensor:
    """Which cells (cells,) rays crossed that ended on the ground, before the first obstacle in their direction."""
    T_ground_scene = ground.T_ground_base @ T_base_scene
    eye = torch.as_tensor(T_ground_scene[:2, 3], device=scene.means.device)
    seen = scene.opacities >= MIN_OPACITY
    if scene.observed is not None:
        seen &= scene.observed >= OBSERVED
    points = to_frame(scene.means[torch.nonzero(seen)[:, 0]], T_ground_scene)
    low = ground.heights(points) < extent.heights[0]
    step = RAY_STEP if scene.camera is None else max(RAY_STEP, 2.0 / float(scene.camera.K[0, 0]))
    count = math.ceil(ROUND / step)
    sector, reach = _polar(points[low][:, :2] - eye, count)
    farthest = torch.zeros(count, dtype=torch.float64, device=reach.device).scatter_reduce(0, sector, reach, "amax")
    nearest = torch.full_like(farthest, math.inf).scatter_reduce(0, sector, reach, "amin")
    sector, reach = _polar(found.points[found.observed][:, :2] - eye, count)
    blocked = torch.full_like(farthest, math.inf).scatter_reduce(0, sector, reach, "amin")
    end = torch.minimum(farthest + grid.resolution / 2, blocked)
    # The cells' centres, at the ground's height, as the camera sees them.
    y, x = torch.meshgrid(torch.arange(grid.rows), torch.arange(grid.columns), indexing="ij")
    places = torch.stack((x, y), -1).double().view(-1, 2).to(eye.device) + 0.5
    places = places * grid.resolution + torch.as_tensor(grid.origin).to(eye.device)
    T_ground_fixed = ground.T_ground_base @ rigid_inverse(T_fixed_base)
    height = float(rigid_inverse(T_ground_fixed)[2, 3])
    centers = to_frame(torch.nn.functional.pad(places, (0, 1), value=height), T_ground_fixed)[:, :2]
    sector, reach = _polar(centers - eye, count)
    return (reach >= nearest[sector] - grid.resolution / 2) & (reach <= end[sector])


def _polar(offsets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sector (N,) among count and distance (N,) of offsets (N, 2) from the camera."""
    angle = torch.atan2(offsets[:, 1], offsets[:, 0]) + math.pi
    return (angle / ROUND * count).long().clamp(0, count - 1), offsets.norm(dim=1)
