# SPDX-License-Identifier: Apache-2.0
"""Calibrated probability that an object moves, and sampled futures that draw whether it does."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.scene import MOTION_FIELDS, DynamicGaussians, Motion
from pixel4d_ros.two_view.motion_evidence import Evidence

MOVES = 0.5  # m/s over ground


@dataclass(frozen=True)
class Calibration:
    """Parameters of the probability that an object moves, fitted by research/fit_moving_probability.py."""

    one_image: float  # probability of an object that the network found, where no reference image says more
    bias: float  # log odds of an object that a reference image shows
    ratio: float  # added per unit of Evidence.log_ratio
    whole: float  # added per unit of Evidence.whole_log_ratio
    network: float  # added where the network found the object, too
    source: str  # what it was fitted on, and when

    def with_reference(self, evidence: Evidence, network: bool) -> float:
        """Probability that an object moves, from what the two images say."""
        odds = self.bias + self.ratio * evidence.log_ratio + self.whole * evidence.whole_log_ratio
        odds += self.network * network
        return float(1 / (1 + np.exp(-np.clip(odds, -7, 7))))


CALIBRATION = Calibration(
    one_image=0.95,
    bias=-1.22,
    ratio=0.95,
    whole=2.05,
    network=4.22,
    source="233 objects of kitti_track14, kitti_0005 and streets 900101 to 900148, 2026-11-29; Brier score 0.076",
)


def with_network_probability(scene: DynamicGaussians, seed: int) -> DynamicGaussians:
    """A scene predicted from one image, whose objects move with the calibrated probability."""
    probability = np.full(len(scene.centroids), CALIBRATION.one_image)
    return with_moving_probability(scene, probability, seed)


def with_moving_probability(scene: DynamicGaussians, probability: FloatArray, seed: int) -> DynamicGaussians:
    """The scene with probability (M + 1,) that each object moves, in whose futures an object moves as often.

    In sample 0 moves what moves in most futures. The background's probability is taken as 0. seed draws the others.
    """
    probability = np.append(0.0, probability[1:])
    draws = np.random.default_rng(seed).random((scene.num_samples, len(probability)))
    draws[0] = 0.5
    moves = torch.as_tensor(draws < probability, device=scene.means.device)
    moves[:, 0] = True  # the background has no motion to take away
    futures = tuple(_kept(motion, row, scene.object_ids) for motion, row in zip(scene.futures, moves))
    own = _kept(scene.motion, moves[0], scene.object_ids)
    return replace(
        scene,
        **{name: getattr(own, name) for name in MOTION_FIELDS},
        futures=futures,
        moving_probability=torch.as_tensor(probability).to(scene.centroids),
    )


def _kept(motion: Motion, moves: Tensor, object_ids: Tensor) -> Motion:
    """The motion of the objects for which moves (M + 1,) is true; the others stand."""
    if bool(moves.all()):
        return motion
    keep = moves[object_ids][:, None]
    return Motion(*(getattr(motion, f.name) * keep for f in fields(Motion)))


def moving_count(scene: DynamicGaussians) -> int:
    """How many objects move over ground, at MOVES or more, in the scene's selected future."""
    moves = (scene.object_ids > 0) & (scene.velocities.norm(dim=1) >= MOVES)
    return len(torch.unique(scene.object_ids[moves]))
