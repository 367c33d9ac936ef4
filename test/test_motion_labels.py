# SPDX-License-Identifier: Apache-2.0
"""Labels of real motion, against what a synthetic street knows of its own, and on their way into a batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.dataset_samples import laser_street

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.training import frame_bank, motion_labels
from pixel4d_ros.training.augmentation import Crop
from pixel4d_ros.training.motion_labels import MotionLabels, label_motion
from pixel4d_ros.training.real_data import RealData

SIZE = (64, 32)


@pytest.fixture(scope="module")
def street() -> Clip:
    return laser_street()


@pytest.fixture(scope="module")
def labels(street: Clip) -> MotionLabels:
    return label_motion(street)


def test_what_stands_and_what_moves_is_told_apart(street: Clip, labels: MotionLabels) -> None:
    assert street.object_ids is not None and street.object_motions is not None
    moves = np.linalg.norm(street.object_motions[0, :, 0], axis=1) > 0.1  # parked vehicles are objects too
    true, still, moving = moves[street.object_ids], labels.ids == 0, labels.ids > 0
    assert (still & ~true).sum() / (~true).sum() > 0.4
    assert (still & true).sum() / still.sum() < 0.015
    assert (still & true).sum() / true.sum() < 0.1
    assert (moving & true).sum() / true.sum() > 0.25
    assert (moving & true).sum() / moving.sum() > 0.95


def test_patches_have_the_velocity_of_their_objects(street: Clip, labels: MotionLabels) -> None:
    assert street.object_ids is not None and street.object_motions is not None
    found = 0
    for t, ids in enumerate(labels.ids):
        for patch in range(1, ids.max() + 1):
            number = np.bincount(street.object_ids[t][ids == patch]).argmax()
            linear, acceleration = street.object_motions[0, number, :2]
            if not linear.any():
                continue  # a patch of background, few of which the test above allows
            true = street.poses[t][:3, :3].T @ (linear + street.times[t] * acceleration)  # frame 0 is the world
            measured = labels.velocities[t, patch]
            if np.isfinite(measured).all():
                assert np.linalg.norm(measured - true) < 0.3 + 0.1 * np.linalg.norm(true)
                found += 1
            row, column = np.nonzero(ids == patch)
            seen = street.K @ labels.centroids[t, patch]
            assert abs(seen[0] / seen[2] - column.mean()) < 0.5 * np.ptp(column)
            assert abs(seen[1] / seen[2] - row.mean()) < 0.5 * np.ptp(row)
    assert found >= 5


def test_labels_do_not_depend_on_where_a_clip_is_divided(
    street: Clip, labels: MotionLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(motion_labels, "PART", 3)
    divided = label_motion(street)
    assert divided.ids.shape == labels.ids.shape
    # What lasts is judged by neighbours, which themselves are judged by theirs.
    assert (divided.ids == labels.ids).mean() > 0.98


def test_a_shadow_and_paint_are_not_objects() -> None:
    K = np.array([[100.0, 0, 50], [0, 100, 10], [0, 0, 1]])
    row, column = np.mgrid[:60, :100]
    ground = np.where(row > 12, 160 / np.maximum(row - 10, 1), 0).astype(np.float32)  # 1.6 m below the camera
    paint = (row > 30) & (column > 20) & (column < 40)
    assert not motion_labels.without_ground(paint, ground, K).any()
    post = (column > 60) & (column < 70) & (row > 5) & (row < 36)
    depth = np.where(post, np.float32(6.4), ground)  # it stands where the ground is at row 35
    shadow = (row >= 36) & (row < 42) & (column > 50) & (column < 70)
    kept = motion_labels.without_ground(post | shadow, depth, K)
    assert kept[post].mean() > 0.75 and not kept[shadow].any()


def test_without_depth_nothing_is_known(street: Clip) -> None:
    for clip in (replace(street, depth=None), street.part(0, 2)):
        labels = label_motion(clip)
        assert (labels.ids == -1).all() and len(labels.ids) == len(clip)
        assert np.isnan(labels.velocities).all()


def two_patches(clip: Clip) -> MotionLabels:
    """Two squares 10 m ahead; the velocity of the first leads to the second within a second."""
    labels = MotionLabels.uniform(clip, 0)
    labels.ids[:, 10:30, 40:70], labels.ids[:, 40:64, 110:170] = 1, 2
    labels.ids[:, :4] = -1
    for number, (u, v) in {1: (54.5, 19.5), 2: (139.5, 51.5)}.items():
        labels.centroids[:, number] = np.linalg.inv(clip.K) @ [10 * u, 10 * v, 10]
    labels.velocities[:, 1] = labels.centroids[:, 2] - labels.centroids[:, 1]
    return labels


def blank_clip(name: str = "drive") -> Clip:
    K = np.array([[120.0, 0, 95], [0, 118, 33], [0, 0, 1]])
    images = np.random.default_rng(0).integers(0, 255, (5, 80, 200, 3), np.uint8)
    return Clip(name, images, K, np.tile(np.eye(4), (5, 1, 1)), np.arange(5) * 0.1)


def test_crops_and_mirrors_keep_labels_where_and_how_things_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_bank, "label_motion", two_patches)
    data = RealData([blank_clip()], np.random.default_rng(3), torch.device("cpu"))
    batch = data.batch(40, 2, SIZE)
    assert batch.motions.shape == (40, 3, 4, 3)
    assert torch.isnan(batch.motions[:, :, 1:]).all() and torch.isnan(batch.motions[:, 2]).all()
    torch.testing.assert_close(batch.motions[:, 1, 0], batch.centroids[:, 2] - batch.centroids[:, 1])
    assert (batch.motions[:, 1, 0, 0] > 0).any() and (batch.motions[:, 1, 0, 0] < 0).any()  # mirrored or not
    seen = batch.centroids @ batch.K[:, 0].transpose(1, 2)
    for number in (1, 2):
        places = (seen[:, number, :2] / seen[:, number, 2:]).round().long()
        inside = ((places >= 0) & (places < torch.tensor(SIZE))).all(1)
        assert inside.sum() > 10
        u, v = places[inside].T
        assert (batch.object_ids[inside, v, u] == number).all()
    assert (batch.object_ids == -1).any() and (batch.object_ids == 0).any()


def test_nothing_moves_indoors() -> None:
    batch = RealData([blank_clip("indoor_x")], np.random.default_rng(0), torch.device("cpu")).batch(2, 2, SIZE)
    assert (batch.object_ids == 0).all() and batch.motions.shape[1] == 1


def test_a_mirrored_vector_has_its_x_turned() -> None:
    vector = np.array([[1, 2, 3]], np.float32)
    for mirrored, x in ((True, -1), (False, 1)):
        assert Crop(0, 0, 10, 10, SIZE, mirrored).vectors(vector).tolist() == [[x, 2, 3]]
