# SPDX-License-Identifier: Apache-2.0
"""The ways in which a tracked object may move on, with probabilities.

An object stands with the probability 1 - moving and moves with the probability moving. If it moves, its displacement
after t seconds is normally distributed: the mean is velocity * t, and the variance is var(velocity) * t^2 +
ACCELERATION^2 * t^4 / 4, as a constant acceleration of unknown size adds to an uncertain velocity. Five sigma points
stand for this distribution along and across the direction of travel: the mean with weight 1/3, and the mean plus and
minus sqrt(3) standard deviations with weight 1/6 each. They have its mean and its variances at every time, and its
fourth moments.
S. Julier, J. Uhlmann, Unscented Filtering and Nonlinear Estimation, Proc. IEEE 92(3), 2004, with n + kappa = 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike

from pixel4d_ros.geometry.rotations import FloatArray, rigid, rotation_matrix
from pixel4d_ros.outputs.tracking import TrackedObject

# m/s^2, standard deviation of the mean acceleration over the forecast, along and across the direction of travel.
# Labelled objects of six calm KITTI drives have 0.47 and 0.64 over 1.3 s (research/maneuver_statistics.py).
ACCELERATION = (1.0, 1.0)
CENTER_WEIGHT, SIDE_WEIGHT, SIGMAS = 1 / 3, 1 / 6, 3**0.5
MIN_SPEED = 0.5  # m/s below which the direction of travel is not known: the box's heading stands for it


class Maneuver(IntEnum):
    """The values of pixel4d_ros/PredictedPath.maneuver."""

    STANDING = 0
    CONSTANT_VELOCITY = 1
    LEFT = 2
    RIGHT = 3
    BRAKING = 4
    ACCELERATING = 5


@dataclass(frozen=True)
class PredictedPath:
    """One way in which an object may move on."""

    maneuver: Maneuver
    probability: float  # given that the object exists; those of one object add up to 1
    poses: FloatArray  # (T, 4, 4) of the box's centre, in the frame of the object


def predicted_paths(o: TrackedObject, times: ArrayLike) -> list[PredictedPath]:
    """The paths of an object at times (T,) s after its update, the most likely first.

    A braking object does not roll back: it stops. Its mean is then a little farther than velocity * t.
    """
    t = np.asarray(times, np.float64)
    heading = float(np.arctan2(o.velocity[1], o.velocity[0])) if _speed(o) >= MIN_SPEED else o.yaw
    axes = rotation_matrix([0, 0, heading])[:2, :2]  # columns: along and across
    variances = np.diag(axes.T @ o.covariance[3:5, 3:5] @ axes)
    along, across = (SIGMAS * np.sqrt(v * t**2 + a**2 * t**4 / 4) for v, a in zip(variances, ACCELERATION, strict=True))
    mean = (axes.T @ o.velocity[:2])[:, None] * t  # (2, T)
    nothing = np.zeros_like(t)
    offsets = {
        Maneuver.CONSTANT_VELOCITY: (nothing, nothing),
        Maneuver.LEFT: (nothing, across),
        Maneuver.RIGHT: (nothing, -across),
        Maneuver.BRAKING: (-along, nothing),
        Maneuver.ACCELERATING: (along, nothing),
    }
    paths = [PredictedPath(Maneuver.STANDING, 1 - o.moving, _poses(o, np.zeros((3, len(t))), np.full(len(t), o.yaw)))]
    for maneuver, offset in offsets.items():
        x, y = mean + np.stack(offset)
        if maneuver is Maneuver.BRAKING:
            x = np.maximum.accumulate(np.maximum(x, 0.0))
        weight = CENTER_WEIGHT if maneuver is Maneuver.CONSTANT_VELOCITY else SIDE_WEIGHT
        moved = np.stack((*(axes @ np.stack((x, y))), o.velocity[2] * t))
        paths.append(PredictedPath(maneuver, o.moving * weight, _poses(o, moved, o.yaw + _courses(x, y, t))))
    return sorted(paths, key=lambda path: -path.probability)


def _speed(o: TrackedObject) -> float:
    return float(np.linalg.norm(o.velocity[:2]))


def _courses(x: FloatArray, y: FloatArray, t: FloatArray) -> FloatArray:
    """Angles (T,) between the course of a way (x ahead, y to the left) and straight ahead; 0 where it is slow."""
    if len(t) < 2:
        return np.zeros(len(t))
    vx, vy = np.gradient(x, t), np.gradient(y, t)
    courses: FloatArray = np.where(np.hypot(vx, vy) < MIN_SPEED, 0.0, np.arctan2(vy, np.maximum(vx, 0.0)))
    return courses


def _poses(o: TrackedObject, moved: FloatArray, yaws: FloatArray) -> FloatArray:
    """Poses (T, 4, 4) of the box's centre moved by (3, T) metres, with headings yaws (T,)."""
    centers = o.center + moved.T
    return np.stack([rigid(rotation_matrix([0, 0, yaw]), c) for yaw, c in zip(yaws, centers, strict=True)])
