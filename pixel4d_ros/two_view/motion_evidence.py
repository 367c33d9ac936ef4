# SPDX-License-Identifier: Apache-2.0
"""Evidence that a patch of an image moves: the images against a static world of any depth, and the ground below it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pixel4d_ros.camera import Camera, unproject
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.flow import Mask
from pixel4d_ros.two_view.rigid_flow import Grey, Map

DEPTH_FACTOR = 5.0  # a static world is tried at depths up to so many times as far and as near as predicted,
APART, FEWEST, MOST = 0.4, 8, 80  # so many pixels apart; at least and at most so many depths
CELL = 6  # pixels: each cell of a patch may have a depth of its own
OCCLUDED = 60.0  # grey levels: larger differences count as this, what leaves the image too
MOST_PIXELS = 1000  # of a patch that are compared
SAME_DISTANCE = 1.25  # depth ratio of pixels at about the distance of a patch
GROUND_QUANTILE, FOOT_QUANTILE = 0.97, 0.95  # of heights downwards: the ground, and the lower end of a patch
FLOATS = (0.6, 0.01)  # metres, and per metre of distance: a patch that ends higher above the ground floats


@dataclass(frozen=True)
class ImagePair:
    """Two grey images of one size, the depth of the first, and the pose between them."""

    here: Grey  # (h, w)
    there: Grey  # (h, w), the reference image
    camera: Camera  # of both
    depth: Map  # (h, w) metres, predicted for here
    T_there_here: FloatArray  # (4, 4)


@dataclass(frozen=True)
class Evidence:
    """Mean differences of a patch between the images, in grey levels, under three explanations."""

    static: float  # of a static world, each cell at the depth that fits best
    whole: float  # of a static world, the whole patch at the factor of predicted depth that fits best
    moving: float  # of a rigid object of predicted depth that moves at one velocity

    @property
    def log_ratio(self) -> float:
        """Logarithm of static / moving: above 0 the motion explains the images better than any static depth."""
        return float(np.log((self.static + 1) / (self.moving + 1)))

    @property
    def whole_log_ratio(self) -> float:
        """Logarithm of whole / moving."""
        return float(np.log((self.whole + 1) / (self.moving + 1)))


def photometric_evidence(pair: ImagePair, patch: Mask, displacement: FloatArray) -> Evidence:
    """Compare a patch (h, w) with a static world and with an object that moved by displacement (3,) metres since there.

    A static world may have any depth in each cell, so it has more freedom than the object: wrong depth, a common error,
    is no evidence of motion.
    """
    v, u = np.nonzero(patch)
    step = -(-len(u) // MOST_PIXELS)
    v, u = v[::step], u[::step]
    points = unproject(np.stack((u, v), -1), pair.depth[v, u], pair.camera.K)
    places = np.concatenate((_depth_scales(pair, points)[:, None, None] * points, (points - displacement)[None]))
    seen = cv2.remap(pair.there.astype(np.float32), *_projected(pair, places), cv2.INTER_LINEAR, borderValue=1e4)
    difference = np.minimum(np.abs(seen - pair.here[v, u]), OCCLUDED)
    _, cells = np.unique(v // CELL * patch.shape[1] + u // CELL, return_inverse=True)
    sums = np.stack([np.bincount(cells, row) for row in difference])
    static, whole = sums[:-1].min(0).sum(), sums[:-1].sum(1).min()
    return Evidence(*(float(total / len(u)) for total in (static, whole, sums[-1].sum())))


def _depth_scales(pair: ImagePair, points: FloatArray) -> FloatArray:
    """Factors (D,) of the depth of points (N, 3) at which a static world is tried: evenly spaced in the image."""
    (u, far_u), (v, far_v) = _projected(pair, np.stack((points, 1e4 * points)))
    parallax = float(np.median(np.hypot(u - far_u, v - far_v)))
    count = int(np.clip(parallax * (DEPTH_FACTOR - 1 / DEPTH_FACTOR) / APART, FEWEST, MOST))
    return 1 / np.linspace(1 / DEPTH_FACTOR, DEPTH_FACTOR, count)


def _projected(pair: ImagePair, points: FloatArray) -> tuple[Map, Map]:
    """Columns and rows (...) where the reference camera sees points (..., 3) of the first camera's frame."""
    T, K = pair.T_there_here, pair.camera.K
    seen = points @ T[:3, :3].T + T[:3, 3]
    ahead = seen[..., 2] > 0.1
    z = np.where(ahead, seen[..., 2], 1.0)
    u, v = (np.where(ahead, K[i, i] * seen[..., i] / z + K[i, 2], -1e4).astype(np.float32) for i in range(2))
    return u, v


def floats(pair: ImagePair, patch: Mask) -> bool:
    """Whether a patch (h, w) ends well above the ground at its distance, as what drives or walks does not.

    The ground is the lowest that the image shows at that distance, for a camera that is about level.
    """
    K, distance = pair.camera.K, float(np.median(pair.depth[patch]))
    down = pair.depth * ((np.arange(pair.depth.shape[0], dtype=np.float32) - K[1, 2]) / K[1, 1])[:, None]
    alike = (pair.depth > distance / SAME_DISTANCE) & (pair.depth < distance * SAME_DISTANCE)
    gap = np.quantile(down[alike], GROUND_QUANTILE) - np.quantile(down[patch], FOOT_QUANTILE)
    return bool(gap > FLOATS[0] + FLOATS[1] * distance)
