# SPDX-License-Identifier: Apache-2.0
"""A clip of RealEstate10K in the distributed layout, which shows the street of `dataset_samples`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pixel4d_ros.geometry.rotations import rigid_inverse
from support.dataset_samples import FRAMES, SIZE, street

NAME = "0a1b2c3d4e5f6071"
FIRST_STAMP = 46_313_000  # microseconds
UNIT = 3.0  # metres


def write_clip(root: Path, part: str = "test", name: str = NAME, frames: str = "", lines: int = FRAMES) -> Path:
    """The camera file <root>/<part>/<name>.txt, and <timestamp>.jpg or .png in the folder `frames` ("": beside it)."""
    clip = street()
    path = root / part / f"{name}.txt"
    folder = (root / frames if frames else path.parent) / name
    folder.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(exist_ok=True)
    rows = ["https://www.youtube.com/watch?v=xxxxxxxxxxx"]
    scale = np.array([[SIZE[0], 1, SIZE[0]], [1, SIZE[1], SIZE[1]]])
    fx, cx = (clip.K[0, 0], clip.K[0, 2] + 0.5) / scale[0, 0]
    fy, cy = (clip.K[1, 1], clip.K[1, 2] + 0.5) / scale[1, 1]
    for i in range(lines):
        T = clip.poses[min(i, FRAMES - 1)].copy()
        T[:3, 3] /= UNIT
        camera = " ".join(f"{v:.9f}" for v in (fx, fy, cx, cy, 0, 0, *rigid_inverse(T)[:3].ravel()))
        rows.append(f"{FIRST_STAMP + i * 100_000} {camera}")
    for i in range(FRAMES):
        cv2.imwrite(str(folder / f"{FIRST_STAMP + i * 100_000}.png"), np.asarray(clip.images)[i][..., ::-1])
    path.write_text("\n".join(rows) + "\n")
    return path
