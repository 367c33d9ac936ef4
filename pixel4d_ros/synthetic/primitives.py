# SPDX-License-Identifier: Apache-2.0
"""The three solids that make up every synthetic world, and their intersection with rays.

All live in unit space: tapered boxes in |x|, |y|, |z| <= 1, the unit ball, the upright cylinder of radius 1 and
height 2. A world holds one row of numbers per primitive (COLUMNS); `Primitives` names those of a padded batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


class Shape(IntEnum):
    """Kind of a primitive; NONE pads worlds of different size."""

    NONE = 0
    BOX = 1
    BALL = 2
    CYLINDER = 3
    MESH = 4  # a textured model (mesh_tracing), bounded by its box
    SHADOW = 5  # a box that is not seen, but casts the shadow of a model of its group


COLUMNS = {
    "shape": 1,
    "material": 1,
    "object": 1,  # 0 static, 1..M moves with that actor
    "center": 3,  # metres, world, at time 0
    "yaw": 1,  # rotation local -> world: Rz(yaw) Rx(roll)
    "roll": 1,
    "half": 3,  # half extents, metres
    "taper": 3,  # how far the +x, the -x and both y faces of a box lean in towards its top, in half extents
    "color": 3,  # linear RGB
    "color2": 3,
    "params": 4,  # the material's own numbers
    "seed": 1,
    "contact": 1,  # 1: darkens the ground and walls around it
    "instance": 1,  # object id in the label: that of the actor, or of something that stands; 0 background
    "group": 1,  # primitives of one object (a tree, a car) share a number; none of them counts as hidden by another
}
ROW = sum(COLUMNS.values())
SLICES: dict[str, slice] = {}
for _name, _width in COLUMNS.items():
    _start = sum(COLUMNS[n] for n in SLICES)
    SLICES[_name] = slice(_start, _start + _width)


@dataclass(frozen=True)
class Primitives:
    """Rows (B, P, ROW) of B worlds with P primitives each, padded with Shape.NONE."""

    rows: Tensor

    def __getattr__(self, name: str) -> Tensor:
        if name not in SLICES:
            raise AttributeError(name)
        values = self.rows[..., SLICES[name]]
        return values[..., 0] if COLUMNS[name] == 1 else values

    def rotations(self) -> Tensor:
        """Local to world rotations (B, P, 3, 3) at time 0."""
        cy, sy, cr, sr = self.yaw.cos(), self.yaw.sin(), self.roll.cos(), self.roll.sin()
        zero = torch.zeros_like(cy)
        rows = (
            torch.stack((cy, -sy * cr, sy * sr), -1),
            torch.stack((sy, cy * cr, -cy * sr), -1),
            torch.stack((zero, sr, cr), -1),
        )
        return torch.stack(rows, -2)


def intersect(shape: int, o: Tensor, d: Tensor, taper: Tensor) -> tuple[Tensor, Tensor]:
    """Ray parameters (K, R) at which rays o + t d enter and leave K unit solids of one shape; enter > leave is a miss.

    o, d (K, R or 1, 3) in the solids' unit spaces, taper (K, 3).
    """
    if shape == Shape.BOX:
        return _intersect_box(o, d, taper)
    if shape == Shape.BALL:
        return _intersect_quadric((o * d).sum(-1), (d * d).sum(-1), (o * o).sum(-1))
    side = _intersect_quadric(
        (o[..., :2] * d[..., :2]).sum(-1), d[..., :2].square().sum(-1), o[..., :2].square().sum(-1)
    )
    caps = _slab(o[..., 2], d[..., 2])
    return torch.maximum(side[0], caps[0]), torch.minimum(side[1], caps[1])


def _intersect_quadric(b: Tensor, a: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Roots of a t^2 + 2 b t + c - 1 = 0; without roots (1, 0), which is a miss."""
    a = a.clamp(min=1e-12)
    discriminant = b * b - a * (c - 1)
    root = discriminant.clamp(min=0).sqrt()
    miss = discriminant < 0
    return torch.where(miss, 1.0, (-b - root) / a), torch.where(miss, 0.0, (-b + root) / a)


def _slab(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    inverse = 1 / torch.where(d.abs() < 1e-9, 1e-9, d)
    first, second = (-1 - o) * inverse, (1 - o) * inverse
    return torch.minimum(first, second), torch.maximum(first, second)


def _intersect_box(o: Tensor, d: Tensor, taper: Tensor) -> tuple[Tensor, Tensor]:
    """Six planes n . x <= c; the side planes lean in with height: |x| <= 1 - taper (z + 1) / 2."""
    enter, leave = _slab(o[..., 2], d[..., 2])
    oz, dz = o[..., 2], d[..., 2]
    lean = 0.5 * taper[:, None, :]
    for axis, sign, column in ((0, 1, 0), (0, -1, 1), (1, 1, 2), (1, -1, 2)):
        k = lean[..., column]
        speed = sign * d[..., axis] + k * dz
        gap = 1 - k - sign * o[..., axis] - k * oz
        t = gap / torch.where(speed.abs() < 1e-9, 1e-9, speed)
        enter = torch.where(speed < 0, torch.maximum(enter, t), enter)
        leave = torch.where(speed < 0, leave, torch.minimum(leave, t))
    return enter, leave


def unit_normals(shape: Tensor, p: Tensor, taper: Tensor) -> Tensor:
    """Outward normals (N, 3), not normalised, in unit space at surface points p (N, 3)."""
    x, y, z = p.unbind(-1)
    lean = 0.5 * taper
    front, rear, side = lean.unbind(-1)
    excess = torch.stack(
        (
            x + front * (z + 1),
            -x + rear * (z + 1),
            y + side * (z + 1),
            -y + side * (z + 1),
            z,
            -z,
        ),
        -1,
    )
    face = excess.argmax(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    planes = torch.stack(
        (
            torch.stack((one, zero, front), -1),
            torch.stack((-one, zero, rear), -1),
            torch.stack((zero, one, side), -1),
            torch.stack((zero, -one, side), -1),
            torch.stack((zero, zero, one), -1),
            torch.stack((zero, zero, -one), -1),
        ),
        -2,
    )
    box = planes.gather(-2, face[:, None, None].expand(-1, 1, 3)).squeeze(-2)
    cap = z.abs() > torch.hypot(x, y)
    cylinder = torch.where(cap[:, None], torch.stack((zero, zero, z.sign()), -1), torch.stack((x, y, zero), -1))
    is_ball, is_cylinder = (shape == Shape.BALL)[:, None], (shape == Shape.CYLINDER)[:, None]
    return torch.where(is_ball, p, torch.where(is_cylinder, cylinder, box))
