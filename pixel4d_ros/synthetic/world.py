"""Worlds as numbers: the builder that layouts fill, what a layout hands over, and its padded batch for the renderer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.ground import Road
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.motion import Actor
from pixel4d_ros.synthetic.primitives import COLUMNS, ROW, SLICES, Primitives, Shape

MAX_OBJECTS = 10  # moving objects of a world; object ids are 1..MAX_OBJECTS


class Builder:
    """Collects primitives; every column takes one value or one per primitive."""

    def __init__(self) -> None:
        self.parts: list[FloatArray] = []

    def add(self, shape: Shape, material: Material, count: int = 1, **columns: ArrayLike) -> None:
        """Append `count` primitives; columns as in COLUMNS, each of shape (width,), (count,) or (count, width)."""
        rows = np.zeros((count, ROW))
        rows[:, SLICES["shape"]] = int(shape)
        rows[:, SLICES["material"]] = int(material)
        for name, value in columns.items():
            array = np.asarray(value, np.float64)
            if COLUMNS[name] == 1:
                array = array.reshape(-1, 1)
            rows[:, SLICES[name]] = array
        self.parts.append(rows)

    def rows(self) -> FloatArray:
        """All primitives (P, ROW)."""
        return np.concatenate(self.parts) if self.parts else np.zeros((0, ROW))


@dataclass(frozen=True)
class Light:
    """Of one world; colours linear RGB."""

    sun: FloatArray  # (3,) unit, towards the sun, or a room's lamp's position in metres
    sun_color: FloatArray  # (3,)
    ambient: FloatArray  # (3,)
    zenith: FloatArray  # (3,)
    horizon: FloatArray  # (3,)
    clouds: float
    exposure: float
    haze: float  # 1 / m


@dataclass(frozen=True)
class StreetLayout:
    """One world at time 0: x forward along the street, y left, z up, metres; the ground is at z = 0."""

    rows: FloatArray  # (P, ROW)
    road: FloatArray  # (ROAD_COLUMNS,)
    light: Light
    camera: Callable[[FloatArray], FloatArray]  # times (T,) -> T_world_camera (T, 4, 4)
    actors: list[Actor] = field(default_factory=list)  # actor k has object id k + 1


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

    @staticmethod
    def of(layouts: Sequence[StreetLayout], device: str | torch.device) -> Worlds:
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
        )
