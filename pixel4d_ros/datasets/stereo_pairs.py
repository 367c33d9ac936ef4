# SPDX-License-Identifier: Apache-2.0
"""Folders of stereo pairs with dense disparity, laid out like KITTI stereo 2015 at 832 x 256."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.damaged_images import readable
from pixel4d_ros.datasets.image_files import read_16_bits, read_rgb, read_unchanged
from pixel4d_ros.datasets.splits import Part, choose

KITTI_CAMERA = Camera(np.array([[483.35, 0, 408.17], [0, 492.57, 117.84], [0, 0, 1]]), 832, 256)
BASELINE = 0.5327  # metres
DISPARITY_UNITS = 256.0  # a pixel, in the files


def is_stereo_folder(path: Path) -> bool:
    """Whether a folder holds stereo pairs."""
    return (path / "left").is_dir() and (path / "disparity").is_dir()


def read_stereo_folder(folder: Path, part: Part = "all") -> list[Clip]:
    """Pairs as clips of one frame: all of them, those to train on, or those held out for evaluation.

    left/, right/, disparity/ (png, 16 bits, 0 unknown), optionally objects/ (png: 0 background, else the number of a
    moving car). Incomplete pairs and damaged images are left out with a warning; raises ValueError if most are.
    """
    paths = choose(sorted((folder / "left").glob("*")), part)
    clips = readable(str(folder), [partial(_read_pair, folder, path) for path in paths])
    if not clips:
        raise ValueError(f"no stereo pairs in {folder}: expected left/, right/ and disparity/")
    return clips


def _read_pair(folder: Path, path: Path) -> Clip:
    images = [folder / side / path.name for side in ("left", "right")]
    disparity, objects = (folder / kind / f"{path.stem}.png" for kind in ("disparity", "objects"))
    if not all(needed.is_file() for needed in (*images, disparity)):
        raise ValueError(f"stereo pair {path.name} in {folder} is incomplete: left, right and disparity are needed")
    left, right = map(read_rgb, images)
    disparities = read_16_bits(disparity, (left.shape[1], left.shape[0]), DISPARITY_UNITS)
    K = KITTI_CAMERA.resized(left.shape[1], left.shape[0]).K
    depth = np.where(disparities > 0, K[0, 0] * BASELINE / np.maximum(disparities, 1e-3), 0).astype(np.float32)
    beside = np.eye(4)[None].copy()
    beside[0, 0, 3] = BASELINE
    return Clip(
        f"stereo_{path.stem}",
        left[None],
        K,
        np.eye(4)[None],
        np.zeros(1),
        depth[None],
        object_ids=read_unchanged(objects)[None].astype(np.uint8) if objects.is_file() else None,
        stereo=Clip(path.stem, right[None], K, beside, np.zeros(1)),
    )
