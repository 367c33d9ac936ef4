# SPDX-License-Identifier: Apache-2.0
"""Jumps of estimated poses: relocalisations, loop closures, resets of a simulator. No vehicle moves so.

A forecast's camera moves by differences of poses over about a second, in which a jump would count as a velocity.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.geometry.rotations import FloatArray, rigid, rigid_inverse, rotation_matrix, rotation_vector

# A step is a jump if it is this far from what the velocity before it, and after it, make of its time: in metres (below
# it, noise), and as a speed (above it, no acceleration).
JUMP_M, JUMP_SPEED = 1.0, 20.0
JUMP_ANGLE, JUMP_TURN = np.radians(30), np.radians(360)  # the same of rotations, rad and rad/s


def is_off(
    step: FloatArray,
    velocity: FloatArray,
    seconds: FloatArray | float,
    least: float = JUMP_M,
    least_speed: float = JUMP_SPEED,
) -> NDArray[np.bool_]:
    """Whether steps (..., 3) over some seconds (...) are no motion at velocities (..., 3)."""
    off = np.linalg.norm(step - velocity * np.asarray(seconds)[..., None], axis=-1)
    return np.asarray((off > least) & (off > least_speed * np.asarray(seconds)))


def find_jumps(seconds: FloatArray, poses: FloatArray) -> NDArray[np.intp]:
    """Indices i of the jumps from pose i to pose i + 1 of (T, 4, 4) at increasing times (T,), s."""
    if len(poses) < 3:
        return np.zeros(0, np.intp)
    steps, dt = np.diff(poses[:, :3, 3], axis=0), np.diff(seconds)
    turns = rotation_vector(rigid_inverse(poses[:-1])[:, :3, :3] @ poses[1:, :3, :3])
    moved, turned = np.ones((2, len(steps)), bool)
    for beside in (np.arange(len(steps)) - 1, np.arange(len(steps)) + 1):  # the steps before, and those after
        inside = (beside >= 0) & (beside < len(steps))
        beside = np.where(inside, beside, 0)
        moved &= ~inside | is_off(steps, steps[beside] / dt[beside, None], dt)
        turned &= ~inside | is_off(turns, turns[beside] / dt[beside, None], dt, JUMP_ANGLE, JUMP_TURN)
    return np.flatnonzero(moved | turned)


def without_jumps(seconds: FloatArray, poses: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Poses (T, 4, 4) with the parts between jumps moved so that they join, and the jumps, see find_jumps.

    The motion before a jump continues over it.
    """
    jumps = find_jumps(seconds, poses)
    joined = poses.copy()
    for i in jumps:
        step = np.eye(4)
        if i > 0:
            before = rigid_inverse(joined[i - 1]) @ joined[i]
            share = (seconds[i + 1] - seconds[i]) / (seconds[i] - seconds[i - 1])
            step = rigid(rotation_matrix(rotation_vector(before[:3, :3]) * share), before[:3, 3] * share)
        joined[i + 1 :] = joined[i] @ step @ rigid_inverse(poses[i + 1]) @ poses[i + 1 :]
    return joined, jumps
