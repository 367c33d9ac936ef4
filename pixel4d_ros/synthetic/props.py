"""Cars, pedestrians and cyclists, each composed of a few primitives. x is forward, z up, feet on the ground."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random import Generator

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.primitives import SLICES, Shape
from pixel4d_ros.synthetic.world import Builder

# Linear RGB of common car paints: black, greys, silver, white, blues, reds, green, beige.
CAR_PAINTS = np.array(
    [
        [0.012, 0.012, 0.014],
        [0.02, 0.02, 0.022],
        [0.06, 0.062, 0.066],
        [0.12, 0.122, 0.125],
        [0.33, 0.335, 0.34],
        [0.4, 0.4, 0.4],
        [0.62, 0.62, 0.6],
        [0.7, 0.7, 0.68],
        [0.02, 0.035, 0.09],
        [0.03, 0.08, 0.2],
        [0.25, 0.015, 0.015],
        [0.4, 0.03, 0.02],
        [0.02, 0.06, 0.035],
        [0.3, 0.27, 0.2],
        [0.16, 0.15, 0.14],
    ]
)
CLOTHES = np.array(
    [
        [0.02, 0.02, 0.025],
        [0.05, 0.07, 0.15],
        [0.35, 0.05, 0.04],
        [0.5, 0.5, 0.48],
        [0.12, 0.1, 0.08],
        [0.45, 0.17, 0.04],
        [0.05, 0.15, 0.08],
        [0.2, 0.2, 0.22],
    ]
)
SKIN = np.array([0.42, 0.25, 0.17])


@lru_cache(maxsize=1024)
def _template(make: Callable[[Builder, Generator], float], index: int) -> tuple[FloatArray, float]:
    """Rows of thing number `index` at the origin, and the height of its middle: drawn once, placed often."""
    out = Builder()
    height = make(out, np.random.default_rng([index, 4]))
    return out.rows(), height


def _place(
    out: Builder, template: FloatArray, xy: FloatArray, yaw: float, object_id: int, height: float, stands: bool
) -> None:
    """Add the template's rows at xy (2,); `height` is that of its middle. One that stands becomes an object, too."""
    rows = template.copy()
    x, y = template[:, SLICES["center"]][:, 0], template[:, SLICES["center"]][:, 1]
    rows[:, SLICES["center"].start] = xy[0] + np.cos(yaw) * x - np.sin(yaw) * y
    rows[:, SLICES["center"].start + 1] = xy[1] + np.sin(yaw) * x + np.cos(yaw) * y
    rows[:, SLICES["yaw"]] += yaw
    rows[:, SLICES["object"]] = object_id
    rows[:, SLICES["instance"]] = out.stand((*xy, height)) if stands and object_id == 0 else object_id
    rows[:, SLICES["group"]] = out.groups(1)
    out.parts.append(rows)


def add_car(out: Builder, rng: Generator, xy: FloatArray, yaw: float, object_id: int = 0) -> float:
    """A hatchback, saloon, estate, van or lorry at xy (2,); returns the height of its middle, metres."""
    rows, height = _template(_make_car, int(rng.integers(300)))
    _place(out, rows, xy, yaw, object_id, height, True)
    return height


def add_person(out: Builder, rng: Generator, xy: FloatArray, yaw: float, object_id: int = 0) -> float:
    """A pedestrian in mid stride; returns the height of the middle."""
    rows, height = _template(_make_person, int(rng.integers(150)))
    _place(out, rows, xy, yaw, object_id, height, True)
    return height


def add_cyclist(out: Builder, rng: Generator, xy: FloatArray, yaw: float, object_id: int = 0) -> float:
    """A rider on a bicycle; returns the height of the middle."""
    rows, height = _template(_make_cyclist, int(rng.integers(100)))
    _place(out, rows, xy, yaw, object_id, height, True)
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
        material: Material,
        x0: float,
        x1: float,
        half_width: float,
        z0: float,
        z1: float,
        taper: tuple[float, ...],
        **kw: Any,
    ) -> None:
        out.add(
            Shape.BOX,
            material,
            center=(0.5 * (x0 + x1), 0, 0.5 * (z0 + z1)),
            half=(0.5 * (x1 - x0), half_width, 0.5 * (z1 - z0)),
            taper=taper,
            **{**common, **kw},
        )

    half = 0.5 * length
    bottom = 0.2
    side = 0.5 * width
    part(
        Material.CAR_BODY, -half, half, side, bottom, waist - 0.22, (0.02, 0.02, 0.02), params=(1, 0, 0, 0), contact=1.0
    )
    part(
        Material.CAR_BODY,
        -half + 0.03,
        half - 0.04,
        side * 0.98,
        waist - 0.22,
        waist,
        (0.1, 0.06, 0.07),
        params=(0, 0, 0, 0),
    )
    if kind == 4:
        part(Material.CAR_CABIN, half - 2.0, half - 0.05, side, waist, 2.4, (0.2, 0.0, 0.06), params=(0, 1, 0, 0))
        part(
            Material.CAR_BODY,
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
            Material.CAR_CABIN,
            -half + boot + 0.04,
            half - hood,
            side * 0.93,
            waist - 0.01,
            height,
            (lean_front, lean_rear, 0.24),
            params=(0, windows, 0, 0),
        )
    radius = 0.31 if kind < 3 else 0.36 if kind == 3 else 0.48
    for x in (-0.3 * length, 0.31 * length):
        out.add(
            Shape.CYLINDER,
            Material.WHEEL,
            center=(x, 0, radius),
            half=(radius, radius, side + 0.015),
            roll=np.pi / 2,
            color=rng.choice([0.12, 0.4]) * np.ones(3),
            seed=seed,
        )
    for left in (-1, 1):
        if kind < 4:
            ahead = half - (0.4 if kind < 3 else 0.3) * length
            out.add(
                Shape.BALL,
                Material.PLAIN,
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

    def limb(
        x: float, y: float, z: float, half: tuple[float, ...], color: FloatArray, shape: Shape = Shape.BALL
    ) -> None:
        out.add(
            shape,
            Material.PLAIN,
            center=(x, y, z * tall),
            half=np.array(half) * tall,
            color=color,
            color2=color * 0.6,
            params=(6, 0.6, 1, 0),
            **common,
        )

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
            Shape.CYLINDER,
            Material.WHEEL,
            center=(x, 0, 0.34),
            half=(0.34, 0.34, 0.02),
            roll=np.pi / 2,
            color=(0.3, 0.3, 0.3),
            **common,
        )
    parts: list[tuple[float, float, float, tuple[float, float, float], FloatArray, Shape]] = [
        (0.0, 0, 0.55, (0.5, 0.02, 0.02), np.array([0.1, 0.02, 0.02]), Shape.BOX),
        (-0.2, 0, 0.72, (0.03, 0.03, 0.2), np.full(3, 0.05), Shape.BOX),
        (0.45, 0, 0.75, (0.03, 0.25, 0.03), np.full(3, 0.05), Shape.BOX),
        (-0.05, 0, 1.22, (0.17, 0.2, 0.34), top, Shape.BALL),
        (0.12, 0, 1.66, (0.1, 0.085, 0.13), SKIN, Shape.BALL),
        (0.1, 0, 1.72, (0.12, 0.1, 0.09), CLOTHES[rng.integers(len(CLOTHES))], Shape.BALL),
        (-0.1, 0.09, 0.75, (0.1, 0.07, 0.3), trousers, Shape.BALL),
        (0.05, -0.09, 0.62, (0.1, 0.07, 0.36), trousers, Shape.BALL),
        (0.22, 0.2, 1.15, (0.26, 0.05, 0.1), top, Shape.BALL),
        (0.22, -0.2, 1.15, (0.26, 0.05, 0.1), top, Shape.BALL),
    ]
    for x, y, z, half, color, shape in parts:
        out.add(
            shape,
            Material.PLAIN,
            center=(x, y, z),
            half=half,
            color=color,
            color2=np.asarray(color) * 0.6,
            params=(6, 0.6, 1, 0),
            **common,
        )
    return 0.9
