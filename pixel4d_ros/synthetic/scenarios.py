# SPDX-License-Identifier: Apache-2.0
"""Traffic scenarios: junctions, queues, overtaking, cut-in and braking cars, crowds of pedestrians and cyclists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum

import numpy as np
from numpy.random import Generator

from pixel4d_ros.synthetic.ground import ROAD_COLUMNS
from pixel4d_ros.synthetic.motion import ArcActor, RoadActor, RoadCamera
from pixel4d_ros.synthetic.plan import StreetPlan
from pixel4d_ros.synthetic.props import CYCLIST, PERSON
from pixel4d_ros.synthetic.templates import Template
from pixel4d_ros.synthetic.traffic import Traffic, walking_speed
from pixel4d_ros.synthetic.vehicles import BUS, CAR, TRUCK

STOP = 1.7  # seconds: no braking actor halts earlier, since its second-order motion would then reverse


class Scenario(IntEnum):
    """A scenario beside the ordinary traffic."""

    NONE = 0
    JUNCTION = 1
    QUEUE = 2
    OVERTAKING = 3
    CUT_IN = 4
    BRAKING = 5
    CROWD = 6


def draw_scenario(rng: Generator) -> Scenario:
    """Draw a scenario."""
    return Scenario(int(rng.choice(7, p=[0.2, 0.26, 0.14, 0.12, 0.08, 0.08, 0.12])))


def prepare(rng: Generator, plan: StreetPlan, scenario: Scenario, speed: float) -> tuple[StreetPlan, float]:
    """The street and the ego's speed (m/s), adapted to the scenario."""
    if scenario == Scenario.JUNCTION:
        speed = float(rng.choice([0.0, rng.uniform(1, 4), speed], p=[0.5, 0.2, 0.3]))
        cross = (rng.uniform(11, 24) + 1.2 * speed, rng.uniform(2.8, 5.0))
        road = plan.road.copy()
        road[ROAD_COLUMNS.index("cross_x")], road[ROAD_COLUMNS.index("cross_half")] = cross
        return replace(plan, cross=cross, road=road), speed
    if scenario == Scenario.QUEUE:
        return plan, float(rng.choice([0.0, rng.uniform(0.7, 4), speed], p=[0.45, 0.35, 0.2]))
    if scenario == Scenario.CROWD:
        return plan, float(rng.choice([0.0, rng.uniform(1, 6), speed], p=[0.35, 0.35, 0.3]))
    return plan, max(speed, 4.0) if scenario != Scenario.NONE else speed


def ego_camera(rng: Generator, scenario: Scenario, camera: RoadCamera) -> RoadCamera:
    """The camera; at some junctions its car turns."""
    car = camera.car
    if scenario != Scenario.JUNCTION or not isinstance(car, RoadActor) or car.speed < 1 or rng.uniform() > 0.5:
        return camera
    point, yaw = car.at(np.zeros(1))
    speed = min(car.speed, 6.0)
    return replace(camera, car=ArcActor(point[0], float(yaw[0]), speed, rng.choice([-1, 1]) * rng.uniform(0.1, 0.4)))


def play(traffic: Traffic, rng: Generator, scenario: Scenario) -> None:
    """Add the scenario's actors, as far as there is room for them."""
    parts: dict[Scenario, tuple[Callable[[Traffic, Generator], None], ...]] = {
        Scenario.NONE: (),
        Scenario.JUNCTION: (_crossing_traffic, _turning, _crossing_people),
        Scenario.QUEUE: (_queue, _oncoming),
        Scenario.OVERTAKING: (_overtaking,),
        Scenario.CUT_IN: (_cut_in,),
        Scenario.BRAKING: (_braking,),
        Scenario.CROWD: (_crossing_people, _cyclists, _crossing_people),
    }
    for part in parts[scenario]:
        part(traffic, rng)
    for chance, part in ((0.35, _cyclists), (0.5, _waiting_people), (0.2, _crossing_people)):
        if rng.uniform() < chance:
            part(traffic, rng)


def _vehicle(rng: Generator) -> Template:
    return (CAR, TRUCK, BUS, CYCLIST)[int(rng.choice(4, p=[0.66, 0.11, 0.1, 0.13]))]


def _crossing_traffic(traffic: Traffic, rng: Generator) -> None:
    """Vehicles on the cross street, in both directions."""
    plan = traffic.plan
    for side in (-1, 1):
        speed = rng.uniform(2.5, 12)
        y = side * rng.uniform(-14, 14)
        for _ in range(int(rng.integers(1, 4))):
            x = plan.cross[0] - side * plan.cross[1] * 0.5
            kind = _vehicle(rng)
            pace = speed if kind is not CYCLIST else min(speed, 6.0)
            traffic.add(kind, ArcActor(np.array([x, y, 1.0]), -side * np.pi / 2, pace, 0.0))
            y += side * (7 + rng.uniform(0.3, 1.5) * speed)


def _turning(traffic: Traffic, rng: Generator) -> None:
    """Vehicles that turn into or out of the cross street."""
    plan, lane = traffic.plan, abs(traffic.ego.across)
    for _ in range(int(rng.integers(1, 3))):
        kind = _vehicle(rng)
        speed = rng.uniform(2.5, 6.5)
        rate = rng.choice([-1, 1]) * speed / rng.uniform(6, 14)
        if rng.uniform() < 0.5:  # oncoming, turns off
            point, heading = plan.table.place(plan.cross[0] + rng.uniform(-2, 9), lane)
            start, yaw = np.array([*point, 1.0]), float(heading) + np.pi
        else:  # comes out of the cross street
            side = int(rng.choice([-1, 1]))
            x = plan.cross[0] - side * plan.cross[1] * 0.5
            start, yaw = np.array([x, side * rng.uniform(2, 8), 1.0]), -side * np.pi / 2
        traffic.add(kind, ArcActor(start, yaw, speed, rate))


def _queue(traffic: Traffic, rng: Generator) -> None:
    """Cars in the ego's lane, of which the first ones drive off while the others wait."""
    ego, plan = traffic.ego, traffic.plan
    place, speed = ego.start + rng.uniform(6.5, 10), ego.speed
    rolls = ego.speed > 0.5 or rng.uniform() < 0.5
    for _ in range(int(rng.integers(2, 6))):
        across = ego.across + rng.normal(0, 0.2)
        if rolls:
            speed = max(0.8, speed + rng.uniform(0, 1.8))
            traffic.add(_vehicle(rng), RoadActor(plan.table, place, across, speed, rng.uniform(0, 1.2), 1, 1.0))
        else:
            traffic.stand(_vehicle(rng), place, across, 1)
        place += rng.uniform(7, 11) + (speed if rolls else 0)


def _oncoming(traffic: Traffic, rng: Generator) -> None:
    """A stream, or a standing queue, in the other lane."""
    plan, lane = traffic.plan, abs(traffic.ego.across)
    stands = traffic.ego.speed > 0.5 and rng.uniform() < 0.5
    speed, place = rng.uniform(3, plan.flow), rng.uniform(3, 10)
    for _ in range(int(rng.integers(2, 6))):
        across = lane + rng.normal(0, 0.15)
        if stands:
            traffic.stand(_vehicle(rng), place, across, -1)
        else:
            traffic.add(_vehicle(rng), RoadActor(plan.table, place, across, speed, 0.0, -1, 1.0))
        place += 7 + rng.uniform(0.2, 1.5) * (1.0 if stands else speed)


def _overtaking(traffic: Traffic, rng: Generator) -> None:
    """Somebody passes the ego, or the ego passes somebody."""
    ego = traffic.ego
    for _ in range(int(rng.integers(1, 4))):
        faster = rng.uniform() < 0.6
        across = ego.across + (rng.uniform(2.7, 3.6) if faster else -rng.uniform(2.3, 3.0))
        speed = max(0.5, ego.speed + (rng.uniform(1.5, 9) if faster else -rng.uniform(1, 6)))
        kind = _vehicle(rng) if faster else (CYCLIST, TRUCK, CAR, BUS)[int(rng.integers(4))]
        start = rng.uniform(-6, 14) if faster else rng.uniform(5, 25)
        traffic.add(kind, RoadActor(ego.table, start, across, speed, rng.uniform(-0.5, 1.0), 1, 1.0))


def _cut_in(traffic: Traffic, rng: Generator) -> None:
    """A car changes into the ego's lane, or out of it."""
    ego, side = traffic.ego, int(rng.choice([-1, 1]))
    drift = -side * rng.uniform(0.5, 1.5)
    across = ego.across + side * rng.uniform(1.8, 3.4)
    if rng.uniform() < 0.3:  # out of the lane, round an obstacle
        across, drift = ego.across + rng.normal(0, 0.2), -drift
    speed = max(2.0, ego.speed + rng.uniform(-2, 4))
    actor = RoadActor(ego.table, rng.uniform(6, 18), across, speed, rng.uniform(-0.5, 0.5), 1, 1.0, drift)
    traffic.add(_vehicle(rng), actor)


def _braking(traffic: Traffic, rng: Generator) -> None:
    """The car ahead brakes or accelerates hard."""
    ego = traffic.ego
    speed = ego.speed * rng.uniform(0.7, 1.1)
    change = rng.choice([-1, 1], p=[0.75, 0.25]) * min(rng.uniform(1.5, 6), speed / STOP)
    for start in (rng.uniform(8, 20), rng.uniform(20, 35)):
        actor = RoadActor(ego.table, start, ego.across + rng.normal(0, 0.2), speed, change, 1, 1.0)
        traffic.add(_vehicle(rng), actor)


def _crossing_people(traffic: Traffic, rng: Generator) -> None:
    """Pedestrians, now and then a cyclist, who cross in front of the ego."""
    plan = traffic.plan
    s = rng.uniform(5, 24)
    for _ in range(int(rng.integers(1, 5))):
        side = int(rng.choice([-1, 1]))
        point, heading = plan.table.place(s + rng.normal(0, 1.5), side * rng.uniform(-0.3, 1.0) * plan.half_width)
        yaw = float(heading) - side * np.pi / 2 + rng.normal(0, 0.25)
        kind, speed = (PERSON, walking_speed(rng)) if rng.uniform() < 0.85 else (CYCLIST, rng.uniform(2, 5.5))
        traffic.add(kind, ArcActor(np.array([*point, 0.9]), yaw, speed, rng.normal(0, 0.1)))


def _cyclists(traffic: Traffic, rng: Generator) -> None:
    """Cyclists along the edge of the road, mostly in the ego's direction."""
    plan = traffic.plan
    for _ in range(int(rng.integers(1, 4))):
        direction = int(rng.choice([-1, 1], p=[0.3, 0.7]))
        across = -direction * (plan.half_width - rng.uniform(0.4, 1.4))
        actor = RoadActor(plan.table, rng.uniform(3, 28), across, rng.normal(4.8, 1.0), 0.0, direction, 0.9)
        traffic.add(CYCLIST, actor)


def _waiting_people(traffic: Traffic, rng: Generator) -> None:
    """Pedestrians who stand on the pavement, alone or in company."""
    plan, s = traffic.plan, rng.uniform(5, 30)
    side = int(rng.choice([-1, 1]))
    for _ in range(int(rng.integers(1, 6))):
        across = side * (plan.half_width + rng.uniform(0.3, 0.6 + max(plan.pavement, 0.8)))
        traffic.stand(PERSON, s + rng.normal(0, 1.5), across, 1, rng.uniform(0, 6.28))
