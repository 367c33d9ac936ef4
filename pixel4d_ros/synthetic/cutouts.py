# SPDX-License-Identifier: Apache-2.0
"""Holes in surfaces: leaves, twigs, fences, bicycles and cables are solids through most of which rays pass.

A ray meets the front of such a solid or, where that is a hole, its back. So thin objects get exact depth at the centre
of every pixel, from one primitive each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.textures import noise

PERFORATED = (Material.FOLIAGE, Material.FENCE, Material.BICYCLE, Material.CABLES)
# Of a bicycle seen from its side, metres from its middle on the ground: frame, fork, bar, saddle, as segments.
_FRAME = (
    (-0.52, 0.34, -0.05, 0.3),
    (-0.52, 0.34, -0.16, 0.74),
    (-0.05, 0.3, -0.2, 0.86),
    (-0.05, 0.3, 0.36, 0.72),
    (-0.16, 0.74, 0.34, 0.76),
    (0.52, 0.34, 0.33, 0.86),
    (0.33, 0.93, 0.45, 0.98),
    (-0.3, 0.88, -0.08, 0.88),
)


class _Points(NamedTuple):
    """Points of one kind of surface."""

    p: Tensor  # (N, 3) from the solid's centre, metres
    half: Tensor  # (N, 3) metres
    seed: Tensor  # (N,) int64
    params: Tensor  # (N, 4)

    @property
    def up(self) -> Tensor:
        """Metres above the solid's foot (N,)."""
        return self.p[:, 2] + self.half[:, 2]


def has_holes(material: Tensor) -> Tensor:
    """Whether primitives (...) of that material are perforated."""
    holes = torch.zeros_like(material, dtype=torch.bool)
    for kind in PERFORATED:
        holes |= material == int(kind)
    return holes


def is_hole(material: Tensor, unit: Tensor, half: Tensor, seed: Tensor, params: Tensor) -> Tensor:
    """Which points (N,) of perforated surfaces are holes: material (N,), unit and half (N, 3), params (N, 4)."""
    hole = torch.zeros_like(material, dtype=torch.bool)
    tests = {
        Material.FOLIAGE: _between_leaves,
        Material.FENCE: _between_bars,
        Material.BICYCLE: _beside_frame,
        Material.CABLES: _beside_cables,
    }
    for kind, test in tests.items():
        index = (material == int(kind)).nonzero()[:, 0]
        if len(index):
            hole[index] = test(_Points(unit[index] * half[index], half[index], seed[index], params[index]))
    return hole


def _between_leaves(s: _Points) -> Tensor:
    """Clumps of leaves, or twigs (ridges of the noise) where the third number is 1."""
    p = s.p * s.params[:, :1]
    coarse, fine = noise(p * 0.45, s.seed), noise(p * 1.3, s.seed + 7)
    leaves = 0.55 * coarse + 0.45 * fine < s.params[:, 1]
    twigs = torch.minimum((coarse - 0.5).abs() * 2.2, (fine - 0.5).abs()) > 0.05
    return torch.where(s.params[:, 2] > 0.5, twigs, leaves)


def _between_bars(s: _Points) -> Tensor:
    """Bars or pickets (0), wire mesh (1) or rails (2) with a frame; the pitch in metres and the solid share."""
    x, z = s.p[:, 0] + s.half[:, 0], s.up
    pitch, share, style, between_posts = s.params.unbind(-1)
    bars = (x / pitch) % 1 < share
    mesh = (((x + z) / pitch) % 1 < share) | (((x - z) / pitch) % 1 < share)
    rails = (z / pitch) % 1 > 1 - share
    solid = torch.where(style > 1.5, rails, torch.where(style > 0.5, mesh, bars))
    height, beam = 2 * s.half[:, 2], 0.02 + 0.1 * share * (style < 0.5)
    frame = ((z - 0.9 * height).abs() < beam) | ((z - 0.2 * height).abs() < beam * (style < 1.5))
    post = (x % between_posts.clamp(min=0.5)) < 0.05
    return ~(solid | frame | post)


def _beside_frame(s: _Points) -> Tensor:
    """All but the tubes, tyres and spokes of a bicycle along x."""
    x, z = s.p[:, 0], s.up
    solid = torch.zeros_like(x, dtype=torch.bool)
    for center in (-0.52, 0.52):
        radius, angle = torch.hypot(x - center, z - 0.34), torch.atan2(z - 0.34, x - center)
        spokes = ((angle * (16 / 6.2832)) % 1 - 0.5).abs() * radius < 0.004
        solid |= ((radius - 0.325).abs() < 0.022) | ((radius < 0.33) & (spokes | (radius < 0.03)))
    for x0, z0, x1, z1 in _FRAME:
        dx, dz = x1 - x0, z1 - z0
        t = (((x - x0) * dx + (z - z0) * dz) / (dx * dx + dz * dz)).clamp(0, 1)
        solid |= torch.hypot(x - x0 - t * dx, z - z0 - t * dz) < 0.018
    return ~solid


def _beside_cables(s: _Points) -> Tensor:
    """Hanging cables: params are their radius in metres and their number."""
    x, z, reach = s.p[:, 0] / s.half[:, 0], s.p[:, 2], s.half[:, 2]
    solid = torch.zeros_like(x, dtype=torch.bool)
    for k in range(3):
        sag = (2 * reach - 0.1) * (x * x * (0.75 + 0.12 * k)) - reach + 0.05 + 0.05 * k
        solid |= ((z - sag).abs() < s.params[:, 0]) & (s.params[:, 1] > k)
    return ~solid
