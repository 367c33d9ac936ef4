"""LiDAR points as sparse depth images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.rotations import FloatArray

NEAREST = 0.5  # metres: nearer returns come from the vehicle itself


def project_depth(points: NDArray, T_camera_points: FloatArray, K: FloatArray, size: tuple[int, int]) -> NDArray:
    """Depth (H, W) float32 in metres along z, 0 where no point falls, of points (N, 3); the nearest wins a pixel.

    size is (width, height).
    """
    width, height = size
    depth = np.zeros((height, width), np.float32)
    R, t = T_camera_points[:3, :3], T_camera_points[:3, 3]
    seen = points @ R.T.astype(points.dtype) + t.astype(points.dtype)
    seen = seen[seen[:, 2] > NEAREST]
    pixels = seen @ K[:2].T.astype(seen.dtype)
    u, v = np.rint(pixels / seen[:, 2:]).T
    inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
    u, v, z = u[inside].astype(np.int64), v[inside].astype(np.int64), seen[inside, 2]
    order = np.argsort(-z)  # the nearest is written last
    depth[v[order], u[order]] = z[order]
    return depth
