# SPDX-License-Identifier: Apache-2.0
"""Depth from motion, by triangulation with an earlier image of the same camera."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pixel4d_ros.camera import Camera, unproject
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.flow import CheckedFlow, Flow, flow_size, measured_flow
from pixel4d_ros.two_view.reference_view import ReferenceView

if TYPE_CHECKING:
    from pixel4d_ros.forecaster import Forecaster

NEAREST, FARTHEST = 1.5, 80.0  # metres
BASELINE, LEAST_BASELINE = 0.5, 0.1  # metres between the two views: as wanted, and at least
LEAST_PARALLAX = 1.0  # pixels that the camera's displacement moves a point by; of less, its depth is mostly noise
EPIPOLAR_TOLERANCE, TOLERANCE_SHARE = 0.5, 0.1  # pixels off the epipolar line, and share of the parallax on top
RIM = np.ones((3, 3), np.uint8)  # around what may move: outlines are not exact
OVERSHOT = 1.7  # points farther than this many times the predicted depth are left out


def depth_from_motion(
    forecaster: Forecaster, image: NDArray[np.uint8], K: ArrayLike, reference: ReferenceView
) -> NDArray[np.float32]:
    """Depth (h, w) in metres of image (H, W, 3) RGB, 0 where unknown, for the forecaster's `depth`.

    As triangulated_depth, but without points farther than OVERSHOT times the depth predicted from the image alone (flow
    of ground that passes fast is often too short), and without vehicles and people, which may move. K (3, 3) is the
    image's. Raises ValueError as triangulated_depth.
    """
    # numba takes half a second to import.
    from pixel4d_ros.two_view.object_motion import SeenMaps

    camera = Camera(np.asarray(K, np.float64), image.shape[1], image.shape[0])
    camera = camera.resized(*flow_size(camera.width, camera.height))
    (measured,) = forecaster.measured_flow(image, [reference])  # first, as it refuses images that do not fit
    scene = forecaster.predict(image, K)
    depth = triangulated_depth(image, reference, camera, measured.flow)
    with torch.inference_mode():
        seen = SeenMaps.of(scene, scene.pixels(camera), camera)
    may_move = cv2.dilate((seen.instance_ids > 0).astype(np.uint8), RIM) > 0
    return np.where((depth < OVERSHOT * seen.depth) & ~may_move, depth, np.float32(0))


def triangulated_depth(
    image: NDArray[np.uint8], reference: ReferenceView, camera: Camera, flow: CheckedFlow | None = None
) -> NDArray[np.float32]:
    """Depth (h, w) in metres of image (H, W, 3) RGB by triangulation, 0 where unknown.

    camera is the image's at h x w, two_view.flow.flow_size of the image; flow: to the reference image, None: DIS flow.
    Objects are taken to stand still: where they move off the epipolar line depth is unknown, where they move along it
    depth is wrong. Raises ValueError for images of different sizes, or too small for flow.
    """
    if flow is None:
        known = measured_flow(*reference.beside(image)) * np.array((camera.width, camera.height), np.float32)
    else:
        known = np.where(flow.agrees[..., None], flow.flow, np.float32(np.nan))
    return depth_from_flow(known, reference.T_reference_source, camera.K)


def view_for_depth(T_reference_source: FloatArray) -> int | None:
    """Index of the best reference view for depth, from T_earlier_camera (N, 4, 4), newest first.

    The newest that is BASELINE away, else the farthest; None when the camera has hardly moved.
    """
    distances = np.linalg.norm(T_reference_source[:, :3, 3], axis=1)
    if distances.max(initial=0) < LEAST_BASELINE:
        return None
    wide = distances >= BASELINE
    return int(wide.argmax() if wide.any() else distances.argmax())


def depth_from_flow(flow: Flow, T: FloatArray, K: FloatArray) -> NDArray[np.float32]:
    """The depth (h, w) that explains a flow best, 0 where the flow is too short or off the epipolar line.

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
    off_line = np.linalg.norm(slope * inverse[..., None] - offset, axis=-1)
    believed = (parallax > LEAST_PARALLAX) & (off_line < EPIPOLAR_TOLERANCE + TOLERANCE_SHARE * parallax)
    depth = 1 / np.maximum(inverse, 1 / FARTHEST / 2)
    return np.where(believed & (depth > NEAREST) & (depth < FARTHEST), depth, 0).astype(np.float32)
