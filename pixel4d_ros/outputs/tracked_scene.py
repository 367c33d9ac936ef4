# SPDX-License-Identifier: Apache-2.0
"""Between the scene of one image and the tracker: detections out of a scene, tracked velocities back into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.outputs.moving_objects import moving_objects
from pixel4d_ros.outputs.tracking import Detection, TrackedObject
from pixel4d_ros.scene import MOTION_FIELDS, DynamicGaussians, Motion

# Standard deviations of what one image measures: a part of the distance, and a part that does not depend on it.
ALONG_RAY = (0.06, 0.4)  # share of the distance, metres
ACROSS_RAY = (0.02, 0.25)  # share of the distance, metres
SPEED = (0.25, 1.5)  # share of the speed, m/s
SCENE_MOVES = 0.8  # probability that an object moves that a scene without probabilities moves


def detections_of(
    scene: DynamicGaussians,
    T_fixed_scene: FloatArray,
    confidence: Mapping[int, float] | None = None,
    moving: Mapping[int, float] | None = None,
    labels: Mapping[int, str] | None = None,
) -> list[Detection]:
    """The scene's moving objects at its t = 0 as detections in a fixed frame whose z is up, given T_fixed_scene (4, 4).

    confidence and moving (probabilities) and labels (classes) by object id of the scene, where the predictor has them;
    without moving, that of the scene.
    A velocity is as uncertain as SPEED says, or as the scene's sampled futures say where these differ more.
    """
    confidence, moving, labels = confidence or {}, moving or {}, labels or {}
    R, eye = T_fixed_scene[:3, :3], T_fixed_scene[:3, 3]
    colors = scene.per_object(scene.colors).cpu().double().numpy()
    spread = _sampled_speeds(scene)
    own = None if scene.moving_probability is None else scene.moving_probability.cpu().tolist()
    found = []
    for o in moving_objects(scene, R[2], []):
        T = T_fixed_scene @ o.T_source_box
        velocity = R @ o.velocity
        speed = max(SPEED[0] * float(np.linalg.norm(velocity)) + SPEED[1], float(spread[o.object_id]))
        found.append(
            Detection(
                scene_id=o.object_id,
                center=T[:3, 3],
                size=o.size,
                yaw=float(np.arctan2(T[1, 0], T[0, 0])),
                center_covariance=_center_covariance(T[:3, 3] - eye),
                velocity=velocity,
                velocity_covariance=np.eye(3) * speed**2,
                color=colors[o.object_id],
                label=labels.get(o.object_id, ""),
                confidence=confidence.get(o.object_id, Detection.confidence),
                moving=moving.get(o.object_id, SCENE_MOVES if own is None else own[o.object_id]),
            )
        )
    return found


def _sampled_speeds(scene: DynamicGaussians) -> FloatArray:
    """Standard deviation (M + 1,) in m/s, per axis, of each object's velocity over the futures about sample 0."""
    first = scene.per_object(scene.velocities)
    if not scene.futures:
        return np.zeros(len(first))
    others = torch.stack([scene.per_object(motion.velocities) - first for motion in scene.futures])
    deviations: FloatArray = others.square().sum(-1).mean(0).div(3).sqrt().cpu().double().numpy()
    return deviations


def track_ids(tracked: Sequence[TrackedObject]) -> dict[int, int]:
    """Track id by the object id of the newest scene, for the objects detected in it and their parts."""
    return {scene_id: o.id for o in tracked for scene_id in (o.scene_id, *o.parts) if scene_id}


def with_tracked_velocities(
    scene: DynamicGaussians, tracked: Sequence[TrackedObject], T_fixed_scene: FloatArray
) -> DynamicGaussians:
    """The scene with the smoothed velocities of its tracked objects in the place of one image's.

    Sampled futures are shifted by the same difference, so that they keep their spread about the selected one. An object
    stays at rest in each future in which it is, and in all of them where the selected one has it at rest.
    """
    R = torch.as_tensor(T_fixed_scene[:3, :3], dtype=scene.means.dtype, device=scene.means.device)
    shift = torch.zeros_like(scene.centroids)
    measured = scene.per_object(scene.velocities)
    for o in tracked:
        for scene_id in filter(None, (o.scene_id, *o.parts)):
            shift[scene_id] = torch.as_tensor(o.velocity, dtype=R.dtype, device=R.device) @ R - measured[scene_id]
    change = shift[scene.object_ids] * _moves(scene.motion)

    def shifted(motion: Motion) -> Tensor:
        return motion.velocities + change * _moves(motion)

    futures = tuple(replace(motion, velocities=shifted(motion)) for motion in scene.futures)
    return replace(scene, velocities=shifted(scene.motion), futures=futures)


def _moves(motion: Motion) -> Tensor:
    """Which Gaussians (N, 1) are not at rest."""
    return torch.cat([getattr(motion, name) for name in MOTION_FIELDS], 1).any(1, keepdim=True)


def _center_covariance(ray: FloatArray) -> FloatArray:
    """Covariance (3, 3) of a centre seen along ray (3,), metres: depth is less certain than direction."""
    distance = float(np.linalg.norm(ray))
    along, across = (share * distance + constant for share, constant in (ALONG_RAY, ACROSS_RAY))
    direction = ray / max(distance, 1e-6)
    outer = np.outer(direction, direction)
    covariance: FloatArray = along**2 * outer + across**2 * (np.eye(3) - outer)
    return covariance
