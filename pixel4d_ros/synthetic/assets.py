# SPDX-License-Identifier: Apache-2.0
"""Textured models of a folder (meshes/, textures/) in place of procedural vehicles and beside trees, for training.

The folder is optional and no part of the package; training's option `assets` names it. Without it every world is the
same, bit for bit, as if this file did not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.synthetic.materials import Material
from pixel4d_ros.synthetic.mesh_files import Part, read_mesh
from pixel4d_ros.synthetic.mesh_library import SIDE, MeshLibrary, Texture, Triangles, linear_to_srgb, srgb_to_linear
from pixel4d_ros.synthetic.primitives import Shape
from pixel4d_ros.synthetic.vehicles import CAR_PAINTS
from pixel4d_ros.synthetic.world import Builder, ChooseModel

SHARE = 0.6  # of the vehicles that are models, where the folder has one of their kind
VEHICLES = ("car", "truck", "bus")
_SLICES = 6  # boxes along a vehicle that cast its shadow
_HIDDEN = ("interior", "steering")  # parts behind opaque windows


@dataclass(frozen=True)
class ModelSpec:
    """How a mesh NAME__*.obj or .dae is used. Its units are ignored: length, width and height are real vehicles'."""

    name: str
    weight: float  # how often it is drawn among those of its kind
    kind: str  # of the templates that it replaces
    size: tuple[float, float, float]  # metres, mirrors included
    front: str  # the file's axis that looks forward
    paint: str = ""  # what a colour covers: the texture's "alpha", what is "white", "red" or "bright"; "holes": leaves
    repainted: float = 1.0  # share with another colour
    spread: float = 0.04  # of the size


MODELS = (
    ModelSpec("hatchback", 0.36, "car", (4.05, 1.98, 1.52), "-y", "alpha"),
    ModelSpec("prius_hybrid", 0.26, "car", (4.5, 1.95, 1.49), "-y", "alpha"),
    ModelSpec("suv", 0.14, "car", (4.75, 2.2, 1.95), "+y", "alpha"),
    ModelSpec("pickup", 0.14, "car", (5.3, 2.2, 1.85), "+y", "white"),
    ModelSpec("ambulance", 0.1, "car", (5.3, 2.1, 2.35), "-y", "bright"),  # a delivery van
    ModelSpec("ambulance", 0.4, "truck", (6.2, 2.4, 2.65), "-y", "white", 0.7),
    ModelSpec("fire_truck", 0.6, "truck", (8.3, 2.45, 3.05), "+y", "red", 0.5),
    ModelSpec("bus", 1.0, "bus", (11.8, 2.75, 3.4), "-y", "alpha"),
    ModelSpec("oak_tree", 0.6, "tree", (8.6, 7.0, 6.6), "+x", "holes", spread=0.3),
    ModelSpec("pine_tree", 0.4, "tree", (3.5, 3.5, 6.5), "+x", "holes", spread=0.3),
    ModelSpec("house_1", 0.33, "house", (9.4, 12.0, 5.6), "-y", spread=0.12),
    ModelSpec("house_2", 0.33, "house", (8.4, 11.0, 6.2), "-y", spread=0.12),
    ModelSpec("house_3", 0.34, "house", (7.0, 10.6, 7.4), "-y", spread=0.12),
    ModelSpec("dumpster", 0.15, "furniture", (1.05, 1.7, 1.2), "-y"),
    ModelSpec("fire_hydrant", 0.15, "furniture", (0.38, 0.38, 0.85), "-y"),
    ModelSpec("lamp_post", 0.2, "furniture", (1.1, 0.16, 3.6), "-y"),
    ModelSpec("mailbox", 0.15, "furniture", (0.4, 0.15, 1.15), "-y"),
    ModelSpec("postbox", 0.15, "furniture", (0.65, 0.65, 1.5), "-y"),
    ModelSpec("stop_sign", 0.2, "furniture", (0.03, 0.65, 2.3), "-y"),
)
# Colours of lorries and buses: white, yellow, reds, blues, green, orange, beige, grey; linear RGB.
FLEET_PAINTS = np.array(
    [
        [0.65, 0.65, 0.63],
        [0.6, 0.4, 0.02],
        [0.5, 0.02, 0.02],
        [0.35, 0.03, 0.04],
        [0.02, 0.1, 0.35],
        [0.05, 0.2, 0.4],
        [0.02, 0.2, 0.06],
        [0.6, 0.18, 0.01],
        [0.5, 0.45, 0.32],
        [0.2, 0.2, 0.21],
    ]
)


@dataclass(frozen=True)
class Model:
    """A model in the library, and the boxes that cast its shadow."""

    index: int
    spec: ModelSpec
    shadow: FloatArray  # (S, 6): lowest x, y, z, then greatest, in its unit space


@dataclass(frozen=True)
class Assets:
    """The models of a folder."""

    meshes: MeshLibrary
    models: tuple[Model, ...]

    def chooser(self, seed: int) -> ChooseModel:
        """For the world of a seed: a function that gives rows and height of a random model, or None for none."""
        rng = np.random.default_rng([seed, 11])

        def choose(kind: str) -> tuple[FloatArray, float] | None:
            fitting = [model for model in self.models if model.spec.kind == kind]
            if not fitting or (kind in VEHICLES and rng.uniform() >= SHARE):
                return None
            weights = np.array([model.spec.weight for model in fitting])
            return _rows(fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))], rng)

        return choose


def _rows(model: Model, rng: Generator) -> tuple[FloatArray, float]:
    """Rows of one model at the origin, in a random colour and size, and the height of its middle (metres)."""
    spread = model.spec.spread
    half = 0.5 * np.array(model.spec.size) * rng.uniform(1 - spread, 1 + spread) * rng.uniform(0.98, 1.02, 3)
    paints = CAR_PAINTS if model.spec.kind == "car" else FLEET_PAINTS
    paint = paints[rng.integers(len(paints))] * rng.uniform(0.8, 1.2) * rng.uniform(0.93, 1.07, 3)
    repainted = float(rng.uniform() < model.spec.repainted and model.spec.kind in VEHICLES)
    out, group = Builder(), 1.0
    out.add(
        Shape.MESH,
        Material.MESH,
        center=(0, 0, half[2]),
        half=half,
        color=paint.clip(0, 0.75),
        color2=rng.uniform(0.75, 1.15) * (1 if model.spec.kind in VEHICLES else rng.uniform(0.8, 1.15, 3)),
        params=(model.index, repainted, 0, 0),
        group=group,
    )
    if model.spec.kind == "tree":
        trunk, leaves = ((0, 0, 0.6 * half[2]), (0.06, 0.06, 0.6)), ((0, 0, 1.3 * half[2]), (0.8, 0.8, 0.7))
        for (center, share), material in ((trunk, Material.MESH), (leaves, Material.FOLIAGE)):
            size, params, seed = np.array(share) * half, (4.0, 0.5, 0, 0), rng.integers(1 << 20)
            out.add(Shape.SHADOW, material, center=center, half=size, params=params, seed=seed, group=group)
        return out.rows(), float(half[2])
    low, high = model.shadow[:, :3], model.shadow[:, 3:]
    middle, reach = 0.5 * (low + high) * half + [0, 0, half[2]], 0.5 * (high - low) * half
    contact = np.arange(len(low)) == 0
    out.add(Shape.SHADOW, Material.MESH, len(low), center=middle, half=reach, contact=contact, group=group)
    return out.rows(), float(half[2])


@lru_cache(maxsize=4)
def read_assets(folder: Path) -> Assets:
    """The models of a folder with meshes/ and textures/. Raises ValueError where it has none that is known."""
    found = [
        (spec, path)
        for spec in MODELS
        for path in sorted((folder / "meshes").glob(f"{spec.name}__*"))
        if path.suffix in (".obj", ".dae")
    ]
    if not found:
        known = ", ".join(sorted({spec.name for spec in MODELS}))
        raise ValueError(f"assets {folder} has no known model: its folder meshes/ must hold some of {known}")
    textures: dict[tuple[str, str], Texture] = {}
    triangles, models = list[Triangles](), list[Model]()
    for spec, path in found:
        parts = [part for part in read_mesh(path) if not any(word in part.name.lower() for word in _HIDDEN)]
        files = [_texture_file(folder / "textures", spec.name, part) for part in parts]
        keys = [(str(file or ""), spec.paint) for file in files]
        for key in keys:
            if key not in textures:
                textures[key] = _read_texture(*key)
        numbers = [list(textures).index(key) for key in keys]
        triangles.append(join_parts(parts, numbers, spec))
        models.append(Model(len(models), spec, _shadow_boxes(triangles[-1].corners)))
    return Assets(MeshLibrary.of(triangles, list(textures.values())), tuple(models))


def join_parts(parts: Sequence[Part], textures: Sequence[int], spec: ModelSpec) -> Triangles:
    """The parts, whose textures have these numbers, in the model's unit space."""
    forward = np.array({"x": [1.0, 0, 0], "y": [0, 1.0, 0]}[spec.front[-1]]) * (-1 if spec.front[0] == "-" else 1)
    axes = np.stack((forward, np.cross([0, 0, 1.0], forward), [0, 0, 1.0]))
    corners = np.concatenate([part.corners for part in parts]) @ axes.T
    low, high = corners.min((0, 1)), corners.max((0, 1))
    corners = (corners - 0.5 * (low + high)) / (0.5 * (high - low))
    # Unit normals of the real shape, as to_unit^T expects them: that divides by the half extents.
    half = 0.5 * np.array(spec.size)
    bent = np.concatenate([part.normals for part in parts]) @ axes.T * (high - low) / np.array(spec.size)
    normals = bent / np.maximum(np.linalg.norm(bent, axis=-1, keepdims=True), 1e-12) * half
    uv = np.concatenate([part.uv for part in parts])
    number = np.repeat(np.asarray(textures, np.int64), [len(part.corners) for part in parts])
    (du, dv), (eu, ev) = (uv[:, 1] - uv[:, 0]).T, (uv[:, 2] - uv[:, 0]).T
    metres = corners * half
    area = np.linalg.norm(np.cross(metres[:, 1] - metres[:, 0], metres[:, 2] - metres[:, 0]), axis=-1)
    texels = SIDE * np.sqrt(np.abs(du * ev - dv * eu) / np.maximum(area, 1e-9))
    return Triangles(corners, normals, uv, number, texels.clip(1, 1e4))


def _shadow_boxes(corners: FloatArray) -> FloatArray:
    """Boxes (1 + _SLICES, 6) in unit space: one low one, which darkens the ground, then one per slice of the length."""
    points = _surface_points(corners)
    side, floor = float(np.quantile(np.abs(points[:, 1]), 0.9)), -0.8
    rear, front = np.quantile(points[points[:, 2] < 0, 0], (0.03, 0.97))
    boxes = [[rear, -side, floor, front, side, -0.1]]
    edges = np.linspace(-1, 1, _SLICES + 1)
    for start, end in pairwise(edges):
        inside = points[(points[:, 0] >= start) & (points[:, 0] <= end)]
        if len(inside):
            upper = inside[inside[:, 2] > np.quantile(inside[:, 2], 0.7)]
            width = min(side, float(np.quantile(np.abs(upper[:, 1]), 0.95)))
            bottom, top = np.quantile(inside[:, 2], (0.02, 0.9))
            boxes.append([start, -width, max(floor, bottom), end, width, top])
    return np.array(boxes)


def _surface_points(corners: FloatArray, steps: int = 8) -> FloatArray:
    """Points spread over each triangle, in shares of its area about the same."""
    a, b = np.meshgrid(*(np.arange(steps + 1) / steps,) * 2)
    a, b = a[a + b <= 1], b[a + b <= 1]
    weights = np.stack((a, b, 1 - a - b), -1)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    points = np.einsum("wc,fcd->fwd", weights, corners)
    # Small triangles count once, large ones with all their points.
    few = np.maximum(1, (len(weights) * np.minimum(1, area / max(float(area.mean()), 1e-12))).astype(int))
    return np.concatenate([p[:: max(1, len(p) // n)] for p, n in zip(points, few)])


def _texture_file(folder: Path, model: str, part: Part) -> Path | None:
    """The file of a part's texture, whose name there is MODEL__NAME; of another model if it shares its texture.

    A part that names no file has that which is called like its material, else the model's first.
    """
    paths = sorted(folder.glob("*__*.*"))
    own = [p for p in paths if p.stem.startswith(f"{model}__")]
    if part.texture is None:
        word = part.name.lower().split("-")[0].split("_")[0]
        like = [p for p in own if word and p.stem.split("__", 1)[1].lower().startswith(word)]
        return (*like, *own, None)[0]
    stem = part.texture.replace("\\", "/").split("/")[-1].rsplit(".", 1)[0].lower()
    return next((p for p in (*own, *paths) if stem and p.stem.split("__", 1)[1].lower() == stem), None)


def _read_texture(file: str, paint: str) -> Texture:
    """A texture and what paint covers in it; without a file dark glass."""
    if not file:
        dark = np.full((SIDE, SIDE, 3), 28, np.uint8)
        return Texture(dark, np.zeros((SIDE, SIDE), np.uint8), 0.9)
    image = cv2.imread(file, cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3:
        raise ValueError(f"texture {file} cannot be read as a colour image")
    image = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    rgb = np.ascontiguousarray(image[..., 2::-1])
    if paint == "holes" and image.shape[2] == 4:
        return Texture(rgb, image[..., 3], cutout=True)
    if "wheel" in Path(file).name.lower() or paint not in ("alpha", "white", "red", "bright"):
        return Texture(rgb, np.zeros((SIDE, SIDE), np.uint8), 0.1)
    if paint == "alpha" and image.shape[2] == 4:
        mask = image[..., 3]
        return Texture(_with_dark_glass(rgb, mask), mask, 0.5)
    least, most = rgb.min(-1).astype(float), rgb.max(-1).astype(float)
    covered = {"red": most - 2 * least - 60, "bright": most - 90}.get(paint, least - 0.5 * (most - least) - 100)
    return Texture(rgb, (covered * 6).clip(0, 255).astype(np.uint8), 0.5)


def _with_dark_glass(rgb: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Darken what is grey and not painted: windows, which textures of unlit models show bright."""
    linear = srgb_to_linear(rgb / 255.0)
    grey = (1 - 3 * (linear.max(-1) - linear.min(-1))).clip(0, 1) * (1 - mask / 255.0)
    return np.asarray((linear_to_srgb(linear * (1 - 0.8 * grey[..., None])) * 255).round(), np.uint8)
