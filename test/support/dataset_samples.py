# SPDX-License-Identifier: Apache-2.0
"""Short clips and pictures of synthetic worlds, some of which the tests write out in the layouts of the data sets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.boxes import Box
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.lazy_frames import LazyFrames
from pixel4d_ros.evaluation.synthetic_worlds import make_clip
from pixel4d_ros.geometry.rotations import FloatArray, rigid, rigid_inverse, rotation_matrix
from pixel4d_ros.synthetic.views import clip_layout, street_clip

FRAMES, SIZE = 4, (104, 32)
SEED = 8
BOX_SIZE = np.array([4.0, 1.8, 1.6])


@lru_cache(maxsize=2)
def street(size: tuple[int, int] = SIZE) -> Clip:
    """FRAMES frames at 10 Hz, with truth for all that readers tell."""
    return street_clip(SEED, FRAMES, 0.1, size)


def world_boxes() -> np.ndarray:
    """T_world_box (T, M, 4, 4) of the street's actors."""
    clip = street()
    poses = []
    for actor in clip_layout(SEED, float(clip.times[-1])).actors:
        points, yaws = actor.at(clip.times)
        poses.append([rigid(rotation_matrix([0, 0, yaw]), point) for point, yaw in zip(points, yaws)])
    return np.swapaxes(np.array(poses), 0, 1)


def world_points(clip: Clip, frame: int, every: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """What is seen at some pixels: points (N, 3) in the world and colours (N, 3)."""
    assert clip.depth is not None
    depth = np.asarray(clip.depth[frame])
    v, u = np.nonzero(depth)
    v, u = v[::every], u[::every]
    rays = np.stack([u, v, np.ones_like(u)], 1) @ np.linalg.inv(clip.K).T
    points = rays * depth[v, u, None]
    return points @ clip.poses[frame, :3, :3].T + clip.poses[frame, :3, 3], clip.images[frame][v, u]


def project(clip: Clip, frame: int, points: np.ndarray) -> np.ndarray:
    """Pixels (N, 2) of world points (N, 3)."""
    T = rigid_inverse(clip.poses[frame])
    x, y, z = clip.K @ (points @ T[:3, :3].T + T[:3, 3]).T
    return np.stack([x / z, y / z], 1)


def assert_same_cameras(read: Clip, truth: Clip, pixels: float = 0.05, scale: float = 1.0) -> None:
    """A point of the world falls on the same pixels in both, whatever their world frames are.

    The worlds are aligned by the first pose alone; `scale` is the reader's unit in metres.
    """
    assert len(read) == len(truth)
    seen, _ = world_points(truth, 0)
    first = rigid_inverse(truth.poses[0])
    here = (seen @ first[:3, :3].T + first[:3, 3]) / scale
    there = here @ read.poses[0, :3, :3].T + read.poses[0, :3, 3]
    for frame in range(len(truth)):
        np.testing.assert_allclose(project(read, frame, there), project(truth, frame, seen), atol=pixels)


def assert_same_boxes(read: tuple[Box, ...], truth: dict[int, np.ndarray], atol: float = 1e-3) -> None:
    """Boxes by track are at T_camera_box."""
    assert {b.track for b in read} == set(truth)
    for b in read:
        np.testing.assert_allclose(b.T_camera_box, truth[b.track], atol=atol)
        np.testing.assert_allclose(b.size, BOX_SIZE, atol=1e-6)


def lazily_read(clip: Clip) -> bool:
    """Whether nothing of the clip's pixels is held in memory."""
    return isinstance(clip.images, LazyFrames) and (clip.depth is None or isinstance(clip.depth, LazyFrames))


def drive(frames: int = 20, size: tuple[int, int] = (48, 32), interval: float = 0.1) -> Clip:
    """A camera that goes forward at 10 m/s through noise, all of it 8 m away."""
    images = np.random.default_rng(7).integers(0, 256, (frames, size[1], size[0], 3), dtype=np.uint8)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = np.arange(frames)
    K = np.array([[40.0, 0, 23.5], [0, 40, 15.5], [0, 0, 1]])
    depth = np.full(images.shape[:3], 8, np.float32)
    return Clip("drive", images, K, poses, np.float64(100) + interval * np.arange(frames), depth)


@dataclass(frozen=True)
class Photo:
    """An image of a street and its camera."""

    image: NDArray[np.uint8]
    K: FloatArray


def street_photo(size: tuple[int, int]) -> Photo:
    """One of the synthetic street."""
    clip = street_clip(seed=3, frames=1, size=size)
    return Photo(clip.images[0], clip.K)


def laser_street() -> Clip:
    """Seven frames at 10 Hz, an oncoming car among them, with a laser's depth: every third row, every second column."""
    clip = make_clip(900_004, "street", 7, 0.1, (416, 128))
    assert clip.depth is not None
    depth = np.zeros(clip.depth.shape, np.float32)
    depth[:, ::3, ::2] = clip.depth[:, ::3, ::2]
    depth[depth > 65] = 0
    return replace(clip, depth=depth)
