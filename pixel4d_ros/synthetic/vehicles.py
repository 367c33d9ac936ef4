# SPDX-License-Identifier: Apache-2.0
"""Cars, vans, lorries and buses, each composed of some primitives. x is forward, z up, wheels on the ground."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.templates import Template
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
BLACK = np.full(3, 0.015)
# Of hatchback, saloon, estate, van, off-roader: length, width, height, waist, bonnet and boot (shares of the length),
# leans of windscreen and rear window (metres), side windows, bottom and wheel radius.
CARS = np.array(
    [
        [3.8, 1.68, 1.45, 0.92, 0.22, 0.0, 0.62, 0.3, 2, 0.2, 0.31],
        [4.5, 1.76, 1.42, 0.9, 0.26, 0.16, 0.68, 0.6, 2, 0.18, 0.31],
        [4.6, 1.78, 1.48, 0.93, 0.24, 0.0, 0.65, 0.25, 3, 0.2, 0.31],
        [5.0, 1.95, 2.1, 1.15, 0.12, 0.0, 0.6, 0.08, 3, 0.25, 0.36],
        [4.5, 1.86, 1.68, 1.05, 0.25, 0.0, 0.5, 0.35, 3, 0.28, 0.37],
    ]
)


class _Body:
    """Adds the parts of one vehicle."""

    def __init__(self, out: Builder, paint: FloatArray, seed: int) -> None:
        self.out, self.paint = out, paint
        self.common: dict[str, Any] = {"color": paint, "color2": paint, "seed": seed}

    def box(
        self,
        material: Material,
        x: tuple[float, float],
        half_width: float,
        z: tuple[float, float],
        taper: tuple[float, float, float] = (0, 0, 0),
        **columns: Any,
    ) -> None:
        """A box from x[0] to x[1] and z[0] to z[1]; y is left of the middle."""
        y = columns.pop("y", 0.0)
        self.out.box(
            material,
            center=(0.5 * (x[0] + x[1]), y, 0.5 * (z[0] + z[1])),
            half=(0.5 * (x[1] - x[0]), half_width, 0.5 * (z[1] - z[0])),
            taper=taper,
            **{**self.common, **columns},
        )

    def plain(
        self, x: tuple[float, float], half_width: float, z: tuple[float, float], color: Any, y: float = 0
    ) -> None:
        """A box of one colour, a little glossy."""
        self.box(Material.PLAIN, x, half_width, z, color=color, color2=color, params=(3, 0.2, 1, 0.15), y=y)

    def axle(self, x: float, radius: float, side: float, rim: float) -> None:
        """Two wheels in their dark arches."""
        for reach, width, material in (
            (1.16 * radius, side + 0.004, Material.PLAIN),
            (radius, side + 0.015, Material.WHEEL),
        ):
            self.out.cylinder(
                material,
                center=(x, 0, radius),
                half=(reach, reach, width),
                roll=np.pi / 2,
                seed=self.common["seed"],
                color=BLACK if material == Material.PLAIN else rim * np.ones(3),
                color2=BLACK,
            )

    def mirrors(self, x: float, side: float, z: float, size: float) -> None:
        """One on each side."""
        for left in (-1, 1):
            self.out.ball(
                Material.PLAIN,
                center=(x, left * (side + 0.07), z),
                half=(size, 1.4 * size, size),
                params=(4, 0.2, 1, 0.2),
                **self.common,
            )


def _make_car(out: Builder, rng: Generator) -> float:
    """A hatchback, saloon, estate, van, off-roader or pickup."""
    kind = int(rng.choice(5, p=[0.31, 0.23, 0.2, 0.13, 0.13]))
    length, width, height, waist, hood, boot, lean_front, lean_rear, windows, bottom, radius = CARS[kind]
    length, width, height = (value * rng.uniform(0.95, 1.06) for value in (length, width, height))
    waist, lean_front, lean_rear = waist * rng.uniform(0.94, 1.05), lean_front * rng.uniform(0.8, 1.3), lean_rear
    hood, boot = hood * length * rng.uniform(0.9, 1.1), boot * length * rng.uniform(0.8, 1.2)
    body = _Body(out, CAR_PAINTS[rng.integers(len(CAR_PAINTS))] * rng.uniform(0.8, 1.15), int(rng.integers(1 << 20)))
    half, side = 0.5 * length, 0.5 * width
    belt = waist - rng.uniform(0.18, 0.3)
    lights = {"params": (1, 0, 0, 0)}
    body.box(Material.CAR_BODY, (-half, half), side, (bottom, belt), (0.02, 0.02, 0.02), **lights, contact=1.0)
    # The bonnet slopes, the shoulders lean in, the boot is a little lower than the waist.
    nose = half - hood - 0.25
    slope = rng.uniform(0.3, 1.0) if kind != 3 else 1.2
    body.box(Material.CAR_BODY, (nose, half - 0.03), side * 0.97, (belt, waist - 0.03), (slope, 0, 0.1))
    body.box(Material.CAR_BODY, (-half + 0.03, nose + 0.1), side * 0.985, (belt, waist), (0, 0.06, 0.07))
    pickup = kind == 4 and rng.uniform() < 0.25
    rear = 0.42 * length if pickup else boot + 0.04
    span = half - hood - (rear - half)
    leans = (2 * lean_front / span, 2 * lean_rear / span, rng.uniform(0.18, 0.3))
    cabin = (-half + rear, half - hood)
    panel = kind == 3 and rng.uniform() < 0.5  # a van without windows at the back
    if panel:
        body.box(Material.CAR_BODY, (-half + 0.03, 0.12 * length), side * 0.95, (waist - 0.01, height), (0, 0.03, 0.08))
        cabin = (0.1 * length, cabin[1])
        leans = (4 * lean_front / (cabin[1] - cabin[0]), 0.0, leans[2] * 0.5)
    body.box(
        Material.CAR_CABIN, cabin, side * 0.93, (waist - 0.01, height), leans, params=(0, 1 if panel else windows, 0, 0)
    )
    dark = BLACK if rng.uniform() < 0.5 else body.paint * 0.8
    for x in ((half - 0.12, half + 0.05), (-half - 0.05, -half + 0.12)):
        body.plain(x, side * 0.94, (bottom + 0.02, bottom + 0.24), dark)
    rim = float(rng.choice([0.12, 0.4, 0.25]))
    for x in (-0.3 * length, 0.31 * length):
        body.axle(x, radius, side, rim)
    body.mirrors(half - hood - rng.uniform(0.35, 0.55), side, waist + 0.06, 0.07)
    if rng.uniform() < 0.2 and kind in (0, 2, 4) and not pickup:  # rails and a box on the roof
        middle = 0.5 * (cabin[0] + cabin[1] - lean_front)
        for y in (-0.62, 0.62):
            body.plain(
                (middle - 0.7, middle + 0.6),
                0.025,
                (height - 0.02, height + 0.06),
                rng.choice([0.02, 0.3]) * np.ones(3),
                y * side,
            )
        if rng.uniform() < 0.4:
            body.plain(
                (middle - 0.8, middle + 0.8), 0.35, (height + 0.05, height + 0.4), rng.choice([0.02, 0.5]) * np.ones(3)
            )
    return 0.5 * float(height)


def _make_truck(out: Builder, rng: Generator) -> float:
    length, side, height = rng.uniform(6.0, 8.4), rng.uniform(1.05, 1.25), rng.uniform(2.7, 3.5)
    cab = rng.choice([rng.uniform(0.02, 0.6, 3), np.full(3, 0.6)])
    body = _Body(out, cab, int(rng.integers(1 << 20)))
    half, top = 0.5 * length, rng.uniform(2.2, 2.8)
    body.plain((-half, half - 0.1), side * 0.7, (0.55, 0.95), BLACK)  # the frame
    body.box(
        Material.CAR_BODY, (half - 1.9, half), side, (0.4, 1.35), (0.02, 0, 0.02), params=(1, 0, 0, 0), contact=1.0
    )
    body.box(Material.CAR_CABIN, (half - 1.9, half - 0.02), side, (1.35, top), (0.15, 0, 0.06), params=(0, 1, 0, 0))
    load = rng.uniform(0.15, 0.7) * rng.uniform(0.6, 1.0, 3)
    place_of_load, kind = (-half, half - 2.05), int(rng.choice(4, p=[0.5, 0.2, 0.15, 0.15]))
    if kind == 0:  # a box, plain or with a print
        material = Material.PICTURE if rng.uniform() < 0.4 else Material.CAR_BODY
        body.box(
            material,
            place_of_load,
            side,
            (0.95, height),
            params=(rng.uniform(0.2, 1.0) * (material == Material.PICTURE), 0, 0, 0),
            color=load,
            color2=load,
        )
    elif kind == 1:  # a tarpaulin
        body.box(
            Material.STRIPES,
            place_of_load,
            side,
            (0.95, height),
            (0, 0, 0.04),
            params=(0.5, 0.4, 1, 0),
            color=load,
            shade=0.7,
        )
    elif kind == 2:  # a tank, lying
        body.out.ball(
            Material.PLAIN,
            center=(-1.0, 0, 1.85),
            half=(half * 0.85, side, 0.95),
            color=load,
            shade=0.8,
            params=(3, 0.2, 1, 0.5),
            seed=body.common["seed"],
        )
    else:  # an open bed with rubble
        body.box(Material.CAR_BODY, place_of_load, side, (0.95, 1.7), params=(0, 0, 0, 0), color=load)
        body.out.ball(
            Material.PLAIN,
            center=(-1.0, 0, 1.6),
            half=(half * 0.65, side * 0.9, 0.6),
            color=(0.25, 0.2, 0.15),
            color2=(0.1, 0.08, 0.06),
            params=(6, 0.9, 1, 0),
            seed=body.common["seed"],
        )
    for x in (half - 1.0, -0.35 * length, -0.35 * length + 1.15):
        body.axle(x, 0.48, side, 0.25)
    body.mirrors(half - 0.3, side + 0.1, 1.8, 0.12)
    return 0.5 * height


def _make_bus(out: Builder, rng: Generator) -> float:
    length, side, height = rng.uniform(8.5, 12.4), rng.uniform(1.2, 1.28), rng.uniform(2.8, 3.3)
    color = rng.choice(
        [np.array([0.5, 0.02, 0.02]), np.array([0.6, 0.4, 0.02]), np.full(3, 0.65), rng.uniform(0.02, 0.5, 3)]
    )
    body = _Body(out, color, int(rng.integers(1 << 20)))
    half = 0.5 * length
    body.box(Material.CAR_BODY, (-half, half), side, (0.3, 1.05), params=(1, 0, 0, 0), contact=1.0)
    body.box(
        Material.CAR_CABIN,
        (-half, half - 0.02),
        side * 0.995,
        (1.05, height - 0.25),
        (0.03, 0.01, 0.02),
        params=(0, int(length / 1.5), 0, 0),
    )
    trim = color if rng.uniform() < 0.5 else np.full(3, rng.uniform(0.1, 0.7))
    body.box(
        Material.CAR_BODY,
        (-half, half - 0.05),
        side * 0.985,
        (height - 0.25, height),
        (0.02, 0.02, 0.05),
        color=trim,
        params=(0, 0, 0, 0),
    )
    body.plain((half - 0.1, half + 0.02), side * 0.6, (height - 0.33, height - 0.08), np.array([0.3, 0.16, 0.01]))
    if rng.uniform() < 0.5:  # advertising
        x = rng.uniform(-0.8, 0.1) * half
        body.box(
            Material.PICTURE,
            (x, x + 2.6),
            side + 0.01,
            (0.45, 1.0),
            params=(1.5, 0, 0, 0),
            color=rng.uniform(0.05, 0.7, 3),
            color2=trim,
        )
    for x in (0.28 * length, -0.27 * length):
        body.axle(x, 0.48, side, 0.25)
    body.mirrors(half + 0.1, side + 0.12, 2.1, 0.13)
    return 0.5 * height


CAR = Template(_make_car, 300, (2.5, 0.95), "car")
TRUCK = Template(_make_truck, 60, (4.2, 1.25), "truck")
BUS = Template(_make_bus, 60, (6.2, 1.3), "bus")
