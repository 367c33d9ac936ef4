# SPDX-License-Identifier: Apache-2.0
"""Rays of pixels against the triangles of textured models, as exact as those against solids.

A model is one row of Shape.MESH, whose box bounds it. Only pixels in a triangle's rectangle are tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pixel4d_ros.synthetic.mesh_library import MeshLibrary
from pixel4d_ros.synthetic.primitives import Shape
from pixel4d_ros.synthetic.tracing import NEAR, TILE, Placed

_TOLERANCE = 1e-3  # of a triangle's sides: rays between two neighbours meet one of them
_EDGES = ((0, 1), (1, 2), (2, 0))


@dataclass(frozen=True)
class MeshHits:
    """The nearest triangle of each ray; rays of N views as (N, T, R), T tiles of R pixels."""

    depth: Tensor  # (N, T, R), inf where there is none
    row: Tensor  # (N, T, R) int64 primitive index
    face: Tensor  # (N, T, R) int64 triangle of the library
    weights: Tensor  # (N, T, R, 2) barycentric coordinates of its second and third corner


@dataclass(frozen=True)
class _Faces:
    """F triangles that may be seen; a ray r = (x, y, 1) of the camera hits one at depth top / (r . plane)."""

    instance: Tensor  # (F,) int64
    face: Tensor  # (F,) int64
    vectors: Tensor  # (F, 3, 3): plane, and those whose product with r, over r . plane, are the weights
    top: Tensor  # (F,)
    low: Tensor  # (F, 2) int64 pixels
    size: Tensor  # (F, 2) int64 pixels

    def part(self, index: Tensor | slice) -> _Faces:
        return _Faces(*(value[index] for value in vars(self).values()))


def first_mesh_hits(
    placed: Placed,
    library: MeshLibrary,
    T_camera_world: Tensor,
    K: Tensor,
    boxes: tuple[Tensor, Tensor],
    grid: tuple[int, int],
    nearest: Tensor,
    ignored: Tensor | None = None,
) -> MeshHits:
    """The nearest triangles of N views whose tiles form a grid (rows, columns); boxes (N, P, 2) as screen_boxes gives.

    Only those nearer than nearest (N, T, R) count, the depth of what else the rays meet. With ignored (N, T, R) rays
    pass through everything that moves and through that group of primitives.
    """
    rows, columns = grid
    N, T, R = len(K), rows * columns, TILE * TILE
    primitives = placed.primitives
    limit = K.new_tensor((columns, rows)) * TILE - 0.5
    seen = (primitives.shape == Shape.MESH) & (boxes[0] <= limit).all(-1) & (boxes[1] >= -0.5).all(-1)
    if ignored is not None:
        seen &= primitives.object == 0
    n, p = seen.nonzero(as_tuple=True)
    faces = _project(placed, library, T_camera_world, K, (n, p), limit)
    best = torch.full((N * T * R,), torch.iinfo(torch.int64).max, dtype=torch.int64, device=K.device)
    start = 0
    for part in _chunks(faces, 1 << 22 if K.is_cuda else 1 << 15):
        k, x, y = _pixels(part)
        view = n[part.instance[k]]
        ray = _rays(K[view], x, y)
        depth, weights = _meet(part.vectors[k], part.top[k], ray)
        index = (view * T + y // TILE * columns + x // TILE) * R + y % TILE * TILE + x % TILE
        hit = (weights >= -_TOLERANCE).all(-1) & (weights.sum(-1) <= 1 + _TOLERANCE) & (depth > NEAR)
        hit &= depth < nearest.view(-1)[index]
        if ignored is not None:
            hit &= primitives.group[view, p[part.instance[k]]] != ignored.reshape(-1)[index]
        found = hit.nonzero()[:, 0]
        found = found[_is_solid(library, part.face[k[found]], weights[found])]
        k, depth, index = k[found], depth[found], index[found]
        # As in first_hits: one integer holds depth and triangle, and the least is the nearest.
        key = (depth.contiguous().view(torch.int32).long() << 32) | (k + start)
        best.scatter_reduce_(0, index, key, "amin")
        start += len(part.face)
    return _unpack(best.view(N, T, R), faces, p, columns, K)


def _unpack(best: Tensor, faces: _Faces, p: Tensor, columns: int, K: Tensor) -> MeshHits:
    depth = torch.full(best.shape, torch.inf, device=K.device)
    row, face, weights = torch.zeros_like(best), torch.zeros_like(best), torch.zeros(*best.shape, 2, device=K.device)
    index = (best != torch.iinfo(torch.int64).max).nonzero(as_tuple=True)
    view, tile, lane = index
    found = best[index] & 0xFFFFFFFF
    x, y = tile % columns * TILE + lane % TILE, tile // columns * TILE + lane // TILE
    depth[index], weights[index] = _meet(faces.vectors[found], faces.top[found], _rays(K[view], x, y))
    row[index], face[index] = p[faces.instance[found]], faces.face[found]
    return MeshHits(depth, row, face, weights)


def _rays(K: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Rays (N, 3) of pixels in their cameras, z = 1."""
    u, v = (x - K[:, 0, 2]) / K[:, 0, 0], (y - K[:, 1, 2]) / K[:, 1, 1]
    return torch.stack((u, v, torch.ones_like(u)), -1)


def _meet(vectors: Tensor, top: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
    """Depth (N,) and weights (N, 2) where rays (N, 3) from the origin meet planes (Moeller and Trumbore 1997)."""
    product = (vectors * ray[:, None]).sum(-1)
    inverse = 1 / torch.where(product[:, 0].abs() < 1e-12, 1e-12, product[:, 0])
    return top * inverse, product[:, 1:] * inverse[:, None]


def _project(
    placed: Placed,
    library: MeshLibrary,
    T_camera_world: Tensor,
    K: Tensor,
    instances: tuple[Tensor, Tensor],
    limit: Tensor,
) -> _Faces:
    """The triangles of models (view, primitive) that have pixels in the image, as their cameras see them."""
    n, p = instances
    model = placed.primitives.params[n, p, 0].long()
    count = library.count[model]
    k = torch.repeat_interleave(torch.arange(len(n), device=n.device), count)
    face = library.first[model][k] + torch.arange(len(k), device=n.device) - (count.cumsum(0) - count)[k]
    R = T_camera_world[n, :3, :3]
    turned = R @ placed.to_world[n, p]
    origin = (R @ placed.centers[n, p][..., None])[..., 0] + T_camera_world[n, :3, 3]
    corners = library.corners[face] @ turned.transpose(1, 2)[k] + origin[k][:, None]
    low, high = _rectangles(corners, K[n[k]])
    low = low.clamp(min=0).ceil()
    size = (torch.minimum(high.floor(), limit.floor()) - low + 1).clamp(min=0)
    seen = (size.prod(-1) > 0).nonzero()[:, 0]
    a, b, c = corners[seen].unbind(1)
    first, second = b - a, c - a
    plane = torch.linalg.cross(second, first)
    vectors = torch.stack((plane, torch.linalg.cross(a, second), torch.linalg.cross(first, a)), 1)
    return _Faces(k[seen], face[seen], vectors, (a * plane).sum(-1), low[seen].long(), size[seen].long())


def _rectangles(corners: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel rectangles (F, 2) of the parts of triangles (F, 3, 3) in front of the camera; empty behind it."""
    focal, middle = torch.stack((K[:, 0, 0], K[:, 1, 1]), -1), K[:, :2, 2]
    z = corners[..., 2]
    valid = z >= NEAR
    uv = corners[..., :2] / z.clamp(min=NEAR)[..., None]
    low = uv.masked_fill(~valid[..., None], torch.inf).amin(1)
    high = uv.masked_fill(~valid[..., None], -torch.inf).amax(1)
    cut = (valid.any(-1) & ~valid.all(-1)).nonzero()[:, 0]
    for i, j in _EDGES:
        a, b = corners[cut, i], corners[cut, j]
        share = ((NEAR - a[:, 2]) / torch.where((b - a)[:, 2].abs() < 1e-9, 1e-9, (b - a)[:, 2]))[:, None]
        crosses = (valid[cut, i] != valid[cut, j])[:, None]
        point = (a + (b - a) * share.clamp(0, 1))[:, :2] / NEAR
        low[cut] = torch.minimum(low[cut], torch.where(crosses, point, torch.inf))
        high[cut] = torch.maximum(high[cut], torch.where(crosses, point, -torch.inf))
    slack = 1e-3  # pixels
    return (low * focal + middle - slack).nan_to_num(torch.inf), (high * focal + middle + slack).nan_to_num(-torch.inf)


def _chunks(faces: _Faces, limit: int) -> Iterator[_Faces]:
    """Parts of about `limit` pixels each."""
    if len(faces.face) == 0:
        return
    number = (faces.size.prod(-1).cumsum(0) - 1) // limit
    ends = torch.searchsorted(number, torch.arange(int(number[-1]) + 1, device=number.device), right=True).tolist()
    start = 0
    for end in ends:
        if end > start:
            yield faces.part(slice(start, end))
            start = end


def _pixels(faces: _Faces) -> tuple[Tensor, Tensor, Tensor]:
    """Each pixel of the triangles' rectangles: index of the triangle, x and y (all of them int64)."""
    count = faces.size.prod(-1)
    k = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    number = torch.arange(len(k), device=count.device) - (count.cumsum(0) - count)[k]
    width = faces.size[k, 0]
    return k, faces.low[k, 0] + number % width, faces.low[k, 1] + number // width


def texture_points(library: MeshLibrary, face: Tensor, weights: Tensor) -> Tensor:
    """Texture coordinates (N, 2) of points on triangles face (N,) with weights (N, 2)."""
    return _between(library.uv[face], weights)


def mesh_normals(library: MeshLibrary, face: Tensor, weights: Tensor) -> Tensor:
    """Normals (N, 3) of such points in the unit space of the model, as unit_normals gives them."""
    return _between(library.normals[face], weights)


def _between(corners: Tensor, weights: Tensor) -> Tensor:
    second, third = weights[:, :1], weights[:, 1:]
    return corners[:, 0] * (1 - second - third) + corners[:, 1] * second + corners[:, 2] * third


def _is_solid(library: MeshLibrary, face: Tensor, weights: Tensor) -> Tensor:
    """Whether points (N,) lie on a triangle's solid part; leaves have holes in their texture."""
    solid = torch.ones_like(face, dtype=torch.bool)
    index = library.cutout[library.texture[face]].nonzero()[:, 0]
    if len(index):
        face, weights = face[index], weights[index]
        level = torch.zeros_like(weights[:, 0])
        solid[index] = library.sample(library.texture[face], texture_points(library, face, weights), level)[1] > 0.5
    return solid


def mesh_colors(
    library: MeshLibrary,
    face: Tensor,
    weights: Tensor,
    footprint: Tensor,
    paint: Tensor,
    gain: Tensor,
    repainted: Tensor,
) -> tuple[Tensor, Tensor]:
    """Linear colour (N, 3) and gloss (N,) of points; footprint (N,) in metres per pixel.

    Where repainted (N,) is 1, paint (N, 3) replaces what the texture's mask covers; gain (N, 3) brightens all.
    """
    texture = library.texture[face]
    level = (footprint * library.texels[face]).clamp(min=1).log2() - 0.3
    color, mask = library.sample(texture, texture_points(library, face, weights), level)
    shade = (color.mean(-1) / library.paint_level[texture]).clamp(max=1.5)
    share = (mask * repainted * ~library.cutout[texture])[:, None]
    gloss = library.gloss[texture]
    return (color + (paint * shade[:, None] - color) * share) * gain, gloss + (gloss > 0.3) * (1 - mask) * 0.3
