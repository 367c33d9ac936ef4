# SPDX-License-Identifier: Apache-2.0
"""Trees, bushes and houses, each composed of a few primitives, made many at a time."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.world import Builder


def add_trees(out: Builder, rng: Generator, xy: FloatArray, size: FloatArray, autumn: float) -> None:
    """Trees at xy (n, 2), `size` (n,) metres tall, a trunk and five leafy ellipsoids each; autumn 0..1 browns them."""
    n = len(xy)
    if n == 0:
        return
    seeds, group = rng.integers(1 << 20, size=n), out.groups(n)
    trunk = size * rng.uniform(0.32, 0.45, n)
    bark = np.array([0.09, 0.075, 0.055]) * rng.uniform(0.5, 1.3, (n, 1))
    thick = 0.015 * size + 0.04
    out.cylinder(
        Material.PLAIN,
        n,
        center=np.column_stack((xy, trunk * 0.75)),
        half=np.column_stack((thick, thick, trunk * 0.75)),
        color=bark,
        shade=0.35,
        params=(7, 0.9, 4, 0),
        seed=seeds,
        group=group,
        contact=0.6,
    )
    green = np.array([0.055, 0.105, 0.02]) * rng.uniform(0.5, 1.3, (n, 1)) * rng.uniform(0.8, 1.2, (n, 3))
    brown = np.array([0.32, 0.12, 0.02]) * rng.uniform(0.6, 1.2, (n, 1)) * rng.uniform(0.8, 1.2, (n, 3))
    turned = (rng.uniform(size=(n, 1)) < autumn) * rng.uniform(0.4, 1, (n, 1))
    leaves = green + (brown - green) * turned
    wide = size * rng.uniform(0.2, 0.32, n)
    tall = (size - trunk) * 0.5
    for k in range(5):
        angle = rng.uniform(0, 6.283, n) + k * 1.6
        out_by = wide * (0.0 if k == 0 else 0.6) * rng.uniform(0.6, 1.1, n)
        center = np.column_stack(
            (
                xy[:, 0] + out_by * np.cos(angle),
                xy[:, 1] + out_by * np.sin(angle),
                trunk + tall * (1 + (0 if k == 0 else rng.uniform(-0.6, 0.45, n))),
            )
        )
        scale = 1.0 if k == 0 else 0.68
        half = np.column_stack((wide, wide, tall)) * scale * rng.uniform(0.85, 1.15, (n, 3))
        out.ball(
            Material.FOLIAGE,
            n,
            center=center,
            half=half,
            yaw=rng.uniform(0, 6.283, n),
            color=leaves * 0.35,
            color2=leaves * 1.6,
            params=(3.0, 0.5, 0, 0),
            seed=seeds + 7 * k,
            group=group,
        )


def add_bushes(out: Builder, rng: Generator, xy: FloatArray, size: FloatArray) -> None:
    """Round shrubs at xy (n, 2), `size` (n,) metres."""
    n = len(xy)
    if n == 0:
        return
    leaves = np.array([0.05, 0.09, 0.02]) * rng.uniform(0.6, 1.6, (n, 1)) * rng.uniform(0.8, 1.2, (n, 3))
    out.ball(
        Material.FOLIAGE,
        n,
        center=np.column_stack((xy, size * 0.4)),
        half=size[:, None] * rng.uniform(0.6, 1.2, (n, 3)),
        color=leaves * 0.35,
        color2=leaves * 1.6,
        params=(3.0, 0.36, 0, 0),
        seed=rng.integers(1 << 20, size=n),
    )


WALLS = np.array(
    [
        [0.7, 0.68, 0.62],
        [0.6, 0.5, 0.34],
        [0.55, 0.36, 0.2],
        [0.42, 0.4, 0.37],
        [0.62, 0.6, 0.57],
        [0.3, 0.17, 0.11],
        [0.34, 0.24, 0.15],
        [0.2, 0.19, 0.18],
        [0.5, 0.3, 0.24],
    ]
)


def add_houses(
    out: Builder, rng: Generator, center: FloatArray, yaw: FloatArray, half: FloatArray, gabled: NDArray[np.bool_]
) -> None:
    """Houses of half extents (n, 3) at center (n, 2), turned by yaw (n,); gabled (n,) bool: which get a roof."""
    n = len(center)
    if n == 0:
        return
    wall = WALLS[rng.integers(len(WALLS), size=n)] * rng.uniform(0.7, 1.15, (n, 1))
    style = rng.choice(3, n, p=[0.6, 0.25, 0.15])
    brick = np.array([0.27, 0.13, 0.08]) * rng.uniform(0.6, 1.4, (n, 1))
    stone = np.array([0.36, 0.27, 0.17]) * rng.uniform(0.6, 1.2, (n, 1))
    wall = np.where((style == 1)[:, None], brick, np.where((style == 2)[:, None], stone, wall))
    trim = np.where(
        rng.uniform(size=(n, 1)) < 0.5, wall * 0.5, rng.uniform(0.15, 0.5, (n, 1)) * np.array([1.0, 0.9, 0.8])
    )
    storeys = np.maximum(1, np.round(2 * half[:, 2] / 3.0))
    params = np.column_stack((2 * half[:, 2] / storeys, rng.uniform(2.0, 3.6, n), rng.uniform(0.3, 0.55, n), style))
    seeds, group = rng.integers(1 << 20, size=n), out.groups(n)
    out.box(
        Material.FACADE,
        n,
        center=np.column_stack((center, half[:, 2])),
        yaw=yaw,
        half=half,
        color=wall,
        color2=trim,
        params=params,
        seed=seeds,
        group=group,
        contact=0.5,
    )
    roof = np.array([0.2, 0.075, 0.045]) * rng.uniform(0.4, 1.3, (n, 1)) * rng.uniform(0.85, 1.15, (n, 3))
    slate = (rng.uniform(size=(n, 1)) < 0.4) * 1.0
    roof = roof * (1 - slate) + 0.06 * slate
    pitch = np.where(gabled, half[:, 1] * rng.uniform(0.35, 0.5, n), 0.15)
    across = np.where(gabled, 1.0, 0.0)
    hip = np.where(gabled & (rng.uniform(size=n) < 0.3), 0.4, 0.0)
    out.box(
        Material.ROOF,
        n,
        center=np.column_stack((center, 2 * half[:, 2] + pitch)),
        yaw=yaw,
        half=np.column_stack((half[:, 0] + 0.25, half[:, 1] + 0.4, pitch)),
        taper=np.column_stack((hip, hip, across)),
        color=roof,
        color2=wall,
        params=(0.33, 0, 0, 0),
        seed=seeds + 1,
        group=group,
    )
    tops = gabled & (rng.uniform(size=n) < 0.7)
    m = int(tops.sum())
    x = center[tops] + rng.uniform(-0.5, 0.5, (m, 1)) * half[tops, :1] * np.column_stack(
        (np.cos(yaw[tops]), np.sin(yaw[tops]))
    )
    out.box(
        Material.PLAIN,
        m,
        center=np.column_stack((x, 2 * half[tops, 2] + 2 * pitch[tops])),
        yaw=yaw[tops],
        half=(0.3, 0.3, 0.8),
        color=(0.2, 0.1, 0.07),
        color2=(0.1, 0.06, 0.05),
        params=(5, 0.6, 0.5, 0),
        seed=seeds[tops],
        group=group[tops],
    )
