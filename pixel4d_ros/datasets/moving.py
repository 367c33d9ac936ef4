# SPDX-License-Identifier: Apache-2.0
"""Which tracked things move on their own."""

from __future__ import annotations

import numpy as np

from pixel4d_ros.geometry.rotations import FloatArray

MOVED = 1.0  # metres across the ground: label noise and drift of the poses move a parked car by some decimetres


def is_moving(positions: FloatArray, up: int = 2) -> bool:
    """Whether positions (N, 3) of one thing in the world, metres, span more than MOVED without the axis `up`."""
    across = np.delete(np.ptp(positions, axis=0), up)
    return bool(np.linalg.norm(across) > MOVED)
