# SPDX-License-Identifier: Apache-2.0
"""What a log's LiDAR shows to the camera: heights above the ground, and which returns the camera sees too."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import grey_erosion, minimum_filter

from pixel4d_ros.camera import unproject
from pixel4d_ros.geometry.rotations import FloatArray

LOCAL, CELL = 2.5, 0.5  # metres: the ground is looked for so far around a point, in cells of this size
SLOPE = 0.15  # that the ground may have: 8.5 degrees
RISE = 0.5  # metres that it may lie above or below the road's plane
GROUND_BAND = 0.2  # metres: LiDAR points within this of the ground are on it
SILHOUETTE = 0.4  # degrees (one ring of a 64-ring LiDAR) around nearer returns in which LiDAR and camera disagree
GAP = 2.0  # degrees: nearer returns so close above and below a return are around it: a window of a car
NEARER = (1.0, 0.1)  # metres, and share of the distance, by which a return must be nearer to hide another
NOTHING = 50.0  # metres above everything


def lidar_points(depth: NDArray[np.float32], K: FloatArray) -> FloatArray:
    """Points (N, 3) in the optical frame of LiDAR depth (H, W) in metres, 0 where there is none."""
    v, u = np.nonzero(depth > 0)
    return unproject(np.stack((u, v), 1), depth[v, u], K)


def road_heights(points: FloatArray, lowest: float = -1.2) -> FloatArray:
    """Heights (N,) of points (N, 3) in a frame with z up above the ground there: kerbs and banks are ground.

    A plane is fitted to the low points (below `lowest`, metres in the frame's z). The ground is the lower envelope of
    the points' heights above it, no steeper than SLOPE (G. Vosselman, "Slope based filtering of laser altimetry data",
    2000), looked for within LOCAL metres and at most RISE from the plane. Raises ValueError where there is no road.
    """
    A = np.column_stack((points[:, :2], np.ones(len(points))))
    on_road = points[:, 2] < lowest
    plane = np.array([0.0, 0.0, np.median(points[on_road, 2]) if on_road.any() else np.inf])
    for band in (0.3, 0.2, 0.15, 0.15):
        near = np.abs(points[:, 2] - A @ plane) < band
        plane = np.linalg.lstsq(A[near], points[near, 2], rcond=None)[0]
    if not (on_road.any() and plane[2] < lowest and np.hypot(*plane[:2]) < SLOPE):
        raise ValueError(
            f"depth shows no level road {-lowest:g} m or more below the camera, from which heights are measured: grids"
            " and distances are scored on logs of road vehicles"
        )
    heights: FloatArray = points[:, 2] - A @ plane
    cells = np.floor(points[:, :2] / CELL).astype(int)
    cells -= cells.min(0)
    lowest_there = np.full(cells.max(0) + 1, NOTHING)
    np.minimum.at(lowest_there, tuple(cells.T), heights)
    n = round(LOCAL / CELL)
    away = np.hypot(*np.mgrid[-n : n + 1, -n : n + 1]) * CELL
    around = away <= LOCAL
    local = grey_erosion(
        lowest_there, footprint=around, structure=np.where(around, -SLOPE * away, -NOTHING), mode="constant",
        cval=NOTHING,
    )  # fmt: skip
    ground = np.where(local > RISE, 0.0, local.clip(-RISE, RISE))
    above: FloatArray = heights - np.asarray(ground)[tuple(cells.T)]
    return above


def seen_by_camera(
    depth: NDArray[np.float32], heights: FloatArray, K: FloatArray, obstacle: tuple[float, float]
) -> NDArray[np.bool_]:
    """Which returns (N,) of LiDAR depth (H, W) count, given their heights (N,) above the ground.

    A LiDAR stands elsewhere than the camera and looks through glass. Left out are returns within SILHOUETTE of a
    nearer obstacle, returns between nearer obstacles above and below within GAP, and ground that is seen beneath a
    nearer obstacle between the heights `obstacle`: what is above such ground is not known.
    """
    v, u = np.nonzero(depth > 0)
    z = depth[v, u].astype(np.float64)
    limit = z - np.maximum(NEARER[0], NEARER[1] * z)
    nearest = np.full(depth.shape, np.inf)
    stands = heights >= obstacle[0]
    nearest[v[stands], u[stands]] = z[stands]
    high, wide, gap = (
        max(1, math.ceil(K[0, 0] * math.tan(math.radians(angle)))) for angle in (SILHOUETTE, SILHOUETTE / 2, GAP)
    )
    hidden = _least(nearest, np.ones((2 * high + 1, 2 * wide + 1), bool))[v, u] < limit
    above = np.zeros((2 * gap + 1, 2 * wide + 1), bool)
    above[:gap] = True
    hidden |= (_least(nearest, above)[v, u] < limit) & (_least(nearest, above[::-1])[v, u] < limit)
    nearest[v[heights > obstacle[1]], u[heights > obstacle[1]]] = np.inf
    overhead = np.minimum.accumulate(_least(nearest, np.ones((1, 2 * wide + 1), bool)), 0)[v, u]
    hidden |= (np.abs(heights) < GROUND_BAND) & (overhead < z - 0.1)
    return ~hidden


def _least(image: FloatArray, footprint: NDArray[np.bool_]) -> FloatArray:
    least: FloatArray = minimum_filter(image, footprint=footprint, mode="constant", cval=np.inf)
    return least
