# SPDX-License-Identifier: Apache-2.0
"""Details of house fronts: shop windows, signs, awnings, balconies, downpipes, posters, graffiti."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.world import Builder


def add_fronts(
    out: Builder, rng: Generator, center: FloatArray, yaw: FloatArray, half: FloatArray, side: int, shops: float
) -> None:
    """Details on the fronts of houses (n, ...) beside the street's `side`; `shops` is the share that have one."""
    for xy, turn, extent in zip(center, yaw, half):
        front = _Front(out, rng, xy, float(turn), extent, side)
        if rng.uniform() < shops:
            front.shop()
        elif rng.uniform() < 0.4:
            front.prints()
        if rng.uniform() < 0.25 * shops + 0.1:
            front.balconies()
        if rng.uniform() < 0.5:
            front.downpipe()


class _Front:
    """The face of one house towards the street."""

    def __init__(self, out: Builder, rng: Generator, xy: FloatArray, yaw: float, half: FloatArray, side: int) -> None:
        self.out, self.rng, self.xy, self.yaw, self.half, self.side = out, rng, xy, yaw, half, side
        self.tint = rng.uniform(0.02, 0.5) * rng.uniform(0.2, 1.0, 3)

    def at(self, along: float, ahead: float, z: float) -> tuple[float, float, float]:
        """The point `along` metres from the middle of the front and `ahead` metres before it."""
        y = -self.side * (self.half[1] + ahead)
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        return (self.xy[0] + cos * along - sin * y, self.xy[1] + sin * along + cos * y, z)

    def shop(self) -> None:
        """Windows over the whole front, a sign above, sometimes an awning."""
        out, rng, wide = self.out, self.rng, 0.94 * self.half[0]
        seed = int(rng.integers(1 << 20))
        frame = self.tint if rng.uniform() < 0.6 else rng.choice([0.03, 0.5]) * np.ones(3)
        params = (wide / max(1, round(wide / rng.uniform(1.0, 2.2))) * 2, rng.choice([0.1, 0.5, 0.8]), 0, 0)
        tall = 1.3
        out.box(
            Material.SHOP,
            center=self.at(0, 0.03, tall),
            half=(wide, 0.06, tall),
            yaw=self.yaw,
            color=frame,
            shade=0.6,
            params=params,
            seed=seed,
        )
        letters = rng.choice([0.02, 0.75]) * np.ones(3)
        out.box(
            Material.PRINT,
            center=self.at(0, 0.07, 2 * tall + 0.3),
            half=(wide, 0.08, 0.27),
            yaw=self.yaw,
            color=self.tint,
            color2=letters,
            params=(rng.uniform(0.5, 1.2), 0, 0, 0),
            seed=seed,
        )
        if rng.uniform() < 0.4:
            color = rng.uniform(0.05, 0.6) * rng.uniform(0.2, 1.0, 3)
            out.box(
                Material.STRIPES,
                center=self.at(0, 0.6, 2 * tall + 0.1),
                half=(0.9 * wide, 0.55, 0.25),
                taper=(0.02, 0.02, 0.9),
                yaw=self.yaw,
                color=color,
                color2=rng.choice([0.65, 0.1]) * np.ones(3),
                params=(0.4, rng.choice([0.0, 0.9]), 1, 0),
                seed=seed,
            )
        if rng.uniform() < 0.4:  # a sign that stands out
            out.box(
                Material.PRINT,
                center=self.at(rng.uniform(-0.8, 0.8) * wide, 0.5, 3.4),
                half=(0.03, 0.35, 0.3),
                yaw=self.yaw,
                color=self.tint,
                color2=letters,
                params=(0.5, 0, 0, 0),
                seed=seed + 1,
            )

    def balconies(self) -> None:
        """One above the other, with see-through railings."""
        out, rng = self.out, self.rng
        along, wide = rng.uniform(-0.5, 0.5) * self.half[0], rng.uniform(0.8, 1.6)
        steel = rng.choice([0.02, 0.3, 0.6]) * np.ones(3)
        for z in np.arange(3.0, 2 * self.half[2] - 2.0, 3.0)[:4]:
            out.box(
                Material.PLAIN,
                center=self.at(along, 0.5, z),
                half=(wide, 0.5, 0.08),
                yaw=self.yaw,
                color=(0.4, 0.39, 0.37),
                color2=(0.25, 0.24, 0.23),
                params=(3, 0.4, 1, 0),
            )
            out.box(
                Material.FENCE,
                center=self.at(along, 0.97, z + 0.6),
                half=(wide, 0.012, 0.52),
                yaw=self.yaw,
                color=steel,
                shade=0.6,
                params=(0.12, 0.18, 0, 9),
            )

    def downpipe(self) -> None:
        """From the gutter to the ground."""
        along = self.rng.choice([-1, 1]) * (self.half[0] - 0.25)
        gray = self.rng.choice([0.12, 0.35]) * np.ones(3)
        center = self.at(along, 0.07, self.half[2])
        self.out.cylinder(
            Material.PLAIN,
            center=center,
            half=(0.05, 0.05, self.half[2]),
            color=gray,
            shade=0.7,
            params=(2, 0.3, 4, 0.1),
        )

    def prints(self) -> None:
        """Posters and graffiti on the wall."""
        for _ in range(int(self.rng.integers(1, 5))):
            rng = self.rng
            graffiti = rng.uniform() < 0.5
            half = (
                (rng.uniform(0.5, 1.8), 0.008, rng.uniform(0.3, 0.8))
                if graffiti
                else (rng.uniform(0.2, 0.5), 0.008, rng.uniform(0.3, 0.6))
            )
            center = self.at(rng.uniform(-0.8, 0.8) * self.half[0], 0.006, rng.uniform(0.9, 1.7))
            ground, ink = rng.uniform(0.2, 0.6, 3), rng.uniform(0.02, 0.8, 3)
            self.out.box(
                Material.PRINT,
                center=center,
                half=half,
                yaw=self.yaw,
                color=ground,
                color2=ink,
                params=(rng.uniform(0.25, 0.7), float(graffiti), 0, 0),
                seed=int(rng.integers(1 << 20)),
            )
