"""Cars, people, trees, houses and street furniture, each composed of a few primitives. x is forward, z up, on the ground."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random import Generator

from pixel4d_ros.rotations import FloatArray
from pixel4d_ros.synthetic.materials import Material as M
from pixel4d_ros.synthetic.primitives import SLICES
from pixel4d_ros.synthetic.primitives import Shape as S
from pixel4d_ros.synthetic.world import Builder

# Linear RGB of common car paints: black, greys, silver, white, blues, reds, green, beige.
CAR_PAINTS = np.array(
    [
        [0.012, 0.012, 0.014], [0.02, 0.02, 0.022], [0.06, 0.062, 0.066], [0.12, 0.122, 0.125], [0.33, 0.335, 0.34],
        [0.4, 0.4, 0.4], [0.62, 0.62, 0.6], [0.7, 0.7, 0.68], [0.02, 0.035, 0.09], [0.03, 0.08, 0.2],
        [0.25, 0.015, 0.015], [0.4, 0.03, 0.02], [0.02, 0.06, 0.035], [0.3, 0.27, 0.2], [0.16, 0.15, 0.14],
    ]
)  # fmt: skip
CLOTHES = np.array([[0.02, 0.02, 0.025], [0.05, 0.07, 0.15], [0.35, 0.05, 0.04], [0.5, 0.5, 0.48], [0.12, 0.1, 0.08],
                    [0.45, 0.17, 0.04], [0.05, 0.15, 0.08], [0.2, 0.2, 0.22]])  # fmt: skip
SKIN = np.array([0.42, 0.25, 0.17])


@lru_cache(maxsize=1024)
def _template(make: Callable[[Builder, Generator], float], index: int) -> tuple[FloatArray, float]:
    """Rows of thing number `index` at the origin, and the height of its middle: drawn once, placed often."""
    out = Builder()
    height = make(out, np.random.default_rng([index, 4]))
    return out.rows(), height


def _place(out: Builder, template: FloatArray, xy: FloatArray, yaw: float, object_id: int) -> None:
    rows = template.copy()
    x, y = template[:, SLICES["center"]][:, 0], template[:, SLICES["center"]][:, 1]
    rows[:, SLICES["center"].start] = xy[0] + np.cos(yaw) * x - np.sin(yaw) * y
    rows[:, SLICES["center"].start + 1] = xy[1] + np.sin(yaw) * x + np.cos(yaw) * y
    rows[:, SLICES["yaw"]] += yaw
    rows[:, SLICES["object"]] = object_id
    out.parts.append(rows)


def add_car(out: Builder, rng: Generator, xy: FloatArray, yaw: float, object_id: int = 0) -> float:
    """A hatchback, saloon, estate, van or lorry at xy (2,); returns the height of its middle, metres."""
    rows, height = _template(_make_car, int(rng.integers(300)))
    _place(out, rows, xy, yaw, object_id)
    return height


def add_person(out: Builder, rng: Generator, xy: FloatArray, yaw: float, object_id: int = 0) -> float:
    """A pedestrian in mid stride; returns the height of the middle."""
    rows, height = _template(_make_person, int(rng.integers(150)))
    _place(out, rows, xy, yaw, object_id)
    return height


def add_cyclist(out: Builder, rng: Generator, xy: FloatArray, yaw: float, object_id: int = 0) -> float:
    """A rider on a bicycle; returns the height of the middle."""
    rows, height = _template(_make_cyclist, int(rng.integers(100)))
    _place(out, rows, xy, yaw, object_id)
    return height


def _make_car(out: Builder, rng: Generator) -> float:
    kind = rng.choice(5, p=[0.33, 0.25, 0.22, 0.14, 0.06])
    length = (3.8, 4.5, 4.6, 5.0, 7.5)[kind] * rng.uniform(0.95, 1.06)
    width = (1.68, 1.76, 1.78, 1.95, 2.4)[kind] * rng.uniform(0.97, 1.04)
    height = (1.45, 1.42, 1.48, 2.1, 3.1)[kind] * rng.uniform(0.97, 1.05)
    waist = (0.92, 0.9, 0.93, 1.15, 1.1)[kind]
    paint = CAR_PAINTS[rng.integers(len(CAR_PAINTS))] * rng.uniform(0.8, 1.15)
    seed = int(rng.integers(1 << 20))
    common = {"color": paint, "color2": paint, "seed": seed}

    def part(
        material: M, x0: float, x1: float, half_width: float, z0: float, z1: float, taper: tuple[float, ...], **kw: Any
    ) -> None:
        out.add(
            S.BOX, material, center=(0.5 * (x0 + x1), 0, 0.5 * (z0 + z1)), half=(0.5 * (x1 - x0), half_width, 0.5 * (z1 - z0)),
            taper=taper, **{**common, **kw},
        )  # fmt: skip

    half = 0.5 * length
    bottom = 0.2
    side = 0.5 * width
    part(M.CAR_BODY, -half, half, side, bottom, waist - 0.22, (0.02, 0.02, 0.02), params=(1, 0, 0, 0), contact=1.0)
    part(
        M.CAR_BODY, -half + 0.03, half - 0.04, side * 0.98, waist - 0.22, waist, (0.1, 0.06, 0.07), params=(0, 0, 0, 0)
    )
    if kind == 4:
        part(M.CAR_CABIN, half - 2.0, half - 0.05, side, waist, 2.4, (0.2, 0.0, 0.06), params=(0, 1, 0, 0))
        part(
            M.CAR_BODY,
            -half,
            half - 2.1,
            side,
            waist,
            height,
            (0, 0, 0),
            params=(0, 0, 0, 0),
            color=rng.uniform(0.15, 0.7) * rng.uniform(0.75, 1.0, 3),
        )
    else:
        hood = (0.22, 0.26, 0.24, 0.12)[kind] * length
        boot = (0.0, 0.16, 0.0, 0.0)[kind] * length
        span = length - hood - boot
        lean_front, lean_rear = 2 * (0.62, 0.68, 0.65, 0.6)[kind] / span, 2 * (0.3, 0.6, 0.25, 0.08)[kind] / span
        windows = (2, 2, 3, 3)[kind]
        part(
            M.CAR_CABIN, -half + boot + 0.04, half - hood, side * 0.93, waist - 0.01, height,
            (lean_front, lean_rear, 0.24), params=(0, windows, 0, 0),
        )  # fmt: skip
    radius = 0.31 if kind < 3 else 0.36 if kind == 3 else 0.48
    for x in (-0.3 * length, 0.31 * length):
        out.add(
            S.CYLINDER, M.WHEEL, center=(x, 0, radius), half=(radius, radius, side + 0.015), roll=np.pi / 2,
            color=rng.choice([0.12, 0.4]) * np.ones(3), seed=seed,
        )  # fmt: skip
    for left in (-1, 1):
        if kind < 4:
            ahead = half - (0.4 if kind < 3 else 0.3) * length
            out.add(
                S.BALL,
                M.PLAIN,
                center=(ahead, left * (side + 0.07), waist + 0.06),
                half=(0.07, 0.1, 0.07),
                params=(4, 0.2, 1, 0.2),
                **common,
            )
    return 0.5 * height


def _make_person(out: Builder, rng: Generator) -> float:
    tall = rng.uniform(1.55, 1.9)
    top, trousers = CLOTHES[rng.integers(len(CLOTHES), size=2)]
    seed = int(rng.integers(1 << 20))
    common = {"seed": seed}

    def limb(x: float, y: float, z: float, half: tuple[float, ...], color: FloatArray, shape: S = S.BALL) -> None:
        out.add(
            shape, M.PLAIN, center=(x, y, z * tall), half=np.array(half) * tall, color=color, color2=color * 0.6,
            params=(6, 0.6, 1, 0), **common,
        )  # fmt: skip

    stride = rng.uniform(0.03, 0.14)
    for sign in (-1, 1):
        limb(sign * stride, sign * 0.05, 0.25, (0.05, 0.045, 0.26), trousers)
        limb(sign * stride + 0.04, sign * 0.05, 0.02, (0.075, 0.03, 0.025), np.full(3, 0.02))
        limb(-sign * stride * 0.8, sign * 0.135, 0.62, (0.035, 0.03, 0.17), top)
    limb(0, 0, 0.66, (0.075, 0.12, 0.2), top)
    limb(0, 0, 0.49, (0.075, 0.1, 0.08), trousers)
    limb(0.01, 0, 0.925, (0.06, 0.05, 0.075), SKIN * rng.uniform(0.4, 1.2))
    limb(-0.015, 0, 0.95, (0.06, 0.054, 0.06), rng.choice([0.02, 0.06, 0.2]) * np.array([1, 0.8, 0.6]))
    return 0.5 * tall


def _make_cyclist(out: Builder, rng: Generator) -> float:
    common = {"seed": int(rng.integers(1 << 20))}
    top, trousers = CLOTHES[rng.integers(len(CLOTHES), size=2)]
    for x in (-0.52, 0.52):
        out.add(
            S.CYLINDER,
            M.WHEEL,
            center=(x, 0, 0.34),
            half=(0.34, 0.34, 0.02),
            roll=np.pi / 2,
            color=(0.3, 0.3, 0.3),
            **common,
        )
    parts: list[tuple[float, float, float, tuple[float, float, float], FloatArray, S]] = [
        (0.0, 0, 0.55, (0.5, 0.02, 0.02), np.array([0.1, 0.02, 0.02]), S.BOX),
        (-0.2, 0, 0.72, (0.03, 0.03, 0.2), np.full(3, 0.05), S.BOX),
        (0.45, 0, 0.75, (0.03, 0.25, 0.03), np.full(3, 0.05), S.BOX),
        (-0.05, 0, 1.22, (0.17, 0.2, 0.34), top, S.BALL),
        (0.12, 0, 1.66, (0.1, 0.085, 0.13), SKIN, S.BALL),
        (0.1, 0, 1.72, (0.12, 0.1, 0.09), CLOTHES[rng.integers(len(CLOTHES))], S.BALL),
        (-0.1, 0.09, 0.75, (0.1, 0.07, 0.3), trousers, S.BALL),
        (0.05, -0.09, 0.62, (0.1, 0.07, 0.36), trousers, S.BALL),
        (0.22, 0.2, 1.15, (0.26, 0.05, 0.1), top, S.BALL),
        (0.22, -0.2, 1.15, (0.26, 0.05, 0.1), top, S.BALL),
    ]
    for x, y, z, half, color, shape in parts:
        out.add(
            shape, M.PLAIN, center=(x, y, z), half=half, color=color, color2=np.asarray(color) * 0.6,
            params=(6, 0.6, 1, 0), **common,
        )  # fmt: skip
    return 0.9


def add_trees(out: Builder, rng: Generator, xy: FloatArray, size: FloatArray, autumn: float) -> None:
    """Trees at xy (n, 2), `size` (n,) metres tall: a trunk and five leafy ellipsoids each; autumn 0..1 turns leaves brown."""
    n = len(xy)
    if n == 0:
        return
    seeds = rng.integers(1 << 20, size=n)
    trunk = size * rng.uniform(0.32, 0.45, n)
    bark = np.array([0.09, 0.075, 0.055]) * rng.uniform(0.5, 1.3, (n, 1))
    thick = 0.015 * size + 0.04
    out.add(
        S.CYLINDER, M.PLAIN, n, center=np.column_stack((xy, trunk * 0.75)), half=np.column_stack((thick, thick, trunk * 0.75)),
        color=bark, color2=bark * 0.35, params=(7, 0.9, 4, 0), seed=seeds, contact=0.6,
    )  # fmt: skip
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
        out.add(
            S.BALL, M.FOLIAGE, n, center=center, half=half, yaw=rng.uniform(0, 6.283, n), color=leaves * 0.35,
            color2=leaves * 1.6, params=(3.0, 0.5, 0, 0), seed=seeds + 7 * k,
        )  # fmt: skip


def add_bushes(out: Builder, rng: Generator, xy: FloatArray, size: FloatArray) -> None:
    """Round shrubs at xy (n, 2), `size` (n,) metres."""
    n = len(xy)
    if n == 0:
        return
    leaves = np.array([0.05, 0.09, 0.02]) * rng.uniform(0.6, 1.6, (n, 1)) * rng.uniform(0.8, 1.2, (n, 3))
    out.add(
        S.BALL, M.FOLIAGE, n, center=np.column_stack((xy, size * 0.4)), half=size[:, None] * rng.uniform(0.6, 1.2, (n, 3)),
        color=leaves * 0.35, color2=leaves * 1.6, params=(3.0, 0.36, 0, 0), seed=rng.integers(1 << 20, size=n),
    )  # fmt: skip


WALLS = np.array([[0.7, 0.68, 0.62], [0.6, 0.5, 0.34], [0.55, 0.36, 0.2], [0.42, 0.4, 0.37], [0.62, 0.6, 0.57],
                  [0.3, 0.17, 0.11], [0.34, 0.24, 0.15], [0.2, 0.19, 0.18], [0.5, 0.3, 0.24]])  # fmt: skip


def add_houses(
    out: Builder, rng: Generator, center: FloatArray, yaw: FloatArray, half: FloatArray, gabled: FloatArray
) -> None:
    """Houses with ground plan half (n, 2) and height half (n, 3): center (n, 2), yaw (n,); gabled (n,) bool gets a roof."""
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
    seeds = rng.integers(1 << 20, size=n)
    out.add(
        S.BOX, M.FACADE, n, center=np.column_stack((center, half[:, 2])), yaw=yaw, half=half, color=wall, color2=trim,
        params=params, seed=seeds, contact=0.5,
    )  # fmt: skip
    roof = np.array([0.2, 0.075, 0.045]) * rng.uniform(0.4, 1.3, (n, 1)) * rng.uniform(0.85, 1.15, (n, 3))
    slate = (rng.uniform(size=(n, 1)) < 0.4) * 1.0
    roof = roof * (1 - slate) + 0.06 * slate
    pitch = np.where(gabled, half[:, 1] * rng.uniform(0.35, 0.5, n), 0.15)
    across = np.where(gabled, 1.0, 0.0)
    hip = np.where(gabled & (rng.uniform(size=n) < 0.3), 0.4, 0.0)
    out.add(
        S.BOX, M.ROOF, n, center=np.column_stack((center, 2 * half[:, 2] + pitch)), yaw=yaw,
        half=np.column_stack((half[:, 0] + 0.25, half[:, 1] + 0.4, pitch)), taper=np.column_stack((hip, hip, across)),
        color=roof, color2=wall, params=(0.33, 0, 0, 0), seed=seeds + 1,
    )  # fmt: skip
    tops = gabled & (rng.uniform(size=n) < 0.7)
    m = int(tops.sum())
    x = center[tops] + rng.uniform(-0.5, 0.5, (m, 1)) * half[tops, :1] * np.column_stack(
        (np.cos(yaw[tops]), np.sin(yaw[tops]))
    )
    out.add(
        S.BOX, M.PLAIN, m, center=np.column_stack((x, 2 * half[tops, 2] + 2 * pitch[tops])), yaw=yaw[tops], half=(0.3, 0.3, 0.8),
        color=(0.2, 0.1, 0.07), color2=(0.1, 0.06, 0.05), params=(5, 0.6, 0.5, 0), seed=seeds[tops],
    )  # fmt: skip
