# SPDX-License-Identifier: Apache-2.0
"""Cars, people and other props of several primitives: each variant is made once, at the origin, and placed often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.primitives import SLICES
from pixel4d_ros.synthetic.world import Builder

Make = Callable[[Builder, Generator], float]  # adds a prop at the origin, returns the height of its middle, metres


@dataclass(frozen=True)
class Template:
    """A kind of prop in many variants, facing x, its foot at z = 0."""

    make: Make
    variants: int
    outline: tuple[float, float]  # half length and half width, metres
    kind: str = ""  # of models (assets.py) that may take its place

    def add(self, out: Builder, rng: Generator, xy: FloatArray, yaw: float, object_id: int = 0) -> float:
        """Add a random variant at xy (2,), turned by yaw (rad); returns the height of its middle in metres.

        Without the id of a moving object it becomes an object that stands.
        """
        origin, height = _variant(self.make, int(rng.integers(self.variants)))
        if self.kind and out.choose_model is not None:
            origin, height = out.choose_model(self.kind) or (origin, height)
        rows = moved_rows(origin, xy, yaw)
        rows[:, SLICES["object"]] = object_id
        rows[:, SLICES["instance"]] = object_id or out.stand((*xy, height))
        rows[:, SLICES["group"]] = out.groups(1)
        out.parts.append(rows)
        return height


def moved_rows(origin: FloatArray, xy: FloatArray, yaw: float) -> FloatArray:
    """Rows (P, ROW) of something made at the origin, turned by yaw (rad) and moved to xy (2,)."""
    rows: FloatArray = origin.copy()
    x, y = origin[:, SLICES["center"]][:, 0], origin[:, SLICES["center"]][:, 1]
    rows[:, SLICES["center"].start] = xy[0] + np.cos(yaw) * x - np.sin(yaw) * y
    rows[:, SLICES["center"].start + 1] = xy[1] + np.sin(yaw) * x + np.cos(yaw) * y
    rows[:, SLICES["yaw"]] += yaw
    return rows


@lru_cache(maxsize=1024)
def _variant(make: Make, index: int) -> tuple[FloatArray, float]:
    """Rows of one variant at the origin, and the height of its middle."""
    out = Builder()
    height = make(out, np.random.default_rng([index, 4]))
    return out.rows(), height
