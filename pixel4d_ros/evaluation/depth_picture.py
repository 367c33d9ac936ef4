# SPDX-License-Identifier: Apache-2.0
"""Depth maps as pictures: log depth in turbo's colours, near red and far blue, black where unknown."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Range = tuple[float, float]  # metres: the depths of the two ends of the colour scale

PERCENTILES = (1.0, 99.0)  # of the depths that the colour scale spans


def depth_range(*depths: NDArray[np.float32]) -> Range:
    """PERCENTILES of the known pixels of depth maps (H, W); 1 to 100 m without any."""
    known = np.concatenate([depth[np.isfinite(depth) & (depth > 0)].ravel() for depth in depths])
    if not known.size:
        return 1.0, 100.0
    near, far = np.percentile(known, PERCENTILES)
    return float(near), float(max(far, 1.001 * near))


def depth_picture(depth: NDArray[np.float32], limits: Range | None = None) -> Picture:
    """A depth map (H, W) in metres, 0 or not finite where unknown, as a picture; limits None: its own range."""
    near, far = limits or depth_range(depth)
    known = np.isfinite(depth) & (depth > 0)
    logs = np.log(np.where(known, depth, near).clip(near, far))
    value = 1 - (logs - np.log(near)) / (np.log(far) - np.log(near))
    colors = cv2.applyColorMap(np.asarray(255 * value, np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(known[..., None], colors, 0).astype(np.uint8)


def filled(depth: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Sparse depth (H, W) with every point spread over size x size pixels, so that a picture shows it; nearest wins."""
    far = np.where(depth > 0, depth, np.inf).astype(np.float32)
    spread = cv2.erode(far, np.ones((size, size), np.uint8))
    return np.where(np.isfinite(spread), spread, 0).astype(np.float32)
