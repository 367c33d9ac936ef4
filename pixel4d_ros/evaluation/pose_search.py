# SPDX-License-Identifier: Apache-2.0
"""Camera poses found from the frames: to compare with videos published without camera paths.

The search uses the true later frames, so scores with such poses measure the scene, not a forecast
along a known path would be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera, unproject
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.metrics import psnr
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse, rotation_matrix

if TYPE_CHECKING:
    from pixel4d_ros.forecaster import Forecaster
    from pixel4d_ros.scene import DynamicGaussians

Grey = NDArray[np.float32]  # (H, W) grey levels 0..255

ROUNDS = 3  # renderings per frame, each aligned anew
LEVELS = (4, 2, 1)  # by what the images are reduced, coarse to fine
ITERATIONS = 8  # of Gauss-Newton per level
HUBER = 10.0  # grey levels
MOST_PIXELS = 20_000  # used per level
SMALLEST_SIDE = 24  # pixels, of the reduced images


def find_poses(forecaster: Forecaster, scene: DynamicGaussians, window: Clip, start: FloatArray) -> FloatArray:
    """T_source_camera (T, 4, 4) at which the scene's rendering looks most like the window's frames.

    Frame after frame, from the best of the start pose (T, 4, 4), the pose before, and that moved on as before. A pose
    is only ever changed for one with a higher PSNR.
    """
    found = [np.eye(4)]
    for i in range(1, len(window)):
        onward = found[-1] if i < 2 else found[-1] @ rigid_inverse(found[-2]) @ found[-1]
        found.append(_find_pose(forecaster, scene, window, i, [start[i], found[-1], onward]))
    return np.stack(found)


def _find_pose(
    forecaster: Forecaster, scene: DynamicGaussians, window: Clip, i: int, candidates: list[FloatArray]
) -> FloatArray:
    truth, size = window.images[i], (window.images.shape[2], window.images.shape[1])
    time = window.times[i] - window.times[0]

    def look(poses: list[FloatArray]) -> tuple[NDArray[np.uint8], NDArray[np.float32], list[float]]:
        views = forecaster.views(scene, np.stack(poses), np.full(len(poses), time), window.K, size)
        return views.frames, views.depth, [psnr(frame, truth) for frame in views.frames]

    frames, depths, scores = look(candidates)
    k = int(np.argmax(scores))
    pose, frame, depth, score = candidates[k], frames[k], depths[k], scores[k]
    for _ in range(ROUNDS):
        trial = pose @ rigid_inverse(align(frame, depth, truth, window.K))
        frames, depths, scores = look([trial])
        if scores[0] <= score:
            break
        pose, frame, depth, score = trial, frames[0], depths[0], scores[0]
    return pose


def align(frame: NDArray[np.uint8], depth: NDArray[np.float32], truth: NDArray[np.uint8], K: FloatArray) -> FloatArray:
    """T_true_frame (4, 4): how points seen in `frame` (H, W, 3), of known depth (H, W), lie for the camera of `truth`.

    Direct image alignment (C. Kerl et al., "Robust odometry estimation for RGB-D cameras", ICRA 2013): Gauss-Newton
    on grey levels with Huber weights, coarse to fine.
    """
    height, width = depth.shape
    T = np.eye(4)
    for level in LEVELS:
        size = width // level, height // level
        if level > 1 and min(size) < SMALLEST_SIDE:
            continue
        camera = Camera(K, width, height).resized(*size)
        a, b = (_reduced(image, size) for image in (frame, truth))
        z = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
        T = _align_level(a, np.asarray(z, np.float32), b, camera.K, T)
    return T


def _reduced(image: NDArray[np.uint8], size: tuple[int, int]) -> Grey:
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(grey.astype(np.float32), (3, 3), 0), np.float32)


def _align_level(frame: Grey, depth: NDArray[np.float32], truth: Grey, K: FloatArray, T: FloatArray) -> FloatArray:
    v, u = np.nonzero(np.isfinite(depth) & (depth > 0))
    step = max(1, len(u) // MOST_PIXELS)
    u, v = u[::step], v[::step]
    points = unproject(np.stack((u, v), -1), depth[v, u], K)
    grey = frame[v, u]
    slope_x, slope_y = (cv2.Sobel(truth, cv2.CV_32F, *d, ksize=3, scale=1 / 8) for d in ((1, 0), (0, 1)))
    for _ in range(ITERATIONS):
        p = points @ T[:3, :3].T + T[:3, 3]
        x, y, w = p.T
        w = np.maximum(w, 1e-3)
        at_u, at_v = K[0, 0] * x / w + K[0, 2], K[1, 1] * y / w + K[1, 2]
        seen = (p[:, 2] > 0.1) & (at_u >= 0) & (at_v >= 0) & (at_u <= truth.shape[1] - 1) & (at_v <= truth.shape[0] - 1)
        if seen.sum() < 100:
            return T
        x, y, w = x[seen], y[seen], w[seen]
        there, gx, gy = (_at(image, at_u[seen], at_v[seen]) for image in (truth, slope_x, slope_y))
        error = grey[seen] - there
        error -= np.median(error)  # exposure changes
        fx, fy = gx * K[0, 0] / w, gy * K[1, 1] / w
        depth_part = -(fx * x + fy * y) / w
        J = np.stack((depth_part * y - fy * w, fx * w - depth_part * x, fy * x - fx * y, fx, fy, depth_part), -1)
        weight = np.minimum(1, HUBER / np.maximum(np.abs(error), 1e-6))
        A = (J * weight[:, None]).T @ J
        change = np.linalg.solve(A + 1e-6 * np.diag(np.diag(A)) + 1e-9 * np.eye(6), (J * weight[:, None]).T @ error)
        small = np.eye(4)
        small[:3, :3], small[:3, 3] = rotation_matrix(change[:3]), change[3:]
        T = small @ T
        if np.abs(change).max() < 1e-5:
            break
    return T


def _at(image: Grey, u: FloatArray, v: FloatArray) -> FloatArray:
    """Values (n,) of an image between its pixels."""
    rows = -(-len(u) // 1024)  # cv2.remap takes no more than 32767 values in a row
    padded = np.zeros((2, rows * 1024), np.float32)
    padded[:, : len(u)] = u, v
    grid = padded.reshape(2, rows, 1024)
    values = cv2.remap(image, grid[0], grid[1], cv2.INTER_LINEAR).ravel()[: len(u)]
    return np.asarray(values, np.float64)
