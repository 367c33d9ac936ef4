# SPDX-License-Identifier: Apache-2.0
"""Folders of single images with dense depth: ID.jpg, ID_depth.png (16 bits, mm) and clip.json."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.damaged_images import readable
from pixel4d_ros.datasets.image_files import DatasetError, read_16_bits, read_rgb
from pixel4d_ros.datasets.posed_video import DESCRIPTION, clip_name, is_posed_video, read_array, read_description
from pixel4d_ros.datasets.splits import Part, choose

DEPTH = "_depth.png"


def is_depth_folder(path: Path) -> bool:
    """Whether a folder holds single images with depth, or folders of them."""
    return bool(depth_folders(path))


def depth_folders(path: Path) -> list[Path]:
    """The folder itself or those in it that hold single images with depth."""
    return sorted(p for p in (path, *path.glob("*")) if _is_depth_folder(p))


def read_depth_folder(path: Path, part: Part = "all") -> list[Clip]:
    """Images as clips of one frame: all of them, those to train on, or those held out, chosen per folder.

    An image named left has its partner in right.jpg, with clip.json's T_left_right. Incomplete and damaged images are
    left out with a warning; raises DatasetError if most are.
    """
    folders = depth_folders(path)
    if not folders:
        raise DatasetError(f"{path} holds no images with depth: ID.jpg, ID{DEPTH} and {DESCRIPTION} were expected")
    reads = [
        partial(_read_image, folder, depth.name[: -len(DEPTH)])
        for folder in folders
        for depth in choose(sorted(folder.glob(f"*{DEPTH}")), part)
    ]
    return readable(str(path), reads)


def _is_depth_folder(path: Path) -> bool:
    described = (path / DESCRIPTION).is_file() and not is_posed_video(path)
    return described and next(path.glob(f"*{DEPTH}"), None) is not None


def _read_image(folder: Path, name: str) -> Clip:
    about = read_description(folder)
    image, path = read_rgb(folder / f"{name}.jpg"), folder / f"{name}{DEPTH}"
    depth = read_16_bits(path, (image.shape[1], image.shape[0]), 1000)
    K, here, now = read_array(folder, about, "K", (3, 3)), np.eye(4)[None], np.zeros(1)
    stereo = None
    if name == "left" and (folder / "right.jpg").is_file():
        beside = read_array(folder, about, "T_left_right", (1, 4, 4))
        right_K = read_array(folder, about, "K_right" if "K_right" in about else "K", (3, 3))
        stereo = Clip(f"{folder.name}_right", read_rgb(folder / "right.jpg")[None], right_K, beside, now)
    title = clip_name(f"{folder.name}_{name}", about)
    return Clip(title, image[None], K, here, now, depth[None], stereo=stereo, metric=bool(about.get("metric", False)))
