# SPDX-License-Identifier: Apache-2.0
"""Occupancy maps against LiDAR: how much free ground is called occupied, how many obstacles are found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, minimum_filter

from pixel4d_ros.camera import unproject
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.outputs.occupancy import OCCUPIED, MapExtent, OccupancyMap

RANGES = ((0.0, 10.0), (10.0, 20.0), (20.0, 30.0))  # metres from the camera
GROUND_BAND = 0.2  # metres: LiDAR points within this of the road's plane are on the ground
LOCAL, RISE = 2.5, 0.5  # metres: the ground is looked for so far around a point, and up to so high above the plane
TOLERANCE = (0.5, 0.05)  # metres, and share of the distance, within which an obstacle counts as found


@dataclass(frozen=True)
class OccupancyCounts:
    """Cells counted over images, per range of RANGES."""

    free: NDArray[np.int64]  # (3,) cells in which LiDAR hit the ground and nothing above it
    called_occupied: NDArray[np.int64]  # (3,) of these, those that the map has occupied
    called_free: NDArray[np.int64]  # (3,) of these, those that the map has free
    obstacles: NDArray[np.int64]  # (3,) cells in which LiDAR hit an obstacle
    found: NDArray[np.int64]  # (3,) of these, those with an occupied cell within TOLERANCE

    def __add__(self, other: OccupancyCounts) -> OccupancyCounts:
        return OccupancyCounts(*(getattr(self, n) + getattr(other, n) for n in self.__dataclass_fields__))

    @property
    def false_occupied(self) -> FloatArray:
        """Share (3,) of the free cells that the map has occupied."""
        share: FloatArray = self.called_occupied / np.maximum(self.free, 1)
        return share

    @property
    def recall(self) -> float:
        """Share of the obstacles' cells that the map finds, over all ranges."""
        return float(self.found.sum() / max(1, self.obstacles.sum()))


def lidar_points(depth: NDArray[np.float32], K: FloatArray) -> FloatArray:
    """Points (N, 3) in the optical frame of LiDAR depth (H, W) in metres, 0 where there is none."""
    v, u = np.nonzero(depth > 0)
    return unproject(np.stack((u, v), 1), depth[v, u], K)


def road_heights(points: FloatArray, lowest: float = -1.2) -> FloatArray:
    """Heights (N,) of points (N, 3) in a frame with z up above the ground there: kerbs and banks are ground.

    A plane is fitted to the low points (below `lowest`, metres in the frame's z), then the lowest points around each,
    within LOCAL metres and at most RISE above the plane, are its ground.
    """
    A = np.column_stack((points[:, :2], np.ones(len(points))))
    on_road = points[:, 2] < lowest
    plane = np.array([0.0, 0.0, np.median(points[on_road, 2])])
    for band in (0.3, 0.2, 0.15, 0.15):
        near = np.abs(points[:, 2] - A @ plane) < band
        plane = np.linalg.lstsq(A[near], points[near, 2], rcond=None)[0]
    heights: FloatArray = points[:, 2] - A @ plane
    cells = np.floor(points[:, :2] / (LOCAL / 2.5)).astype(int)
    cells -= cells.min(0)
    lowest_there = np.full(cells.max(0) + 1, RISE)
    np.minimum.at(lowest_there, tuple(cells.T), heights)
    local = minimum_filter(lowest_there, 5).clip(-RISE, RISE)
    local = np.where(local >= RISE, 0.0, local)
    return heights - np.asarray(local)[tuple(cells.T)]


def compare_with_lidar(
    made: OccupancyMap, points: FloatArray, heights: FloatArray, eye: FloatArray, extent: MapExtent
) -> OccupancyCounts:
    """Count the map's right and wrong cells.

    points (N, 3) of LiDAR in the map's fixed frame and their heights (N,) above the road; eye (3,): the camera.
    Cells next to an obstacle of the LiDAR do not count as free.
    """
    rows, columns = made.cells.shape
    column, row = np.floor((points[:, :2] - made.origin) / made.resolution).astype(int).T
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    hit = inside & (heights >= extent.heights[0]) & (heights <= extent.heights[1])
    obstacle, ground = np.zeros((rows, columns), bool), np.zeros((rows, columns), bool)
    obstacle[row[hit], column[hit]] = True
    low = inside & (np.abs(heights) < GROUND_BAND)
    ground[row[low], column[low]] = True
    apart = _distance(obstacle)
    free = ground & (apart > 1.5)
    y, x = np.mgrid[:rows, :columns]
    places = np.stack((x, y), -1) * made.resolution + made.resolution / 2 + made.origin
    reach = np.linalg.norm(places - eye[:2], axis=-1)
    occupied = made.cells >= 100 * OCCUPIED
    near = _distance(occupied) * made.resolution <= TOLERANCE[0] + TOLERANCE[1] * reach
    parts = [(reach >= low) & (reach < high) for low, high in RANGES]

    def count(cells: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.array([(cells & part).sum() for part in parts])

    return OccupancyCounts(
        count(free), count(free & occupied), count(free & (made.cells == 0)), count(obstacle), count(obstacle & near)
    )


def total(counts: Iterable[OccupancyCounts]) -> OccupancyCounts:
    """The sum of the counts of several images."""
    zero = np.zeros(len(RANGES), np.int64)
    return sum(counts, OccupancyCounts(*[zero] * 5))


def _distance(cells: NDArray[np.bool_]) -> FloatArray:
    """Distance in cells to the nearest that is true, inf where there is none."""
    if not cells.any():
        return np.full(cells.shape, np.inf)
    distance: FloatArray = distance_transform_edt(~cells)
    return distance
