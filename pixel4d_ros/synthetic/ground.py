# SPDX-License-Identifier: Apache-2.0
"""The ground of outdoor worlds, a winding road with kerbs, pavements, verges and a cross street; and the sky.

The road's centre line is y = f(x), a sum of two sines; `across` is the signed distance from it
(exact on a straight road).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.textures import band, cell_hash, fade, fractal, mix

ROAD_COLUMNS = (
    "amplitude1",  # metres
    "wavenumber1",  # rad / m
    "phase1",
    "amplitude2",
    "wavenumber2",
    "phase2",
    "half_width",  # metres of asphalt left and right of the centre line
    "pavement",  # metres
    "kerb",  # metres
    "cross_x",  # where another street crosses; far away when none does
    "cross_half",
    "centre_line",  # 0 none, 1 dashed, 2 solid
    "edge_line",  # 0 / 1
    "tone",  # of the asphalt, linear
    "verge",  # 0 grass, 1 gravel and soil
    "dryness",  # of the grass, 0..1
    "cobbles",  # 0: slabs, 1: cobbles
    "seed",
    "outdoors",  # 0: a room, without ground and sky
    "patches",  # contrast of repairs
)
FARTHEST = 1500.0  # metres: the ground ends here


@dataclass(frozen=True)
class Road:
    """Numbers of one world's road (ROAD_COLUMNS), or of a batch as tensors of one shape."""

    values: Tensor  # (..., len(ROAD_COLUMNS))

    def __getattr__(self, name: str) -> Tensor:
        if name not in ROAD_COLUMNS:
            raise AttributeError(name)
        return self.values[..., ROAD_COLUMNS.index(name)]

    def centre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Centre line f(x) and its slope."""
        a, b = self.wavenumber1 * x + self.phase1, self.wavenumber2 * x + self.phase2
        y = self.amplitude1 * a.sin() + self.amplitude2 * b.sin()
        return y, self.amplitude1 * self.wavenumber1 * a.cos() + self.amplitude2 * self.wavenumber2 * b.cos()

    def across(self, x: Tensor, y: Tensor) -> Tensor:
        """Signed distance from the centre line, left positive."""
        centre, slope = self.centre(x)
        return (y - centre) / (1 + slope * slope).sqrt()

    def off_road(self, x: Tensor, y: Tensor) -> Tensor:
        """Metres beyond the asphalt's edge, negative on it."""
        return torch.minimum(self.across(x, y).abs() - self.half_width, (x - self.cross_x).abs() - self.cross_half)


def centre_line(road: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Centre line f(x) and heading (rad) of one world's road values, in float64."""
    a1, k1, p1, a2, k2, p2 = (float(v) for v in road[:6])
    y = a1 * np.sin(k1 * x + p1) + a2 * np.sin(k2 * x + p2)
    return y, np.arctan(a1 * k1 * np.cos(k1 * x + p1) + a2 * k2 * np.cos(k2 * x + p2))


def intersect_ground(road: Road, origins: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Depth (N, Q), inf where the ray misses, and kerb flags (N, Q) of world rays (N, Q, 3) from origins (N, 3).

    The pavement lies a kerb's height above the road; rays that enter the road's space and leave it below the pavement
    meet the kerb's face, found by bisection.
    """
    wide = Road(road.values[:, None])
    down = rays[..., 2] < -1e-5
    speed = torch.where(down, -rays[..., 2], 1.0)
    height = origins[:, None, 2]
    top, bottom = (height - wide.kerb) / speed, height / speed

    def outside(t: Tensor) -> Tensor:
        return wide.off_road(origins[:, None, 0] + t * rays[..., 0], origins[:, None, 1] + t * rays[..., 1])

    on_pavement = outside(top) > 0
    kerb = ~on_pavement & (outside(bottom) > 0)
    n, q = (kerb & down & (bottom < FARTHEST)).nonzero(as_tuple=True)
    depth = torch.where(on_pavement, top, bottom)
    if len(n):
        near, far, ray, start = top[n, q], bottom[n, q], rays[n, q], origins[n]
        part = Road(road.values[n])
        for _ in range(14):
            middle = 0.5 * (near + far)
            inside = part.off_road(start[:, 0] + middle * ray[:, 0], start[:, 1] + middle * ray[:, 1]) <= 0
            near, far = torch.where(inside, middle, near), torch.where(inside, far, middle)
        depth[n, q] = far
    hit = down & (depth < FARTHEST) & (wide.outdoors > 0.5)
    return torch.where(hit, depth, torch.inf), kerb


def ground_colors(road: Road, p: Tensor, footprint: Tensor, kerb: Tensor) -> Tensor:
    """Linear colours (N, 3) of ground points p (N, 3), road values (N, columns), footprint (N,) metres per pixel."""
    x, y = p[:, 0], p[:, 1]
    across, off = road.across(x, y), road.off_road(x, y)
    seed = road.seed.long()
    flat = torch.stack((x, y, torch.zeros_like(x)), -1)
    soft = footprint.clamp(min=0.01)
    fine = fractal(flat, seed, footprint, 9.0, 3)
    broad = fractal(flat, seed + 5, footprint, 0.35, 3)
    color = _asphalt(road, flat, across, off, soft, fine, broad)
    # Each kind of ground is made where it shows.
    off_road, grown = off > 0, ((off - road.pavement) / soft + 0.5).clamp(0, 1)
    i = off_road.nonzero()[:, 0]
    color[i] = _paving(Road(road.values[i]), flat[i], across[i], soft[i], broad[i], fine[i])
    i = (grown > 0).nonzero()[:, 0]
    verge = _verge(Road(road.values[i]), flat[i], footprint[i], fine[i], broad[i])
    color[i] = mix(color[i], verge, grown[i])
    stone = ((kerb | (off > 0)) & (off < 0.16) & (road.kerb > 0.03)).float()
    kerb_color = (0.3 + 0.07 * fine + 0.05 * broad) * (
        1 - 0.35 * (1 - band((x % 1.0) - 0.5, 0.48, soft)) * fade(soft, 1.0)
    )
    return mix(color, kerb_color[:, None].expand(-1, 3), stone)


def _asphalt(
    road: Road, flat: Tensor, across: Tensor, off: Tensor, soft: Tensor, fine: Tensor, broad: Tensor
) -> Tensor:
    x = flat[:, 0]
    seed = road.seed.long()
    # Wheel tracks are darker, repaired rectangles differ, cracks wander.
    tracks = 0.1 * torch.cos(across / road.half_width * 4 * math.pi)
    patch = cell_hash(torch.stack(((x / 7.3).floor(), (across / 1.9).floor()), -1).long(), seed + 8)
    patch = road.patches * ((patch > 0.8).float() * (patch - 0.9) * 6)
    crack = band(fractal(flat, seed + 13, soft, 0.5, 3), 0.012, 0.02) * fade(soft, 8.0)
    tone = road.tone * (1 + 0.34 * fine + 0.22 * broad + tracks + 0.5 * patch - 0.4 * crack)
    color = tone[:, None] * tone.new_tensor([1.0, 0.98, 0.97])
    here = (x - road.cross_x).abs() < road.cross_half + 1.5
    dash = torch.where(road.centre_line > 1.5, 1.0, band((x / 9.0) % 1 - 0.5, 0.25, soft / 9))
    lines = dash * band(across, 0.07, soft) * (road.centre_line > 0.5)
    lines = torch.maximum(lines, road.edge_line * band(across.abs() - road.half_width + 0.3, 0.06, soft))
    worn = (0.85 + 0.5 * broad + 0.35 * fine).clamp(0, 1)
    color = mix(color, 0.62, lines * worn * ~here)
    gutter = band(off, 0.25, 0.15)
    return color * (1 - 0.3 * gutter)[:, None]


def _paving(road: Road, flat: Tensor, across: Tensor, soft: Tensor, broad: Tensor, fine: Tensor) -> Tensor:
    seed = road.seed.long()
    size = torch.where(road.cobbles > 0.5, 0.16, 0.42)
    row = (across / size).floor()
    along = flat[:, 0] / size + 0.5 * (row % 2)
    tone = cell_hash(torch.stack((along.floor(), row), -1).long(), seed + 21)
    joint = 1 - band(along % 1 - 0.5, 0.45, soft / size) * band((across / size) % 1 - 0.5, 0.45, soft / size)
    seen = fade(soft, 1 / size)
    value = 0.25 * (1 + 0.25 * broad + 0.22 * fine + (0.5 * (tone - 0.5) - 0.45 * joint) * seen)
    return value[:, None] * value.new_tensor([1.0, 0.95, 0.88])


def _verge(road: Road, flat: Tensor, footprint: Tensor, fine: Tensor, broad: Tensor) -> Tensor:
    seed = road.seed.long()
    blades = fractal(flat, seed + 31, footprint, 3.0, 4)
    green, dry = flat.new_tensor([0.058, 0.085, 0.024]), flat.new_tensor([0.2, 0.165, 0.085])
    amount = (road.dryness + 0.45 * broad + 0.3 * blades).clamp(0, 1)
    grass = (green + (dry - green) * amount[:, None]) * (1 + 0.65 * blades + 0.2 * fine).clamp(min=0.1)[:, None]
    soil = flat.new_tensor([0.25, 0.21, 0.17]) * (1 + 0.4 * fine + 0.3 * broad + 0.2 * blades)[:, None]
    patchy = fractal(flat, seed + 41, footprint, 0.12, 2)
    earth = torch.where(road.verge > 0.5, 0.8, 0.1) + 0.9 * patchy
    return mix(grass, soil, earth.clamp(0, 1))


def sky_colors(rays: Tensor, sun: Tensor, zenith: Tensor, horizon: Tensor, clouds: Tensor, seed: Tensor) -> Tensor:
    """Linear colours (N, 3) along unit rays (N, 3): a gradient, clouds on a plane overhead, a glow about the sun.

    sun, zenith, horizon (N, 3); clouds (N,) 0 clear .. 1 overcast; seed (N,) int64.
    """
    up = rays[:, 2].clamp(min=0)
    color = mix(horizon, zenith, 1 - torch.exp(-3.2 * up))
    dome = rays / (up + 0.12)[:, None]
    dome = torch.stack((dome[:, 0], dome[:, 1], torch.zeros_like(up)), -1)
    cover = fractal(dome, seed + 3, 0.05 / (up + 0.1), 0.55, 5)
    amount = ((cover + 1.6 * clouds - 0.75) * 1.7).clamp(0, 1) * (up * 14).clamp(0, 1)
    shade = 0.85 + 0.25 * fractal(dome, seed + 19, 0.05 / (up + 0.1), 0.8, 3)
    white = horizon.amax(-1, keepdim=True) * shade[:, None]
    color = mix(color, white, amount * 0.9)
    glow = (rays * sun).sum(-1).clamp(0, 1)
    return color + (0.8 * glow**24 + 0.35 * glow**5)[:, None] * horizon
