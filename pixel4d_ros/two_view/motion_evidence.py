# SPDX-License-Identifier: Apache-2.0
"""Evidence that a patch of an image moves: the images against a static world, and how it stands on the ground."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera, unproject
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.flow import Mask
from pixel4d_ros.two_view.rigid_flow import Grey, Map

Rows = NDArray[np.intp]  # (n,) or columns

DEPTH_FACTOR = 5.0  # a static world is tried at depths up to so many times as far and as near as predicted,
APART, FEWEST, MOST = 0.4, 8, 80  # so many pixels apart; at least and at most so many depths
OCCLUDED = 60.0  # grey levels: larger differences count as this, what leaves the image too
MOST_PIXELS = 1000  # of a patch that are compared
SAME_DISTANCE = 1.25  # depth ratio of pixels at about the distance of a patch
GROUND_QUANTILE, FOOT_QUANTILE = 0.97, 0.95  # of heights downwards: the ground, and the lower end of a patch
GROUND_STEP = 3  # columns: of each third the ground is looked for
GROUND_SLOPE = 0.01  # the ground may be so much lower per metre of distance
MOST_GAP = 2.0  # metres between ground and patch: more is no stronger evidence
FLAT = 0.6  # metres above the ground: patches whose median height is less may be the ground itself
WIDE = 5.0  # metres: what moves is seldom wider
SOBEL = 8.0  # cv2.Sobel of an image that rises by 1 grey level per pixel


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
    """Features of a patch from which the probability that it moves is computed."""

    log_ratio: float  # of the images' differences, static world / moving object: above 0 motion explains them better
    texture: float  # logarithm of 1 + grey levels per pixel across the weakest direction of the patch (Shi and Tomasi)
    gap: float  # metres between the ground and the lower end of the patch, 0 to MOST_GAP
    flatness: float  # metres by which the patch's median height is below FLAT, at least 0
    width: float  # logarithm of its width over WIDE, at least 0

    @property
    def features(self) -> FloatArray:
        """(5,) in the order of the fields."""
        return np.array((self.log_ratio, self.texture, self.gap, self.flatness, self.width))


def motion_evidence(pair: ImagePair, patch: Mask, displacement: FloatArray) -> Evidence:
    """Features of a patch (h, w) that moved by displacement (3,) metres since the reference image, if it did.

    The camera is taken to be about level: the ground is the lowest that the image shows at the patch's distance.
    """
    v, u = np.nonzero(patch)
    static, moving = _photometric_errors(pair, v, u, displacement)
    across, down, distance = unproject(np.stack((u, v), -1), pair.depth[v, u], pair.camera.K).T
    ground = _ground(pair, float(np.median(distance)))
    gap = ground - float(np.quantile(down, FOOT_QUANTILE)) - GROUND_SLOPE * float(np.median(distance))
    width = float(np.quantile(across, 0.95) - np.quantile(across, 0.05))
    return Evidence(
        log_ratio=float(np.log((static + 1) / (moving + 1))),
        texture=float(np.log1p(_texture(pair.here, patch, v, u))),
        gap=float(np.clip(gap, 0, MOST_GAP)),
        flatness=max(0.0, FLAT - (ground - float(np.median(down)))),
        width=float(np.log(max(width / WIDE, 1.0))),
    )


def _photometric_errors(pair: ImagePair, v: Rows, u: Rows, displacement: FloatArray) -> tuple[float, float]:
    """Mean differences between the images in grey levels of a patch: of a static world and of a moving object.

    The patch has its pixels at rows v and columns u (n,). A static world may have any multiple of the predicted depth:
    wrong depth, a common error, is no evidence of motion.
    """
    step = -(-len(u) // MOST_PIXELS)
    v, u = v[::step], u[::step]
    points = unproject(np.stack((u, v), -1), pair.depth[v, u], pair.camera.K)
    places = np.concatenate((_depth_scales(pair, points)[:, None, None] * points, (points - displacement)[None]))
    seen = cv2.remap(pair.there.astype(np.float32), *_projected(pair, places), cv2.INTER_LINEAR, borderValue=1e4)
    difference = np.minimum(np.abs(seen - pair.here[v, u]), OCCLUDED).mean(1)
    return float(difference[:-1].min()), float(difference[-1])


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


def _texture(image: Grey, patch: Mask, v: Rows, u: Rows) -> float:
    """Root of the smaller eigenvalue of a patch's structure tensor, in grey levels per pixel.

    patch (h, w) has its pixels at rows v and columns u (n,).
    """
    window = tuple(slice(max(0, int(x.min()) - 1), int(x.max()) + 2) for x in (v, u))
    dx, dy = (cv2.Sobel(image[window], cv2.CV_32F, *order)[patch[window]] / SOBEL for order in ((1, 0), (0, 1)))
    a, b, c = float((dx * dx).mean()), float((dy * dy).mean()), float((dx * dy).mean())
    return float(np.sqrt(max(0.0, (a + b) / 2 - np.hypot((a - b) / 2, c))))


def _ground(pair: ImagePair, distance: float) -> float:
    """Metres that the ground lies below a level camera, at a distance in metres."""
    K, depth = pair.camera.K, pair.depth[:, ::GROUND_STEP]
    down = depth * ((np.arange(len(depth), dtype=np.float32) - K[1, 2]) / K[1, 1])[:, None]
    alike = (depth > distance / SAME_DISTANCE) & (depth < distance * SAME_DISTANCE)
    return float(np.quantile(down[alike] if alike.any() else down, GROUND_QUANTILE))
