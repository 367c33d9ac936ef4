# SPDX-License-Identifier: Apache-2.0
"""research/oracle_ablation.py: a predicted scene with parts of it replaced by the truth."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from support.paths import REPOSITORY

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.synthetic_worlds import make_clip
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.scene import MOTION_FIELDS, DynamicGaussians

sys.path.insert(0, str(REPOSITORY / "research"))
from oracle_ablation import OracleForecaster, Truth, with_truth

SEED, SIZE = 900_002, (208, 64)  # two near cars


@pytest.fixture(scope="module")
def clip() -> Clip:
    return make_clip(SEED, "street", 2, 0.1, SIZE)


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster.load(device="cpu")


@pytest.fixture(scope="module")
def scene(forecaster: Forecaster, clip: Clip) -> DynamicGaussians:
    return forecaster.predict(clip.images[0], clip.K, num_samples=2, speed=CameraPath(clip.times, clip.poses).speed())


def test_objects_found_move_as_the_true_ones_do(scene: DynamicGaussians, clip: Clip) -> None:
    true = with_truth(scene, Truth.of(scene, clip), ())
    assert (scene.object_ids > 0).any() and torch.equal(true.object_ids, scene.object_ids)
    assert torch.equal(true.means, scene.means) and not true.futures
    motions = torch.as_tensor(clip.object_motions[0])[1:].flatten(1)
    for k in true.object_ids.unique()[1:]:
        own = torch.cat([getattr(true, name)[true.object_ids == k][:1] for name in MOTION_FIELDS], 1)
        assert torch.cdist(own, motions).min() < 1e-6


def test_with_masks_and_depth_movers_are_where_the_truth_has_them(scene: DynamicGaussians, clip: Clip) -> None:
    truth = Truth.of(scene, clip)
    true = with_truth(scene, truth, ("masks", "depth"))
    assert scene.camera is not None
    places, moving = true.pixels(scene.camera), truth.seen & (truth.ids > 0)
    assert torch.equal(true.object_ids, truth.ids)
    depth = torch.as_tensor(clip.depth[0]).flatten()[places]
    torch.testing.assert_close(true.means[moving, 2], depth[moving], rtol=1e-4, atol=0)
    assert torch.equal(true.means[true.object_ids == 0], scene.means[true.object_ids == 0])
    # OracleForecaster the distance alone, each object moves along its pixels' rays by one factor.
    far = with_truth(scene, truth, ("masks", "distance"))
    ratios = (far.means[moving, 2] / scene.means[moving, 2])[truth.ids[moving] == truth.ids[moving].mode().values]
    assert ratios.std() < 1e-5 and (ratios - 1).abs().max() > 1e-3


def test_without_parts_of_the_truth_it_is_the_forecaster(forecaster: Forecaster, clip: Clip) -> None:
    one, other = (f.predict(clip.images[0], clip.K) for f in (forecaster, OracleForecaster(forecaster, clip, None)))
    assert torch.equal(one.velocities, other.velocities)
    assert np.isfinite(OracleForecaster(forecaster, clip, ()).predict(clip.images[0], clip.K).centroids.numpy()).all()
