# SPDX-License-Identifier: Apache-2.0
"""Reads textured triangle meshes of OBJ and Collada files: what those of common model collections contain, no more."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.geometry.rotations import FloatArray, rotation_matrix

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Triangles of one group and material, in the file's units and axes."""

    name: str
    texture: str | None  # the file that the material names; None: it names none
    corners: FloatArray  # (F, 3, 3)
    normals: FloatArray  # (F, 3, 3) unit, outwards
    uv: FloatArray  # (F, 3, 2), v upwards


def read_mesh(path: Path) -> list[Part]:
    """The parts of a .obj or .dae file. Raises ValueError for files without triangles or of another kind."""
    readers = {".obj": _read_obj, ".dae": _read_dae}
    if path.suffix.lower() not in readers:
        raise ValueError(f"mesh {path} is neither .obj nor .dae")
    try:
        parts = [part for part in readers[path.suffix.lower()](path) if len(part.corners)]
    except (ET.ParseError, IndexError, KeyError, StopIteration, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"mesh {path} cannot be read: {error!r}; export it again as triangles") from error
    if not parts:
        raise ValueError(f"mesh {path} holds no triangles: export it again as triangles")
    return parts


def _gather(values: FloatArray, index: IntArray, width: int) -> FloatArray:
    """values[index] (F, 3, width); zeros where the file has no such values (index -1)."""
    if not len(values):
        return np.zeros((*index.shape, width))
    return np.where((index >= 0)[..., None], values[index][..., :width], 0.0)


def _with_normals(corners: FloatArray, normals: FloatArray) -> FloatArray:
    """Normals of unit length; those of the plane where the file has none."""
    plane = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, None]
    normals = np.where((np.linalg.norm(normals, axis=-1) < 1e-6)[..., None], plane, normals)
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12))


def _read_obj(path: Path) -> Iterator[Part]:
    """Wavefront OBJ; polygons become fans of triangles."""
    values: dict[str, list[list[float]]] = {"v": [], "vt": [], "vn": []}
    faces: dict[tuple[str, str], list[list[list[int]]]] = {}
    textures: dict[str, str] = {}
    group = material = ""
    for line in path.read_text().splitlines():
        key, *words = line.split() or [""]
        if key in values:
            values[key].append([float(word) for word in words[:3]])
        elif key == "g":
            group = words[0] if words else ""
        elif key == "usemtl":
            material = words[0]
        elif key == "mtllib":
            textures |= _read_mtl(path, words[0])
        elif key == "f":
            corners = [_corner(word, values) for word in words]
            fan = [[corners[0], corners[k], corners[k + 1]] for k in range(1, len(corners) - 1)]
            faces.setdefault((group, material), []).extend(fan)
    v, vt, vn = (np.array(values[key], np.float64) for key in ("v", "vt", "vn"))
    for (group, material), found in faces.items():
        index = np.array(found, np.int64)
        points, uv = _gather(v, index[..., 0], 3), _gather(vt, index[..., 1], 2)
        normals = _with_normals(points, _gather(vn, index[..., 2], 3))
        yield Part(group, textures.get(material, ""), points, normals, uv)


def _corner(word: str, values: dict[str, list[list[float]]]) -> list[int]:
    """Indices of position, texture point and normal from 'v/vt/vn'; -1 for what is absent."""
    numbers = [int(number) if number else 0 for number in word.split("/")]
    numbers += [0] * (3 - len(numbers))
    return [n - 1 if n >= 0 else len(values[key]) + n for n, key in zip(numbers, ("v", "vt", "vn"))]


def _read_mtl(mesh: Path, name: str) -> dict[str, str]:
    """Textures by material; the file lies beside the mesh under its name, or with the mesh's prefix MODEL__."""
    prefix = mesh.name.split("__")[0]
    textures, material = {}, ""
    for path in (mesh.parent / name, mesh.parent / f"{prefix}__{name}"):
        for line in path.read_text().splitlines() if path.is_file() else []:
            key, *words = line.split() or [""]
            if key == "newmtl":
                material = words[0]
            elif key == "map_Kd" and words:
                textures[material] = words[-1]
    return textures


def _read_dae(path: Path) -> Iterator[Part]:
    """Collada: the triangles of every geometry in the scene, in metres."""
    root = ET.parse(path).getroot()
    for element in root.iter():
        element.tag = element.tag.rsplit("}", 1)[-1]
    named = {element.get("id"): element for element in root.iter() if element.get("id")}
    unit = root.find(".//unit")
    scale = np.diag([float(unit.get("meter", 1)) if unit is not None else 1.0] * 3 + [1.0])
    for scene in root.iter("visual_scene"):
        for node in scene.findall("node"):
            yield from _read_node(node, scale, named)


def _read_node(node: ET.Element, T: FloatArray, named: dict[str | None, ET.Element]) -> Iterator[Part]:
    for element in node:
        if element.tag in ("matrix", "translate", "rotate", "scale"):
            T = T @ _transform(element)
    for instance in node.findall("instance_geometry"):
        bound = {m.get("symbol"): m.get("target", "")[1:] for m in instance.iter("instance_material")}
        mesh = named[instance.get("url", "")[1:]].find("mesh")
        for triangles in [*mesh.iter("triangles"), *mesh.iter("polylist")] if mesh is not None else []:
            material = triangles.get("material")
            texture = _dae_texture(bound.get(material, str(material)), named)
            yield _dae_part(triangles, T, str(material), texture, named)
    for child in node.findall("node"):
        yield from _read_node(child, T, named)


def _numbers(element: ET.Element | None) -> FloatArray:
    return np.array((element.text or "").split() if element is not None else [], np.float64)


def _transform(element: ET.Element) -> FloatArray:
    """The 4x4 matrix of a node's matrix, translate, rotate (axis, degrees) or scale."""
    values, T = _numbers(element), np.eye(4)
    if element.tag == "matrix":
        return values.reshape(4, 4)
    if element.tag == "translate":
        T[:3, 3] = values
    elif element.tag == "scale":
        T[:3, :3] = np.diag(values)
    else:
        axis = values[:3] / np.linalg.norm(values[:3])
        T[:3, :3] = rotation_matrix(np.deg2rad(values[3]) * axis)
    return T


def _dae_part(
    triangles: ET.Element, T: FloatArray, name: str, texture: str | None, named: dict[str | None, ET.Element]
) -> Part:
    inputs: dict[str, tuple[FloatArray, int]] = {}
    width = 1 + max(int(each.get("offset", 0)) for each in triangles.findall("input"))
    for each in triangles.findall("input"):
        semantic, source = str(each.get("semantic")), named[each.get("source", "")[1:]]
        if source.tag == "vertices":
            source = named[next(i.get("source", "") for i in source if i.get("semantic") == "POSITION")[1:]]
        accessor = source.find(".//accessor")
        stride = int(accessor.get("stride", 1)) if accessor is not None else 3
        inputs.setdefault(
            semantic, (_numbers(source.find("float_array")).reshape(-1, stride), int(each.get("offset", 0)))
        )
    index = _numbers(triangles.find("p")).astype(np.int64).reshape(-1, width)
    counts = _numbers(triangles.find("vcount")).astype(int)
    if len(counts):  # a polygon list: fans of triangles
        starts = np.cumsum(counts) - counts
        fans = [(start, start + j, start + j + 1) for start, n in zip(starts, counts) for j in range(1, n - 1)]
        index = index[np.array(fans).reshape(-1)]
    corner = index.reshape(-1, 3, width)

    def take(semantic: str, size: int) -> FloatArray:
        values, offset = inputs.get(semantic, (np.zeros((0, size)), 0))
        return _gather(values, corner[..., offset], size)

    corners = take("VERTEX", 3) @ T[:3, :3].T + T[:3, 3]
    normals = take("NORMAL", 3) @ np.linalg.inv(T[:3, :3])
    return Part(name, texture, corners, _with_normals(corners, normals), take("TEXCOORD", 2))


def _dae_texture(material: str, named: dict[str | None, ET.Element]) -> str | None:
    """The image of a material's diffuse colour: material -> effect -> sampler -> surface -> image."""
    effect: Any = named[material].find("instance_effect") if material in named else None
    effect = named.get(effect.get("url")[1:]) if effect is not None else None
    texture = effect.find(".//diffuse/texture") if effect is not None else None
    if texture is None:
        return None
    sids = {p.get("sid"): p for p in effect.iter("newparam")}
    name = texture.get("texture")
    for tag in ("source", "init_from"):
        found = sids[name].find(f".//{tag}") if name in sids else None
        name = (found.text or "").strip() if found is not None else name
    image = named[name].find("init_from") if name in named else None
    return (image.text or "").strip() if image is not None else name
