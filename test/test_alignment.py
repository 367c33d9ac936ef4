# SPDX-License-Identifier: Apache-2.0
"""Camera alignment: poses and scales that are known beforehand are found again."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.alignment import clip_scale, image_scale
from pixel4d_ros.evaluation.pose_search import align, find_poses
from pixel4d_ros.evaluation.synthetic_worlds import make_clip
from pixel4d_ros.geometry.rotations import rigid_inverse, rotation_matrix, rotation_vector
from pixel4d_ros.scene import DynamicGaussians


class Painter:
    """A forecaster whose scene is a synthetic view: it paints the source image, moved by its depth, into any camera."""

    device = torch.device("cpu")

    def __init__(self, clip: Clip) -> None:
        assert clip.depth is not None
        self.image, self.K = np.asarray(clip.images[0]), clip.K
        far = np.where(clip.depth[0] > 0, clip.depth[0], 500.0)
        v, u = np.mgrid[: far.shape[0], : far.shape[1]]
        self.points = (
            np.stack((u, v, np.ones_like(u)), -1).reshape(-1, 3) @ np.linalg.inv(self.K).T * far.reshape(-1, 1)
        )
        self.order = np.argsort(-far.reshape(-1))

    def predict(self, *_: Any, **__: Any) -> Any:
        return None

    def views(self, _scene: Any, poses: np.ndarray, *_camera: Any) -> Any:
        views = [self.view(pose) for pose in poses]
        return SimpleNamespace(frames=np.stack([v[0] for v in views]), depth=np.stack([v[1] for v in views]))

    def render(self, *given: Any) -> np.ndarray:
        frames: np.ndarray = self.views(*given).frames
        return frames

    def view(self, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        T = rigid_inverse(pose)
        p = (self.points @ T[:3, :3].T + T[:3, 3])[self.order]
        frame, depth = np.zeros_like(self.image), np.zeros(self.image.shape[:2], np.float32)
        at = np.rint((p @ self.K.T)[:, :2] / np.maximum(p[:, 2:], 1e-3)).astype(int)
        height, width = self.image.shape[:2]
        for dx, dy in ((1, 1), (1, 0), (0, 1), (0, 0)):  # two by two pixels each, so that few gaps are left
            u, v = at[:, 0] + dx, at[:, 1] + dy
            ok = (p[:, 2] > 0.1) & (u >= 0) & (v >= 0) & (u < width) & (v < height)
            frame[v[ok], u[ok]] = self.image.reshape(-1, 3)[self.order][ok]
            depth[v[ok], u[ok]] = p[ok, 2]
        return frame, depth


@pytest.fixture(scope="module")
def room() -> Clip:
    return make_clip(900_002, "room", 4, 0.1, (208, 128))


def shaken() -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation_matrix(np.array([0.01, -0.015, 0.008])), (0.03, -0.02, 0.05)
    return T


def test_a_small_motion_is_found_again(room: Clip) -> None:
    assert room.depth is not None
    painter, T = Painter(room), shaken()
    frame, _ = painter.view(rigid_inverse(T))
    found = align(room.images[0], np.asarray(room.depth[0]), frame, room.K)
    error = rigid_inverse(T) @ found
    assert np.linalg.norm(error[:3, 3]) < 0.5 * np.linalg.norm(T[:3, 3])  # the painter rounds to whole pixels
    assert np.linalg.norm(rotation_vector(error[:3, :3])) < 0.25 * np.linalg.norm(rotation_vector(T[:3, :3]))


def test_the_camera_of_real_frames_is_found_from_standing(room: Clip) -> None:
    painter: Any = Painter(room)
    scene: Any = None
    true = rigid_inverse(room.poses[0]) @ room.poses
    still = np.tile(np.eye(4), (4, 1, 1))
    found = find_poses(painter, scene, room, still)
    wrong = np.linalg.norm(true[1:, :3, 3], axis=1).mean()
    assert np.linalg.norm(found[1:, :3, 3] - true[1:, :3, 3], axis=1).mean() < 0.35 * wrong
    np.testing.assert_array_equal(found[0], np.eye(4))


def test_scales_come_from_depth_or_from_the_frames(room: Clip) -> None:
    painter: Any = Painter(room)
    scene: DynamicGaussians = painter.predict()
    poses = room.poses.copy()
    poses[:, :3, 3] = poses[0, :3, 3] + (poses[:, :3, 3] - poses[0, :3, 3]) / 8
    shrunk = replace(room, poses=poses, metric=False)
    assert image_scale(painter, scene, shrunk) == pytest.approx(1, rel=0.05)  # by depth, which is right
    blind = replace(shrunk, depth=None)
    assert image_scale(painter, scene, blind) == pytest.approx(8, rel=0.3)
    assert clip_scale(painter, [blind, blind]) == pytest.approx(8, rel=0.3)
    assert room.depth is not None
    empty = replace(room, depth=np.zeros_like(np.asarray(room.depth)))
    with pytest.raises(ValueError, match="no source image has sensor depth"):
        clip_scale(painter, [empty])
