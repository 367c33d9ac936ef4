# SPDX-License-Identifier: Apache-2.0
"""LiDAR points as sparse depth images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.geometry.rotations import FloatArray

NEAREST = 0.5  # metres: nearer returns are from the vehicle itself


def project_depth(
    points: NDArray[Any], T_camera_points: FloatArray, K: FloatArray, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Depth (H, W) float32 in metres along z, 0 where no point falls, of points (N, 3); the nearest wins a pixel.

    size is (width, height).
    """
    width, height = size
    depth = np.zeros((height, width), np.float32)
    # Depth first: half of the points are behind the camera and need no further products.
    P = (K @ T_camera_points[:3]).astype(points.dtype)
    z = _row(points, P[2])
    ahead = z > NEAREST
    points, z = points[ahead], z[ahead]
    u, v = np.rint(_row(points, P[0]) / z), np.rint(_row(points, P[1]) / z)
    inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
    u, v, z = u[inside].astype(np.int64), v[inside].astype(np.int64), z[inside]
    order = np.argsort(-z)  # the nearest is written last
    depth[v[order], u[order]] = z[order]
    return depth


def _row(points: NDArray[Any], p: NDArray[Any]) -> NDArray[Any]:
    """One row of a projection (4,) times points (N, 3)."""
    row: NDArray[Any] = points[:, 0] * p[0] + points[:, 1] * p[1] + points[:, 2] * p[2] + p[3]
    return row
