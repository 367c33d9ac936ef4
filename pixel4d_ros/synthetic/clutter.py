# SPDX-License-Identifier: Apache-2.0
"""Thin and small objects in rooms: chairs, lamps, plants, curtains, blinds, radiators, mirrors, racks, bottles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.primitives import Shape
from pixel4d_ros.synthetic.vegetation import add_branch
from pixel4d_ros.synthetic.world import Builder, turned


def add_clutter(out: Builder, rng: Generator, half: FloatArray, path: FloatArray) -> None:
    """Add clutter to a room: on the floor, clear of the camera's path (n, 2), on the walls and below the ceiling.

    half (3,): of the room, metres.
    """
    standing: tuple[Callable[[Builder, Generator, FloatArray, float], None], ...] = (
        _chair,
        _floor_lamp,
        _plant,
        _rack,
        _bottles,
    )
    for _ in range(int(rng.integers(3, 9))):
        xy = rng.uniform(-1, 1, 2) * (half[:2] - 0.35)
        if np.hypot(*(path - xy).T).min() > 0.9:
            standing[int(rng.integers(len(standing)))](out, rng, xy, rng.uniform(0, 6.28))
    for _ in range(int(rng.integers(1, 6))):
        _on_wall(out, rng, half)
    for _ in range(int(rng.integers(0, 3))):
        xy = rng.uniform(-0.8, 0.8, 2) * half[:2]
        if np.hypot(*(path - xy).T).min() > 0.7:
            _pendant(out, rng, xy, 2 * half[2])


def _look(rng: Generator, gloss: float = 0.1) -> dict[str, Any]:
    color = rng.uniform(0.02, 0.7) * rng.uniform(0.3, 1.0, 3)
    return {"color": color, "color2": color * 0.6, "params": (5, 0.4, 1, gloss), "seed": int(rng.integers(1 << 20))}


def _chair(out: Builder, rng: Generator, xy: FloatArray, yaw: float) -> None:
    """A seat on thin legs, whose back has slats."""
    look, group = _look(rng), out.groups(1)
    seat, wide, thin = rng.uniform(0.42, 0.75), rng.uniform(0.17, 0.24), rng.uniform(0.008, 0.02)
    feet = np.array([turned(xy, yaw, a * wide * 1.1, b * wide * 1.1, 0) for a in (-1, 1) for b in (-1, 1)])
    tops = np.array([turned(xy, yaw, a * wide * 0.9, b * wide * 0.9, seat) for a in (-1, 1) for b in (-1, 1)])
    legs = np.tile(look["color"], (4, 1))
    add_branch(out, feet, tops, np.full(4, thin), legs, np.repeat(group, 4))
    center = (*xy, seat)
    out.box(Material.PLAIN, center=center, half=(wide, wide, 0.02), yaw=yaw, contact=0.5, group=group[0], **look)
    if rng.uniform() < 0.75:
        style, tall = int(rng.choice([0, 2])), rng.uniform(0.17, 0.3)
        look["params"] = (rng.uniform(0.05, 0.12), rng.uniform(0.2, 0.6), style, 2 * wide - 0.05)
        back = turned(xy, yaw, 0, wide, seat + tall)
        out.box(Material.FENCE, center=back, half=(wide, 0.012, tall), yaw=yaw, group=group[0], **look)


def _floor_lamp(out: Builder, rng: Generator, xy: FloatArray, yaw: float) -> None:
    tall, group = rng.uniform(1.2, 1.75), out.groups(1)
    foot = np.array([[*xy, 0.0]])
    add_branch(
        out, foot, foot + np.array([0, 0, tall]), np.array([0.012]), np.full((1, 3), rng.choice([0.02, 0.5])), group
    )
    glow = np.array([1.0, 0.85, 0.6]) * rng.uniform(0.4, 2.5)
    out.box(
        Material.PLAIN,
        center=(*xy, tall),
        half=(0.2, 0.2, rng.uniform(0.1, 0.2)),
        taper=(0.4, 0.4, 0.4),
        yaw=yaw,
        color=glow,
        shade=0.8,
        params=(2, 0.2, 1, 0),
        group=group[0],
    )


def _plant(out: Builder, rng: Generator, xy: FloatArray, yaw: float) -> None:
    """A pot, stems and leaves."""
    group, pot, size = out.groups(1)[0], rng.uniform(0.1, 0.22), rng.uniform(0.3, 0.75)
    out.cylinder(Material.PLAIN, center=(*xy, pot), half=(pot, pot, pot), group=group, contact=0.7, **_look(rng))
    stems, n = rng.normal(0, 0.3, (4, 2)) * size, 4
    start = np.tile([*xy, 2 * pot], (n, 1))
    stop = start + np.column_stack((stems, rng.uniform(0.5, 1.0, n) * size))
    green = np.array([0.05, 0.12, 0.03]) * rng.uniform(0.5, 1.8)
    add_branch(out, start, stop, np.full(n, 0.008), np.tile(green, (n, 1)), np.full(n, group))
    out.ball(
        Material.FOLIAGE,
        n,
        center=stop,
        half=size * rng.uniform(0.2, 0.45, (n, 3)),
        yaw=yaw,
        color=green * 0.5,
        color2=green * 1.8,
        params=(rng.uniform(9, 20), rng.uniform(0.5, 0.6), 0, 0),
        seed=rng.integers(1 << 20, size=n),
        group=group,
    )


def _rack(out: Builder, rng: Generator, xy: FloatArray, yaw: float) -> None:
    """An open shelf, a clothes rack or a ladder."""
    style = int(rng.choice([0, 2]))
    half = (rng.uniform(0.2, 0.6), rng.uniform(0.008, 0.03), rng.uniform(0.4, 0.95))
    look = _look(rng)
    look["params"] = (rng.uniform(0.06, 0.4), rng.uniform(0.08, 0.3), style, 2 * half[0] - 0.05)
    lean = rng.choice([0.0, rng.uniform(-0.25, 0.25)])
    out.box(Material.FENCE, center=(*xy, half[2]), half=half, yaw=yaw, roll=lean, **look)


def _bottles(out: Builder, rng: Generator, xy: FloatArray, yaw: float) -> None:
    """Small objects on the floor: bottles, cans, books, shoes, a ball."""
    for _ in range(int(rng.integers(2, 7))):
        size = rng.uniform(0.02, 0.14, 3)
        shape = Shape(int(rng.integers(1, 4)))
        if shape == Shape.CYLINDER:
            size[1] = size[0]
        center = (*(xy + rng.normal(0, 0.25, 2)), size[2])
        out.add(
            shape, Material.PLAIN, center=center, half=size, yaw=yaw + rng.normal(0, 1), contact=0.5, **_look(rng, 0.3)
        )


def _on_wall(out: Builder, rng: Generator, half: FloatArray) -> None:
    """A mirror, blinds, a radiator, curtains, or shelves with small objects, on one of the four walls."""
    axis, side = int(rng.integers(2)), int(rng.choice([-1, 1]))
    wall, reach = (half[0], half[1]) if axis == 0 else (half[1], half[0])
    along, yaw = rng.uniform(-0.8, 0.8) * reach, np.pi / 2 if axis == 0 else 0.0

    def at(depth: float, z: float, shift: float = 0.0) -> tuple[float, float, float]:
        x, y = side * (wall - depth), along + shift
        return (x, y, z) if axis == 0 else (y, x, z)

    kind = int(rng.integers(5))
    look = _look(rng)
    if kind == 0:  # a mirror, of which the frame shows
        wide, tall = rng.uniform(0.2, 0.5), rng.uniform(0.25, 0.7)
        z = 0.7 * half[2] + tall
        out.box(Material.PLAIN, center=at(0.01, z), half=(wide + 0.03, 0.015, tall + 0.03), yaw=yaw, **look)
        look.update(color=(0.12, 0.12, 0.12), color2=(0.5, 0.48, 0.45), params=(0.8, 0.9, 1, 0.95))
        out.box(Material.PLAIN, center=at(0.02, z), half=(wide, 0.012, tall), yaw=yaw, **look)
    elif kind == 1:  # blinds
        look["params"] = (rng.uniform(0.03, 0.09), rng.uniform(0.4, 0.75), 2, 9)
        size = (rng.uniform(0.4, 0.8), 0.006, rng.uniform(0.3, 0.6))
        out.box(Material.FENCE, center=at(0.12, 1.25 * half[2]), half=size, yaw=yaw, **look)
    elif kind == 2:  # a radiator
        look.update(color=(0.7, 0.7, 0.68), color2=(0.5, 0.5, 0.5), params=(0.06, 0.7, 0, 9))
        size = (rng.uniform(0.3, 0.7), 0.04, rng.uniform(0.2, 0.35))
        out.box(Material.FENCE, center=at(0.1, 0.15 + size[2]), half=size, yaw=yaw, **look)
    elif kind == 3:  # curtains
        look["params"] = (rng.uniform(0.06, 0.16), rng.uniform(0.3, 0.9), 1, 0)
        for shift in (-0.75, 0.75):
            size = (rng.uniform(0.12, 0.3), 0.03, 0.9 * half[2])
            out.box(Material.STRIPES, center=at(0.1, 0.98 * half[2], shift), half=size, yaw=yaw, **look)
    else:
        wide, z = rng.uniform(0.3, 0.7), rng.uniform(0.9, 1.5)
        out.box(Material.PLAIN, center=at(0.12, z), half=(wide, 0.11, 0.012), yaw=yaw, contact=0.4, **look)
        for _ in range(int(rng.integers(2, 7))):
            size = (rng.uniform(0.015, 0.08), rng.uniform(0.015, 0.08), rng.uniform(0.03, 0.15))
            place = at(0.12, z + 0.012 + size[2], rng.uniform(-0.9, 0.9) * wide)
            out.add(Shape(int(rng.integers(1, 4))), Material.PLAIN, center=place, half=size, yaw=yaw, **_look(rng, 0.3))


def _pendant(out: Builder, rng: Generator, xy: FloatArray, ceiling: float) -> None:
    """A lamp on a cable."""
    drop, size, group = rng.uniform(0.2, 0.6), rng.uniform(0.08, 0.22), out.groups(1)
    top = np.array([[*xy, ceiling]])
    add_branch(out, top - np.array([0, 0, drop]), top, np.array([0.006]), np.full((1, 3), 0.02), group)
    glow = np.array([1.0, 0.9, 0.7]) * rng.choice([rng.uniform(0.3, 0.8), rng.uniform(1.5, 4.0)])
    shape = Shape.BALL if rng.uniform() < 0.6 else Shape.CYLINDER
    center = (*xy, ceiling - drop - 0.7 * size)
    out.add(
        shape, Material.PLAIN, center=center, half=(size, size, 0.7 * size), color=glow, color2=glow, group=group[0]
    )
