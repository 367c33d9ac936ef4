# SPDX-License-Identifier: Apache-2.0
"""Houses, trees and street furniture that are textured models (assets.py)."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.plan import TOWN, StreetPlan, clear
from pixel4d_ros.synthetic.primitives import SLICES
from pixel4d_ros.synthetic.templates import moved_rows
from pixel4d_ros.synthetic.world import Builder

NEARBY = 70.0  # metres of street ahead that have furniture and trees
HOUSES = 0.5  # share of the houses outside towns


def add_models(out: Builder, rng: Generator, plan: StreetPlan) -> None:
    """Add furniture on the pavements and trees behind them; none where the street has no models."""
    if out.choose_model is None:
        return
    edge = plan.half_width + plan.pavement
    for side in (-1, 1):
        for _ in range(int(rng.integers(0, 5))):
            across = plan.half_width + rng.uniform(0.5, max(1.0, plan.pavement - 0.3))
            _stand(out, "furniture", plan, rng.uniform(2, NEARBY), side * across, side, rng)
        for _ in range(int(rng.integers(0, 3 if plan.style == TOWN else 4))):
            across = edge + (rng.uniform(-0.3, 0.8) if plan.style == TOWN else rng.uniform(2.5, 14))
            _stand(out, "tree", plan, rng.uniform(6, NEARBY), side * across, side, rng)


def replace_houses(out: Builder, first: int, rng: Generator, point: FloatArray, yaw: FloatArray) -> NDArray[np.bool_]:
    """Replace some of n houses at point (n, 2) by models that face yaw (n,); returns which ones (n,).

    add_houses made them as out.parts[first:].
    """
    replaced = np.zeros(len(point), np.bool_)
    if out.choose_model is None or len(out.parts) == first:
        return replaced
    groups = out.parts[first][:, SLICES["group"]][:, 0]  # the walls, one per house
    for k in np.nonzero(rng.uniform(size=len(point)) < HOUSES)[0]:
        found = out.choose_model("house")
        if found is not None:
            replaced[k] = True
            rows = moved_rows(found[0], point[k], float(yaw[k]))
            rows[:, SLICES["group"]] = groups[k]
            out.parts.append(rows)
    dropped = groups[replaced]
    for i in range(first, len(out.parts) - int(replaced.sum())):
        out.parts[i] = out.parts[i][~np.isin(out.parts[i][:, SLICES["group"]][:, 0], dropped)]
    return replaced


def _stand(out: Builder, kind: str, plan: StreetPlan, s: float, across: float, side: int, rng: Generator) -> None:
    """One model s metres along the road that looks across or along it, unless it would stand on the cross street."""
    found = out.choose_model(kind) if out.choose_model else None
    if found is None or not clear(plan, np.array([s]), 2.0)[0]:
        return
    point, heading = plan.table.place(s, across)
    turn = rng.uniform(0, 6.28) if kind == "tree" else rng.choice([-side * np.pi / 2, np.pi, 0.0]) + rng.normal(0, 0.05)
    rows: FloatArray = moved_rows(found[0], point, float(heading) + turn)
    rows[:, SLICES["group"]] = out.groups(1)
    out.parts.append(rows)
