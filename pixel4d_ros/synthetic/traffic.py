# SPDX-License-Identifier: Apache-2.0
"""Vehicles, cyclists and pedestrians on a street."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.motion import Actor, ArcActor, RoadActor
from pixel4d_ros.synthetic.plan import COUNTRY, FAR, StreetPlan
from pixel4d_ros.synthetic.props import CYCLIST, PERSON
from pixel4d_ros.synthetic.templates import Template
from pixel4d_ros.synthetic.vehicles import BUS, CAR, TRUCK
from pixel4d_ros.synthetic.world import MAX_OBJECTS, Builder

LARGE = 0.25  # of the vehicles that drive along streets with models: lorries and buses
GAP = 0.35  # metres between two outlines, at least
JAM = 0.5  # m/s: at lower speed of the ego its whole lane waits


class FreeSpace:
    """Places occupied over the rendered times, so that added actors do not collide; each outline is a row of discs."""

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


class Traffic:
    """Moving objects; each gets the next object id, and its primitives are placed for time 0."""

    def __init__(
        self,
        out: Builder,
        rng: Generator,
        plan: StreetPlan,
        ego: RoadActor,
        camera_car: Actor,
        horizon: float,
        large: Generator | None = None,
    ) -> None:
        self.out, self.rng, self.plan, self.ego, self.large = out, rng, plan, ego, large
        self.actors: list[Actor] = []
        self.free_space = FreeSpace(horizon, out.standing)
        self.free_space.add(camera_car, 2.6, 1.0)

    def start(self, kind: Template, actor: RoadActor | ArcActor) -> None:
        """Add an actor without a check for collisions."""
        if len(self.actors) >= MAX_OBJECTS:
            return
        point, yaw = actor.at(np.zeros(1))
        height = kind.add(self.out, self.rng, point[0, :2], float(yaw[0]), len(self.actors) + 1)
        if isinstance(actor, RoadActor):
            self.actors.append(replace(actor, height=height))
        else:
            self.actors.append(replace(actor, start=np.array([*point[0, :2], height])))
        self.free_space.add(actor, *kind.outline)

    def drive(self, actor: RoadActor) -> None:
        """Add a car without a check for collisions; given a generator `large`, now and then a lorry or a bus."""
        if self.large is None:
            self.start(CAR, actor)
        elif self.large.uniform() >= LARGE:
            self.add(CAR, actor)
        else:
            self.add((TRUCK, BUS)[int(self.large.integers(2))], actor)

    def add(self, kind: Template, actor: RoadActor | ArcActor) -> None:
        """Add an actor unless it collides with another."""
        if self.free_space.is_free(actor, *kind.outline):
            self.start(kind, actor)

    def stand(self, kind: Template, s: float, across: float, direction: int, turn: float = 0.0) -> None:
        """Add a standing object s metres along the road, unless it collides."""
        actor = RoadActor(self.plan.table, s, across, 0.0, 0.0, direction, 1.0)
        if self.free_space.is_free(actor, *kind.outline):
            point, yaw = actor.at(np.zeros(1))
            kind.add(self.out, self.rng, point[0, :2], float(yaw[0]) + turn)
            self.free_space.add(actor, *kind.outline)


def add_traffic(traffic: Traffic, horizon: float, queue: bool = True) -> None:
    """The ordinary traffic; with `queue` cars wait ahead of an ego that waits."""
    out, rng, plan, ego, start = traffic.out, traffic.rng, traffic.plan, traffic.ego, traffic.start
    lane = abs(ego.across)
    if ego.speed < JAM and not queue:
        pass
    elif ego.speed < JAM:
        _queue(out, rng, plan, ego)
    elif rng.uniform() < 0.65:
        # Drivers keep their distance in time, so the gap to the car ahead grows with its speed.
        speed = ego.speed * rng.uniform(0.9, 1.1)
        gap = 6.0 + speed * float(np.exp(rng.normal(0.3, 0.25)))
        braking = rng.choice([0.0, rng.uniform(-0.2, 0.15)]) * speed * min(1.0, 3.0 / horizon)
        ahead = RoadActor(plan.table, gap, ego.across + rng.normal(0, 0.2), speed, braking, 1, 1.0)
        ahead = _kept_ahead(ahead, ego, horizon)
        traffic.drive(ahead)
        if rng.uniform() < 0.4:
            traffic.drive(replace(ahead, start=ahead.start + gap * rng.uniform(0.8, 1.3)))
    place = rng.uniform(8, 25)
    # Oncoming cars share a speed, so that none drives through another.
    speed = plan.flow * float(np.exp(rng.normal(0, 0.1)))
    change = rng.uniform(-0.1, 0.1) * speed * min(1.0, 3.0 / horizon)
    for _ in range(int(rng.integers(0, 4)) + int(horizon / 4)):
        traffic.drive(RoadActor(plan.table, place, lane, speed, change, -1, 1.0))
        place += 8 + rng.uniform(0.2, 3.0) * speed
    if plan.cross[0] < FAR and rng.uniform() < 0.6:
        side = rng.choice([-1, 1])
        _, heading = plan.table.place(plan.cross[0], 0.0)
        y = float(plan.table.place(plan.cross[0], 0.0)[0][1]) + side * rng.uniform(3, 25)
        at = np.array([plan.cross[0] + side * 0.5 * plan.cross[1], y, 1.0])
        turn = rng.choice([0.0, rng.uniform(-0.7, 0.7)])
        speed = (5.0 if turn else 0.7 * plan.flow) * float(np.exp(rng.normal(0, 0.12)))
        start(CAR, ArcActor(at, -side * np.pi / 2, speed, turn))
    for _ in range(int(rng.integers(0, 3)) if plan.style != COUNTRY else 0):
        side = int(rng.choice([-1, 1]))
        across = side * (plan.half_width + plan.pavement * rng.uniform(0.3, 0.8))
        start(
            PERSON,
            RoadActor(plan.table, rng.uniform(6, 45), across, walking_speed(rng), 0.0, int(rng.choice([-1, 1])), 0.9),
        )
    if rng.uniform() < 0.3:
        s = rng.uniform(7, 30)
        side = int(rng.choice([-1, 1]))
        point, heading = plan.table.place(s, side * rng.uniform(0.5, plan.half_width))
        yaw = float(heading) - side * np.pi / 2 + rng.normal(0, 0.2)
        start(PERSON, ArcActor(np.array([*point, 0.9]), yaw, walking_speed(rng), rng.normal(0, 0.1)))
    if rng.uniform() < 0.35:
        direction = int(rng.choice([-1, 1]))
        across = -direction * (min(lane * 1.7, plan.half_width - 0.6))
        start(CYCLIST, RoadActor(plan.table, rng.uniform(6, 35), across, rng.normal(4.8, 0.7), 0.0, direction, 0.9))


def _queue(out: Builder, rng: Generator, plan: StreetPlan, ego: RoadActor) -> None:
    """Cars that wait ahead of a waiting ego; they are standing objects."""
    place = ego.start
    for _ in range(int(rng.integers(0, 5))):
        place += rng.uniform(7, 11)
        point, heading = plan.table.place(place, ego.across + rng.normal(0, 0.2))
        CAR.add(out, rng, point, float(heading))


def walking_speed(rng: Generator) -> float:
    """Walking speed in m/s (mean and spread after Bohannon 1997)."""
    return float(np.clip(rng.normal(1.35, 0.2), 0.8, 2.0))


def _kept_ahead(car: RoadActor, ego: RoadActor, horizon: float) -> RoadActor:
    """The car, started farther ahead if the ego, which does not brake, would come nearer than 7 m."""
    times = np.linspace(0, horizon, 40)
    gaps = car.at(times)[0][:, 0] - ego.at(times)[0][:, 0]
    return replace(car, start=car.start + max(0.0, 7.0 - float(gaps.min())))
