"""Folders of single images with dense depth: ID.jpg, ID_depth.png (16 bits, mm, 0 unknown) and clip.json with K."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.image_files import DatasetError, read_rgb
from pixel4d_ros.datasets.splits import Part, choose

SUFFIX = "_depth.png"
MILLIMETRES = 1000.0


def is_depth_pair_folder(path: Path) -> bool:
    """Whether a folder holds images with depth."""
    return (path / "clip.json").is_file() and next(path.glob(f"*{SUFFIX}"), None) is not None


def depth_pair_folders(path: Path) -> list[Path]:
    """The folder itself or those below it that hold images with depth."""
    return [
        folder for folder in (path, *sorted(p for p in path.glob("*") if p.is_dir())) if is_depth_pair_folder(folder)
    ]


def read_depth_pairs(folder: Path, part: Part = "all") -> list[Clip]:
    """Images as clips of one frame, by name in order: all, those to train on, or those held out for evaluation.

    Raises DatasetError for a missing calibration, image or depth map.
    """
    try:
        calibration = json.loads((folder / "clip.json").read_text())
        K, metric = np.asarray(calibration["K"], np.float64), bool(calibration["metric"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder}/clip.json must hold K (3x3) and metric (true or false): {error!r}") from error
    depths = choose(sorted(folder.glob(f"*{SUFFIX}")), part)
    if not depths:
        raise DatasetError(f"{folder} has no image with depth: expected ID.jpg with ID{SUFFIX}")
    return [_read_pair(folder, path, K, metric) for path in depths]


def _read_pair(folder: Path, path: Path, K: np.ndarray, metric: bool) -> Clip:
    name = path.name.removesuffix(SUFFIX)
    image = read_rgb(folder / f"{name}.jpg")
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16 or stored.shape != image.shape[:2]:
        raise DatasetError(f"{path} must be a png of 16 bits, one channel and the size of {name}.jpg")
    depth = (stored / MILLIMETRES).astype(np.float32)
    return Clip(f"{folder.name}_{name}", image[None], K, np.eye(4)[None], np.zeros(1), depth[None], metric=metric)
