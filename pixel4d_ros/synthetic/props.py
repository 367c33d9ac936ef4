# SPDX-License-Identifier: Apache-2.0
"""Pedestrians and cyclists, each composed of a few primitives. x is forward, z up, feet on the ground."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.primitives import Shape
from pixel4d_ros.synthetic.templates import Template
from pixel4d_ros.synthetic.world import Builder

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


def _make_person(out: Builder, rng: Generator) -> float:
    """A pedestrian in mid stride."""
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
            shade=0.6,
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
    """A rider on a bicycle."""
    common = {"seed": int(rng.integers(1 << 20))}
    top, trousers = CLOTHES[rng.integers(len(CLOTHES), size=2)]
    for x in (-0.52, 0.52):
        out.cylinder(
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


PERSON = Template(_make_person, 150, (0.3, 0.3))
CYCLIST = Template(_make_cyclist, 100, (0.9, 0.35))
