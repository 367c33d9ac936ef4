# SPDX-License-Identifier: Apache-2.0
"""Evidence that a patch of an image moves: the images against a static world, and how it stands on the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view import compiled, compiled_images
from pixel4d_ros.two_view.flow import Mask, Rows, pixels_of, thinned_rows
from pixel4d_ros.two_view.rigid_flow import Grey, Map

DEPTH_FACTOR = 5.0  # a static world is tried at depths up to so many times as far and as near as predicted,
APART, FEWEST, MOST = 0.4, 8, 80  # so many pixels apart; at least and at most so many depths
OCCLUDED = 60.0  # grey levels: larger differences count as this, what leaves the image too
MOST_PIXELS = 400  # of a patch that are compared
SAME_DISTANCE = 1.25  # depth ratio of pixels at about the distance of a patch
GROUND_QUANTILE, FOOT_QUANTILE = 0.97, 0.95  # of heights downwards: the ground, and the lower end of a patch
GROUND_STEP = 3  # columns: of each third the ground is looked for
GROUND_SLOPE = 0.01  # the ground may be so much lower per metre of distance
MOST_GAP = 2.0  # metres between ground and patch: more is no stronger evidence
FLAT = 0.6  # metres above the ground: patches whose median height is less may be the ground itself
WIDE = 5.0  # metres: what moves is seldom wider


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
    v, u = pixels_of(patch)
    static, moving = _photometric_errors(pair, v, u, displacement)
    across, down, distance = np.sort(np.ascontiguousarray(compiled.unprojected(v, u, pair.depth, pair.camera.K).T))
    middle, quantile = compiled.quantile(distance, 0.5), compiled.quantile
    ground = compiled.ground_height(pair.depth, pair.camera.K, middle, SAME_DISTANCE, GROUND_QUANTILE, GROUND_STEP)
    gap = ground - quantile(down, FOOT_QUANTILE) - GROUND_SLOPE * middle
    width = quantile(across, 0.95) - quantile(across, 0.05)
    return Evidence(
        log_ratio=float(np.log((static + 1) / (moving + 1))),
        texture=float(np.log1p(_texture(pair.here, v, u))),
        gap=float(np.clip(gap, 0, MOST_GAP)),
        flatness=max(0.0, FLAT - (ground - quantile(down, 0.5))),
        width=float(np.log(max(width / WIDE, 1.0))),
    )


def _photometric_errors(pair: ImagePair, v: Rows, u: Rows, displacement: FloatArray) -> tuple[float, float]:
    """Mean differences between the images in grey levels of a patch: of a static world and of a moving object.

    The patch has its pixels at rows v and columns u (n,). A static world may have any multiple of the predicted depth:
    wrong depth, a common error, is no evidence of motion.
    """
    v, u = thinned_rows(v, u, MOST_PIXELS)
    K, T, here = pair.camera.K, pair.T_there_here, pair.here[v, u].astype(np.float64)
    points = compiled.unprojected(v, u, pair.depth, K)
    span = compiled_images.parallax(points, K, T) * (
        DEPTH_FACTOR - 1 / DEPTH_FACTOR
    )  # pixels over which depths are tried
    factors = 1 / np.linspace(1 / DEPTH_FACTOR, DEPTH_FACTOR, int(np.clip(span / APART, FEWEST, MOST)))
    static, moving = compiled_images.mean_differences(here, pair.there, points, factors, displacement, K, T, OCCLUDED)
    return float(static.min()), moving


def _texture(image: Grey, v: Rows, u: Rows) -> float:
    """Root of the smaller eigenvalue of a patch's structure tensor, in grey levels per pixel.

    The patch has its pixels at rows v and columns u (n,) of the image (h, w).
    """
    a, b, c = compiled_images.structure(image, v, u)
    return float(np.sqrt(max(0.0, (a + b) / 2 - np.hypot((a - b) / 2, c))))
