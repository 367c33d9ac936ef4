# SPDX-License-Identifier: Apache-2.0
"""The lead vehicle of one image: what the camera would soon drive into most likely drives ahead of it.

One image hardly shows what moves, but the camera's own speed tells something: drivers do not approach what stands in
their way at full speed. So a vehicle or person close ahead, in time, is taken to move about as fast as the camera.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pixel4d_ros.predictor.objects import MAX_OBJECTS
from pixel4d_ros.rendering.streams import to_device
from pixel4d_ros.scene import DynamicGaussians

SLOWEST = 3.0  # m/s: a camera that is slower may be about to stop behind what stands
SECONDS = 2.0  # to contact if the vehicle stood, at most: drivers keep about this distance
ASIDE = 1.0  # metres from the middle of the camera's way, at most: parked cars are farther
FEWEST = 30  # Gaussians that show it
COVERED = 0.5  # share of it on an object that the network found to move: then that is known better
SPREAD, SPREAD_SHARE = 0.5, 0.1  # m/s, and share of the camera's speed: standard deviation of its speed


def with_lead_vehicle(scene: DynamicGaussians, speed: float | None, seed: int) -> DynamicGaussians:
    """The scene of one image with MAX_OBJECTS more objects: instances ahead of a camera that drives at speed, in m/s.

    Few of them exist, mostly none. In sample 0 they move at the camera's speed along its axis, in other futures a
    little slower or faster, drawn by seed. Nothing waits for the device. Without a speed, or slower than SLOWEST, the
    scene is returned as it is.
    """
    if speed is None or speed < SLOWEST or scene.instance_ids is None:
        return scene
    is_lead, centers = _lead_instances(scene, speed, scene.instance_ids)
    joins = is_lead[scene.instance_ids] & (scene.object_ids == 0)
    count = len(scene.centroids)
    drawn = np.random.default_rng((seed, 2)).normal(speed, SPREAD + SPREAD_SHARE * speed, scene.num_samples)
    drawn[0] = speed
    velocities = np.zeros((scene.num_samples, 3), np.float32)
    velocities[:, 2] = np.maximum(drawn, 0)
    own = joins[:, None].to(scene.velocities) * to_device(velocities, joins.device)[:, None]  # (S, N, 3)
    futures = tuple(replace(future, velocities=future.velocities + added) for future, added in zip(scene.futures, own))
    return replace(
        scene,
        velocities=scene.velocities + own[0],
        futures=futures,
        object_ids=torch.where(joins, scene.instance_ids + (count - 1), scene.object_ids),
        centroids=torch.cat((scene.centroids, centers[1 : MAX_OBJECTS + 1])),
        moving_probability=None,
    )


def _lead_instances(scene: DynamicGaussians, speed: float, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each instance (MAX_OBJECTS + 2,) is close ahead, and its middle (MAX_OBJECTS + 2, 3), 0 for others.

    ids (N,) are those of instances. Of parts without a centre it is not known which of them are one vehicle: none is.
    """
    x, y, z = scene.means.unbind(1)
    seen = (z > 0).to(z) if scene.observed is None else scene.observed * (z > 0)
    near = seen / z.clamp(min=0.1)  # means of what is inversely proportional to depth: background in an outline is far
    values = torch.stack((seen, near, near * x, near * y, seen * (scene.object_ids > 0)), 1)
    numbers = torch.arange(MAX_OBJECTS + 2, device=ids.device)
    # One product over all Gaussians: a GPU would add up the many of the background one after another.
    total, inverse, right, down, covered = ((ids[:, None] == numbers).to(values).T @ values).unbind(1)
    distance = total / inverse.clamp(min=1e-6)
    across, below = (sums * distance / total.clamp(min=1) for sums in (right, down))
    is_lead = (total >= FEWEST) & (covered < COVERED * total) & (distance < SECONDS * speed) & (across.abs() < ASIDE)
    is_lead &= (numbers > 0) & (numbers <= MAX_OBJECTS)
    return is_lead, torch.stack((across, below, distance), 1) * is_lead[:, None]
