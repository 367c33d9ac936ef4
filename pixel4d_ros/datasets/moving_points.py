# SPDX-License-Identifier: Apache-2.0
"""Points that move between two images, and how they agree with the motion of the camera and with depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.pose_mistakes import View
from pixel4d_ros.geometry.pose_buffer import STANDING_M, STANDING_RAD
from pixel4d_ros.geometry.rotations import FloatArray, rotation_vector
from pixel4d_ros.two_view.flow import flow_size, measured_flow

GRID = 4  # pixels between the points that are compared
LEAST_POINTS = 0.1  # share of the image whose flow must be known
LEAST_FLOW = 1.5  # pixels: shorter flow tells nothing
SLACK, SLACK_SHARE = 0.75, 0.2  # pixels that a point may be off, and share of its flow on top
STILL_SHARE = 0.02  # of the points that move: fewer are noise
CAMERA_SHARE = 0.5  # of the points that move: more are the camera's motion even where poses stand still
# Of points whose distance is measured: their number, and pixels by which the camera's translation moves them, and off
# the epipolar line.
LEAST_MEASURED, LEAST_PARALLAX, OFF_LINE = 50, 2.0, 1.0


@dataclass(frozen=True)
class MovingPoints:
    """Points that move from an image to a later one: pixels and flow (n, 2) at flow_size; size of the images."""

    pixels: FloatArray
    flow: FloatArray
    image_size: tuple[int, int]  # width, height
    share: float  # of the points whose flow is known

    def shows_camera_motion(self, view: View) -> bool:
        """Whether the camera moves: by its pose T_later_first, or as most of the image does; else traffic does."""
        T = view[1]
        turned = np.linalg.norm(rotation_vector(T[:3, :3]))
        return bool(self.share > CAMERA_SHARE or np.linalg.norm(T[:3, 3]) > STANDING_M or turned > STANDING_RAD)

    def agreement(self, view: View) -> float:
        """Share of the points that move as K and T_later_first say."""
        K, rays, translation = self._seen_by(view)
        far = _projected(rays, K)
        off = self.pixels + self.flow - far
        distance = np.linalg.norm(off, axis=1)
        baseline = float(np.linalg.norm(translation))
        if baseline > 0:  # a point at a finite depth lies on the half line from far in this direction
            direction = _projected(rays + 1e-3 * translation / baseline, K) - far
            direction /= np.maximum(np.linalg.norm(direction, axis=1), 1e-12)[:, None]
            along, across = (off * direction).sum(1), off[:, 0] * direction[:, 1] - off[:, 1] * direction[:, 0]
            distance = np.where(along > 0, np.abs(across), distance)
        return float((distance < SLACK + SLACK_SHARE * np.linalg.norm(self.flow, axis=1)).mean())

    def distance_ratio(self, view: View, depth: NDArray[np.float32]) -> float | None:
        """How many times as far the points are by K and T_later_first as by depth (H, W), m, of the first image.

        The median of those that a camera in motion shows on their epipolar lines; None where these are few.
        """
        known = self._depth_at_points(depth)
        K, rays, translation = self._seen_by(view)
        # A point at depth z in the first image is seen where z far + near points to in the later one.
        far, near = rays @ K.T, K @ translation
        seen = np.column_stack((self.pixels + self.flow, np.ones(len(self.pixels))))
        across_far, across_near = np.cross(seen, far), np.cross(seen, np.broadcast_to(near, seen.shape))
        z = -(across_far * across_near).sum(1) / np.maximum((across_far**2).sum(1), 1e-12)
        off = np.linalg.norm(_projected(z[:, None] * rays + translation, K) - seen[:, :2], axis=1)
        parallax = np.linalg.norm(_projected(rays, K) - seen[:, :2], axis=1)
        chosen = (known > 0) & (z > 0) & (parallax > LEAST_PARALLAX) & (off < OFF_LINE)
        return float(np.median(z[chosen] / known[chosen])) if chosen.sum() >= LEAST_MEASURED else None

    def _seen_by(self, view: View) -> tuple[FloatArray, FloatArray, FloatArray]:
        """K at flow_size; the points' rays (n, 3) at depth 1 in the later camera's axes; its translation (3,)."""
        K, T_later_first = view
        K = Camera(K, *self.image_size).resized(*flow_size(*self.image_size)).K
        rays = np.column_stack((self.pixels, np.ones(len(self.pixels)))) @ np.linalg.inv(K).T @ T_later_first[:3, :3].T
        return K, rays, T_later_first[:3, 3]

    def _depth_at_points(self, depth: NDArray[np.float32]) -> FloatArray:
        """Depth (n,) of a pixel near each point, 0 where unknown: depth (H, W) may be sparse."""
        width, height = flow_size(*self.image_size)
        v, u = np.nonzero(depth)
        places = [((u + 0.5) * width / depth.shape[1] - 0.5) / GRID, ((v + 0.5) * height / depth.shape[0] - 0.5) / GRID]
        columns, rows = (np.maximum(place, 0).round().astype(int) for place in places)
        cells = np.zeros((height // GRID + 2, width // GRID + 2))
        cells[rows, columns] = depth[v, u]
        x, y = (self.pixels // GRID).astype(int).T
        return np.asarray(cells[y, x])


def moving_points(first: NDArray[np.uint8], later: NDArray[np.uint8]) -> MovingPoints | None:
    """The points of an image (H, W, 3) that move until a later one; None if too few are known."""
    image_size = first.shape[1], first.shape[0]
    size = flow_size(*image_size)
    flow = (measured_flow(first, later) * np.array(size, np.float32))[::GRID, ::GRID].astype(np.float64)
    pixels = np.stack(np.meshgrid(np.arange(0, size[0], GRID), np.arange(0, size[1], GRID)), -1).astype(np.float64)
    known: NDArray[np.bool_] = np.isfinite(flow[..., 0])
    length: FloatArray = np.hypot(flow[..., 0], flow[..., 1])  # NaN where unknown
    moving: NDArray[np.bool_] = known & (np.nan_to_num(length) > LEAST_FLOW)
    if known.mean() < LEAST_POINTS or moving.sum() < STILL_SHARE * known.sum():
        return None
    return MovingPoints(pixels[moving], flow[moving], image_size, float(moving.sum() / known.sum()))


def is_still(first: NDArray[np.uint8], later: NDArray[np.uint8]) -> bool:
    """Whether two images (H, W, 3) show the same, with some structure."""
    flow = measured_flow(first, later)
    flow *= np.array(flow_size(first.shape[1], first.shape[0]), np.float32)
    moved: NDArray[np.float32] = np.hypot(flow[..., 0], flow[..., 1])
    known: NDArray[np.bool_] = np.isfinite(moved)
    return bool(known.mean() > 0.5 and first.std() > 5 and (moved[known] > LEAST_FLOW).mean() < STILL_SHARE)


def _projected(points: FloatArray, K: FloatArray) -> FloatArray:
    """Pixels (n, 2) of points (n, 3); points behind the camera are far outside the image."""
    pixels = points @ K.T
    return np.asarray(pixels[:, :2] / np.maximum(pixels[:, 2:], 1e-6))
