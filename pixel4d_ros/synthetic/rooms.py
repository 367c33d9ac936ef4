# SPDX-License-Identifier: Apache-2.0
"""Layouts of rooms: textured walls, floor and ceiling, furniture of simple solids, a lamp, a hand-held camera."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.clutter import add_clutter
from pixel4d_ros.synthetic.ground import ROAD_COLUMNS
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.motion import Actor, ArcActor, HandheldCamera
from pixel4d_ros.synthetic.primitives import Shape
from pixel4d_ros.synthetic.props import PERSON
from pixel4d_ros.synthetic.world import Builder, Light, WorldLayout, turned

_WALL = 0.1  # metres, half the thickness


def make_room(seed: int) -> WorldLayout:
    """The room of that seed: 3 to 10 m wide, the camera somewhere inside, moving objects in every other room."""
    rng = np.random.default_rng([seed, 3])
    half = np.array([rng.uniform(1.8, 5.0), rng.uniform(1.6, 4.5), rng.uniform(1.15, 1.6)])
    if rng.uniform() < 0.2:
        half[:2] = rng.uniform(5, 12), rng.uniform(0.9, 1.4)  # a corridor
    out = Builder()
    _walls(out, rng, half)
    _on_walls(out, rng, half)
    taken = _furniture(out, rng, half)
    camera = _camera(rng, half, taken)
    actors = _moving(out, rng, half, camera)
    times = np.linspace(-0.5, 3, 8)
    paths = [camera(times)[:, :2, 3], *(actor.at(times)[0][:, :2] for actor in actors)]
    add_clutter(out, np.random.default_rng([seed, 9]), half, np.concatenate(paths))
    warm = np.array([1.0, rng.uniform(0.8, 1.0), rng.uniform(0.6, 1.0)])
    lamp = np.array([*(rng.uniform(-0.6, 0.6, 2) * half[:2]), 2 * half[2] - 0.15])
    ambient = rng.uniform(0.35, 0.8) * np.array([1.0, 0.98, 0.95])
    exposure = float(np.exp(rng.normal(0.25, 0.3)) / 0.9)
    light = Light(lamp, rng.uniform(0.5, 2.0) * warm, ambient, ambient, ambient, 0.0, exposure, 0.0)
    road = np.zeros(len(ROAD_COLUMNS))
    road[[ROAD_COLUMNS.index("half_width"), ROAD_COLUMNS.index("cross_half")]] = 1.0
    road[ROAD_COLUMNS.index("seed")] = seed % (1 << 20)
    return WorldLayout(out.rows(), road, light, camera, actors)


def _tint(rng: Generator, low: float = 0.03, high: float = 0.75) -> FloatArray:
    """A muted colour of random brightness."""
    return rng.uniform(low, high) * (1 - rng.uniform(0, 0.75) * rng.uniform(0, 1, 3))


def _wood(rng: Generator) -> FloatArray:
    return np.array([0.42, 0.25, 0.12]) * rng.uniform(0.2, 1.5) * rng.uniform(0.85, 1.15, 3)


def _finish(rng: Generator, seed: int, printed: float = 0.0) -> tuple[Material, dict[str, Any]]:
    """A random material for furniture and walls, with some chance of a print."""
    chances = np.array([0.36, 0.22, 0.26, 0.16, 0.0]) * (1 - printed) + np.array([0, 0, 0, 0, printed])
    kind = Material(
        int(
            rng.choice([Material.PLAIN, Material.STRIPES, Material.PLANKS, Material.TILES, Material.PICTURE], p=chances)
        )
    )
    color = _tint(rng)
    other = color * rng.uniform(0.25, 0.8) if rng.uniform() < 0.6 else _tint(rng)
    params: dict[Material, tuple[float, ...]] = {
        Material.PLAIN: (
            np.exp(rng.uniform(0, 3)),
            rng.uniform(0.2, 0.9),
            rng.choice([1.0, 4.0]),
            rng.choice([0, 0, 0.3]),
        ),
        Material.STRIPES: (rng.uniform(0.04, 0.4), rng.uniform(0.3, 1.0), float(rng.integers(2)), 0),
        Material.PLANKS: (rng.uniform(0.07, 0.25), rng.uniform(0.6, 2.0), 0, rng.choice([0, 0.2])),
        Material.TILES: (rng.uniform(0.1, 0.6), 0.02, 0, rng.choice([0, 0.3])),
        Material.PICTURE: (np.exp(rng.uniform(0, 2)), 0, 0, 0),
    }
    if kind == Material.PLANKS:
        color, other = _wood(rng), _wood(rng) * 0.6
    return kind, {"color": color, "color2": other, "params": params[kind], "seed": seed}


def _walls(out: Builder, rng: Generator, half: FloatArray) -> None:
    x, y, z = half
    kind, look = _finish(rng, int(rng.integers(1 << 20)))
    for side in (-1, 1):
        for center, extent in (
            ((side * (x + _WALL), 0, z), (_WALL, y + 0.2, z)),
            ((0, side * (y + _WALL), z), (x + 0.2, _WALL, z)),
        ):
            if rng.uniform() < 0.25:
                kind, look = _finish(rng, int(rng.integers(1 << 20)))
            bright = dict(look, color=np.clip(np.asarray(look["color"]) * 1.3 + 0.12, 0, 0.85))
            out.box(kind, center=center, half=extent, contact=0.45, **bright)
    kind, look = _finish(rng, int(rng.integers(1 << 20)))
    if rng.uniform() < 0.5:
        kind = Material.PLANKS
        look = {"color": _wood(rng), "color2": _wood(rng) * 0.5, "params": (0.12, 1.2, 0, 0.2), "seed": look["seed"]}
    out.box(kind, center=(0, 0, -_WALL), half=(x + 0.2, y + 0.2, _WALL), contact=0.4, **look)
    ceiling = rng.uniform(0.4, 0.8) * np.ones(3)
    pattern = Material.TILES if rng.uniform() < 0.4 else Material.PLAIN
    numbers = (0.6, 0.015, 0, 0) if pattern == Material.TILES else (2.0, 0.25, 1, 0)
    out.box(
        pattern,
        center=(0, 0, 2 * z + _WALL),
        half=(x + 0.2, y + 0.2, _WALL),
        color=ceiling,
        shade=0.75,
        params=numbers,
        contact=0.4,
        seed=int(rng.integers(1 << 20)),
    )


def _on_walls(out: Builder, rng: Generator, half: FloatArray) -> None:
    """Pictures, doors, windows, skirting boards."""
    x, y, z = half
    for axis in (0, 1):
        for side in (-1, 1):
            wall, reach = (x, y) if axis == 0 else (y, x)
            for _ in range(int(rng.integers(1, 4))):
                wide, tall = rng.uniform(0.15, 0.6), rng.uniform(0.15, 0.5)
                along, up = rng.uniform(-0.85, 0.85) * reach, rng.uniform(0.9, 1.3) * z
                material, params = Material.PICTURE, (rng.uniform(1.5, 8), 0.0, 0.0, 0.0)
                frame, color = _tint(rng, 0.02), _tint(rng)
                if rng.uniform() < 0.25:  # a door
                    wide, tall, up = 0.42, 1.0, 1.0
                    material, params, color, frame = Material.PLANKS, (0.42, 2.2, 0.0, 0.1), _wood(rng), _wood(rng)
                elif rng.uniform() < 0.3:  # a bright window
                    wide, tall, up = rng.uniform(0.4, 0.9), 0.6, 1.25 * z
                    material, params, color, frame = (
                        Material.TILES,
                        (0.6, 0.05, 0.0, 0.5),
                        np.full(3, 2.5),
                        np.full(3, 0.6),
                    )
                depth = rng.uniform(0.01, 0.05)
                at = side * (wall - depth)
                center = (at, along, up) if axis == 0 else (along, at, up)
                extent = (depth, wide, tall) if axis == 0 else (wide, depth, tall)
                out.box(
                    material,
                    center=center,
                    half=extent,
                    color=color,
                    color2=frame,
                    params=params,
                    seed=int(rng.integers(1 << 20)),
                    contact=0.3,
                )
            extent = (0.015, reach, 0.05) if axis == 0 else (reach, 0.015, 0.05)
            at = side * (wall - 0.015)
            board = rng.uniform(0.1, 0.7) * np.ones(3)
            center = (at, 0, 0.05) if axis == 0 else (0, at, 0.05)
            out.box(
                Material.PLAIN,
                center=center,
                half=extent,
                color=board,
                shade=0.7,
                params=(4, 0.3, 1, 0.1),
            )


def _furniture(out: Builder, rng: Generator, half: FloatArray) -> FloatArray:
    """Cupboards, shelves, tables, chairs and loose objects; returns the discs x, y, radius (n, 3) they occupy."""
    taken = []
    for _ in range(int(rng.integers(5, 16))):
        size = np.array([rng.uniform(0.15, 0.7), rng.uniform(0.15, 0.6), rng.uniform(0.15, 0.95)])
        kind, look = _finish(rng, int(rng.integers(1 << 20)))
        angle = rng.choice([0.0, np.pi / 2]) + (rng.normal(0, 0.08) if rng.uniform() < 0.7 else rng.uniform(0, 3))
        xy = rng.uniform(-1, 1, 2) * (half[:2] - 0.35)
        if rng.uniform() < 0.6:  # against a wall
            axis = int(rng.integers(2))
            xy[axis] = rng.choice([-1, 1]) * (half[axis] - size[axis] - 0.02)
            angle = 0.0
        taken.append([*xy, float(np.hypot(size[0], size[1]))])
        choice = rng.uniform()
        place: dict[str, Any] = {"center": (*xy, size[2]), "half": size, "yaw": angle, "contact": 0.9}
        if choice < 0.3:
            out.box(kind, **place, **look)
        elif choice < 0.5:
            place.update(half=(*size[:2], 0.9), center=(*xy, 0.9))
            books: dict[str, Any] = {
                "color": _wood(rng),
                "color2": _wood(rng),
                "params": (rng.uniform(0.25, 0.4), rng.uniform(0.025, 0.05), 0, 0),
            }
            out.box(Material.BOOKS, seed=int(rng.integers(1 << 20)), **place, **books)
        elif choice < 0.75:
            _table(out, rng, xy, size, angle, kind, look)
        elif choice < 0.88:
            out.cylinder(kind, **{**place, "half": (size[0] * 0.6, size[0] * 0.6, size[2])}, **look)
        else:
            out.ball(kind, **place, **look)
        top = 2 * (0.9 if 0.3 <= choice < 0.5 else size[2])
        for _ in range(int(rng.integers(0, 4)) if choice < 0.75 else 0):
            small = rng.uniform(0.04, 0.18, 3)
            kind, look = _finish(rng, int(rng.integers(1 << 20)), 0.35)
            shape = Shape(int(rng.integers(1, 4)))
            at = (*(xy + rng.uniform(-0.5, 0.5, 2) * size[:2].min()), top + small[2])
            out.add(shape, kind, center=at, half=small, yaw=rng.uniform(0, 6), contact=0.5, **look)
    return np.array(taken)


def _table(
    out: Builder, rng: Generator, xy: FloatArray, size: FloatArray, yaw: float, kind: Material, look: dict[str, Any]
) -> None:
    height = 2 * size[2]
    out.box(kind, center=(*xy, height - 0.03), half=(*size[:2], 0.03), yaw=yaw, contact=0.6, **look)
    for a in (-1, 1):
        for b in (-1, 1):
            x, y = a * (size[0] - 0.05), b * (size[1] - 0.05)
            leg = turned(xy, yaw, x, y, height / 2 - 0.03)
            out.box(kind, center=leg, half=(0.03, 0.03, height / 2 - 0.03), yaw=yaw, contact=0.7, **look)
    if rng.uniform() < 0.3:  # a chair's back
        back = turned(xy, yaw, size[0] - 0.03, 0, height + 0.3)
        out.box(kind, center=back, half=(0.03, size[1], 0.3), yaw=yaw, **look)


def _camera(rng: Generator, half: FloatArray, taken: FloatArray) -> HandheldCamera:
    """Starts near a wall looking across the room, clear of furniture, and drifts."""
    height = rng.uniform(1.0, min(1.8, 2 * half[2] - 0.4))
    best, best_gap = np.zeros(2), -np.inf
    for _ in range(12):
        xy = rng.uniform(-1, 1, 2) * (half[:2] - 0.7)
        gap = float((np.hypot(*(taken[:, :2] - xy).T) - taken[:, 2]).min())
        if gap > best_gap:
            best, best_gap = xy, gap
        if gap > 0.5:
            break
    targets = rng.uniform(-0.85, 0.85, (3, 2)) * half[:2] - best
    target = targets[np.argmax(np.hypot(*targets.T))]
    yaw = float(np.arctan2(target[1], target[0])) + rng.normal(0, 0.3)
    speed = min(rng.uniform(0, 0.6), 0.5 * float(np.hypot(*target)))
    way = yaw + rng.normal(0, 0.9)
    # No further than the wall in three seconds.
    room = np.minimum(half[:2] - 0.3 - best * np.sign([np.cos(way), np.sin(way)]), 3.0) / 3.0
    velocity = np.array([*np.clip(speed * np.array([np.cos(way), np.sin(way)]), -room, room), rng.normal(0, 0.05)])
    amplitude = np.array([0.03, 0.03, 0.02, 0.05, 0.03, 0.015]) * rng.uniform(0, 1, 6)
    shake = np.column_stack((amplitude, rng.uniform(1, 6, 6), rng.uniform(0, 6.28, 6)))
    angles = np.array([yaw, rng.normal(0.12, 0.15), rng.normal(0, 0.04)])
    return HandheldCamera(np.array([*best, height]), velocity, angles, rng.normal(0, [0.15, 0.06, 0.03]), shake)


def _moving(out: Builder, rng: Generator, half: FloatArray, camera: HandheldCamera) -> list[Actor]:
    """People who walk and balls that roll, in sight of the camera, without collisions for three seconds."""
    actors: list[Actor] = []
    times = np.linspace(0, 3, 16)
    for _ in range(int(rng.choice(4, p=[0.45, 0.3, 0.15, 0.1]))):
        way, yaw = camera.angles[0] + rng.uniform(-0.4, 0.4), rng.uniform(0, 6.28)
        xy = camera.position[:2] + rng.uniform(1.2, 4.0) * np.array([np.cos(way), np.sin(way)])
        xy = np.clip(xy, 0.4 - half[:2], half[:2] - 0.4)
        walks = rng.uniform() < 0.6
        speed = rng.uniform(0.3, 1.2) if walks else rng.uniform(0.2, 1.5)
        path = ArcActor(np.array([*xy, 0.0]), yaw, speed, rng.normal(0, 0.4))
        others = [camera(times)[:, :2, 3], *(actor.at(times)[0][:, :2] for actor in actors)]
        if min(np.hypot(*(path.at(times)[0][:, :2] - other).T).min() for other in others) < 0.8:
            continue
        number = len(actors) + 1
        if walks:
            height = PERSON.add(out, rng, xy, yaw, number)
        else:
            height = rng.uniform(0.1, 0.35)
            kind, look = _finish(rng, int(rng.integers(1 << 20)))
            shape = Shape.BALL if rng.uniform() < 0.6 else Shape.BOX
            place: dict[str, Any] = {"center": (*xy, height), "half": (height,) * 3, "yaw": yaw, "contact": 0.8}
            out.add(shape, kind, object=number, instance=number, **place, **look)
        actors.append(replace(path, start=np.array([*xy, height])))
    return actors
