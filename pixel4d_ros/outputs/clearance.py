# SPDX-License-Identifier: Apache-2.0
"""How close a vehicle's footprint comes to anything along candidate paths: static or moving, seen or guessed."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.outputs.ground import Ground, estimate_ground, to_frame
from pixel4d_ros.outputs.nearest import closest_places, seen_from
from pixel4d_ros.outputs.obstacles import Obstacles, find_obstacles, first_of_each
from pixel4d_ros.scene import DynamicGaussians, moved_gaussians

SPACING = 0.1  # metres: of the obstacles' points closer together than this, seen from above, one is enough
SUBSTEPS = 3  # poses between two times at which contact is looked for
LARGEST_M, SMALLEST_M = 100.0, 1e-3  # metres: from the base to a corner, and breadth of a footprint
MOST_CORNERS = 1000  # of a footprint
GROUP = 1.0  # metres: the obstacles in a square of this size are looked at together


@dataclass(frozen=True)
class Footprint:
    """The vehicle's outline in its base frame: a simple polygon, or a circle around the origin."""

    corners: FloatArray | None = None  # (n, 2) metres, in order
    radius: float = 0.0  # metres, used without corners

    def __post_init__(self) -> None:
        if not 0 <= self.radius <= LARGEST_M:
            raise ValueError(f"the footprint's radius must be 0 to {LARGEST_M:g} metres, got {self.radius:g}")
        if self.corners is not None:
            corners = np.asarray(self.corners, np.float64)
            if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
                raise ValueError(f"a footprint needs at least three corners of x and y, got shape {corners.shape}")
            if len(corners) > MOST_CORNERS:
                raise ValueError(f"the footprint has {len(corners)} corners, more than {MOST_CORNERS}: simplify it")
            if not np.isfinite(corners).all():
                raise ValueError("the footprint contains NaN or Inf")
            if np.abs(corners).max() > LARGEST_M:
                raise ValueError(f"the footprint reaches {np.abs(corners).max():g} m far: corners must be in metres")
            if _crosses_itself(corners):
                raise ValueError("the footprint crosses itself: give its corners in order around the vehicle")
            if np.linalg.matrix_rank(corners - corners[0], SMALLEST_M) < 2:
                raise ValueError("the footprint has no area: its corners lie on one line; are x and y filled?")
            object.__setattr__(self, "corners", corners)

    def distances(self, points: Tensor) -> Tensor:
        """Distances (...) in metres of points (..., 2) of the base frame from the outline, 0 inside."""
        if self.corners is None:
            distances: Tensor = points.norm(dim=-1) - self.radius
            return distances.clamp(min=0)
        nearest = torch.full(points.shape[:-1], math.inf, dtype=points.dtype, device=points.device)
        inside = torch.zeros(points.shape[:-1], dtype=torch.bool, device=points.device)
        x, y = points.unbind(-1)
        # Plain numbers: on a GPU each step on a small tensor would take as long as one on all points.
        for (ax, ay), (bx, by) in zip(self.corners.tolist(), np.roll(self.corners, -1, 0).tolist(), strict=True):
            ex, ey, ox, oy = bx - ax, by - ay, x - ax, y - ay
            along = ((ox * ex + oy * ey) / max(ex * ex + ey * ey, 1e-12)).clamp(0, 1)
            nearest = torch.minimum(nearest, (ox - along * ex).square() + (oy - along * ey).square())
            # Even-odd rule: the edges that a ray along x crosses.
            if ey:
                crosses = (y < ay) != (y < by)
                inside ^= crosses & (ox < ex / ey * oy)
        return torch.where(inside, torch.zeros_like(nearest), nearest.sqrt())


def _crosses_itself(corners: FloatArray) -> bool:
    """Whether two edges of the polygon (n, 2) cross, ends apart."""
    a, ab = corners, np.roll(corners, -1, 0) - corners
    to = a[None] - a[:, None]  # from the begin of edge i to corner j
    side = np.sign(ab[:, None, 0] * to[..., 1] - ab[:, None, 1] * to[..., 0])  # of edge i, on which corner j lies
    apart = side * np.roll(side, -1, 1) < 0  # the ends of edge j lie on both sides of edge i
    return bool((apart & apart.T).any())


@dataclass(frozen=True)
class ClosestPoints:
    """The closest thing of one kind to P paths at T times."""

    distances: FloatArray  # (P, T) metres from the footprint, 0: contact, inf: there is nothing
    points: FloatArray  # (P, T, 3) of the scene's frame, at that time; NaN where there is nothing
    object_ids: NDArray[np.int64]  # (P, T) as in the scene; 0: static or nothing
    observed: NDArray[np.bool_]  # (P, T) seen in the image, not guessed
    contact: FloatArray  # (P,) seconds of the first contact, inf: none


@dataclass(frozen=True)
class Clearance:
    """The closest static and the closest moving things along paths."""

    static: ClosestPoints
    moving: ClosestPoints


@dataclass(frozen=True)
class SceneObstacles:
    """What a vehicle can hit in a scene: found once, used for any number of paths."""

    scene: DynamicGaussians
    obstacles: Obstacles
    T_ground_base: FloatArray  # (4, 4) where the base is at the image's time
    T_ground_scene: FloatArray  # (4, 4)


@torch.inference_mode()
def find_scene_obstacles(
    scene: DynamicGaussians, T_base_scene: FloatArray, heights: tuple[float, float]
) -> SceneObstacles:
    """The obstacles of a scene. T_base_scene (4, 4) is the mounting, which also gives the base's place at t = 0.

    What is higher than heights[0] and lower than heights[1] metres above the ground counts; the ground is estimated
    from the scene. Flying pixels do not count.
    """
    ground = estimate_ground(scene, T_base_scene) or Ground.flat()
    obstacles = find_obstacles(scene, ground, T_base_scene, heights)
    return SceneObstacles(scene, obstacles, ground.T_ground_base, ground.T_ground_base @ T_base_scene)


@torch.inference_mode()
def clearance(around: SceneObstacles, T_scene_base: FloatArray, times: ArrayLike, footprint: Footprint) -> Clearance:
    """Distances along the paths T_scene_base (P, T, 4, 4) of the base at times (T,) s after the image.

    What is inside the footprint at t = 0 is the vehicle itself and does not count. Distances are measured along the
    ground.
    """
    scene, found, T_ground_scene = around.scene, around.obstacles, around.T_ground_scene
    now = torch.as_tensor(_flat_poses(around.T_ground_base), device=found.points.device)
    outside = footprint.distances(seen_from(now, found.points[:, :2])) > 0
    poses = _flat_poses(T_ground_scene @ np.asarray(T_scene_base, np.float64))
    instants = np.asarray(times, np.float64)
    fine_poses, fine_times = _refined(poses, instants)
    parts = []
    for kind in (found.object_ids == 0, found.object_ids > 0):
        some = _thinned(found, torch.nonzero(kind & outside)[:, 0])
        places = _places(scene, found.index[some], fine_times, T_ground_scene)
        together = _squares(found, some, GROUP, found.object_ids[some])
        distances, which = closest_places(footprint.distances, fine_poses, places, together)
        parts.append(_closest_points(scene, found, some, distances, which, instants, fine_times))
    return Clearance(*parts)


def _flat_poses(T_ground_base: FloatArray) -> FloatArray:
    """x, y and yaw (..., 3) of poses (..., 4, 4)."""
    yaw = np.arctan2(T_ground_base[..., 1, 0], T_ground_base[..., 0, 0])
    return np.concatenate((T_ground_base[..., :2, 3], yaw[..., None]), -1)


def _refined(poses: FloatArray, times: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Poses (P, F, 3) and times (F,) with SUBSTEPS intervals between any two."""
    poses = poses.copy()
    poses[..., 2] = np.unwrap(poses[..., 2], axis=1)
    at = np.linspace(0, len(times) - 1, (len(times) - 1) * SUBSTEPS + 1)
    low = np.minimum(at.astype(int), max(0, len(times) - 2))
    high, share = np.minimum(low + 1, len(times) - 1), at - low
    fine = poses[:, low] * (1 - share)[:, None] + poses[:, high] * share[:, None]
    return fine, times[low] * (1 - share) + times[high] * share


def _thinned(found: Obstacles, which: Tensor) -> Tensor:
    """Of the obstacles `which` (n,), one per square of SPACING, object and kind."""
    kind = found.object_ids[which] * 2 + found.observed[which]
    return which[first_of_each(_squares(found, which, SPACING, kind))]


def _squares(found: Obstacles, which: Tensor, side: float, kind: Tensor) -> Tensor:
    """A number (n,) for each of the obstacles `which` (n,), the same for those of one kind in one square of a side."""
    if len(which) == 0:
        return which
    cells = (found.points[which, :2] / side).floor().long()
    cells = cells - cells.min(0).values
    wide, high = (cells.max(0).values + 1).tolist()
    squares: Tensor = (kind * high + cells[:, 1]) * wide + cells[:, 0]
    return squares


def _places(scene: DynamicGaussians, index: Tensor, times: FloatArray, T_ground_scene: FloatArray) -> Tensor:
    """Where Gaussians are at times (F,), in the ground's plane: (F, n, 2), or (1, n, 2) where none of them moves."""
    own = scene.select(index)
    if not bool((own.object_ids > 0).any()):
        return to_frame(own.means, T_ground_scene)[None, :, :2]
    t = torch.as_tensor(times, dtype=own.means.dtype, device=own.means.device)[:, None, None]
    moved, _ = moved_gaussians(own.means, own.quaternions, own.centroids[own.object_ids], own.motion, t)
    return to_frame(moved, T_ground_scene)[..., :2]


def _closest_points(
    scene: DynamicGaussians,
    found: Obstacles,
    some: Tensor,
    fine: FloatArray,
    which: NDArray[np.int64],
    times: FloatArray,
    fine_times: FloatArray,
) -> ClosestPoints:
    """What the closest of the obstacles `some` (n,) are; fine (P, F) and which (P, F) as _closest found them."""
    touches = fine <= 0
    contact = np.where(touches.any(1), fine_times[touches.argmax(1)], np.inf)
    distances, chosen = fine[:, ::SUBSTEPS], which[:, ::SUBSTEPS]
    shape = distances.shape
    if len(some) == 0:
        nothing = np.zeros(shape, np.int64)
        return ClosestPoints(distances, np.full((*shape, 3), np.nan), nothing, nothing.astype(bool), contact)
    picked = some[torch.as_tensor(chosen.ravel(), device=some.device)]
    own = scene.select(found.index[picked])
    t = torch.as_tensor(np.tile(times, shape[0]), dtype=own.means.dtype, device=own.means.device)[:, None]
    moved, _ = moved_gaussians(own.means, own.quaternions, own.centroids[own.object_ids], own.motion, t)
    return ClosestPoints(
        distances,
        moved.double().cpu().numpy().reshape(*shape, 3),
        own.object_ids.cpu().numpy().reshape(shape),
        found.observed[picked].cpu().numpy().reshape(shape),
        contact,
    )


def parse_footprint(text: str, radius: float) -> Footprint:
    """The footprint of the parameters, as Nav2 writes them: "[[x1, y1], [x2, y2], ...]", or empty for a circle.

    Raises ValueError that says what is wrong.
    """
    if not text.strip() or text.strip() == "[]":
        return Footprint(radius=radius)
    try:
        corners = np.asarray(ast.literal_eval(text.strip()), np.float64)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"footprint must look like [[x1, y1], [x2, y2], [x3, y3]], got {text!r}") from None
    return Footprint(corners)


def footprint_of_corners(corners: Sequence[tuple[float, float]], radius: float, otherwise: Footprint) -> Footprint:
    """The footprint of a request: its corners, else a circle of its radius, else the node's."""
    if len(corners):
        return Footprint(np.asarray(corners, np.float64))
    return Footprint(radius=radius) if radius else otherwise
