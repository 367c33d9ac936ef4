# SPDX-License-Identifier: Apache-2.0
"""Exact ray casting of padded primitives, batched over views: pairs of (image tile, primitive) instead of all with all.

A primitive's bounding box, cut at the near plane, gives a rectangle of tiles; only rays of those tiles are tested.
The same pairs serve shadows (rectangles in the plane across the sun) and contact darkening (rectangles on the ground).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pixel4d_ros.synthetic.cutouts import has_holes, is_hole
from pixel4d_ros.synthetic.primitives import Primitives, Shape, intersect

TILE = 16  # pixels a side
NEAR = 0.05  # metres
_CORNERS = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=torch.float32)
_EDGES = [(a, a | bit) for a in range(8) for bit in (1, 2, 4) if not a & bit]
_CONTACT_REACH = 0.7  # metres
_KINDS = ((Shape.BOX, False), (Shape.BALL, False), (Shape.CYLINDER, False), (Shape.BOX, True), (Shape.BALL, True))


@dataclass(frozen=True)
class Placed:
    """Primitives of N views, placed at each view's time; index p of N x P."""

    primitives: Primitives  # (N, P)
    centers: Tensor  # (N, P, 3) world
    to_unit: Tensor  # (N, P, 3, 3): world direction -> unit space
    to_world: Tensor  # (N, P, 3, 3): unit space -> world, relative to the centre

    @staticmethod
    def of(primitives: Primitives, object_poses: Tensor) -> Placed:
        """Move the primitives (N, P) with their objects: object_poses (N, M + 1, 4, 4), time 0 -> then, world."""
        index = primitives.object.long()[..., None, None].expand(-1, -1, 4, 4)
        pose = object_poses.gather(1, index)
        rotation = pose[..., :3, :3] @ primitives.rotations()
        centers = (pose[..., :3, :3] @ primitives.center[..., None])[..., 0] + pose[..., :3, 3]
        half = primitives.half
        return Placed(
            primitives,
            centers,
            rotation.transpose(-1, -2) / half[..., :, None],
            rotation * half[..., None, :],
        )

    def of_views(self, index: Tensor) -> Placed:
        """Those of some views (A,)."""
        moved = (self.centers[index], self.to_unit[index], self.to_world[index])
        return Placed(Primitives(self.primitives.rows[index]), *moved)

    def corners(self) -> Tensor:
        """Corners (N, P, 8, 3) of the bounding boxes, world."""
        return self.centers[:, :, None] + torch.einsum("npij,cj->npci", self.to_world, _CORNERS.to(self.centers.device))


def _box_of(points: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Least and greatest coordinates (..., D) of points (..., C, D)."""
    if valid is None:
        return points.amin(-2), points.amax(-2)
    far = torch.inf
    return (
        points.masked_fill(~valid[..., None], far).amin(-2),
        points.masked_fill(~valid[..., None], -far).amax(-2),
    )


def screen_boxes(placed: Placed, T_camera_world: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel rectangles (N, P, 2) around each primitive's visible part; empty (inf, -inf) behind the camera."""
    corners = (
        torch.einsum("nij,npcj->npci", T_camera_world[:, :3, :3], placed.corners())
        + T_camera_world[:, None, None, :3, 3]
    )
    a, b = (corners[:, :, [edge[side] for edge in _EDGES]] for side in (0, 1))
    za, zb = a[..., 2:], b[..., 2:]
    crossing = ((NEAR - za) / torch.where((zb - za).abs() < 1e-9, 1e-9, zb - za)).clamp(0, 1)
    cut = a + (b - a) * crossing
    points = torch.cat((torch.where(za < NEAR, cut, a), torch.where(zb < NEAR, cut, b)), -2)
    valid = torch.cat(((za >= NEAR) | (zb >= NEAR),) * 2, -2)[..., 0]
    uv = points[..., :2] / points[..., 2:].clamp(min=NEAR)
    focal = torch.stack((K[:, 0, 0], K[:, 1, 1]), -1)[:, None, None]
    return _box_of(uv * focal + K[:, None, None, :2, 2], valid)


def find_pairs(
    tile_low: Tensor, tile_high: Tensor, low: Tensor, high: Tensor, shape: Tensor, perforated: Tensor, limit: int
) -> Iterator[tuple[int, bool, Tensor, Tensor, Tensor]]:
    """Pairs whose rectangles overlap: (shape, perforated, view, tile, primitive), indices of at most `limit` pairs.

    tile_low, tile_high (N or 1, T, D); low, high (N, P, D); shape and perforated (N, P).
    """
    touching = torch.ones((), dtype=torch.bool, device=low.device)
    for axis in range(low.shape[-1]):
        touching = touching & (low[:, None, :, axis] <= tile_high[:, :, None, axis])
        touching &= high[:, None, :, axis] >= tile_low[:, :, None, axis]
    for kind, holes in _KINDS:
        n, t, p = (touching & ((shape == kind) & (perforated == holes))[:, None]).nonzero(as_tuple=True)
        for start in range(0, len(n), limit):
            part = slice(start, start + limit)
            yield int(kind), holes, n[part], t[part], p[part]


def chunk_size(device: torch.device) -> int:
    """Pairs per step: small enough for a CPU's cache, large enough to keep a GPU busy."""
    return 16384 if device.type == "cuda" else 384


def tile_rectangles(rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixel rectangles (1, T, 2) of the tiles, row by row."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    low = torch.stack((x, y), -1).reshape(1, -1, 2).to(device) * float(TILE)
    return low - 0.5, low + TILE - 0.5


def first_hits(
    placed: Placed,
    origins: Tensor,
    rays: Tensor,
    boxes: tuple[Tensor, Tensor],
    tiles: tuple[Tensor, Tensor],
    ignored: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Depth (N, T, R), inf where nothing is hit, and primitive index (N, T, R) of the nearest hit of each tile's rays.

    origins (N, 3) and rays (N, T, R, 3) in the world; rays have unit camera z, so that their parameter is depth. With
    ignored (N, T, R) rays pass through everything that moves and through that group of primitives.
    """
    N, T, R = rays.shape[:3]
    unit_origins = (placed.to_unit @ (origins[:, None] - placed.centers)[..., None])[..., 0]
    miss = torch.iinfo(torch.int64).max
    best = torch.full((N * T * R,), miss, dtype=torch.int64, device=rays.device)
    lane = torch.arange(R, device=rays.device)
    shape, perforated = placed.primitives.shape, has_holes(placed.primitives.material)
    for kind, holes, n, t, p in find_pairs(*tiles, *boxes, shape, perforated, chunk_size(rays.device)):
        d = rays[n, t] @ placed.to_unit[n, p].transpose(-1, -2)
        o = unit_origins[n, p][:, None]
        enter, leave = intersect(kind, o, d, placed.primitives.taper[n, p])
        hit = (enter < leave) & (enter > NEAR)
        if holes:
            enter, hit = _through_holes(placed, n, p, o, d, enter, leave, hit)
        if ignored is not None:
            background = (placed.primitives.object[n, p] == 0)[:, None]
            hit = hit & background & (placed.primitives.group[n, p][:, None] != ignored[n, t])
        # One integer holds depth (positive floats sort like their bits) and primitive: the least is the nearest.
        key = (enter.contiguous().view(torch.int32).long() << 32) | p[:, None]
        ray = (n * T + t)[:, None] * R + lane
        best.scatter_reduce_(0, ray[hit], key[hit], "amin")
    found = best != miss
    depth = (best >> 32).int().view(torch.float32)
    depth = torch.where(found, depth, torch.inf)
    return depth.view(N, T, R), torch.where(found, best & 0xFFFFFFFF, 0).view(N, T, R)


def _through_holes(
    placed: Placed, n: Tensor, p: Tensor, o: Tensor, d: Tensor, enter: Tensor, leave: Tensor, hit: Tensor
) -> tuple[Tensor, Tensor]:
    """Correct entries and hits for holes: a ray through a hole in front meets the back, or passes."""
    k, r = ((enter < leave) & (leave > NEAR)).nonzero(as_tuple=True)
    if len(k) == 0:
        return enter, hit
    nk, pk = n[k], p[k]
    ok = o.expand_as(d)[k, r] if o.shape[1] == 1 else o[k, r]
    dk = d.expand_as(o)[k, r] if d.shape[1] == 1 else d[k, r]
    front, back = enter[k, r], leave[k, r]
    primitives = placed.primitives
    args = (primitives.half[nk, pk], primitives.seed[nk, pk].long(), primitives.params[nk, pk])
    material = primitives.material[nk, pk]
    front_open = (front <= NEAR) | is_hole(material, ok + dk * front[:, None], *args)
    back_open = torch.zeros_like(front_open)
    i = front_open.nonzero()[:, 0]
    back_open[i] = is_hole(material[i], (ok + dk * back[:, None])[i], *(value[i] for value in args))
    enter, hit = enter.clone(), hit.clone()
    enter[k, r] = torch.where(front_open, back, front)
    hit[k, r] = ~(front_open & back_open)
    return enter, hit


def in_shadow(placed: Placed, points: Tensor, lit: Tensor, sun: Tensor, group: Tensor | None = None) -> Tensor:
    """Whether something stands between points (N, T, R, 3) and the sun, sun (N, 3) being the direction to it.

    Only points where lit (N, T, R) is true are asked about. group (N, T, R): primitives of it cast no shadow there.
    """
    N, T, R = points.shape[:3]
    shade = torch.zeros(N * T * R, dtype=torch.bool, device=points.device)
    across = torch.nn.functional.normalize(
        torch.stack((-sun[:, 1], sun[:, 0], torch.zeros_like(sun[:, 0])), -1), dim=-1
    )
    axes = torch.stack((across, torch.linalg.cross(sun, across, dim=-1), sun), -1)  # (N, 3, 3)
    tiles, boxes = _box_of(points @ axes[:, None], lit), _box_of(placed.corners() @ axes[:, None])
    # What lies nearer to the sun than the whole tile, however far, may shade it.
    tiles[1][..., 2] = torch.inf
    unit_sun = (placed.to_unit @ sun[:, None, :, None])[..., 0]
    lane = torch.arange(R, device=points.device)
    shape, perforated = placed.primitives.shape, has_holes(placed.primitives.material)
    shape = torch.where(shape == Shape.SHADOW, float(Shape.BOX), shape)
    for kind, holes, n, t, p in find_pairs(*tiles, *boxes, shape, perforated, chunk_size(points.device)):
        o = (points[n, t] - placed.centers[n, p][:, None]) @ placed.to_unit[n, p].transpose(-1, -2)
        d = unit_sun[n, p][:, None]
        enter, leave = intersect(kind, o, d, placed.primitives.taper[n, p])
        hit = (enter < leave) & (leave > 0.02)
        if holes:
            enter, hit = _through_holes(placed, n, p, o, d, enter, leave, hit)
        hit = hit & lit[n, t]
        if group is not None:
            hit = hit & (placed.primitives.group[n, p][:, None] != group[n, t])
        shade[((n * T + t)[:, None] * R + lane)[hit]] = True
    return shade.view(N, T, R)


def openness(placed: Placed, points: Tensor, solid: Tensor, own: Tensor, group: Tensor | None = None) -> Tensor:
    """Share 0..1 of ambient light at points (N, T, R, 3), which is lower beside and under primitives with contact.

    solid (N, T, R) says which points are asked about, own their primitive (which does not darken itself),
    negative for the ground. group (N, T, R): primitives of it do not darken points there, either.
    """
    N, T, R = points.shape[:3]
    light = torch.ones(N * T * R, device=points.device)
    tiles = _box_of(points[..., :2], solid)
    low, high = _box_of(placed.corners()[..., :2])
    primitives = placed.primitives
    shape = torch.where((primitives.contact > 0) & (primitives.shape > 0), float(Shape.BOX), 0.0)
    lane = torch.arange(R, device=points.device)
    low, high, solids = low - _CONTACT_REACH, high + _CONTACT_REACH, torch.zeros_like(shape, dtype=torch.bool)
    for _, _, n, t, p in find_pairs(*tiles, low, high, shape, solids, chunk_size(points.device)):
        half = primitives.half[n, p][:, None]
        local = ((points[n, t] - placed.centers[n, p][:, None]) @ placed.to_unit[n, p].transpose(-1, -2)) * half
        distance = (local.abs() - half).clamp(min=0).norm(dim=-1)
        dark = 1 - 0.8 * primitives.contact[n, p][:, None] * torch.exp(-3.5 * distance)
        asked = solid[n, t] & (own[n, t] != p[:, None]) & (distance < _CONTACT_REACH * 1.5)
        if group is not None:
            asked = asked & (primitives.group[n, p][:, None] != group[n, t])
        light.scatter_reduce_(0, ((n * T + t)[:, None] * R + lane)[asked], dark[asked], "prod")
    return light.view(N, T, R).clamp(min=0.12)
