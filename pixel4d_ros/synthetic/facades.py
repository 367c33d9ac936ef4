# SPDX-License-Identifier: Apache-2.0
"""Details of house fronts: shop windows, signs, awnings, balconies, downpipes, posters, graffiti."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.world import Builder, turned


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

    def at(self, along: float, ahead: float, z: float) -> FloatArray:
        """The point (3,) `along` metres from the middle of the front and `ahead` metres before it."""
        return turned(self.xy, self.yaw, along, -self.side * (self.half[1] + ahead), z)

    def panel(
        self,
        material: Material,
        at: tuple[float, float, float],
        half: tuple[float, float, float],
        colors: tuple[ArrayLike, ArrayLike],
        params: tuple[float, ...],
        **columns: ArrayLike,
    ) -> None:
        """Add a box parallel to the front; at as in `at`, colors are color and color2, columns as in Builder.add."""
        color, color2 = colors
        center = self.at(*at)
        self.out.box(
            material, center=center, half=half, yaw=self.yaw, color=color, color2=color2, params=params, **columns
        )

    def shop(self) -> None:
        """Windows over the whole front, a sign above, sometimes an awning."""
        rng, wide, tall = self.rng, 0.94 * self.half[0], 1.3
        seed = int(rng.integers(1 << 20))
        frame = self.tint if rng.uniform() < 0.6 else rng.choice([0.03, 0.5]) * np.ones(3)
        params = (wide / max(1, round(wide / rng.uniform(1.0, 2.2))) * 2, rng.choice([0.1, 0.5, 0.8]), 0, 0)
        self.panel(Material.SHOP, (0, 0.03, tall), (wide, 0.06, tall), (frame, frame * 0.6), params, seed=seed)
        print_colors = self.tint, rng.choice([0.02, 0.75]) * np.ones(3)
        at, params = (0, 0.07, 2 * tall + 0.3), (rng.uniform(0.5, 1.2), 0, 0, 0)
        self.panel(Material.PRINT, at, (wide, 0.08, 0.27), print_colors, params, seed=seed)
        if rng.uniform() < 0.4:
            color = rng.uniform(0.05, 0.6) * rng.uniform(0.2, 1.0, 3)
            colors = color, rng.choice([0.65, 0.1]) * np.ones(3)
            at, half, params = (0, 0.6, 2 * tall + 0.1), (0.9 * wide, 0.55, 0.25), (0.4, rng.choice([0.0, 0.9]), 1, 0)
            self.panel(Material.STRIPES, at, half, colors, params, taper=(0.02, 0.02, 0.9), seed=seed)
        if rng.uniform() < 0.4:  # a sign that stands out
            at = rng.uniform(-0.8, 0.8) * wide, 0.5, 3.4
            self.panel(Material.PRINT, at, (0.03, 0.35, 0.3), print_colors, (0.5, 0, 0, 0), seed=seed + 1)

    def balconies(self) -> None:
        """One above the other, with see-through railings."""
        rng = self.rng
        along, wide = rng.uniform(-0.5, 0.5) * self.half[0], rng.uniform(0.8, 1.6)
        steel = rng.choice([0.02, 0.3, 0.6]) * np.ones(3)
        floor = (0.4, 0.39, 0.37), (0.25, 0.24, 0.23)
        for z in np.arange(3.0, 2 * self.half[2] - 2.0, 3.0)[:4]:
            self.panel(Material.PLAIN, (along, 0.5, z), (wide, 0.5, 0.08), floor, (3, 0.4, 1, 0))
            at, params = (along, 0.97, z + 0.6), (0.12, 0.18, 0, 9)
            self.panel(Material.FENCE, at, (wide, 0.012, 0.52), (steel, steel * 0.6), params)

    def downpipe(self) -> None:
        """From the gutter to the ground."""
        along = self.rng.choice([-1, 1]) * (self.half[0] - 0.25)
        look = {"color": self.rng.choice([0.12, 0.35]) * np.ones(3), "params": (2, 0.3, 4, 0.1)}
        half = (0.05, 0.05, self.half[2])
        self.out.cylinder(Material.PLAIN, center=self.at(along, 0.07, self.half[2]), half=half, shade=0.7, **look)

    def prints(self) -> None:
        """Posters and graffiti on the wall."""
        rng = self.rng
        for _ in range(int(rng.integers(1, 5))):
            graffiti = rng.uniform() < 0.5
            (left, right), (low, high) = ((0.5, 1.8), (0.3, 0.8)) if graffiti else ((0.2, 0.5), (0.3, 0.6))
            half = (rng.uniform(left, right), 0.008, rng.uniform(low, high))
            at = rng.uniform(-0.8, 0.8) * self.half[0], 0.006, rng.uniform(0.9, 1.7)
            colors = rng.uniform(0.2, 0.6, 3), rng.uniform(0.02, 0.8, 3)
            params = (rng.uniform(0.25, 0.7), float(graffiti), 0, 0)
            self.panel(Material.PRINT, at, half, colors, params, seed=int(rng.integers(1 << 20)))
