# SPDX-License-Identifier: Apache-2.0
"""Depth from motion: how far things are, from where an earlier image of the same camera shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pixel4d_ros.camera import Camera, unproject
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.flow import Flow, flow_size, measured_flow
from pixel4d_ros.two_view.reference_view import ReferenceView

if TYPE_CHECKING:
    from pixel4d_ros.forecaster import Forecaster

NEAREST, FARTHEST = 1.5, 80.0  # metres
BASELINE, LEAST_BASELINE = 0.5, 0.1  # metres between the two views: as wanted, and at least
LEAST_PARALLAX = 1.0  # pixels that the camera's displacement moves a point by; of less, its depth is mostly noise
EPIPOLAR_TOLERANCE, ASTRAY_SHARE = (
    0.5,
    0.1,
)  # pixels off the line on which a still point lies, and of its parallax, in addition
OVERSHOT = 1.7  # times the predicted depth, from which a point is not believed


def depth_from_motion(
    forecaster: Forecaster, image: NDArray[np.uint8], K: ArrayLike, earlier: ReferenceView
) -> NDArray[np.float32]:
    """Depth (h, w) in metres of image (H, W, 3) RGB, 0 where unknown, for the forecaster's `depth`.

    As triangulated_depth, but without what lies OVERSHOT times as far as the forecaster predicts from the image alone,
    or farther: flow of ground that goes by fast often comes out too short. K (3, 3) is the image's. Raises ValueError
    as that does.
    """
    camera = Camera(np.asarray(K, np.float64), image.shape[1], image.shape[0])
    camera = camera.resized(*flow_size(camera.width, camera.height))
    depth = triangulated_depth(image, earlier, camera)
    scene = forecaster.predict(image, K)
    with torch.inference_mode():
        predicted = scene.seen_depth(camera, scene.pixels(camera), FARTHEST)
    return np.where(depth < OVERSHOT * predicted, depth, np.float32(0))


def triangulated_depth(image: NDArray[np.uint8], earlier: ReferenceView, camera: Camera) -> NDArray[np.float32]:
    """Depth (h, w) in metres of image (H, W, 3) RGB by triangulation, 0 where unknown.

    camera is the image's at h x w, optical_flow.flow_size of the image. What moved meanwhile is taken to stand: where
    it left the line on which a still point would lie it is unknown, but of what drives along that line the depth is
    wrong. Raises ValueError for images of different sizes, or too small for flow.
    """
    flow = measured_flow(*earlier.beside(image)) * np.array((camera.width, camera.height), np.float32)
    return _triangulated(flow, earlier.T_reference_source, camera.K)


def view_for_depth(T_earlier_camera: FloatArray) -> int | None:
    """Which of earlier views (N, 4, 4), newest first, to triangulate with.

    The newest that is BASELINE away, else the one furthest away; None when the camera has hardly moved.
    """
    distances = np.linalg.norm(T_earlier_camera[:, :3, 3], axis=1)
    if distances.max(initial=0) < LEAST_BASELINE:
        return None
    wide = distances >= BASELINE
    return int(wide.argmax() if wide.any() else distances.argmax())


def _triangulated(flow: Flow, T: FloatArray, K: FloatArray) -> NDArray[np.float32]:
    """The depth (h, w) that explains a flow best, 0 where it cannot be believed.

    A point at depth z along ray r is seen along R r + t / z: two equations, linear in 1 / z.
    """
    height, width = flow.shape[:2]
    focal, unit = K[[0, 1], [0, 1]], np.ones((height, width))
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    turned = unproject(pixels, unit, K) @ T[:3, :3].T
    seen = unproject(pixels + flow, unit, K)[..., :2]
    slope = (T[:2, 3] - seen * T[2, 3]) * focal  # pixels that the point moves by, times its depth
    offset = (seen * turned[..., 2:] - turned[..., :2]) * focal
    inverse = (slope * offset).sum(-1) / np.maximum((slope * slope).sum(-1), 1e-9)
    parallax = np.linalg.norm(slope, axis=-1) * inverse
    astray = np.linalg.norm(slope * inverse[..., None] - offset, axis=-1)
    believed = (parallax > LEAST_PARALLAX) & (astray < EPIPOLAR_TOLERANCE + ASTRAY_SHARE * parallax)
    depth = 1 / np.maximum(inverse, 1 / FARTHEST / 2)
    return np.where(believed & (depth > NEAREST) & (depth < FARTHEST), depth, 0).astype(np.float32)
