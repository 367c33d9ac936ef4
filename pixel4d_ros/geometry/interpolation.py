# SPDX-License-Identifier: Apache-2.0
"""Interpolation and extrapolation of many paths of poses at once: 30 paths take little longer than one.

CameraPath.at does the same with one path.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse, rotation_matrix, rotation_vector

FASTEST = 200.0  # m/s along a path: larger values mean other units than metres and seconds


def step_speeds(times: FloatArray, poses: FloatArray) -> FloatArray:
    """Speeds (T - 1,) in m/s from each pose of (T, 4, 4) to the next, at increasing times (T,) in seconds."""
    speeds: FloatArray = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) / np.diff(times)
    return speeds


def poses_along(paths: Sequence[tuple[FloatArray, FloatArray]], places: FloatArray) -> FloatArray:
    """Poses (P, n, 4, 4) at places (P, n) of P paths, each of knots (T,), strictly increasing, and poses (T, 4, 4).

    Slerp and linear translation between poses, constant twist beyond the ends. A path of one pose stands still.
    """
    paths = [path if len(path[0]) > 1 else _standing(*path) for path in paths]
    knots, poses = (np.concatenate(parts) for parts in zip(*paths))
    lengths = np.array([len(own) for own, _ in paths])[:, None]
    found = np.stack([own.searchsorted(at, side="right") for (own, _), at in zip(paths, places)])
    segment = np.clip(found - 1, 0, lengths - 2) + np.cumsum(lengths, axis=0) - lengths
    start = poses[segment]
    step = rigid_inverse(start) @ poses[segment + 1]
    share = (places - knots[segment]) / (knots[segment + 1] - knots[segment])
    # Beyond the ends repeat whole steps, so that the arc continues.
    beyond = (share < 0) | (share > 1)
    whole = np.where(beyond, np.floor(share), 0).astype(np.int64)
    if beyond.any():
        once = np.where((whole < 0)[..., None, None], rigid_inverse(step), step)
        start[beyond] = start[beyond] @ _power(once[beyond], abs(whole[beyond]))
    rest = (share - whole)[..., None]
    part = np.zeros_like(start)
    part[..., :3, :3] = rotation_matrix(rotation_vector(step[..., :3, :3]) * rest)
    part[..., :3, 3] = step[..., :3, 3] * rest
    part[..., 3, 3] = 1
    return np.asarray(start @ part)


def _standing(knots: FloatArray, poses: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A constant path through its only pose."""
    return np.append(knots, knots + 1), np.concatenate((poses, poses))


def _power(steps: FloatArray, exponents: NDArray[np.int64]) -> FloatArray:
    """The steps (m, 4, 4) to the powers (m,), by repeated squaring."""
    power, left = np.tile(np.eye(4), (len(steps), 1, 1)), exponents
    while (left > 0).any():
        power = np.where((left % 2 == 1)[:, None, None], power @ steps, power)
        steps, left = steps @ steps, left // 2
    return power
