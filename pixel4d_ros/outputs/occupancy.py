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
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.outputs.free_space import Cells, crossed_cells
from pixel4d_ros.outputs.ground import Ground, estimate_ground
from pixel4d_ros.outputs.obstacles import (
    OBSERVED,
    above_ground,
    first_of_each,
    frontal_area,
    least_area,
    obstacles_among,
)
from pixel4d_ros.scene import DynamicGaussians, moved_gaussians

UNKNOWN = -1
OCCUPIED = 0.65  # from this probability on a cell is 100, as map_server's occupied_thresh: Nav2's static layer takes
# nothing below lethal_cost_threshold (100 by default) for an obstacle
NEEDED = -math.log(1 - OCCUPIED)  # evidence that makes a cell occupied
HIDDEN = 5.0  # evidence counts so much more where no ray crossed the cell
# Near the camera a tail of flying pixels is long and well resolved: there, surfaces must face the camera more to count.
NEAR, FAR = 8.0, 12.0  # metres; between them the cosines of ray and normal (see obstacles.EDGE_ON) pass from
EDGE_ON_NEAR, EDGE_ON_FAR = (0.4, 0.5), (0.05, 0.1)
AREA, FALLOFF = 0.03, 0.5  # m^2 asked for, and how it falls with the distance: see obstacles.least_area
# Things have a thickness and depth is uncertain: cells behind a seen surface are occupied too, unless rays crossed
# them, up to THICKNESS * (distance - THICK_FROM) metres. The surface must be TALL, as road beside vehicles is often
# predicted too high, and show SURE times the evidence of an obstacle there.
THICKNESS, THICK_FROM, MAX_THICKNESS = 2.0, 4.0, 5.0
TALL, SURE = 0.75, 3.0  # metres above the ground; factor


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

    The ground is estimated from the scene (else it is the base's x-y plane). Free are cells that rays crossed on their
    way to ground farther away. A cell's value is 1 - exp(-e) in percent, and 100 from OCCUPIED on, with the evidence e
    of what is between extent.heights above the ground in it: see _seen_surfaces and _behind. Guesses make cells neither
    free nor occupied. Cells lie on multiples of the resolution, so that the maps of a moving base match.
    """
    ground = estimate_ground(scene, T_base_scene) or Ground.flat()
    cells = _cells(extent, T_fixed_base, T_base_scene)
    index, points = above_ground(scene, ground, T_base_scene, extent.heights)
    obstacles = obstacles_among(scene, index, points)
    crossed = crossed_cells(scene, ground, T_base_scene, obstacles, extent.heights[0], cells)
    tall = torch.zeros(len(scene.means), dtype=torch.bool, device=index.device)
    tall[index] = points[:, 2] >= TALL
    if scene.observed is not None:
        index = index[scene.observed[index] >= OBSERVED]
    surfaces = _seen_surfaces(scene, index, crossed, cells)
    parts = [surfaces, _behind(scene, surfaces.only(tall[surfaces.index]), crossed, cells)]
    movers = scene.object_ids > 0
    standing, moving = ([p.only(movers[p.index] == moves) for p in parts] for moves in (False, True))
    fixed = _total(scene, standing, 0.0, cells)
    maps = []
    for t in times:
        evidence = fixed + _total(scene, moving, t, cells) if any(len(m.index) for m in moving) else fixed
        likely = 1 - torch.exp(-evidence)
        value = torch.where(evidence >= NEEDED, torch.ones_like(likely), likely)
        made = torch.where(evidence > 0.01, (100 * value).round(), torch.where(crossed, 0.0, float(UNKNOWN)))
        grid = made.view(cells.rows, cells.columns).to(torch.int8).cpu().numpy()
        maps.append(OccupancyMap(cells.origin, extent.resolution, grid))
    return maps


def _cells(extent: MapExtent, T_fixed_base: FloatArray, T_base_scene: FloatArray) -> Cells:
    """The cells of a map around, or ahead of, the base."""
    columns, rows = extent.shape
    center = T_fixed_base[:2, 3] + T_fixed_base[:2, 0] * extent.ahead
    half = np.array([columns, rows]) * extent.resolution / 2
    origin = np.round((center - half) / extent.resolution) * extent.resolution
    return Cells(columns, rows, extent.resolution, origin, T_fixed_base @ T_base_scene)


@dataclass(frozen=True)
class _Evidence:
    """Evidence of Gaussians, at their place or farther along their ray."""

    index: Tensor  # (K,) of the Gaussians in the scene
    stretch: Tensor  # (K,) factor of the distance from the camera at t = 0; 1: at their place
    weight: Tensor  # (K,) evidence

    def only(self, keep: Tensor) -> _Evidence:
        """The part where keep (K,) is true."""
        return _Evidence(self.index[keep], self.stretch[keep], self.weight[keep])


def _seen_surfaces(scene: DynamicGaussians, index: Tensor, crossed: Tensor, cells: Cells) -> _Evidence:
    """Evidence of the Gaussians `index` (K,) where they are: the area that each turns to the camera.

    As a share of the least area of an obstacle. Where no ray crossed the cell, HIDDEN times as much.
    """
    means = scene.means[index]
    reach = means.norm(dim=1)
    far = ((reach - NEAR) / (FAR - NEAR)).clamp(0, 1)
    low, high = (near + far * (distant - near) for near, distant in zip(EDGE_ON_NEAR, EDGE_ON_FAR, strict=True))
    weight = frontal_area(scene, index, (low, high)) / least_area(reach, AREA, FALLOFF)
    weight = torch.where(_look_up(crossed, cells.index(means)), weight, HIDDEN * weight)
    keep = torch.nonzero(weight)[:, 0]
    return _Evidence(index[keep], torch.ones_like(weight[keep]), weight[keep])


def _behind(scene: DynamicGaussians, tall: _Evidence, crossed: Tensor, cells: Cells) -> _Evidence:
    """Evidence that occupies the cells behind those of tall surfaces along their rays, up to their thickness.

    One Gaussian in a square of half a cell stands for the others of its object.
    """
    certain = _total(scene, [tall], 0.0, cells) >= SURE * NEEDED
    index = tall.index[_look_up(certain, cells.index(scene.means[tall.index]))]
    halves = Cells(2 * cells.columns, 2 * cells.rows, cells.resolution / 2, cells.origin, cells.T_fixed_scene)
    index = index[first_of_each(scene.object_ids[index] * (halves.count + 1) + halves.index(scene.means[index]))]
    reach = scene.means[index].norm(dim=1)
    steps = torch.arange(1, int(MAX_THICKNESS / cells.resolution) + 1, device=index.device) * cells.resolution
    which, step = torch.nonzero(steps <= THICKNESS * (reach - THICK_FROM)[:, None]).unbind(1)
    index, stretch = index[which], 1 + steps[step] / reach[which]
    hidden = ~_look_up(crossed, cells.index(scene.means[index] * stretch[:, None]))
    index, stretch = index[hidden], stretch[hidden]
    return _Evidence(index, stretch, torch.full_like(stretch, 1.01 * NEEDED))


def _look_up(of_cells: Tensor, index: Tensor) -> Tensor:
    """Bool (K,) of cells (count,) at indices (K,); false outside the map."""
    return torch.nn.functional.pad(of_cells, (0, 1))[index]


def _total(scene: DynamicGaussians, parts: Sequence[_Evidence], t: float, cells: Cells) -> Tensor:
    """Evidence (count,) of all parts at a time. A Gaussian at its place reaches one deviation along each axis."""
    total = torch.zeros(cells.count + 1, device=scene.means.device)
    for part in parts:
        own = scene.select(part.index)
        means, quaternions = own.means * part.stretch[:, None], own.quaternions
        if t:
            means, quaternions = moved_gaussians(means, quaternions, own.centroids[own.object_ids], own.motion, t)
        large = (own.scales.amax(1) > cells.resolution / 2) & (part.stretch == 1)
        total.index_add_(0, cells.index(means[~large]), part.weight[~large])
        axes = quaternion_to_matrix(quaternions[large]).transpose(1, 2) * own.scales[large][..., None]  # (N, axis, 3)
        index = cells.index(means[large][:, None] + torch.cat((torch.zeros_like(axes[:, :1]), axes, -axes), 1))
        share = (part.weight[large] / index.shape[1])[:, None].expand_as(index)
        total.index_add_(0, index.flatten(), share.flatten())
    return total[:-1]
