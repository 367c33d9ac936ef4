# SPDX-License-Identifier: Apache-2.0
"""Worlds as arrays: the builder that layouts fill, the finished layout, and a padded batch for the renderer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partialmethod

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.ground import Road
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.mesh_library import MeshLibrary
from pixel4d_ros.synthetic.motion import Actor
from pixel4d_ros.synthetic.primitives import COLUMNS, ROW, SLICES, Primitives, Shape

MAX_OBJECTS = 16  # moving objects of a world: actors have the object ids 1..MAX_OBJECTS
MAX_INSTANCES = 32  # objects of a world, standing ones included, which follow the actors
# Gives a model of a kind ("car", ...) at the origin, rows (P, ROW) and height of its middle, or None: a procedural one.
ChooseModel = Callable[[str], tuple[FloatArray, float] | None]


class Builder:
    """Collects primitives; every column takes one value or one per primitive."""

    def __init__(self, choose_model: ChooseModel | None = None) -> None:
        self.choose_model = choose_model
        self.parts: list[FloatArray] = []
        self.standing: list[FloatArray] = []  # centroids (3,) of the objects that stand
        self._groups = 0

    def groups(self, count: int) -> FloatArray:
        """Numbers (count,) for column `group`, one per object of several primitives."""
        self._groups += count
        return np.arange(self._groups - count + 1, self._groups + 1, dtype=np.float64)

    def stand(self, centroid: ArrayLike) -> int:
        """Preliminary value of column `instance` for one more standing object; `number_standing` replaces it."""
        self.standing.append(np.asarray(centroid, np.float64))
        return -len(self.standing)

    def number_standing(self, actors: int, place: FloatArray) -> FloatArray:
        """Give standing objects, nearest to a place (3,) first, the ids after the actors'; their centroids (S, 3)."""
        centroids = np.array(self.standing).reshape(-1, 3)
        order = np.argsort(np.linalg.norm(centroids - place, axis=-1))[: MAX_INSTANCES - actors]
        ids = np.zeros(len(centroids) + 1)
        ids[order + 1] = actors + 1 + np.arange(len(order))
        for rows in self.parts:
            instance = rows[:, SLICES["instance"]]
            instance[...] = np.where(instance < 0, ids[np.abs(instance).astype(int) * (instance < 0)], instance)
        return centroids[order]

    def add(
        self, shape: Shape, material: Material, count: int = 1, shade: float | None = None, **columns: ArrayLike
    ) -> None:
        """Append `count` primitives; columns as in COLUMNS, each of shape (width,), (count,) or (count, width).

        shade: color2 is that times color.
        """
        rows = np.zeros((count, ROW))
        rows[:, SLICES["shape"]] = int(shape)
        rows[:, SLICES["material"]] = int(material)
        if "group" not in columns:
            columns["group"] = self.groups(count)
        if shade is not None:
            columns["color2"] = np.asarray(columns["color"]) * shade
        for name, value in columns.items():
            array = np.asarray(value, np.float64)
            if COLUMNS[name] == 1:
                array = array.reshape(-1, 1)
            rows[:, SLICES[name]] = array
        self.parts.append(rows)

    box = partialmethod(add, Shape.BOX)
    ball = partialmethod(add, Shape.BALL)
    cylinder = partialmethod(add, Shape.CYLINDER)

    def rows(self) -> FloatArray:
        """All primitives (P, ROW)."""
        return np.concatenate(self.parts) if self.parts else np.zeros((0, ROW))


def turned(xy: FloatArray, yaw: float, x: float, y: float, z: float) -> FloatArray:
    """The point (3,) at height z that lies x ahead and y to the left of xy (2,) in axes turned by yaw (rad)."""
    return np.array([xy[0] + np.cos(yaw) * x - np.sin(yaw) * y, xy[1] + np.sin(yaw) * x + np.cos(yaw) * y, z])


@dataclass(frozen=True)
class Light:
    """Light of one world; colours are linear RGB."""

    sun: FloatArray  # (3,) unit, towards the sun, or a room's lamp's position in metres
    sun_color: FloatArray  # (3,)
    ambient: FloatArray  # (3,)
    zenith: FloatArray  # (3,)
    horizon: FloatArray  # (3,)
    clouds: float
    exposure: float
    haze: float  # 1 / m


@dataclass(frozen=True)
class WorldLayout:
    """One world at time 0: x forward along the street, y left, z up, metres; the ground is at z = 0."""

    rows: FloatArray  # (P, ROW)
    road: FloatArray  # (ROAD_COLUMNS,)
    light: Light
    camera: Callable[[FloatArray], FloatArray]  # times (T,) -> T_world_camera (T, 4, 4)
    actors: list[Actor] = field(default_factory=list)  # actor k has object id k + 1
    standing: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))  # (S, 3) centroids, ids after the actors'


@dataclass(frozen=True)
class Worlds:
    """B layouts on a device, padded to the same number of primitives."""

    primitives: Primitives  # (B, P)
    road: Road  # (B,)
    sun: Tensor  # (B, 3)
    sun_color: Tensor
    ambient: Tensor
    zenith: Tensor
    horizon: Tensor
    clouds: Tensor  # (B,)
    exposure: Tensor
    haze: Tensor
    meshes: MeshLibrary | None = None  # the models of rows with Shape.MESH

    @staticmethod
    def of(layouts: Sequence[WorldLayout], device: str | torch.device, meshes: MeshLibrary | None = None) -> Worlds:
        """Pad and upload."""
        rows = np.zeros((len(layouts), max(len(x.rows) for x in layouts), ROW), np.float32)
        rows[:, :, SLICES["half"]] = 1
        for row, layout in zip(rows, layouts):
            row[: len(layout.rows)] = layout.rows

        def upload(values: ArrayLike) -> Tensor:
            return torch.as_tensor(np.asarray(values, np.float32), device=device)

        lights = [x.light for x in layouts]
        names = ("sun", "sun_color", "ambient", "zenith", "horizon", "clouds", "exposure", "haze")
        return Worlds(
            Primitives(upload(rows)),
            Road(upload([x.road for x in layouts])),
            **{name: upload([getattr(light, name) for light in lights]) for name in names},
            meshes=None if meshes is None else meshes.to(torch.device(device)),
        )
