# SPDX-License-Identifier: Apache-2.0
"""Calibrated probability that an object moves, and sampled futures that draw whether it does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.rendering.streams import to_device
from pixel4d_ros.scene import MOTION_FIELDS, DynamicGaussians, Motion
from pixel4d_ros.two_view.lead_vehicle import with_lead_vehicle

if TYPE_CHECKING:
    from pixel4d_ros.two_view.motion_evidence import Evidence

MOVES = 0.5  # m/s over ground
# Probability from which on an object moves in sample 0: below a half, as a mover that is missed costs more than a false
# one. At it an image of kitti_0052, kitti_0056 and kitti_0002 has 0.09, 0.10 and 0.08 false objects.
LIKELY = 0.2


@dataclass(frozen=True)
class Calibration:
    """Parameters of the probability that an object moves, fitted by research/fit_moving_probability.py."""

    one_image: float  # probability of an object that the network found, where no reference image says more
    bias: float  # log odds of an object that a reference image shows
    weights: tuple[float, ...]  # (5,) added per unit of Evidence
    network: float  # added where the network found the object, too
    instance: tuple[float, ...]  # (8,) log odds of an instance: bias and weights of JudgedInstance.features
    lead: float  # probability of a lead vehicle in one image: assumed, as too few are labelled
    source: str  # what it was fitted on, and when

    def with_reference(self, evidence: Evidence, network: bool) -> float:
        """Probability that an object moves, from what the two images say."""
        odds = self.bias + float(np.dot(self.weights, evidence)) + self.network * network
        return _probability(odds)

    def of_instance(self, features: FloatArray) -> float:
        """Probability that an instance moves, from JudgedInstance.features (7,)."""
        return _probability(self.instance[0] + float(np.dot(self.instance[1:], features)))


def _probability(odds: float) -> float:
    """The probability of log odds, away from 0 and 1."""
    return float(1 / (1 + np.exp(-np.clip(odds, -7, 7))))


CALIBRATION = Calibration(
    one_image=0.84,
    bias=-4.99,
    weights=(5.96, 0.81, -0.81, -4.95, -1.08),
    network=4.92,
    instance=(-11.89, 0.36, 2.44, 1.47, -1.29, -3.24, -10.89, 1.25),
    lead=0.9,
    source="252 objects of kitti_0005, 0027, track14, kitti_0039 and streets 900101 to 900120, 2026-11-30: "
    "cross-validated Brier score 0.053; instances: 1,186 of the same, 2026-12-01, 0.063",
)


@dataclass(frozen=True)
class MotionChanges:
    """How the motion of a scene's objects changes in S futures."""

    members: Tensor  # (n,) Gaussians of objects
    models: Tensor  # (n,) Gaussians whose motion they take over, mostly their own
    is_joined: bool  # whether some of these are others
    velocities: NDArray[np.float32]  # (S, M + 1, 3) m/s that are added to that of each object


def with_network_probability(scene: DynamicGaussians, speed: float | None, seed: int) -> DynamicGaussians:
    """A scene predicted from one image, whose objects move with the calibrated probability; lead vehicles, too.

    speed is the camera's in m/s, None if it is not known. What moves has the depth that was predicted without a
    reference image.
    """
    found = len(scene.centroids)
    scene = with_lead_vehicle(scene, speed, seed).without_depth_correction()
    probability = np.full(len(scene.centroids), CALIBRATION.lead)
    probability[:found] = CALIBRATION.one_image
    return with_moving_probability(scene, probability, seed)


def with_moving_probability(
    scene: DynamicGaussians, probability: FloatArray, seed: int, changes: MotionChanges | None = None
) -> DynamicGaussians:
    """The scene with probability (M + 1,) that each object moves, in whose futures an object moves as often.

    In sample 0 moves what is LIKELY to. The background's probability is taken as 0. seed draws the others. changes come
    first.
    """
    probability = np.append(0.0, probability[1:])
    draws = np.random.default_rng((seed, 1)).random((scene.num_samples, len(probability)))
    draws[0] = LIKELY
    moves = draws <= probability
    moves[:, 0] = True  # the background has no motion to take away
    moving_probability = to_device(probability, scene.means.device).to(scene.centroids)
    if changes is None and moves.all():  # without waiting for the device
        return replace(scene, moving_probability=moving_probability)
    if changes is None:
        members = scene.members
        changes = MotionChanges(members, members, False, np.zeros((*draws.shape, 3), np.float32))
    members, own_ids = changes.members, scene.object_ids[changes.members]
    exists = own_ids.new_zeros(len(probability)).scatter(0, own_ids, 1).cpu().numpy() > 0
    moves |= ~exists  # what does not exist has no motion to take away

    def changed(motion: Motion, k: int) -> Motion:
        names = MOTION_FIELDS if changes.is_joined or not moves[k].all() else ("velocities",)
        if len(names) == 1 and not changes.velocities[k].any():
            return motion
        own = {name: getattr(motion, name)[changes.models] for name in names}
        own["velocities"] = own["velocities"] + velocities[k, own_ids]
        written = {name: getattr(motion, name).index_copy(0, members, own[name] * kept[k, own_ids]) for name in names}
        return replace(motion, **written)

    velocities, kept = (to_device(x, members.device) for x in (changes.velocities, moves[..., None]))
    futures = tuple(map(changed, scene.futures or (scene.motion,), range(scene.num_samples)))
    return replace(
        scene,
        **vars(futures[0]),
        futures=futures if scene.futures else (),
        moving_probability=moving_probability,
    )


def moving_count(scene: DynamicGaussians) -> int:
    """How many objects move over ground, at MOVES or more, in the scene's selected future."""
    moves = (scene.object_ids > 0) & (scene.velocities.norm(dim=1) >= MOVES)
    return len(torch.unique(scene.object_ids[moves]))
