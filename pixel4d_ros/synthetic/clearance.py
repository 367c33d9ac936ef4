# SPDX-License-Identifier: Apache-2.0
"""Who is where on a street over time, so that what is added keeps clear of what is there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.motion import Actor

GAP = 0.35  # metres between two outlines, at least


class Clearance:
    """Outlines as discs in a row, over the times at which the world is seen."""

    def __init__(self, horizon: float, standing: Sequence[FloatArray]) -> None:
        self.times = np.linspace(-0.5, horizon, 8)
        self._discs: list[tuple[FloatArray, float]] = []  # (T or 1, D, 2) centres and the discs' radius, metres
        if len(standing):
            self._discs.append((np.stack(standing)[None, :, :2], 1.3))

    def track(self, actor: Actor, half_length: float, half_width: float) -> tuple[FloatArray, float]:
        """Discs (T, D, 2) and their radius of something that moves."""
        point, yaw = actor.at(self.times)
        reach = max(half_length - half_width, 0.0)
        along = np.linspace(-reach, reach, max(1, int(np.ceil(half_length / half_width))))
        direction = np.stack((np.cos(yaw), np.sin(yaw)), -1)
        return point[:, None, :2] + along[:, None] * direction[:, None], half_width

    def add(self, actor: Actor, half_length: float, half_width: float) -> None:
        """From now on the place of this actor is taken."""
        self._discs.append(self.track(actor, half_length, half_width))

    def is_free(self, actor: Actor, half_length: float, half_width: float) -> bool:
        """Whether the actor would touch nothing."""
        own, radius = self.track(actor, half_length, half_width)
        for other, other_radius in self._discs:
            distance = np.linalg.norm(own[:, :, None] - other[:, None], axis=-1)
            if distance.min() < radius + other_radius + GAP:
                return False
        return True
