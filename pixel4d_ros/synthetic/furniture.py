# SPDX-License-Identifier: Apache-2.0
"""Thin and small objects along a street: fences, railings, bollards, signs, traffic lights, cables, bicycles, bins."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.plan import COUNTRY, FAR, StreetPlan, clear, raised
from pixel4d_ros.synthetic.vegetation import add_branch, add_branched_trees, add_conifers
from pixel4d_ros.synthetic.world import Builder

NEARBY = 48.0  # metres along the road: farther off details hardly show


def add_details(out: Builder, rng: Generator, plan: StreetPlan) -> None:
    """Add each kind of object in this file with some probability, near the start of the street."""
    for side in (-1, 1):
        if rng.uniform() < 0.45:
            _railing(out, rng, plan, side)
        if rng.uniform() < 0.35:
            _bollards(out, rng, plan, side)
        if rng.uniform() < 0.4:
            _bicycles(out, rng, plan, side)
        if rng.uniform() < 0.45:
            _cables(out, rng, plan, side)
        _signs(out, rng, plan, side)
        _trees(out, rng, plan, side)
    if plan.cross[0] < FAR:
        _traffic_lights(out, rng, plan)
    _cones_and_boxes(out, rng, plan)


def _steel(rng: Generator) -> FloatArray:
    choices = [
        np.full(3, 0.3),
        np.full(3, 0.03),
        np.array([0.02, 0.06, 0.03]),
        np.full(3, 0.6),
        np.array([0.12, 0.08, 0.05]),
    ]
    return np.asarray(choices[int(rng.integers(len(choices)))] * rng.uniform(0.7, 1.2))


def _at(
    plan: StreetPlan, s: FloatArray, across: FloatArray | float, z: FloatArray | float
) -> tuple[FloatArray, FloatArray]:
    """Points (n, 3) and headings (n,)."""
    point, heading = plan.table.place(s, np.broadcast_to(across, np.shape(s)))
    return raised(point, z), heading


def _railing(out: Builder, rng: Generator, plan: StreetPlan, side: int) -> None:
    """A see-through fence or railing, at the kerb or behind the pavement."""
    at_kerb = plan.style != COUNTRY and rng.uniform() < 0.4
    across = side * (plan.half_width + (0.25 if at_kerb else plan.pavement + rng.uniform(0.3, 1.2)))
    piece = 3.0
    start = rng.uniform(-3, 12)
    s = np.arange(start, start + rng.uniform(9, NEARBY), piece)
    s = s[clear(plan, s, 3.0)]
    tall = rng.uniform(0.4, 0.6) if at_kerb else rng.uniform(0.45, 1.0)
    style = int(rng.choice(3, p=[0.6, 0.2, 0.2]))
    pitch = (rng.uniform(0.09, 0.2), rng.uniform(0.08, 0.2), rng.uniform(0.25, 0.45))[style]
    share = (rng.choice([0.15, 0.22, 0.6]), 0.07, 0.14)[style]
    color = _steel(rng) if share < 0.5 else rng.uniform(0.15, 0.7) * np.array([1.0, 0.85, 0.65])
    center, heading = _at(plan, s, across, tall)
    out.box(
        Material.FENCE,
        len(s),
        center=center,
        half=(0.5 * piece + 0.01, 0.012, tall),
        yaw=heading,
        color=color,
        shade=0.6,
        params=(pitch, share, style, 1.5),
        seed=rng.integers(1 << 20),
        group=out.groups(1)[0],
    )


def _bollards(out: Builder, rng: Generator, plan: StreetPlan, side: int) -> None:
    s = np.arange(rng.uniform(0, 8), rng.uniform(15, NEARBY), rng.uniform(1.4, 2.6))
    s = s[clear(plan, s, 1.0)]
    tall, color, n = rng.uniform(0.4, 0.55), _steel(rng), len(s)
    center, _ = _at(plan, s, side * (plan.half_width + 0.3), tall)
    look: dict[str, Any] = {"color": color, "color2": color * 0.6, "params": (4, 0.3, 1, 0.1), "contact": 0.4}
    group = out.groups(n)
    radius = rng.uniform(0.04, 0.09)
    out.cylinder(Material.PLAIN, n, center=center, half=(radius, radius, tall), group=group, **look)
    if rng.uniform() < 0.5:
        center, _ = _at(plan, s, side * (plan.half_width + 0.3), 2 * tall)
        look.update(color=rng.choice([0.6, 0.3]) * np.array([1.0, rng.choice([1.0, 0.1]), rng.choice([1.0, 0.1])]))
        out.ball(Material.PLAIN, n, center=center, half=(radius * 1.3,) * 3, group=group, **look)


def _bicycles(out: Builder, rng: Generator, plan: StreetPlan, side: int) -> None:
    """Parked bicycles, alone or in a row, seen from any side; each is a standing object."""
    s, row = rng.uniform(3, 22), int(rng.integers(1, 5))
    turn = rng.choice([0.0, np.pi / 2 + rng.normal(0, 0.3)])
    for _ in range(row):
        across = side * (plan.half_width + 0.5 + max(plan.pavement, 0.8) * rng.uniform(0.2, 0.9))
        center, heading = _at(plan, np.array([s]), across, 0.52)
        color = rng.uniform(0.01, 0.5) * rng.uniform(0.1, 1.0, 3)
        group, instance = out.groups(1)[0], out.stand(center[0])
        yaw = heading[0] + turn + rng.normal(0, 0.15)
        look: dict[str, Any] = {"color": color, "color2": color * 0.3, "yaw": yaw, "instance": instance, "group": group}
        lean = rng.uniform(-0.12, 0.12)
        out.box(Material.BICYCLE, center=center[0], half=(0.9, 0.015, 0.52), roll=lean, **look)
        ahead = center[0] + np.array([0.4 * np.cos(yaw), 0.4 * np.sin(yaw), 0.46])
        look.update(color=(0.02, 0.02, 0.02), color2=(0.01, 0.01, 0.01), params=(3, 0.2, 1, 0))
        out.box(Material.PLAIN, center=ahead, half=(0.02, 0.28, 0.02), **look)
        s += rng.uniform(0.5, 0.9) if turn else rng.uniform(1.9, 3)


def _cables(out: Builder, rng: Generator, plan: StreetPlan, side: int) -> None:
    """Poles with cables between them, or cables across the street."""
    tall = rng.uniform(5.5, 8.5)
    wood = rng.uniform() < 0.5
    color = np.array([0.13, 0.09, 0.06]) if wood else np.full(3, 0.3)
    if rng.uniform() < 0.3 and plan.style != COUNTRY:  # across
        s = rng.uniform(8, 45, int(rng.integers(1, 4)))
        center, heading = _at(plan, s, 0.0, tall - 0.5)
        half, yaw = np.array([plan.half_width + plan.pavement + 2, 0.01, 0.45]), heading + np.pi / 2
    else:
        gap = rng.uniform(18, 30)
        s = np.arange(rng.uniform(-14, 6), 75, gap)
        across = side * (plan.half_width + plan.pavement + 0.4)
        foot, _ = _at(plan, s, across, 0.0)
        radius = np.full(len(s), rng.uniform(0.07, 0.13))
        group = out.groups(len(s))
        add_branch(out, foot, foot + np.array([0, 0, tall + 0.2]), radius, np.tile(color, (len(s), 1)), group)
        middle, _ = _at(plan, s, across, tall - 0.45)
        center = 0.5 * (middle[1:] + middle[:-1])
        way = middle[1:] - middle[:-1]
        half = np.column_stack((0.5 * np.hypot(way[:, 0], way[:, 1]), np.full(len(way), 0.01), np.full(len(way), 0.5)))
        yaw = np.arctan2(way[:, 1], way[:, 0])
    dark = np.full(3, 0.02)
    params = (rng.uniform(0.008, 0.022), int(rng.integers(1, 4)), 0, 0)
    out.box(
        Material.CABLES,
        len(center),
        center=center,
        half=half,
        yaw=yaw,
        color=dark,
        color2=dark,
        params=params,
    )


def _signs(out: Builder, rng: Generator, plan: StreetPlan, side: int) -> None:
    """Rectangular signs, posters on stands, and letters on walls of the pavement's edge."""
    for _ in range(int(rng.integers(0, 4))):
        s, across = rng.uniform(4, NEARBY), side * (plan.half_width + rng.uniform(0.3, 0.5 + plan.pavement))
        foot, heading = _at(plan, np.array([s]), across, 0.0)
        low, wide, tall = rng.uniform(1.7, 2.4), rng.uniform(0.15, 0.5), rng.uniform(0.12, 0.4)
        if rng.uniform() < 0.25:  # a billboard
            low, wide, tall = 0.6, rng.uniform(0.5, 1.6), rng.uniform(0.6, 1.0)
        group, steel = out.groups(1), np.full((1, 3), 0.3)
        add_branch(out, foot, foot + np.array([0, 0, low + 2 * tall]), np.array([0.03]), steel, group)
        face = heading[0] + rng.choice([0.0, np.pi]) + rng.normal(0, 0.2)
        back = np.array([np.cos(face), np.sin(face), 0]) * -0.04
        color = (np.array([0.01, 0.05, 0.35]), np.full(3, 0.65), np.array([0.6, 0.45, 0.02]), rng.uniform(0.02, 0.6, 3))
        out.box(
            Material.PRINT,
            center=foot[0] + back + np.array([0, 0, low + tall]),
            half=(0.012, wide, tall),
            yaw=face,
            color=color[int(rng.integers(4))],
            color2=rng.choice([0.02, 0.7]) * np.ones(3),
            params=(rng.uniform(0.15, 0.8), 0, 0, 0),
            seed=rng.integers(1 << 20),
            group=group[0],
        )


def _trees(out: Builder, rng: Generator, plan: StreetPlan, side: int) -> None:
    count = int(rng.integers(0, 5))
    s = rng.uniform(4, NEARBY, count)
    s = s[clear(plan, s, 2.0)]
    edge = plan.half_width + (0.7 if plan.pavement > 1.6 else plan.pavement + 0.6)
    point, _ = plan.table.place(s, side * (edge + rng.choice([0.0, 1.0]) * rng.uniform(0, 5, len(s))))
    size = rng.uniform(4.5, 11, len(s))
    if rng.uniform() < (0.12, 0.3, 0.35)[plan.style]:
        point, _ = plan.table.place(s, side * (edge + 2.5 + rng.uniform(0, 5, len(s))))  # their foot is wide
        add_conifers(out, rng, point, size)
    else:
        add_branched_trees(out, rng, point, size, bare=bool(rng.uniform() < 0.15))


def _traffic_lights(out: Builder, rng: Generator, plan: StreetPlan) -> None:
    tall = rng.uniform(2.8, 5.5)
    for side in (-1, 1):
        foot = np.array([[plan.cross[0] - plan.cross[1] - 0.8, side * (plan.half_width + 0.5), 0.0]])
        foot[0, 1] += float(plan.table.place(plan.cross[0], 0.0)[0][1])
        group, steel = out.groups(1), np.full((1, 3), 0.05)
        head = foot + np.array([0, 0, tall])
        add_branch(out, foot, head, np.array([0.06]), steel, group)
        if tall > 4:
            arm = head + np.array([0, -side * 2.2, 0.1])
            add_branch(out, head, arm, np.array([0.05]), steel, group)
            head = arm
        center = head[0] + np.array([-0.12, 0, -0.1])
        dark: dict[str, Any] = {"color": (0.02, 0.025, 0.02), "color2": (0.01, 0.01, 0.01), "group": group[0]}
        out.box(Material.PLAIN, center=center, half=(0.1, 0.16, 0.45), params=(3, 0.2, 1, 0), **dark)
        shining = int(rng.integers(3))
        for k, light in enumerate(([4.0, 0.1, 0.05], [4.0, 2.0, 0.1], [0.1, 3.0, 1.2])):
            glow = np.array(light) * (1.0 if k == shining else 0.02)
            spot = center + np.array([-0.1, 0, 0.28 - 0.28 * k])
            out.ball(Material.PLAIN, center=spot, half=(0.03, 0.1, 0.1), color=glow, color2=glow, group=group[0])


def _cones_and_boxes(out: Builder, rng: Generator, plan: StreetPlan) -> None:
    """Cones, rubbish bags, crates and plant tubs."""
    n = int(rng.integers(0, 9))
    side = rng.choice([-1, 1], n)
    s = rng.uniform(3, NEARBY, n)
    across = side * (plan.half_width + rng.uniform(-0.2, 0.6 + max(plan.pavement, 0.6), n))
    size = rng.uniform(0.12, 0.4, (n, 3))
    center, heading = _at(plan, s, across, size[:, 2])
    tint = rng.uniform(0.02, 0.5, (n, 1)) * rng.uniform(0.2, 1.0, (n, 3))
    cone = (rng.uniform(size=n) < 0.35)[:, None]
    tint = np.where(cone, np.array([0.6, 0.1, 0.01]), tint)
    taper = np.where(cone, 0.85, rng.choice([0.0, 0.0, 0.3], (n, 1))) * np.ones(3)
    out.box(
        Material.STRIPES,
        n,
        center=center,
        half=np.where(cone, np.array([0.15, 0.15, 1.0]) * np.column_stack((np.ones((n, 2)), size[:, 2])), size),
        taper=taper,
        yaw=heading + rng.normal(0, 0.5, n),
        color=tint,
        color2=np.where(cone, 0.6, tint * 0.6),
        params=np.column_stack((size[:, 2], 0.9 * cone[:, 0], np.zeros(n), np.zeros(n))),
        seed=rng.integers(1 << 20, size=n),
        contact=0.6,
    )
