# SPDX-License-Identifier: Apache-2.0
"""What moves and how fast: scenes and clips whose motion is known beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pixel4d_ros.datasets.boxes import Box
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.baselines import on_flat_ground, without_motion
from pixel4d_ros.evaluation.labelled_objects import labelled_objects, share_inside
from pixel4d_ros.evaluation.motion_metrics import score_motion
from pixel4d_ros.evaluation.protocol import Protocol
from pixel4d_ros.evaluation.scoring import BoxShare, Setting, box_shares, score_video
from pixel4d_ros.evaluation.synthetic_worlds import WorldSet, make_clip
from pixel4d_ros.evaluation.windows import moving_masks, resized
from pixel4d_ros.geometry.rotations import rigid
from pixel4d_ros.scene import DynamicGaussians

SIZE = (64, 48)  # width, height
K = np.array([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]])
DEPTH = 10.0
VELOCITY = np.array([3.0, 0, 4.0])


def wall(objects: np.ndarray) -> DynamicGaussians:
    """One opaque Gaussian per pixel, 10 m away; object 1 moves at VELOCITY, about a centroid off its middle."""
    u, v = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    means = torch.from_numpy(np.stack((u, v, np.ones_like(u)), -1).reshape(-1, 3) @ np.linalg.inv(K).T * DEPTH).float()
    n, ids = len(means), torch.from_numpy(objects.reshape(-1).astype(np.int64))
    velocities = torch.where(ids[:, None] == 1, torch.tensor(VELOCITY).float(), torch.zeros(n, 3))
    zeros = torch.zeros(n, 3)
    quaternions = torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1)
    return DynamicGaussians(
        means,
        quaternions,
        torch.full((n, 3), 0.1),
        torch.full((n,), 0.95),
        torch.full((n, 3), 0.5),
        *(velocities, zeros, zeros, zeros),
        ids,
        torch.zeros(2, 3),
    )


def clip_of(ids: np.ndarray, velocity: np.ndarray) -> Clip:
    """Two images in which object 1 moves at `velocity`."""
    motions = np.zeros((2, 2, 4, 3), np.float32)
    motions[:, 1, 0] = velocity
    images = np.zeros((2, SIZE[1], SIZE[0], 3), np.uint8)
    poses, centroids = np.tile(np.eye(4), (2, 1, 1)), np.zeros((2, 2, 3), np.float32)
    object_ids = np.stack([ids, ids]).astype(np.uint8)
    return Clip("moving", images, K, poses, np.array([0, 0.1]), None, object_ids, motions, centroids)


def block(columns: slice) -> np.ndarray:
    ids = np.zeros((SIZE[1], SIZE[0]), int)
    ids[10:30, columns] = 1
    return ids


def test_a_scene_that_knows_everything_has_no_error() -> None:
    ids = block(slice(20, 40))
    score = score_motion(wall(ids), clip_of(ids, VELOCITY), ids > 0)
    assert score.mask_iou == pytest.approx(1, abs=0.1)  # Gaussians overlap at the rim
    assert score.false_moving < 0.02
    assert (score.objects, score.found) == (1, 1)
    assert score.velocity_errors == pytest.approx([0])


def test_errors_of_velocity_are_relative() -> None:
    ids = block(slice(20, 40))
    score = score_motion(wall(ids), clip_of(ids, VELOCITY * 2), ids > 0)
    assert score.velocity_errors == pytest.approx([0.5])
    still = score_motion(wall(0 * ids), clip_of(ids, VELOCITY), ids > 0)
    assert still.velocity_errors == pytest.approx([1])
    assert still.found_errors == ()
    assert still.mask_iou == 0


def test_a_turning_object_is_judged_at_its_own_centre() -> None:
    ids = block(slice(20, 40))
    scene = wall(ids)
    spin = torch.where(scene.object_ids[:, None] == 1, torch.tensor([0.0, 1, 0]), torch.zeros(len(scene), 3))
    clip = clip_of(ids, VELOCITY + np.cross([0, 1, 0], [2, 0, 0]))
    assert clip.object_centroids is not None
    clip.object_centroids[0, 1] = (2, 0, 0)
    score = score_motion(replace(scene, angular_velocities=spin), clip, ids > 0)
    assert score.velocity_errors == pytest.approx([0], abs=1e-6)


def test_half_a_mask_too_many() -> None:
    true, seen = block(slice(20, 40)), block(slice(30, 50))
    score = score_motion(wall(seen), clip_of(true, VELOCITY), true > 0)
    assert score.mask_iou == pytest.approx(1 / 3, abs=0.06)
    assert score.false_moving == pytest.approx(200 / (64 * 48 - 400), abs=0.02)


def boxed(distance: float, velocity: tuple[float, float, float], occluded: int = 0) -> Box:
    """A cube of 4 m on the optical axis, its middle that far away."""
    pose = rigid([[0, -1, 0], [0, 0, -1], [1, 0, 0]], [0, 0, distance])
    speed = np.array(velocity)
    return Box(1, "Car", pose, np.full(3, 4.0), bool(np.linalg.norm(speed) > 0.5), speed, occluded)


def with_boxes(*boxes: Box) -> Clip:
    clip = clip_of(0 * block(slice(0)), VELOCITY)
    plain = replace(clip, object_ids=None, object_motions=None, object_centroids=None)
    return replace(plain, boxes=(boxes, boxes))


def test_labelled_boxes_tell_what_moves_and_what_was_found() -> None:
    clip = with_boxes(boxed(11.0, tuple(VELOCITY)))
    moving = clip.moving_mask(0)
    assert moving is not None
    score = score_motion(wall(moving.astype(int)), clip, moving)
    assert (score.objects, score.found, score.false_objects) == (1, 1, 0)
    assert score.velocity_errors == pytest.approx([0])
    missed = score_motion(wall(0 * moving.astype(int)), clip, moving)
    assert (missed.objects, missed.found) == (1, 0)
    assert missed.velocity_errors == pytest.approx([1])
    assert [(e.probability, e.happened) for e in missed.events] == [(0.0, True)]


def test_a_person_is_found_by_the_measured_points_of_its_body() -> None:
    """A cyclist fills a fifth of the outline of its box; the rest shows the street behind."""
    cyclist = replace(boxed(11.0, tuple(VELOCITY)), label="Cyclist")
    clip = with_boxes(cyclist)
    outline = clip.moving_mask(0)
    assert outline is not None
    body = outline & (np.arange(SIZE[0]) % 5 == 0)
    scene = wall(body.astype(int))
    assert score_motion(scene, clip, outline).found == 0  # nothing was measured: the outline counts
    depth = np.where(body, 9.5, 30.0).astype(np.float32)
    depth[outline & (np.arange(SIZE[1])[:, None] > 31)] = 9.5  # the ground beneath it is no body
    measured = replace(clip, depth=np.stack((depth, depth)))
    assert score_motion(scene, measured, outline).found == 1
    assert score_motion(wall((outline & ~body).astype(int)), measured, outline).found == 0


def test_an_object_that_moves_in_no_label_is_false() -> None:
    clip = with_boxes(boxed(11.0, (0, 0, 0)))
    still = np.zeros((SIZE[1], SIZE[0]), bool)
    score = score_motion(wall(block(slice(0, 10))), clip, still)
    assert (score.objects, score.false_objects) == (0, 1)
    assert sorted((e.probability, e.happened) for e in score.events) == [(0.0, False), (1.0, False)]
    parked = replace(wall(block(slice(0, 10))), velocities=torch.zeros(64 * 48, 3))  # an object that does not move
    assert score_motion(parked, clip, still).false_objects == 0


def test_hidden_and_tiny_objects_are_not_scored() -> None:
    assert labelled_objects(with_boxes(boxed(11.0, (0, 0, 0), occluded=2))) == []
    assert labelled_objects(with_boxes(boxed(500.0, (0, 0, 0)))) == []
    near, far = boxed(11.0, (0, 0, 0)), boxed(30.0, (0, 0, 5))
    (only,) = labelled_objects(with_boxes(far, near)) or []  # the far one is behind the near one
    assert only.box is near


def test_boxes_hold_what_is_in_them() -> None:
    def shares(distance: float) -> BoxShare:
        clip = with_boxes(boxed(distance, (0, 0, 0)))
        (share,) = box_shares(wall(block(slice(0))), clip, labelled_objects(clip) or [])
        return share

    assert shares(11.0).gaussians == 1  # the wall is 10 m away, the box from 9 to 13
    assert shares(13.0).gaussians == 0
    assert np.isnan(shares(11.0).sensor)
    assert share_inside(np.array([[0, 0, 8.8], [0, 0, 8.6], [2.2, 0, 11], [2.4, 0, 11]]), boxed(11.0, (0, 0, 0))) == 0.5


def test_a_box_too_long_or_above_the_ground_is_impossible() -> None:
    ids = block(slice(20, 40))
    clip = with_boxes(boxed(11.0, tuple(VELOCITY)))
    assert score_motion(wall(ids), clip, ids > 0, camera_height=2.0).impossible_boxes == 0
    assert score_motion(wall(ids), clip, ids > 0, camera_height=5.0).impossible_boxes == 1
    long = wall(ids)
    long = replace(long, means=long.means * torch.tensor([12.0, 1, 1]))
    assert score_motion(long, clip, ids > 0).impossible_boxes == 1


def test_inside_and_outside_are_those_of_the_true_frame() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    moving = np.zeros((3, 48, 64), bool)
    moving[1, 10:30, 20:40] = True
    frames = truth.copy()
    frames[1, 10:30, 20:40] = truth[1, 10:30, 20:40] // 2 + 50  # wrong inside only
    score = score_video(frames, truth, moving, Protocol(), Setting())
    assert score.inside is not None
    assert score.outside is not None
    assert np.isnan(score.inside[[0, 2]]).all()
    error = frames[1].astype(float) - truth[1]
    assert score.inside[1] == pytest.approx(10 * np.log10(255**2 / np.mean(error[10:30, 20:40] ** 2)), abs=1e-4)
    assert score.outside[1] == 100


def test_a_flat_ground_is_foreseen_exactly() -> None:
    """A chequered ground, drawn by ray casting from two places; the rival makes the second view of the first."""
    height, K = 1.5, np.array([[80.0, 0, 63.5], [0, 80, 23.5], [0, 0, 1]])

    def view(forward: float) -> np.ndarray:
        u, v = np.meshgrid(np.arange(128), np.arange(48))
        rays = np.stack((u, v, np.ones_like(u)), -1) @ np.linalg.inv(K).T
        reach = height / np.maximum(rays[..., 1], 1e-9)
        x, z = rays[..., 0] * reach, forward + reach
        wave = 128 + 60 * np.sin(1.3 * x) * np.sin(0.9 * z)
        grey = np.where((rays[..., 1] > 0.08), wave, 90)
        return np.repeat(grey[..., None], 3, 2).astype(np.uint8)

    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, 2, 3] = 1.0
    frames = on_flat_ground(view(0), K, poses, height)
    np.testing.assert_array_equal(frames[0], view(0))
    lower = np.abs(frames[1, 34:44, 30:98].astype(int) - view(1)[34:44, 30:98])
    assert lower.mean() < 2
    assert np.abs(view(0)[34:44, 30:98].astype(int) - view(1)[34:44, 30:98]).mean() > 20


def test_synthetic_worlds_are_named_checked_and_held_out() -> None:
    worlds = WorldSet.parse("synthetic-street:2@7")
    assert worlds == WorldSet("street", 2, 7)
    assert list(worlds.seeds) == [7, 8]
    assert WorldSet.parse("drive.mcap") is None
    for bad in ("synthetic-street:x", "synthetic-room:0", "synthetic-room:9@1048570"):
        with pytest.raises(ValueError, match="synthetic"):
            WorldSet.parse(bad)
    clip = make_clip(900_001, "street", 2, 0.1, (96, 32))
    masks = moving_masks(clip)
    assert masks is not None
    assert masks.any()
    assert clip.object_ids is not None
    assert clip.object_motions is not None
    seen = np.unique(clip.object_ids[0])[1:]
    assert (np.linalg.norm(clip.object_motions[0, seen, 0], axis=-1) > 0).all()
    smaller = moving_masks(resized(clip, (48, 16)))
    assert smaller is not None
    np.testing.assert_array_equal(smaller.shape, (2, 16, 48))


def test_without_motion_leaves_the_objects_where_they_are() -> None:
    scene = wall(block(slice(20, 40)))
    still = without_motion(scene)
    assert not still.velocities.any()
    assert torch.equal(still.object_ids, scene.object_ids)
