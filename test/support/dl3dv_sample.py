# SPDX-License-Identifier: Apache-2.0
"""A scene of DL3DV-10K in the distributed layout, which shows the street of `dataset_samples`."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.geometry.rotations import rigid, rotation_matrix
from support.dataset_samples import FRAMES, SIZE, street

UNIT = 2.5  # metres


def write_scene(root: Path, folder: str = "images_4", shrink: int = 4, lens: float = 0.0) -> Path:
    """The street as a scene: the json tells images `shrink` times as large as those in `folder`."""
    clip, (width, height) = street(), SIZE
    (root / folder).mkdir(parents=True)
    world = rigid(rotation_matrix([0.3, 1.0, -0.4]), [5, 6, 7])
    frames = []
    for i in reversed(range(FRAMES)):  # the real ones are not in order
        image = distorted(clip, i, lens) if lens else np.asarray(clip.images)[i]
        cv2.imwrite(str(root / folder / f"frame_{i + 1:05d}.png"), image[..., ::-1])
        c2w = world @ clip.poses[i] @ np.diag([1, -1, -1, 1])
        c2w[:3, 3] /= UNIT
        frames.append(
            {"file_path": f"images/frame_{i + 1:05d}.png", "transform_matrix": c2w.tolist(), "colmap_im_id": i}
        )
    K = clip.K
    data = {"w": width * shrink, "h": height * shrink, "fl_x": K[0, 0] * shrink, "fl_y": K[1, 1] * shrink}
    data |= {
        "cx": (K[0, 2] + 0.5) * shrink,
        "cy": (K[1, 2] + 0.5) * shrink,
        "k1": lens,
        "k2": 0.0,
        "p1": 0.0,
        "p2": 0.0,
    }
    (root / "transforms.json").write_text(json.dumps(data | {"camera_model": "OPENCV", "frames": frames}))
    return root


def distorted(clip: Clip, i: int, k1: float) -> np.ndarray:
    """What a lens with k1 makes of a frame."""
    height, width = clip.images.shape[1:3]
    v, u = np.mgrid[:height, :width].astype(np.float64)
    seen = cv2.undistortPoints(np.stack([u, v], -1).reshape(-1, 1, 2), clip.K, np.array([k1, 0, 0, 0]), P=clip.K)
    x, y = seen.reshape(height, width, 2).astype(np.float32).transpose(2, 0, 1)
    return np.asarray(cv2.remap(np.asarray(clip.images)[i], x, y, cv2.INTER_LINEAR))
