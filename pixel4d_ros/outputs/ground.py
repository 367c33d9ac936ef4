# SPDX-License-Identifier: Apache-2.0
"""The ground that a scene itself shows: a robust plane, and the height of the ground above it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.geometry.rotations import FloatArray, rigid, rigid_inverse
from pixel4d_ros.scene import DynamicGaussians

MAX_SLOPE = 0.06  # of the plane against the base's x-y plane: 3.4 degrees; beyond it the height field follows
MAX_RANGE = 30.0  # metres from the camera of the points that the plane is fitted to
POINTS, HYPOTHESES = 4096, 512
BAND = (0.04, 0.012)  # metres, and share of the distance, within which a point lies on a plane
BELOW = 20.0  # points on the plane that one point below it outweighs: nothing is under the ground
MIN_SUPPORT = 0.03  # share of the points that lie on the plane; less is no ground
CELL = 2.0  # metres of a cell of the height field
FIELD_BAND = (0.12, 0.01)  # metres, and share of the distance: what is farther from the plane is no ground
FIELD_RANGE = 60.0  # metres that the height field reaches ahead and to the sides
PRIOR = 4.0  # points that the plane counts for in each cell of the height field


@dataclass(frozen=True)
class Ground:
    """A plane in a frame of its own, x ahead and z up, whose origin is below the base, and a height field on it."""

    T_ground_base: FloatArray  # (4, 4)
    field: Tensor  # (ny, nx) metres of the ground above the plane, cells of CELL from (0, -FIELD_RANGE) on

    def heights(self, points: Tensor) -> Tensor:
        """Heights (...) above the ground of points (..., 3) in the ground's frame, metres."""
        flat = points.reshape(1, 1, -1, 3).float()
        x, y = flat[..., 0] / FIELD_RANGE * 2 - 1, flat[..., 1] / FIELD_RANGE
        field = self.field.to(points.device)[None, None]
        ground = F.grid_sample(field, torch.stack((x, y), -1), padding_mode="border", align_corners=False)
        return points[..., 2] - ground.reshape(points.shape[:-1]).to(points.dtype)

    @staticmethod
    def flat(height: float = 0.0) -> Ground:
        """The base's x-y plane, height metres above its origin."""
        return Ground(rigid(np.eye(3), [0, 0, -height]), torch.zeros(_field_shape()))


@torch.inference_mode()
def estimate_ground(scene: DynamicGaussians, T_base_scene: FloatArray) -> Ground | None:
    """The ground under the base, from the static Gaussians that the image showed; None where they show none.

    RANSAC for the plane (at most MAX_SLOPE steep) with the most points on it less those below it, refined by
    reweighted least squares; then a smoothed height field of the points near the plane.
    """
    seen = scene.object_ids == 0
    if scene.observed is not None:
        seen &= scene.observed > 0.5
    near = torch.nonzero(seen & (scene.means.norm(dim=1) < MAX_RANGE))[:, 0]
    if len(near) < 16:
        return None
    some = near[torch.linspace(0, len(near) - 1, min(POINTS, len(near)), device=near.device).long()]
    points = to_frame(scene.means[some], T_base_scene).float()
    reach = (points - torch.as_tensor(T_base_scene[:3, 3]).to(points)).norm(dim=1)
    plane = _refined(points, reach, _ransac(points, reach))
    on_it = (_above(points, plane[None])[0].abs() < 2 * _band(reach, BAND)).float().mean()
    if float(on_it) < MIN_SUPPORT:
        return None
    T_ground_base = _frame_of(plane.double().cpu().numpy())
    everything = to_frame(scene.means[torch.nonzero(seen)[:, 0]], T_ground_base @ T_base_scene).float()
    return Ground(T_ground_base, _height_field(everything))


def to_frame(points: Tensor, T: FloatArray) -> Tensor:
    """Points (..., 3) in float64 transformed by T (4, 4)."""
    M = torch.as_tensor(T, dtype=torch.float64, device=points.device)
    return points.double() @ M[:3, :3].T + M[:3, 3]


def _band(reach: Tensor, band: tuple[float, float]) -> Tensor:
    return band[0] + band[1] * reach


def _above(points: Tensor, planes: Tensor) -> Tensor:
    """Heights (H, N) of points (N, 3) above planes z = a x + b y + c, (H, 3)."""
    return points[:, 2] - planes[:, :2] @ points[:, :2].T - planes[:, 2:]


def _ransac(points: Tensor, reach: Tensor) -> Tensor:
    """The best of the planes (3,) through three of the points."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(points), (HYPOTHESES, 3), generator=generator).to(points.device)
    corners = points[chosen]  # (H, 3, 3)
    A = torch.cat((corners[..., :2], torch.ones_like(corners[..., :1])), -1)
    regular = torch.linalg.det(A).abs() > 1e-2
    A = torch.where(regular[:, None, None], A, torch.eye(3, device=A.device))
    planes = torch.linalg.solve(A, corners[..., 2:])[..., 0]
    regular &= planes[:, :2].norm(dim=1) < MAX_SLOPE
    # Level ones too, at the heights of the lowest points: in a queue of cars few points are on the road.
    lowest = points[:, 2].sort().values[: len(points) // 3 : max(1, len(points) // 128)]
    level = torch.stack((torch.zeros_like(lowest), torch.zeros_like(lowest), lowest), 1)
    planes = torch.cat((level, planes[regular]))
    return planes[_score(points, reach, planes).argmax()]


def _score(points: Tensor, reach: Tensor, planes: Tensor) -> Tensor:
    """How many of the points (N, 3) lie on each of the planes (H, 3), less those below it times BELOW."""
    above, band = _above(points, planes), _band(reach, BAND)
    return (above.abs() < band).float().sum(1) - BELOW * (above < -2 * band).float().sum(1)


def _refined(points: Tensor, reach: Tensor, plane: Tensor) -> Tensor:
    """The plane (3,) after reweighted least squares (Geman-McClure weights), where that makes it no worse."""
    A = torch.cat((points[:, :2], torch.ones_like(points[:, :1])), 1)
    band = _band(reach, BAND)
    start, tried = plane, [plane]
    for _ in range(5):
        residual = _above(points, plane[None])[0]
        weight = (1 / (1 + (residual / band) ** 2)).square()[:, None]
        weight = weight * (_above(points, start[None])[0].abs() < 2 * band)[:, None] / band[:, None] ** 2
        # The slope's prior: half of MAX_SLOPE, as of one point in a hundred.
        damping = torch.diag(torch.tensor([1.0, 1.0, 1e-6], device=points.device)) * weight.sum() / 100
        damping = damping / (MAX_SLOPE / 2 / BAND[0]) ** 2
        right = A.T @ (weight * residual[:, None]) - damping @ (plane * plane.new_tensor([1, 1, 0]))[:, None]
        plane = plane + torch.linalg.solve(A.T @ (weight * A) + damping, right)[:, 0]
        tried.append(plane)
    planes = torch.stack([p for p in tried if float(p[:2].norm()) < MAX_SLOPE])
    return planes[_score(points, reach, planes).argmax()]


def _frame_of(plane: FloatArray) -> FloatArray:
    """T_ground_base of the plane z = a x + b y + c: its origin below the base's, x as far ahead as it lies in it."""
    a, b, c = plane
    z = np.array([-a, -b, 1.0]) / np.sqrt(a * a + b * b + 1)
    x = np.array([1.0, 0.0, 0.0]) - z[0] * z
    x /= np.linalg.norm(x)
    return rigid_inverse(rigid(np.stack((x, np.cross(z, x), z), 1), [0.0, 0.0, c]))


def _field_shape() -> tuple[int, int]:
    return round(2 * FIELD_RANGE / CELL), round(FIELD_RANGE / CELL)


def _height_field(points: Tensor) -> Tensor:
    """Heights (ny, nx) of the ground above the plane, from points (N, 3) in the ground's frame."""
    rows, columns = _field_shape()
    column, row = (points[:, 0] / CELL).floor().long(), ((points[:, 1] + FIELD_RANGE) / CELL).floor().long()
    near = points[:, 2].abs() < _band(points[:, :2].norm(dim=1), FIELD_BAND)
    inside = near & (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    cell = (row * columns + column)[inside]
    sums = torch.zeros(2, rows * columns, device=points.device)
    sums.index_add_(1, cell, torch.stack((points[inside, 2], torch.ones_like(points[inside, 2]))))
    # A cell that many pixels show counts no more than PRIOR * 8 points, so that the blur is not theirs alone.
    share = (PRIOR * 8 / sums[1].clamp(min=PRIOR * 8))[None]
    kernel = torch.tensor([1.0, 2.0, 1.0], device=points.device)
    blurred = F.conv2d((sums * share).view(2, 1, rows, columns), (kernel[:, None] * kernel / 16)[None, None], padding=1)
    return (blurred[0] / (blurred[1] + PRIOR))[0]
