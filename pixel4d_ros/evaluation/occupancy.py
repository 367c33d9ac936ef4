# SPDX-License-Identifier: Apache-2.0
"""Occupancy maps against LiDAR: how much free ground is called occupied, how many obstacles are found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from pixel4d_ros.evaluation.lidar_ground import GROUND_BAND
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.outputs.occupancy import OCCUPIED, MapExtent, OccupancyMap

RANGES = ((0.0, 10.0), (10.0, 20.0), (20.0, 30.0))  # metres from the camera
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


def compare_with_lidar(
    made: OccupancyMap, points: FloatArray, heights: FloatArray, eye: FloatArray, extent: MapExtent
) -> OccupancyCounts:
    """Count the map's right and wrong cells.

    points (N, 3) of LiDAR in the map's fixed frame and their heights (N,) above the ground; eye (3,): the camera.
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
