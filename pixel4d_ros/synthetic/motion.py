# SPDX-License-Identifier: Apache-2.0
"""Motion of cars, people and cameras: analytic paths over time, and their Taylor expansion as scene.Motion.

The world's frame has z up. Actors turn about the vertical through their centroid only, so that
x(t) = c + R(theta)(x0 - c) + v t + a t^2 / 2 with theta = w t + a_w t^2 / 2 composes exactly over time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.ground import centre_line

_STEP = 0.1  # seconds, of the central differences behind `expand`
# Optical axes (x right, y down, z forward) of a camera that looks along x of a body frame x forward, y left, z up.
BODY_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


class Actor(Protocol):
    """Something that moves as a rigid body."""

    def at(self, times: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Centroids (T, 3) in the world, metres, and yaw (T,), rad, at times (T,), seconds."""


class RoadTable:
    """Arc length along a road's centre line."""

    def __init__(self, road: FloatArray, start: float, stop: float) -> None:
        self.road = road
        self.x = np.arange(start, stop + 0.2, 0.2)
        _, heading = centre_line(road, self.x)
        stretch = 1 / np.cos(heading)
        length = np.concatenate(([0.0], np.cumsum(0.5 * (stretch[1:] + stretch[:-1]) * np.diff(self.x))))
        self.s = length - np.interp(0.0, self.x, length)

    def place(self, s: FloatArray | float, across: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        """Points (T, 2) at arc length s (T,) from x = 0, `across` metres left of the centre, and headings (T,)."""
        x = np.interp(s, self.s, self.x)
        # Beyond the table's ends the road continues straight in x.
        x = x + np.minimum(np.asarray(s) - self.s[0], 0) + np.maximum(np.asarray(s) - self.s[-1], 0)
        y, heading = centre_line(self.road, x)
        offset = np.stack((-np.sin(heading), np.cos(heading)), -1) * np.asarray(across)[..., None]
        return np.stack((x, y), -1) + offset, heading


@dataclass(frozen=True)
class RoadActor:
    """Follows the road at a constant distance from its centre line; speeds up or brakes, down to a stop."""

    table: RoadTable
    start: float  # metres along the road
    across: float  # metres, left positive
    speed: float  # m/s at time 0, >= 0
    acceleration: float  # m/s^2
    direction: int  # 1 with x, -1 against it
    height: float  # of the centroid
    drift: float = 0.0  # m/s to the left of the road: it changes lanes

    def at(self, times: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See Actor."""
        t = np.asarray(times, np.float64)
        if self.acceleration < 0:
            t = np.minimum(t, -self.speed / self.acceleration)
        way = self.speed * t + 0.5 * self.acceleration * t * t
        point, heading = self.table.place(self.start + self.direction * way, self.across + self.drift * t)
        yaw = heading + (np.pi if self.direction < 0 else 0.0)
        if self.drift:
            yaw = yaw + self.direction * np.arctan2(self.drift, max(self.speed, 0.1))
        return np.concatenate((point, np.full((len(point), 1), self.height)), -1), yaw


@dataclass(frozen=True)
class ArcActor:
    """Goes straight (turn_rate 0) or around a circle at constant speed, facing where it goes."""

    start: FloatArray  # (3,) centroid at time 0
    yaw: float  # rad at time 0
    speed: float  # m/s
    turn_rate: float  # rad/s, left positive

    def at(self, times: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See Actor."""
        t = np.asarray(times, np.float64)
        half = 0.5 * self.turn_rate * t
        chord = self.speed * t * np.sinc(half / np.pi)
        direction = np.stack((np.cos(self.yaw + half), np.sin(self.yaw + half), np.zeros_like(t)), -1)
        return self.start + chord[:, None] * direction, self.yaw + self.turn_rate * t


@dataclass(frozen=True)
class Expansion:
    """Motion of M objects at one time, in the world's frame; angular values are about z."""

    centroids: FloatArray  # (M, 3)
    velocities: FloatArray  # (M, 3)
    accelerations: FloatArray  # (M, 3)
    turn_rates: FloatArray  # (M,)
    turn_accelerations: FloatArray  # (M,)

    def pose_changes(self, times: FloatArray) -> FloatArray:
        """Rigid transforms (T, M, 4, 4) that carry each object from its place at time 0 to that at times (T,)."""
        t = np.asarray(times, np.float64)[:, None]
        turn = self.turn_rates * t + 0.5 * self.turn_accelerations * t * t
        shift = self.velocities * t[..., None] + 0.5 * self.accelerations * (t * t)[..., None]
        return _turned(turn, self.centroids, self.centroids + shift)


def _turned(turn: FloatArray, before: FloatArray, after: FloatArray) -> FloatArray:
    """Transforms (..., 4, 4) that turn by `turn` (...) about z and carry the point `before` to `after` (..., 3)."""
    T = np.zeros((*turn.shape, 4, 4))
    cos, sin = np.cos(turn), np.sin(turn)
    T[..., 0, 0], T[..., 0, 1], T[..., 1, 0], T[..., 1, 1] = cos, -sin, sin, cos
    T[..., 2, 2] = T[..., 3, 3] = 1
    T[..., :3, 3] = after - np.einsum("...ij,...j->...i", T[..., :3, :3], np.broadcast_to(before, after.shape))
    return T


def expand(actors: Sequence[Actor], time: float) -> Expansion:
    """Second-order motion of the actors at `time`, by central differences over 0.1 s."""
    if not actors:
        return Expansion(*(np.zeros((0, 3)),) * 3, *(np.zeros(0),) * 2)
    moments = time + np.array([-_STEP, 0.0, _STEP])
    points, yaws = (np.stack(values) for values in zip(*(actor.at(moments) for actor in actors)))
    return Expansion(
        points[:, 1],
        (points[:, 2] - points[:, 0]) / (2 * _STEP),
        (points[:, 2] - 2 * points[:, 1] + points[:, 0]) / _STEP**2,
        (yaws[:, 2] - yaws[:, 0]) / (2 * _STEP),
        (yaws[:, 2] - 2 * yaws[:, 1] + yaws[:, 0]) / _STEP**2,
    )


def true_pose_changes(actors: Sequence[Actor], times: FloatArray) -> FloatArray:
    """Transforms (T, M, 4, 4) from the actors' places at time 0 to those at times (T,), along their true paths."""
    if not actors:
        return np.zeros((len(times), 0, 4, 4))
    moments = np.concatenate(([0.0], np.asarray(times, np.float64)))
    points, yaws = (np.stack(values, 1) for values in zip(*(actor.at(moments) for actor in actors)))
    return _turned(yaws[1:] - yaws[0], points[0], points[1:])


def optical_poses(position: FloatArray, yaw: FloatArray, pitch: FloatArray, roll: FloatArray) -> FloatArray:
    """T_world_camera (T, 4, 4) of cameras at position (T, 3); pitch down and roll to the right are positive, rad."""
    turn = Rotation.from_euler("ZYX", np.column_stack((yaw, pitch, roll)))
    T = np.zeros((len(position), 4, 4))
    T[:, :3, :3] = turn.as_matrix() @ BODY_OPTICAL
    T[:, :3, 3] = position
    T[:, 3, 3] = 1
    return T


@dataclass(frozen=True)
class RoadCamera:
    """A camera on a car that drives in its lane, over slightly uneven ground."""

    car: Actor  # at the camera's height
    yaw: float  # rad, of the mounting
    pitch: float
    wobble: FloatArray  # (3, 3): rows amplitude, angular frequency, phase; columns height (m), pitch (rad), roll (rad)

    def __call__(self, times: FloatArray) -> FloatArray:
        """T_world_camera (T, 4, 4) at times (T,)."""
        t = np.asarray(times, np.float64)
        position, heading = self.car.at(t)
        amplitude, frequency, phase = self.wobble[..., None]
        rise, pitch, roll = amplitude * np.sin(frequency * t + phase)
        position[:, 2] += rise
        return optical_poses(position, heading + self.yaw, self.pitch + pitch, roll)


@dataclass(frozen=True)
class HandheldCamera:
    """A camera that a person carries through a room: drifting sums of sines about a start."""

    position: FloatArray  # (3,) at time 0
    velocity: FloatArray  # (3,) m/s
    angles: FloatArray  # (3,) yaw, pitch, roll at time 0
    rates: FloatArray  # (3,) rad/s
    shake: FloatArray  # (6, 3): amplitude, angular frequency, phase of the three coordinates, then of the angles

    def __call__(self, times: FloatArray) -> FloatArray:
        """T_world_camera (T, 4, 4) at times (T,)."""
        t = np.asarray(times, np.float64)[:, None]
        amplitude, frequency, phase = self.shake.T
        shake = amplitude * (np.sin(frequency * t + phase) - np.sin(phase))
        position = self.position + self.velocity * t + shake[:, :3]
        yaw, pitch, roll = (self.angles + self.rates * t + shake[:, 3:]).T
        return optical_poses(position, yaw, pitch, roll)


def kinematics(expansion: Expansion, R_camera_world: FloatArray, objects: int) -> NDArray[np.float32]:
    """v, a, w, a_w (objects + 1, 4, 3) in a camera's axes, row 0 (static) and rows beyond the actors zero."""
    out = np.zeros((objects + 1, 4, 3))
    m = len(expansion.centroids)
    up = np.array([0.0, 0.0, 1.0])
    world = (
        expansion.velocities,
        expansion.accelerations,
        expansion.turn_rates[:, None] * up,
        expansion.turn_accelerations[:, None] * up,
    )
    for column, vectors in enumerate(world):
        out[1 : m + 1, column] = vectors @ R_camera_world.T
    return out.astype(np.float32)
