# SPDX-License-Identifier: Apache-2.0
"""Layouts of streets: a road in a town, a suburb or the country, its scenery and traffic."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator

from pixel4d_ros.synthetic.assets import Assets
from pixel4d_ros.synthetic.facades import add_fronts
from pixel4d_ros.synthetic.furniture import NEARBY, add_details
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.model_props import add_models, replace_houses
from pixel4d_ros.synthetic.motion import RoadActor, RoadCamera
from pixel4d_ros.synthetic.plan import COUNTRY, SUBURB, TOWN, StreetPlan, clear, make_plan, raised
from pixel4d_ros.synthetic.scenarios import Scenario, draw_scenario, ego_camera, play, prepare
from pixel4d_ros.synthetic.scenery import add_bushes, add_houses, add_trees
from pixel4d_ros.synthetic.traffic import Traffic, add_traffic
from pixel4d_ros.synthetic.vehicles import CAR
from pixel4d_ros.synthetic.world import Builder, Light, WorldLayout

TOP_SPEED = 22.0  # m/s: how far ahead a street is made where the speed is not given


def make_street(
    seed: int,
    horizon: float = 3.0,
    speed: float | None = None,
    style: int | None = None,
    assets: Assets | None = None,
) -> WorldLayout:
    """Make the street of a seed with its traffic, long enough for a drive of `horizon` seconds.

    speed (m/s, of the ego at the start) and style (TOWN, SUBURB or COUNTRY) are drawn when not given.
    With assets many vehicles are textured models, and more of them are lorries and buses; all else is the same.
    """
    rng = np.random.default_rng([seed, 1])
    given = speed
    drawn = int(rng.choice(3, p=[0.5, 0.3, 0.2]))
    style = drawn if style is None else style
    plan = make_plan(rng, style, (TOP_SPEED if speed is None else speed) * horizon)
    if speed is None:  # mostly with the traffic, sometimes slower, sometimes waiting
        speed = plan.flow * float(
            rng.choice([1.0, rng.uniform(), 0.0], p=[0.7, 0.22, 0.08]) * np.exp(rng.normal(0, 0.1))
        )
    more = np.random.default_rng([seed, 5])
    scenario = draw_scenario(more) if given is None else Scenario.NONE
    plan, speed = prepare(more, plan, scenario, speed)
    out = Builder(assets.chooser(seed) if assets else None)
    models = np.random.default_rng([seed, 14]) if assets else None
    _houses(out, rng, plan, np.random.default_rng([seed, 9]), models)
    _greenery(out, rng, plan)
    _furniture(out, rng, plan)
    _parked(out, rng, plan)
    add_details(out, np.random.default_rng([seed, 6]), plan)
    add_models(out, np.random.default_rng([seed, 13]), plan)
    camera = _camera(rng, plan, speed, horizon)
    ego = camera.car
    assert isinstance(ego, RoadActor)
    camera = ego_camera(more, scenario, camera)
    large = np.random.default_rng([seed, 12]) if assets else None
    traffic = Traffic(out, rng, plan, ego, camera.car, horizon, large)
    add_traffic(traffic, horizon, queue=scenario == Scenario.NONE)
    play(traffic, more, scenario)
    actors = traffic.actors
    pose = camera(np.zeros(1))[0]
    standing = out.number_standing(len(actors), pose[:3, 3] + 15.0 * pose[:3, 2])
    return WorldLayout(out.rows(), plan.road, _light(rng), camera, actors, standing)


def _houses(out: Builder, rng: Generator, plan: StreetPlan, more: Generator, models: Generator | None) -> None:
    if plan.style == COUNTRY and rng.uniform() < 0.6:
        return
    for side in (-1, 1):
        n = int((plan.length + 40) / 8)
        town = plan.style == TOWN
        half_x = rng.uniform(5, 11, n) if town else rng.uniform(4, 7, n)
        gap = rng.choice([0.02, rng.uniform(1, 5)]) * np.ones(n) if town else rng.uniform(3, 14, n)
        gap = np.where(rng.uniform(size=n) < 0.12, rng.uniform(5, 20, n), gap)
        if plan.style == COUNTRY:
            gap += rng.uniform(20, 80, n)
        half_y = rng.uniform(4, 6.5, n)
        half_z = (1.5 if rng.uniform() < 0.5 else 1.6) * rng.integers(2, 6 if town else 4, n)
        end = np.cumsum(2 * half_x + gap)
        s = end - half_x - 35 - rng.uniform(0, 10)
        nearest = plan.pavement + rng.uniform(0.2, 7.0 if town else 9.0) + (0 if town else 2)
        setback = nearest + (rng.uniform(0, 0.4 if town else 3.0, n))
        keep = (s < plan.length) & clear(plan, s, half_x + 2)
        across = side * (plan.half_width + setback + half_y)
        point, heading = plan.table.place(s, across)
        gabled = rng.uniform(size=n) < (0.75 if town else 0.95)
        half = np.column_stack((half_x, half_y, half_z))
        first = len(out.parts)
        add_houses(out, rng, point[keep], heading[keep], half[keep], gabled[keep])
        if not town and models is not None:
            keep[keep] = ~replace_houses(out, first, models, point[keep], heading[keep] - side * np.pi / 2)
        seen = keep & (s > -8) & (s < NEARBY)
        shops = float(more.choice([0.0, 0.3, 0.8])) if town else 0.05
        add_fronts(out, more, point[seen], heading[seen], half[seen], side, shops)
        if (plan.style == SUBURB and rng.uniform() < 0.6) or (town and setback.min() > plan.pavement + 3):
            _fence(out, rng, plan, side)


def _fence(out: Builder, rng: Generator, plan: StreetPlan, side: int) -> None:
    """A hedge, wall or fence along the back of the pavement, in pieces."""
    s = np.arange(-30.0, plan.length, 6.0)
    s = s[(rng.uniform(size=len(s)) < 0.8) & clear(plan, s, 4.0)]
    n = len(s)
    point, heading = plan.table.place(s, side * (plan.half_width + plan.pavement + 0.5))
    height = rng.uniform(0.4, 1.0)
    place: dict[str, Any] = {"center": raised(point, height), "half": (3.02, rng.uniform(0.1, 0.4), height)}
    place.update(yaw=heading, contact=0.5)
    if rng.uniform() < 0.5:
        leaves = np.array([0.05, 0.09, 0.02]) * rng.uniform(0.6, 1.5)
        look: dict[str, Any] = {"color": leaves * 0.35, "color2": leaves * 1.6, "params": (3.0, 0, 0, 0)}
        out.box(Material.FOLIAGE, n, seed=rng.integers(1 << 20, size=n), **place, **look)
        return
    wall = rng.uniform(0.15, 0.5) * np.array([1.0, 0.93, 0.85])
    params = (50, 50, 0, int(rng.integers(3)))
    seed = int(rng.integers(1 << 20))
    out.box(Material.FACADE, n, color=wall, shade=0.7, params=params, seed=seed, **place)


def _greenery(out: Builder, rng: Generator, plan: StreetPlan) -> None:
    autumn = float(rng.choice([0.0, rng.uniform(0, 1)]))
    for side in (-1, 1):
        edge = plan.half_width + plan.pavement
        count = int(plan.length / (11, 9, 7)[plan.style] * rng.uniform(0.2, 1.0))
        s = rng.uniform(-20, plan.length, count)
        across = edge + rng.uniform(-0.6 if plan.pavement > 2 else 0.8, (2.0, 9.0, 25.0)[plan.style], count)
        keep = clear(plan, s, 3.0)
        point, _ = plan.table.place(s, side * across)
        add_trees(out, rng, point[keep], rng.uniform(4, (9, 11, 15)[plan.style], count)[keep], autumn)
        count = int(plan.length / 12 * rng.uniform(0, 1))
        s = rng.uniform(-20, plan.length, count)
        point, _ = plan.table.place(s, side * (edge + rng.uniform(1.2, 6, count)))
        keep = clear(plan, s, 3.0)
        add_bushes(out, rng, point[keep], rng.uniform(0.4, 1.4, count)[keep])
    # Woods and hills behind it all, so that the street does not end in an empty plain.
    n = 26
    angle = np.linspace(-1.25, 1.25, n) + rng.uniform(-0.04, 0.04, n)
    reach = plan.length + rng.uniform(20, 120, n)
    center = np.column_stack((reach * np.cos(angle), reach * np.sin(angle), rng.uniform(0, 3, n)))
    leaves = np.array([0.05, 0.08, 0.025]) * rng.uniform(0.5, 1.3, (n, 1))
    out.ball(
        Material.FOLIAGE,
        n,
        center=center,
        half=rng.uniform(0.6, 1.4, (n, 3)) * np.array([16, 22, 9]),
        yaw=angle,
        color=leaves * 0.35,
        color2=leaves * 1.5,
        params=(0.5, 0.2, 0, 0),
        seed=rng.integers(1 << 20, size=n),
    )


def _furniture(out: Builder, rng: Generator, plan: StreetPlan) -> None:
    """Lamp posts, traffic signs and bins."""
    for side in (-1, 1):
        s = np.arange(rng.uniform(-10, 20), plan.length, rng.uniform(18, 35))
        s = s[clear(plan, s, 1.0)] if rng.uniform() < 0.75 else s[:0]
        n = len(s)
        edge = plan.half_width + 0.4
        point, heading = plan.table.place(s, side * edge)
        tall = rng.uniform(4.5, 8)
        steel = np.full(3, rng.uniform(0.08, 0.35))
        post: dict[str, Any] = {"color": steel, "shade": 0.6, "params": (3, 0.4, 3, 0), "seed": 5}
        out.cylinder(Material.PLAIN, n, center=raised(point, tall / 2), half=(0.06, 0.06, tall / 2), **post)
        arm, _ = plan.table.place(s, side * (edge - 0.7))
        out.box(Material.PLAIN, n, center=raised(arm, tall), half=(0.12, 0.8, 0.05), yaw=heading, **post)
        count = int(rng.integers(0, 4))
        s = rng.uniform(3, plan.length, count)
        point, heading = plan.table.place(s, side * (plan.half_width + 0.5))
        out.cylinder(Material.PLAIN, count, center=raised(point, 1.2), half=(0.035, 0.035, 1.2), **post)
        red = rng.uniform(size=(count, 1)) < 0.6
        rim = np.where(red, np.array([0.4, 0.01, 0.012]), np.array([0.01, 0.06, 0.35]))
        face = {"color": rim, "color2": rng.choice([0.65, 0.65, 0.1]) * np.ones(3)}
        place = {
            "center": raised(point, 2.4),
            "half": (0.33, 0.33, 0.015),
            "roll": np.pi / 2,
            "yaw": heading - np.pi / 2,
        }
        out.cylinder(Material.SIGN, count, seed=3, **place, **face)
        count = int(rng.integers(0, 6))
        s = rng.uniform(0, 60, count)
        across = plan.half_width + 0.3 + plan.pavement * rng.uniform(0.1, 0.9, count)
        point, heading = plan.table.place(s, side * across)
        tall = rng.uniform(0.4, 0.7)
        tint = rng.uniform(0.02, 0.35, (count, 1)) * rng.uniform(0.5, 1.0, (count, 3))
        place = {"center": raised(point, tall), "half": (rng.uniform(0.1, 0.4), 0.25, tall), "yaw": heading}
        bin_look: dict[str, Any] = {"color": tint, "shade": 0.5, "params": (4, 0.5, 0.5, 0), "contact": 0.8}
        out.box(Material.PLAIN, count, seed=rng.integers(1 << 20, size=count), **place, **bin_look)


def _parked(out: Builder, rng: Generator, plan: StreetPlan) -> None:
    if plan.style == COUNTRY:
        return
    for side in (-1, 1):
        if rng.uniform() < 0.25:
            continue
        share = rng.uniform(0.2, 1.0)
        on_road = plan.half_width > 4.6
        across = side * (plan.half_width - 1.05 if on_road else plan.half_width + min(0.9, plan.pavement * 0.6))
        s = np.arange(-8.0, min(plan.length, 110.0), 5.9) + rng.uniform(0, 4)
        s = s[(rng.uniform(size=len(s)) < share) & clear(plan, s, 6.0)]
        point, heading = plan.table.place(s + rng.uniform(-0.4, 0.4, len(s)), across + rng.uniform(-0.15, 0.15, len(s)))
        for xy, yaw in zip(point, heading):
            # Cars park with the traffic, mostly.
            flip = (side > 0) != (rng.uniform() < 0.2)
            CAR.add(out, rng, xy, yaw + rng.uniform(-0.03, 0.03) + (np.pi if flip else 0.0))


def _camera(rng: Generator, plan: StreetPlan, speed: float, horizon: float) -> RoadCamera:
    lane = -0.5 * (plan.half_width - (2.0 if plan.half_width > 4.6 else 0.0)) + rng.uniform(-0.3, 0.3)
    car = RoadActor(
        plan.table, 0.0, lane, speed, rng.uniform(-0.6, 0.6) * min(1.0, 4.0 / horizon), 1, rng.uniform(1.2, 2.0)
    )
    amplitude = np.array([0.012, 0.004, 0.004]) * rng.uniform(0, 1.3, 3)
    wobble = np.stack((amplitude, rng.uniform(4, 10, 3), rng.uniform(0, 6.28, 3)))
    return RoadCamera(car, rng.normal(0, 0.03), rng.normal(0.01, 0.03), wobble)


def _light(rng: Generator) -> Light:
    """A sunny, hazy or grey day, seen by a camera whose exposure is seldom perfect."""
    clouds = float(np.clip(rng.uniform(-0.3, 1.0), 0, 1))
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.1)
    sun = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
    strength = 3.8 * (1 - clouds) ** 0.7 + 0.05
    warm = np.array([1.0, 0.78 + 0.2 * height, 0.55 + 0.4 * height])
    zenith = np.array([0.16, 0.32, 0.72]) * (1 - clouds) + np.array([0.75, 0.79, 0.85]) * clouds
    horizon = np.array([0.85, 0.95, 1.05]) * (1 - clouds) + np.array([1.0, 1.0, 1.0]) * clouds
    ambient = (np.array([0.3, 0.35, 0.44]) * (1 - clouds) + np.array([0.95, 0.97, 1.0]) * clouds) * rng.uniform(
        0.8, 1.2
    )
    mean = 0.33 * strength * sun[2] + ambient.mean()
    exposure = float(np.exp(rng.normal(0.25, 0.28)) / mean)
    return Light(
        sun, strength * warm, ambient, zenith, horizon * 1.15, clouds, exposure, float(rng.uniform(0.0, 0.03) ** 2)
    )
