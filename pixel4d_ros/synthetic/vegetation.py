# SPDX-License-Identifier: Apache-2.0
"""Trees near the street with branches and clusters of leaves, conifers, bare trees and hedges."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.world import Builder

BRANCHES, CLUSTERS = 6, 8


def add_branch(
    out: Builder, start: FloatArray, stop: FloatArray, radius: FloatArray, color: FloatArray, group: FloatArray
) -> None:
    """Cylinders from start (n, 3) to stop (n, 3) of radius (n,)."""
    n, way = len(start), stop - start
    length = np.linalg.norm(way, axis=-1)
    # Rz(yaw) Rx(roll) carries z to (sin(yaw) sin(roll), -cos(yaw) sin(roll), cos(roll)).
    out.cylinder(
        Material.PLAIN,
        n,
        center=0.5 * (start + stop),
        half=np.column_stack((radius, radius, 0.5 * length)),
        roll=np.arccos(np.clip(way[:, 2] / np.maximum(length, 1e-6), -1, 1)),
        yaw=np.arctan2(way[:, 0], -way[:, 1]),
        color=color,
        shade=0.35,
        params=(9, 0.9, 4, 0),
        seed=group,
        group=group,
    )


def add_branched_trees(out: Builder, rng: Generator, xy: FloatArray, size: FloatArray, bare: bool) -> None:
    """Trees at xy (n, 2), `size` (n,) metres tall, whose branches show between clusters of leaves, or bare ones."""
    n = len(xy)
    if n == 0:
        return
    group = out.groups(n)
    bark = np.array([0.1, 0.08, 0.06]) * rng.uniform(0.4, 1.4, (n, 1)) * rng.uniform(0.9, 1.1, (n, 3))
    fork = size * rng.uniform(0.28, 0.42, n)
    foot = np.column_stack((xy, np.zeros(n)))
    lean = rng.normal(0, 0.04, (n, 2)) * size[:, None]
    crotch = np.column_stack((xy + lean, fork))
    top = np.column_stack((xy + 1.6 * lean, 0.85 * size))
    thick = (0.014 * size + 0.03) * rng.uniform(0.8, 1.4, n)
    add_branch(out, foot, crotch, thick, bark, group)
    add_branch(out, crotch, top, 0.5 * thick, bark, group)
    green = np.array([0.055, 0.1, 0.02]) * rng.uniform(0.5, 1.4, (n, 1)) * rng.uniform(0.75, 1.25, (n, 3))
    ends = []
    for k in range(BRANCHES):
        angle = 2.4 * k + rng.uniform(0, 6.283, n)
        reach = size * rng.uniform(0.14, 0.3, n)
        base = crotch + (top - crotch) * (rng.uniform(0, 0.7, (n, 1)) if k > 1 else 0.0)
        rise = size * rng.uniform(0.06, 0.34, n)
        end = base + np.column_stack((reach * np.cos(angle), reach * np.sin(angle), rise))
        add_branch(out, base, end, thick * rng.uniform(0.22, 0.42, n), bark, group)
        ends.append(end)
    ends += [top, 0.5 * (top + crotch)]
    for center in ends[:CLUSTERS]:
        wide = size * rng.uniform(0.1, 0.19, n)
        half = np.column_stack((wide, wide, 0.8 * wide)) * rng.uniform(0.8, 1.3, (n, 3))
        params = np.column_stack(
            (
                rng.uniform(4.0, 9.0, n) * (0.6 if bare else 1.0),
                rng.uniform(0.42, 0.56, n),
                np.full(n, float(bare)),
                np.zeros(n),
            )
        )
        tint = bark if bare else green * rng.uniform(0.8, 1.25, (n, 1))
        out.ball(
            Material.FOLIAGE,
            n,
            center=center + rng.normal(0, 0.02, (n, 3)) * size[:, None],
            half=half * (1.5 if bare else 1.0),
            yaw=rng.uniform(0, 6.283, n),
            color=tint * 0.35,
            color2=tint * (0.8 if bare else 1.7),
            params=params,
            seed=rng.integers(1 << 20, size=n),
            group=group,
        )


def add_conifers(out: Builder, rng: Generator, xy: FloatArray, size: FloatArray) -> None:
    """Conifers at xy (n, 2), `size` (n,) metres tall: a trunk and four stages of needles."""
    n = len(xy)
    if n == 0:
        return
    group = out.groups(n)
    bark = np.array([0.08, 0.055, 0.04]) * rng.uniform(0.5, 1.3, (n, 1))
    foot = np.column_stack((xy, np.zeros(n)))
    add_branch(out, foot, foot + np.column_stack((np.zeros((n, 2)), 0.9 * size)), 0.012 * size + 0.03, bark, group)
    needles = np.array([0.028, 0.06, 0.028]) * rng.uniform(0.5, 1.3, (n, 1)) * rng.uniform(0.8, 1.2, (n, 3))
    wide = size * rng.uniform(0.13, 0.2, n)
    for k in range(4):
        tall = size * (0.2 - 0.02 * k)
        stage = wide * (1 - 0.21 * k)
        out.box(
            Material.FOLIAGE,
            n,
            center=np.column_stack((xy, size * (0.24 + 0.2 * k) + 0.4 * tall)),
            half=np.column_stack((stage, stage, tall)),
            taper=(0.97, 0.97, 0.97),
            yaw=rng.uniform(0, 6.283, n),
            color=needles * 0.4,
            color2=needles * 1.7,
            params=np.column_stack((rng.uniform(4, 8, n), np.full(n, 0.42), np.zeros(n), np.zeros(n))),
            seed=rng.integers(1 << 20, size=n),
            group=group,
        )
