# SPDX-License-Identifier: Apache-2.0
"""The moving objects of a predicted scene as planners want them: which comes closest when, boxes, velocities, paths."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pixel4d_ros.geometry.rotations import FloatArray, rigid
from pixel4d_ros.rendering.streams import to_device, to_host
from pixel4d_ros.scene import MOTION_FIELDS, DynamicGaussians, Motion, moved_gaussians

MIN_OPACITY = 0.1  # Gaussians fainter than this bound nothing
MIN_GAUSSIANS = 4  # of an object that gets a box
TRIMMED = (2.0, 98.0)  # percentiles between which a box spans its Gaussians' means
STRAY = 3.0  # Gaussians farther from an object's middle than so many median distances do not belong to its body
PAIRS = 1 << 21  # distances computed at once: bounds memory
ALONG_VELOCITY = 0.5  # m/s over the ground from which on a box is turned along its velocity


@dataclass(frozen=True)
class ClosestObjects:
    """Which moving object is closest to each of P paths at each of T times."""

    ids: NDArray[np.int64]  # (P, T) as in the scene, 0: there is none
    distances: FloatArray  # (P, T) metres to the nearest mean of its Gaussians, inf: there is none


@dataclass(frozen=True)
class MovingObject:
    """One moving object, in the frame of the scene."""

    object_id: int
    T_source_box: FloatArray  # (4, 4) the box's centre at t = 0; its z is up, its x the direction of travel
    size: FloatArray  # (3,) metres along the box's axes
    velocity: FloatArray  # (3,) m/s of the centre at t = 0
    path: FloatArray  # (T, 3) metres: the box's centre at the times asked for


@torch.inference_mode()
def closest_objects(scene: DynamicGaussians, positions: ArrayLike, times: ArrayLike) -> ClosestObjects:
    """The moving object closest to positions (P, T, 3), metres in the scene's frame, at times (T,) seconds."""
    device, places = scene.means.device, np.array(positions, np.float32)
    index = _mover_index(scene)
    owners = scene.object_ids[index]
    (counts,) = to_host(owners.new_zeros(len(scene.centroids)).scatter_add(0, owners, torch.ones_like(owners)))
    ids = np.nonzero(counts)[0]
    if len(ids) == 0:
        return ClosestObjects(np.zeros(places.shape[:2], np.int64), np.full(places.shape[:2], np.inf))
    index = index[owners.argsort()]
    first = index[to_device(np.cumsum(counts)[ids] - counts[ids], device)]
    points, t = to_device(places, device), to_device(np.array(times, np.float32), device)
    seen = _seen_from_objects(scene, points, first, t).flatten(1, 2)  # (O, P * T, 3)
    nearest = _distances(seen, scene.means[index], counts[ids].tolist()).min(0)
    distances, which = to_host(nearest.values, nearest.indices)
    return ClosestObjects(ids[which].reshape(places.shape[:2]), distances.reshape(places.shape[:2]))


def _distances(points: torch.Tensor, means: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """Distances (O, Q) in float64 from each object's points (O, Q, 3) to the nearest of its means.

    Means (N, 3) are those of the first object, counts[0] of them, then those of the second and so on.
    """
    # By |m|^2 - 2 p m + |p|^2, many times faster than torch.cdist. In float32 it would round what is near away.
    points, means = points.double(), means.double()
    lengths, room = means.square().sum(1), max(1, PAIRS // max(1, points.shape[1]))
    nearest = []
    for own, of_object, squares in zip(points, torch.split(means, counts), torch.split(lengths, counts)):
        pieces = zip(torch.split(of_object, room), torch.split(squares, room))
        found = [torch.addmm(square, own, some.T, alpha=-2).amin(1) for some, square in pieces]
        nearest.append(reduce(torch.minimum, found))
    return (torch.stack(nearest) + points.square().sum(-1)).clamp(min=0).sqrt()


def _seen_from_objects(
    scene: DynamicGaussians, points: torch.Tensor, first: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    """Points (P, T, 3) at times t (T,) as seen from O objects (O, P, T, 3): moved as if the objects stood as at t = 0.

    first (O,): a Gaussian of each object. A few points move faster than all the Gaussians of the objects would.
    """
    motion = Motion(*(getattr(scene, name)[first][:, None, None] for name in MOTION_FIELDS))
    centroids = scene.centroids[scene.object_ids[first]][:, None, None]  # (O, 1, 1, 3)
    ends = centroids + torch.eye(4, device=points.device)[:, 1:]  # (O, 1, 4, 3): the origin and an end of each axis
    still = scene.quaternions[first][:, None, None]
    moved, _ = moved_gaussians(ends, still, centroids, motion, t[:, None, None])  # (O, T, 4, 3)
    axes = moved[:, :, 1:] - moved[:, :, :1]  # the rows are the objects' axes after t
    turned = torch.einsum("optk,otik->opti", points - moved[:, None, :, 0], axes)
    return turned + centroids


def moving_objects(scene: DynamicGaussians, up: ArrayLike, times: ArrayLike) -> list[MovingObject]:
    """The scene's moving objects, by id; up (3,) is the unit vector that points up in the scene's frame.

    Objects of fewer than four Gaussians that are not faint are left out.
    """
    movers = scene.select(_mover_index(scene))
    ids, counts = torch.unique(movers.object_ids, return_counts=True)
    wanted = ids[counts >= MIN_GAUSSIANS].tolist()
    return [_moving_object(movers, int(k), np.asarray(up, np.float64), np.asarray(times, np.float64)) for k in wanted]


def _mover_index(scene: DynamicGaussians) -> torch.Tensor:
    """Which Gaussians (M,) belong to moving objects and can be seen; the scene may name objects that have none."""
    return torch.nonzero((scene.object_ids > 0) & (scene.opacities >= MIN_OPACITY))[:, 0]


def _moving_object(movers: DynamicGaussians, object_id: int, up: FloatArray, times: FloatArray) -> MovingObject:
    own = movers.select(torch.nonzero(movers.object_ids == object_id)[:, 0])
    means = _body(own.means.cpu().double().numpy())
    velocity = own.velocities.mean(0).cpu().double().numpy()
    R = _upright_axes(means, velocity, up)
    low, high = np.percentile(means @ R, TRIMMED, axis=0)
    centre = R @ ((low + high) / 2)
    # The centre moves with the object: it turns about the centroid as each of the Gaussians does.
    first = own.select(torch.zeros(1, dtype=torch.long, device=own.means.device))
    start = torch.as_tensor(centre[None], dtype=own.means.dtype, device=own.means.device)
    path = [
        moved_gaussians(start, first.quaternions, first.centroids[first.object_ids], first.motion, float(t))[0]
        for t in times
    ]
    turning = own.angular_velocities.mean(0).cpu().double().numpy()
    centroid = own.centroids[object_id].cpu().double().numpy()
    return MovingObject(
        object_id,
        rigid(R, centre),
        np.maximum(high - low, 1e-3),
        velocity + np.cross(turning, centre - centroid),
        torch.cat(path).cpu().double().numpy().reshape(-1, 3) if len(path) else np.zeros((0, 3)),
    )


def _body(means: FloatArray) -> FloatArray:
    """Without what lies far off: at outlines some Gaussians are placed at the depth of what is behind."""
    distances = np.linalg.norm(means - np.median(means, axis=0), axis=1)
    body: FloatArray = means[distances <= STRAY * np.median(distances)]
    return body


def _upright_axes(means: FloatArray, velocity: FloatArray, up: FloatArray) -> FloatArray:
    """Axes (3, 3) as columns: z up; x along the velocity over the ground, or where that is slow the longer side."""
    flat = velocity - up * (velocity @ up)
    if np.linalg.norm(flat) < ALONG_VELOCITY:
        spread = (means - means.mean(0)) @ (np.eye(3) - np.outer(up, up))
        flat = np.linalg.svd(spread, full_matrices=False)[2][0]
        flat = flat - up * (flat @ up)
    if np.linalg.norm(flat) < 1e-6:  # all in one upright line
        flat = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    x = flat / np.linalg.norm(flat)
    return np.stack((x, np.cross(up, x), up), axis=1)
