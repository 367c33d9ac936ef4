# SPDX-License-Identifier: Apache-2.0
"""Images, depth and object ids of synthetic worlds, by exact ray casting and one shading pass over the nearest hits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pixel4d_ros.synthetic.ground import Road, ground_colors, intersect_ground, sky_colors
from pixel4d_ros.synthetic.materials import SHADERS, Surface
from pixel4d_ros.synthetic.mesh_library import MeshLibrary
from pixel4d_ros.synthetic.mesh_tracing import MeshHits, first_mesh_hits, mesh_colors, mesh_normals
from pixel4d_ros.synthetic.primitives import Primitives, unit_normals
from pixel4d_ros.synthetic.tracing import (
    TILE,
    Placed,
    first_hits,
    in_shadow,
    openness,
    screen_boxes,
    tile_rectangles,
)
from pixel4d_ros.synthetic.world import Worlds


@dataclass(frozen=True)
class Rendered:
    """N images."""

    rgb: Tensor  # (N, H, W, 3) float32 0..1, sRGB
    depth: Tensor  # (N, H, W) metres along z, inf for the sky
    object_ids: Tensor  # (N, H, W) int64
    hidden_depth: (
        Tensor  # (N, H, W) metres, of the first static surface behind the visible one; 0: none, or not requested
    )


@dataclass(frozen=True)
class _Hits:
    """Rays of N views as (N, T, R): T tiles of R pixels."""

    rays: Tensor  # (N, T, R, 3) world, unit camera z
    depth: Tensor  # (N, T, R)
    primitive: Tensor  # (N, T, R), -1 ground, -2 sky
    kerb: Tensor  # (N, T, R)
    points: Tensor  # (N, T, R, 3) world; the camera itself where the ray meets nothing
    normals: Tensor  # (N, T, R, 3) world, unit
    mesh: MeshHits | None  # where primitive is a model
    group: Tensor | None  # (N, T, R) of the model, -1 where there is none: it does not shade itself

    @property
    def on_mesh(self) -> tuple[Tensor, ...]:
        """Indices of the rays that meet a model."""
        return () if self.group is None else (self.group >= 0).nonzero(as_tuple=True)


def render(
    worlds: Worlds,
    world_of_view: Tensor,
    object_poses: Tensor,
    T_world_camera: Tensor,
    K: Tensor,
    size: tuple[int, int],
    hidden: Tensor | None = None,
) -> Rendered:
    """Render N views: world_of_view (N,) int64, object_poses (N, M + 1, 4, 4), T_world_camera (N, 4, 4), K (N, 3, 3).

    size is (width, height); hidden (N,) bool selects the views whose hidden depth is traced.
    """
    placed = Placed.of(Primitives(worlds.primitives.rows[world_of_view]), object_poses)
    hits = _trace(placed, worlds, world_of_view, T_world_camera, K, size)
    behind = torch.zeros_like(hits.depth)
    if hidden is not None:
        asked = hidden.nonzero()[:, 0]
        behind[asked] = _hidden_depth(placed, worlds, world_of_view, T_world_camera, K, size, hits, asked)
    ids = placed.primitives.instance.long()
    n = torch.arange(len(ids), device=ids.device)[:, None, None]
    object_ids = torch.where(hits.primitive >= 0, ids[n, hits.primitive.clamp(min=0)], 0)
    images = (_shade(placed, worlds, world_of_view, K, hits), hits.depth, object_ids, behind)
    return Rendered(*(_untile(image, size) for image in images))


def _untile(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, T, R, ...) tiles to (N, H, W, ...) images."""
    width, height = size
    columns, rows = -(-width // TILE), -(-height // TILE)
    image = values.view(len(values), rows, columns, TILE, TILE, *values.shape[3:]).transpose(2, 3)
    return image.reshape(len(values), rows * TILE, columns * TILE, *values.shape[3:])[:, :height, :width].contiguous()


def _camera_rays(K: Tensor, size: tuple[int, int]) -> Tensor:
    """Rays (N, T, R, 3) in the cameras' frames with z = 1."""
    columns, rows = -(-size[0] // TILE), -(-size[1] // TILE)
    lane = torch.arange(TILE, device=K.device)
    x = (torch.arange(columns, device=K.device)[:, None] * TILE + lane)[None, :, None, :]
    y = (torch.arange(rows, device=K.device)[:, None] * TILE + lane)[:, None, :, None]
    shape = (rows, columns, TILE, TILE)
    x, y = (v.expand(shape).reshape(1, rows * columns, TILE * TILE).to(K.dtype) for v in (x, y))
    u = (x - K[:, 0, 2, None, None]) / K[:, 0, 0, None, None]
    v = (y - K[:, 1, 2, None, None]) / K[:, 1, 1, None, None]
    return torch.stack((u, v, torch.ones_like(u)), -1)


def _trace(
    placed: Placed, worlds: Worlds, world: Tensor, T_world_camera: Tensor, K: Tensor, size: tuple[int, int]
) -> _Hits:
    R, origins = T_world_camera[:, :3, :3], T_world_camera[:, :3, 3]
    rays = _camera_rays(K, size) @ R.transpose(1, 2)[:, None]
    N, T, Q = rays.shape[:3]
    boxes, tiles, T_camera_world = _screen(placed, T_world_camera, K, size)
    depth, primitive = first_hits(placed, origins, rays, boxes, tiles)
    mesh, on_mesh = None, torch.zeros_like(depth, dtype=torch.bool)
    if worlds.meshes is not None:
        mesh = first_mesh_hits(placed, worlds.meshes, T_camera_world, K, boxes, _grid(size), depth)
        on_mesh = mesh.depth < depth
        primitive = torch.where(on_mesh, mesh.row, primitive)
        depth = torch.minimum(depth, mesh.depth)
    road = Road(worlds.road.values[world])
    ground, kerb = intersect_ground(road, origins, rays.view(N, T * Q, 3))
    ground, kerb = ground.view(N, T, Q), kerb.view(N, T, Q)
    on_ground = ground < depth
    depth = torch.where(on_ground, ground, depth)
    hit = torch.isfinite(depth)
    primitive = torch.where(on_ground, -1, torch.where(hit, primitive, -2))
    points = origins[:, None, None] + rays * torch.where(hit, depth, 0.0)[..., None]
    kerb = kerb & on_ground
    normals, group = _normals(placed, primitive, points), None
    if mesh is not None and worlds.meshes is not None:
        index = (on_mesh & ~on_ground).nonzero(as_tuple=True)
        group = torch.full_like(depth, -1.0)
        group[index] = placed.primitives.group[index[0], mesh.row[index]]
        unit = mesh_normals(worlds.meshes, mesh.face[index], mesh.weights[index])
        normals[index] = _outward(placed, index[0], mesh.row[index], unit, rays[index])
    if kerb.any():
        normals[kerb] = _kerb_normals(Road(road.values[kerb.nonzero()[:, 0]]), points[kerb])
    return _Hits(rays, depth, primitive, kerb, points, normals, mesh, group)


def _outward(placed: Placed, n: Tensor, p: Tensor, unit: Tensor, rays: Tensor) -> Tensor:
    """Normals (K, 3) in the world, towards the camera, of those in the unit spaces of primitives p in views n."""
    world = torch.nn.functional.normalize((placed.to_unit[n, p].transpose(-1, -2) @ unit[..., None])[..., 0], dim=-1)
    return torch.where(((world * rays).sum(-1) > 0)[:, None], -world, world)


def _grid(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of tiles."""
    return -(-size[1] // TILE), -(-size[0] // TILE)


def _screen(
    placed: Placed, T_world_camera: Tensor, K: Tensor, size: tuple[int, int]
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    """Pixel rectangles of the primitives and of the tiles, and T_camera_world (N, 4, 4)."""
    R, origins = T_world_camera[:, :3, :3], T_world_camera[:, :3, 3]
    T_camera_world = torch.eye(4, device=K.device).repeat(len(K), 1, 1)
    T_camera_world[:, :3, :3] = R.transpose(1, 2)
    T_camera_world[:, :3, 3] = -(R.transpose(1, 2) @ origins[..., None])[..., 0]
    tiles = tile_rectangles(*_grid(size), K.device)
    return screen_boxes(placed, T_camera_world, K), tiles, T_camera_world


def _hidden_depth(
    placed: Placed,
    worlds: Worlds,
    world: Tensor,
    T_world_camera: Tensor,
    K: Tensor,
    size: tuple[int, int],
    hits: _Hits,
    asked: Tensor,
) -> Tensor:
    """Depth (A, T, R) of the first static surface of another group behind the hits of views asked (A,); 0: none."""
    placed, T_world_camera, K = placed.of_views(asked), T_world_camera[asked], K[asked]
    rays, primitive, front = hits.rays[asked], hits.primitive[asked], hits.depth[asked]
    n = torch.arange(len(asked), device=K.device)[:, None, None]
    groups = torch.where(primitive >= 0, placed.primitives.group[n, primitive.clamp(min=0)], -1.0)
    origins = T_world_camera[:, :3, 3]
    boxes, (low, high), T_camera_world = _screen(placed, T_world_camera, K, size)
    # Tiles that show ground and sky alone need not be traced.
    asked_for = (primitive >= 0).any(-1)[..., None]
    tiles = torch.where(asked_for, low, torch.inf), torch.where(asked_for, high, -torch.inf)
    depth, _ = first_hits(placed, origins, rays, boxes, tiles, groups)
    if worlds.meshes is not None:
        mesh = first_mesh_hits(placed, worlds.meshes, T_camera_world, K, boxes, _grid(size), depth, groups)
        depth = torch.minimum(depth, mesh.depth)
    ground, _ = intersect_ground(Road(worlds.road.values[world[asked]]), origins, rays.flatten(1, 2))
    depth = torch.minimum(depth, ground.view(depth.shape))
    return torch.where((primitive >= 0) & torch.isfinite(depth) & (depth > front), depth, 0.0)


def _normals(placed: Placed, primitive: Tensor, points: Tensor) -> Tensor:
    normals = torch.zeros_like(points)
    normals[..., 2] = 1
    n, t, r = (primitive >= 0).nonzero(as_tuple=True)
    p = primitive[n, t, r]
    unit = _unit_points(placed, n, p, points[n, t, r])
    local = unit_normals(placed.primitives.shape[n, p], unit, placed.primitives.taper[n, p])
    # A plane's normal goes to the world with the inverse transpose of unit -> world.
    world = (placed.to_unit[n, p].transpose(-1, -2) @ local[..., None])[..., 0]
    normals[n, t, r] = torch.nn.functional.normalize(world, dim=-1)
    return normals


def _kerb_normals(road: Road, p: Tensor) -> Tensor:
    """Level normals (N, 3) of the kerb's face, towards the road, by differences."""
    step = 0.02
    gx = road.off_road(p[:, 0] + step, p[:, 1]) - road.off_road(p[:, 0] - step, p[:, 1])
    gy = road.off_road(p[:, 0], p[:, 1] + step) - road.off_road(p[:, 0], p[:, 1] - step)
    return torch.nn.functional.normalize(-torch.stack((gx, gy, torch.zeros_like(gx)), -1), dim=-1)


def _unit_points(placed: Placed, n: Tensor, p: Tensor, points: Tensor) -> Tensor:
    return (placed.to_unit[n, p] @ (points - placed.centers[n, p])[..., None])[..., 0]


def _albedo(
    placed: Placed, road: Road, hits: _Hits, footprint: Tensor, meshes: MeshLibrary | None
) -> tuple[Tensor, Tensor]:
    """Linear colour (N, T, R, 3) and gloss (N, T, R) of every hit."""
    color, gloss = torch.zeros_like(hits.points), torch.zeros_like(footprint)
    index = (hits.primitive == -1).nonzero(as_tuple=True)
    color[index] = ground_colors(Road(road.values[index[0]]), hits.points[index], footprint[index], hits.kerb[index])
    n = torch.arange(len(color), device=color.device)[:, None, None]
    material = torch.where(hits.primitive >= 0, placed.primitives.material[n, hits.primitive.clamp(min=0)].long(), -1)
    for kind, shader in SHADERS.items():
        index = (material == int(kind)).nonzero(as_tuple=True)
        if len(index[0]) == 0:
            continue
        v, p = index[0], hits.primitive[index]
        prims = placed.primitives
        half = prims.half[v, p]
        local = (placed.to_world[v, p].transpose(-1, -2) @ hits.normals[index][..., None])[..., 0] / half
        surface = Surface(
            _unit_points(placed, v, p, hits.points[index]),
            half,
            local,
            prims.color[v, p],
            prims.color2[v, p],
            prims.params[v, p],
            prims.seed[v, p].long(),
            footprint[index],
        )
        color[index], gloss[index] = shader(surface)
    index = hits.on_mesh
    if meshes is not None and hits.mesh is not None:
        own = Primitives(placed.primitives.rows[index[0], hits.mesh.row[index]])
        face, weights = hits.mesh.face[index], hits.mesh.weights[index]
        looks = own.color, own.color2, own.params[:, 1]
        color[index], gloss[index] = mesh_colors(meshes, face, weights, footprint[index], *looks)
    return color.clamp(min=0), gloss


def _shade(placed: Placed, worlds: Worlds, world: Tensor, K: Tensor, hits: _Hits) -> Tensor:
    """sRGB colours (N, T, R, 3)."""
    road = Road(worlds.road.values[world])
    outdoors = (road.outdoors > 0.5)[:, None, None]
    direction = torch.nn.functional.normalize(hits.rays, dim=-1)
    facing = (direction * hits.normals).sum(-1).abs()
    hit = hits.primitive > -2
    footprint = torch.where(hit, hits.depth, 0.0) / K[:, 0, 0, None, None] / facing.clamp(min=0.08)
    albedo, gloss = _albedo(placed, road, hits, footprint, worlds.meshes)
    sun, lamp_falloff = _light_direction(worlds.sun[world], outdoors, hits.points)
    cosine = (hits.normals * sun).sum(-1).clamp(min=0)
    lifted = hits.points + hits.normals * (0.004 + 5e-5 * torch.where(hit, hits.depth, 0.0))[..., None]
    asked = hit & outdoors & (cosine > 0)
    shadow = in_shadow(placed, lifted, asked, torch.nn.functional.normalize(worlds.sun[world], dim=-1), hits.group)
    direct = cosine * torch.where(shadow, 0.0, 1.0) * lamp_falloff
    open_sky = openness(placed, hits.points, hit, hits.primitive, hits.group) * (0.65 + 0.35 * hits.normals[..., 2])
    sun_color, ambient = worlds.sun_color[world][:, None, None], worlds.ambient[world][:, None, None]
    color = albedo * (direct[..., None] * sun_color + open_sky[..., None] * ambient)
    mirrored = direction - 2 * (direction * hits.normals).sum(-1, keepdim=True) * hits.normals
    fresnel = gloss * (0.06 + 0.94 * (1 - facing).clamp(0, 1) ** 4)
    ambient_light = ambient.expand_as(albedo)
    reflected = _sky(worlds, world, mirrored, (fresnel > 0.01) & outdoors, ambient_light)
    # Below the horizon the mirror shows the dim street instead of the sky.
    reflected = reflected * (0.25 + 0.75 * (mirrored[..., 2:] * 4 + 0.5).clamp(0, 1))
    color = color + fresnel[..., None] * reflected
    haze = torch.exp(-worlds.haze[world][:, None, None] * torch.where(hit, hits.depth, 0.0))[..., None]
    color = color * haze + worlds.horizon[world][:, None, None] * (1 - haze)
    color = torch.where(hit[..., None], color, _sky(worlds, world, direction, ~hit & outdoors, ambient_light * 0.1))
    return _tone(color * worlds.exposure[world][:, None, None, None])


def _light_direction(sun: Tensor, outdoors: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Directions to the light (N, T, R, 3) and its strength: the far sun, or a room's lamp."""
    to_lamp = sun[:, None, None] - points
    distance = to_lamp.norm(dim=-1).clamp(min=0.3)
    falloff = torch.where(outdoors, 1.0, 4 / (1.5 + distance * distance))
    far = torch.nn.functional.normalize(sun, dim=-1)[:, None, None]
    return torch.where(outdoors[..., None], far, to_lamp / distance[..., None]), falloff


def _sky(worlds: Worlds, world: Tensor, direction: Tensor, where: Tensor, otherwise: Tensor) -> Tensor:
    """Sky colours along unit directions (N, T, R, 3) at `where` (N, T, R), `otherwise` (N, T, R, 3) elsewhere."""
    index = where.nonzero(as_tuple=True)
    b = world[index[0]]
    sun = torch.nn.functional.normalize(worlds.sun, dim=-1)[b]
    seed = worlds.road.seed[b].long()
    out = otherwise.clone()
    out[index] = sky_colors(direction[index], sun, worlds.zenith[b], worlds.horizon[b], worlds.clouds[b], seed)
    return out


def _tone(linear: Tensor) -> Tensor:
    """Linear light to sRGB with a camera's soft shoulder: highlights clip late, shadows stay dark."""
    shoulder = torch.where(linear > 0.6, 0.6 + 0.4 * torch.tanh((linear - 0.6) / 0.55), linear).clamp(0, 1)
    return torch.where(shoulder <= 0.0031308, 12.92 * shoulder, 1.055 * shoulder.clamp(min=1e-6) ** (1 / 2.4) - 0.055)
