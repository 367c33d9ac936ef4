# SPDX-License-Identifier: Apache-2.0
"""Evidence that a patch of an image moves: the images against a static world, and how it stands on the ground."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view import compiled, compiled_images
from pixel4d_ros.two_view.flow import Rows
from pixel4d_ros.two_view.image_pair import ImagePair, thinned_rows
from pixel4d_ros.two_view.rigid_flow import Grey

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


class Evidence(NamedTuple):
    """Features of a patch from which the probability that it moves is computed."""

    log_ratio: float  # of the images' differences, static world / moving object: above 0 motion explains them better
    texture: float  # logarithm of 1 + grey levels per pixel across the weakest direction of the patch (Shi and Tomasi)
    gap: float  # metres between the ground and the lower end of the patch, 0 to MOST_GAP
    flatness: float  # metres by which the patch's median height is below FLAT, at least 0
    width: float  # logarithm of its width over WIDE, at least 0


@njit(cache=True, nogil=True)
def motion_evidence(pair: ImagePair, v: Rows, u: Rows, displacement: FloatArray) -> Evidence:
    """Features of a patch that moved by displacement (3,) metres since the reference image, if it did.

    It has its pixels at rows v and columns u (n,). The camera is taken to be about level: the ground is the lowest that
    the image shows at the patch's distance.
    """
    static, moving = _photometric_errors(pair, v, u, displacement)
    points = compiled.unprojected(v, u, pair.depth, pair.K)
    across, down, distance = np.sort(points[:, 0].copy()), np.sort(points[:, 1].copy()), np.sort(points[:, 2].copy())
    middle = compiled.quantile(distance, 0.5)
    ground = compiled.ground_height(pair.depth, pair.K, middle, SAME_DISTANCE, GROUND_QUANTILE, GROUND_STEP)
    gap = ground - compiled.quantile(down, FOOT_QUANTILE) - GROUND_SLOPE * middle
    width = compiled.quantile(across, 0.95) - compiled.quantile(across, 0.05)
    log_ratio = np.log((static + 1) / (moving + 1))
    flatness = max(0.0, FLAT - (ground - compiled.quantile(down, 0.5)))
    texture = np.log1p(_texture(pair.here, v, u))
    return Evidence(log_ratio, texture, min(max(gap, 0.0), MOST_GAP), flatness, np.log(max(width / WIDE, 1.0)))


@njit(cache=True, nogil=True)
def _photometric_errors(pair: ImagePair, v: Rows, u: Rows, displacement: FloatArray) -> tuple[float, float]:
    """Mean differences between the images in grey levels of a patch: of a static world and of a moving object.

    A static world may have any multiple of the predicted depth: wrong depth, a common error, is no evidence of motion.
    """
    K, T = pair.K, pair.T_there_here
    rows, columns = thinned_rows(v, u, MOST_PIXELS)
    grey = np.empty(len(rows))
    for i in range(len(rows)):
        grey[i] = pair.here[rows[i], columns[i]]
    points = compiled.unprojected(rows, columns, pair.depth, K)
    # Pixels over which depths are tried.
    span = compiled_images.parallax(points, K, T) * (DEPTH_FACTOR - 1 / DEPTH_FACTOR)
    factors = 1 / np.linspace(1 / DEPTH_FACTOR, DEPTH_FACTOR, int(min(max(span / APART, FEWEST), MOST)))
    static, moving = compiled_images.mean_differences(grey, pair.there, points, factors, displacement, K, T, OCCLUDED)
    return static.min(), moving


@njit(cache=True, nogil=True)
def _texture(image: Grey, v: Rows, u: Rows) -> float:
    """Root of the smaller eigenvalue of a patch's structure tensor, in grey levels per pixel.

    The patch has its pixels at rows v and columns u (n,) of the image (h, w).
    """
    a, b, c = compiled_images.structure(image, v, u)
    return float(np.sqrt(max(0.0, (a + b) / 2 - np.hypot((a - b) / 2, c))))
