# SPDX-License-Identifier: Apache-2.0
"""The plan of a street, shared by everything that is placed on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.ground import ROAD_COLUMNS
from pixel4d_ros.synthetic.motion import RoadTable

TOWN, SUBURB, COUNTRY = range(3)
FAR = 1e5  # where a street crosses that does not exist


@dataclass(frozen=True)
class StreetPlan:
    """Numbers of a street that its scenery and traffic share."""

    style: int
    road: FloatArray
    table: RoadTable
    length: float  # metres of street ahead
    half_width: float
    pavement: float
    cross: tuple[float, float]  # x and half width of the cross street
    flow: float  # m/s at which traffic flows here


def clear(plan: StreetPlan, s: FloatArray, margin: FloatArray | float) -> NDArray[np.bool_]:
    """Whether places along the road are off the cross street."""
    x = np.interp(s, plan.table.s, plan.table.x)
    outside: NDArray[np.bool_] = np.abs(x - plan.cross[0]) > plan.cross[1] + margin
    return outside


def raised(xy: FloatArray, z: FloatArray | float) -> FloatArray:
    """Points (n, 3) at xy (n, 2) and height z (n,), metres."""
    return np.column_stack((xy, np.broadcast_to(z, len(xy))))


def make_plan(rng: Generator, style: int, drive: float) -> StreetPlan:
    """A street of that style for a drive of `drive` metres."""
    half_width = rng.uniform(*((3.6, 6.0), (3.0, 4.4), (2.8, 4.0))[style])
    pavement = (rng.uniform(1.2, 3.5), rng.uniform(0.8, 2.2), 0.0)[style]
    bend = rng.choice([0.0, 1.0], p=[0.3, 0.7]) * rng.uniform(0.0, 12.0)
    crosses = style != COUNTRY and rng.uniform() < 0.4
    cross = (rng.uniform(15, 70), rng.uniform(2.5, 4.5)) if crosses else (FAR, 1.0)
    numbers = {
        "amplitude1": bend,
        "wavenumber1": 2 * np.pi / rng.uniform(170, 400),
        "phase1": rng.uniform(0, 2 * np.pi),
        "amplitude2": 0.08 * bend * rng.uniform(),
        "wavenumber2": 2 * np.pi / rng.uniform(70, 120),
        "phase2": rng.uniform(0, 2 * np.pi),
        "half_width": half_width,
        "pavement": pavement,
        "kerb": 0.0 if style == COUNTRY else rng.uniform(0.05, 0.14),
        "cross_x": cross[0],
        "cross_half": cross[1],
        "centre_line": rng.choice(3, p=((0.4, 0.5, 0.1), (0.6, 0.35, 0.05), (0.15, 0.6, 0.25))[style]),
        "edge_line": float(rng.uniform() < (0.1, 0.1, 0.7)[style]),
        "tone": rng.uniform(0.06, 0.16),
        "verge": float(rng.uniform() < (0.6, 0.15, 0.1)[style]),
        "dryness": rng.uniform(0, 0.8) ** 2,
        "cobbles": float(rng.uniform() < 0.35),
        "seed": int(rng.integers(1 << 20)),
        "outdoors": 1.0,
        "patches": rng.choice([0.0, 1.0]) * rng.uniform(0.3, 1.0),
    }
    road = np.array([numbers[name] for name in ROAD_COLUMNS])
    length = drive + 170.0
    table = RoadTable(road, -60.0, length + 60.0)
    return StreetPlan(style, road, table, length, half_width, pavement, cross, flow_speed(rng, style, half_width))


def flow_speed(rng: Generator, style: int, half_width: float) -> float:
    """Speed of the traffic in m/s: what the kind of street allows, less where it is narrow."""
    return float((11.0, 9.5, 19.0)[style] * np.clip(half_width / 4.5, 0.75, 1.1) * np.exp(rng.normal(0, 0.1)))
