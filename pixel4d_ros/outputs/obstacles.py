# SPDX-License-Identifier: Apache-2.0
"""What of a scene can be hit: Gaussians above the ground, without the flying pixels at outlines.

At an outline the predicted depth passes from the near thing to the far one over a few pixels. These flying pixels lie
along their rays, far apart: as a surface they are seen almost edge-on, and a metre of such a tail turns little area
to the camera. So each Gaussian counts with the area that it turns to the camera, less where it is seen edge-on. The
areas are summed over cells of the ground, and cells with little area hold no obstacle.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pixel4d_ros.geometry.quaternions import quaternion_to_matrix
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.outputs.ground import Ground, to_frame
from pixel4d_ros.scene import DynamicGaussians

HEIGHTS = (0.3, 2.0)  # metres above the ground between which things are obstacles, by default and in evaluation
OBSERVED = 0.5  # Gaussians that the image showed less than this are guesses
MIN_OPACITY = 0.2
EDGE_ON = (
    0.06,
    0.12,
)  # cosine of ray and normal: a surface below the first is a tail, above the second it counts fully
CELL = 0.25  # metres of the cells in which the area is summed
# m^2 that an obstacle turns to the camera in a cell of CELL, at the reference range. Farther away less is asked for,
# as the predicted depth spreads things along their rays in proportion to the distance.
MIN_AREA, REFERENCE_RANGE, FALLOFF = 0.009, 8.0, 2.0


@dataclass(frozen=True)
class Obstacles:
    """Gaussians that can be hit, in the ground's frame (x ahead, y left, z up, metres)."""

    points: Tensor  # (K, 3) means at t = 0, float64; z is the height above the ground
    index: Tensor  # (K,) of the Gaussians in the scene
    object_ids: Tensor  # (K,) 0: static
    observed: Tensor  # (K,) bool: seen in the image, not guessed


def frontal_area(
    scene: DynamicGaussians, index: Tensor, edge_on: tuple[Tensor | float, Tensor | float] = EDGE_ON
) -> Tensor:
    """Area (K,) in m^2 that the Gaussians `index` (K,) turn to the camera at the scene's origin, times their opacities.

    0 for those seen edge-on. edge_on: the cosines of EDGE_ON, the same for all or (K,). A flat Gaussian with standard
    deviations s1, s2 weighs 2 pi s1 s2.
    """
    scales, order = scene.scales[index].sort(1, descending=True)
    long, mid, thin = scales.unbind(1)
    axes = quaternion_to_matrix(scene.quaternions[index])
    normal = axes.gather(2, order[:, 2, None, None].expand(-1, 3, 1))[..., 0]
    ray = torch.nn.functional.normalize(scene.means[index], dim=1)
    facing = (normal * ray).sum(1).abs()
    # Balls and needles have no side from which they are thin.
    flat = thin < 0.5 * mid
    surface = ((facing - edge_on[0]) / (edge_on[1] - edge_on[0])).clamp(0, 1)
    area = torch.where(flat, long * mid * facing * surface, long * mid)
    return 2 * torch.pi * scene.opacities[index] * area


def find_obstacles(
    scene: DynamicGaussians, ground: Ground, T_base_scene: FloatArray, heights: tuple[float, float]
) -> Obstacles:
    """The Gaussians at t = 0 whose height above the ground is in heights (low, high), without flying pixels."""
    return obstacles_among(scene, *above_ground(scene, ground, T_base_scene, heights))


def obstacles_among(scene: DynamicGaussians, index: Tensor, points: Tensor) -> Obstacles:
    """The Gaussians of above_ground without flying pixels."""
    area = frontal_area(scene, index)
    evidence = area / least_area(scene.means[index].norm(dim=1))
    observed = torch.ones_like(area, dtype=torch.bool)
    if scene.observed is not None:
        observed = scene.observed[index] >= OBSERVED
    keep = torch.nonzero(_supported(points, evidence, observed))[:, 0]
    return Obstacles(points[keep], index[keep], scene.object_ids[index[keep]], observed[keep])


def above_ground(
    scene: DynamicGaussians, ground: Ground, T_base_scene: FloatArray, heights: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Index (K,) of the Gaussians between heights (low, high) above the ground, and their points as in Obstacles."""
    points = to_frame(scene.means, ground.T_ground_base @ T_base_scene)
    height = ground.heights(points)
    band = (height >= heights[0]) & (height <= heights[1]) & (scene.opacities >= MIN_OPACITY)
    index = torch.nonzero(band)[:, 0]
    return index, torch.cat((points[index, :2], height[index, None]), 1)


def least_area(reach: Tensor, area: float = MIN_AREA, falloff: float = FALLOFF) -> Tensor:
    """Area (K,) in m^2 that makes a cell at these distances (K,) from the camera an obstacle."""
    return area * (REFERENCE_RANGE / reach.clamp(min=REFERENCE_RANGE / 2)) ** falloff


def first_of_each(keys: Tensor) -> Tensor:
    """Index of the first element of each distinct value of keys (K,) int64, in the order of the values."""
    values, group = torch.unique(keys, return_inverse=True)
    order = torch.arange(len(keys), device=keys.device)
    return torch.full_like(values, len(keys)).scatter_reduce(0, group, order, "amin")


def _supported(points: Tensor, evidence: Tensor, observed: Tensor) -> Tensor:
    """Which points (K,) are in a cell with evidence of at least 1, from those of the same kind: seen or guessed."""
    if len(points) == 0:
        return torch.zeros(0, dtype=torch.bool, device=points.device)
    cells = (points[:, :2] / CELL).floor().long()
    # The scene reaches hundreds of metres: only cells with points get a number.
    low = cells.min(0).values
    columns, rows = (cells.max(0).values - low + 1).tolist()
    flat = (observed.long() * rows + cells[:, 1] - low[1]) * columns + cells[:, 0] - low[0]
    numbers, group = torch.unique(flat, return_inverse=True)
    total = torch.zeros(len(numbers), device=points.device).index_add(0, group, evidence.float())
    return total[group] >= 1
