# SPDX-License-Identifier: Apache-2.0
"""Things of several primitives that are drawn once, at the origin, and placed often."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.primitives import SLICES
from pixel4d_ros.synthetic.world import Builder


@lru_cache(maxsize=1024)
def template(make: Callable[[Builder, Generator], float], index: int) -> tuple[FloatArray, float]:
    """Rows of variant number `index` at the origin, and the height of its middle: drawn once, placed often."""
    out = Builder()
    height = make(out, np.random.default_rng([index, 4]))
    return out.rows(), height


def place(
    out: Builder,
    rows_at_origin: FloatArray,
    xy: FloatArray,
    yaw: float,
    object_id: int,
    height: float,
    stands: bool = True,
) -> None:
    """Add rows at the origin at xy (2,); `height` is that of its middle. One that stands becomes an object, too."""
    rows = rows_at_origin.copy()
    x, y = rows_at_origin[:, SLICES["center"]][:, 0], rows_at_origin[:, SLICES["center"]][:, 1]
    rows[:, SLICES["center"].start] = xy[0] + np.cos(yaw) * x - np.sin(yaw) * y
    rows[:, SLICES["center"].start + 1] = xy[1] + np.sin(yaw) * x + np.cos(yaw) * y
    rows[:, SLICES["yaw"]] += yaw
    rows[:, SLICES["object"]] = object_id
    rows[:, SLICES["instance"]] = out.stand((*xy, height)) if stands and object_id == 0 else object_id
    rows[:, SLICES["group"]] = out.groups(1)
    out.parts.append(rows)
