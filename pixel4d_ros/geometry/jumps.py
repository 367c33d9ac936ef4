# SPDX-License-Identifier: Apache-2.0
"""Jumps of estimated poses: relocalisations, loop closures, resets of a simulator. No vehicle moves so.

A forecast's camera moves by differences of poses over about a second, in which a jump would count as a velocity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.geometry.rotations import FloatArray, rigid, rigid_inverse, rotation_matrix, rotation_vector

# A step is a jump if it is this far from what the velocity before it, and after it, make of its time: in metres, as an
# acceleration, and as a multiple of what the other steps are off (noise).
JUMP_M, ROUGH_JUMP_M = 0.4, 1.0  # of measured poses, and of those that are no measurement (plans) or joined to others
JUMP_ACCELERATION, JUMP_NOISE = 20.0, 10.0  # m/s^2 (of steps over 1 s: times 1 s), and multiple of the median
JUMP_ANGLE, JUMP_TURN = np.radians(30), np.radians(360)  # of rotations, rad and rad/s
STILL_M = 1e-3  # of a step: less is no motion
MANY = 0.25  # share of the steps of a moving vehicle: more jumps are no relocalisations


class JumpsError(ValueError):
    """Poses do not continue each other: those of several vehicles or frames, or too far apart."""


def jump_limit(seconds: FloatArray | float | np.floating[Any], noise: float, least: float) -> FloatArray:
    """Metres (...) that a step over some seconds (...) may be off from the motion beside it."""
    impossible = JUMP_ACCELERATION * seconds * np.minimum(seconds, 1.0)
    return np.asarray(np.maximum(impossible, max(least, JUMP_NOISE * noise)))


def step_noise(seconds: FloatArray, positions: FloatArray) -> float:
    """Median distance, m, of the steps between positions (T, 3) from the step before or after; 0 for a few."""
    if len(positions) < 5:
        return 0.0
    return float(np.median(_off_beside(np.diff(positions, axis=0), np.diff(seconds))))


def _off_beside(steps: FloatArray, dt: FloatArray) -> FloatArray:
    """How far steps (S, 3) over dt (S,) are off the velocity of the step before or after, whichever is less."""
    off = np.linalg.norm(steps[1:] - steps[:-1] / dt[:-1, None] * dt[1:, None], axis=1)
    back = np.linalg.norm(steps[:-1] - steps[1:] / dt[1:, None] * dt[:-1, None], axis=1)
    return np.asarray(np.minimum(np.append(np.inf, off), np.append(back, np.inf)))


def find_jumps(seconds: FloatArray, poses: FloatArray, least: float = JUMP_M) -> NDArray[np.intp]:
    """Indices i of the jumps from pose i to pose i + 1 of (T, 4, 4) at increasing times (T,), s."""
    if len(poses) < 3:
        return np.zeros(0, np.intp)
    steps, dt = np.diff(poses[:, :3, 3], axis=0), np.diff(seconds)
    turns = rotation_vector(rigid_inverse(poses[:-1])[:, :3, :3] @ poses[1:, :3, :3])
    moved = _off_beside(steps, dt) > jump_limit(dt, step_noise(seconds, poses[:, :3, 3]), least)
    turned = _off_beside(turns, dt) > np.maximum(JUMP_ANGLE, JUMP_TURN * dt)
    return np.flatnonzero(moved | turned)


def without_jumps(seconds: FloatArray, poses: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Poses (T, 4, 4) with the parts between jumps moved so that they join, and the jumps, see find_jumps.

    The motion before a jump continues over it. Raises JumpsError where most of the motion is jumps.
    """
    noise = step_noise(seconds, poses[:, :3, 3])
    if len(poses) > 1 and noise > jump_limit(np.median(np.diff(seconds)), 0.0, JUMP_M):
        raise JumpsError(f"steps between poses are {noise:.2g} m (median) off those beside them")
    jumps = find_jumps(seconds, poses)
    moving = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) > STILL_M
    if len(jumps) > max(2, MANY * np.count_nonzero(moving)):
        raise JumpsError(f"{len(jumps)} of {len(poses) - 1} steps between poses jump")
    joined = poses.copy()
    for i in jumps:
        step = np.eye(4)
        if i > 0:
            before = rigid_inverse(joined[i - 1]) @ joined[i]
            share = (seconds[i + 1] - seconds[i]) / (seconds[i] - seconds[i - 1])
            step = rigid(rotation_matrix(rotation_vector(before[:3, :3]) * share), before[:3, 3] * share)
        joined[i + 1 :] = joined[i] @ step @ rigid_inverse(poses[i + 1]) @ poses[i + 1 :]
    return joined, jumps
