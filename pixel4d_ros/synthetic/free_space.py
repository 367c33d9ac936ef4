# SPDX-License-Identifier: Apache-2.0
"""Free space on a street over time, so that added actors do not collide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.motion import Actor

GAP = 0.35  # metres between two outlines, at least


class FreeSpace:
    """Occupied places over the rendered times; each outline is a row of discs."""

    def __init__(self, horizon: float, standing: Sequence[FloatArray]) -> None:
        self.times = np.linspace(-0.5, horizon, 8)
        self._discs: list[tuple[FloatArray, float]] = []  # (T or 1, D, 2) centres and the discs' radius, metres
        if len(standing):
            self._discs.append((np.stack(standing)[None, :, :2], 1.3))

    def track(self, actor: Actor, half_length: float, half_width: float) -> tuple[FloatArray, float]:
        """Centres (T, D, 2) and radius in metres of the discs that cover an actor."""
        point, yaw = actor.at(self.times)
        reach = max(half_length - half_width, 0.0)
        along = np.linspace(-reach, reach, max(1, int(np.ceil(half_length / half_width))))
        direction = np.stack((np.cos(yaw), np.sin(yaw)), -1)
        return point[:, None, :2] + along[:, None] * direction[:, None], half_width

    def add(self, actor: Actor, half_length: float, half_width: float) -> None:
        """Mark the actor's path as occupied."""
        self._discs.append(self.track(actor, half_length, half_width))

    def is_free(self, actor: Actor, half_length: float, half_width: float) -> bool:
        """Whether the actor keeps GAP from everything added so far, at all times."""
        own, radius = self.track(actor, half_length, half_width)
        for other, other_radius in self._discs:
            distance = np.linalg.norm(own[:, :, None] - other[:, None], axis=-1)
            if distance.min() < radius + other_radius + GAP:
                return False
        return True
