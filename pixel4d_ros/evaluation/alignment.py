# SPDX-License-Identifier: Apache-2.0
"""Alignment of camera paths: scales found from depth or from the frames, where a clip's poses have no metric scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.depth_metrics import depth_ratio
from pixel4d_ros.evaluation.metrics import psnr
from pixel4d_ros.evaluation.windows import resized
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse

if TYPE_CHECKING:
    from pixel4d_ros.forecaster import Forecaster
    from pixel4d_ros.scene import DynamicGaussians

PROBED = 3  # windows from which a clip's scale is found
PROBED_FRAMES = 3  # of each window, spread over its later frames
PROBED_WIDTH = 208  # pixels: small images are fast to draw, and agree over a wider range of scales
COARSE = np.geomspace(1 / 64, 64, 17)  # scales that are tried first
ROUNDS = 3  # of refinement, each between the neighbours of the best scale so far
FINE = 3  # scales tried in each


def source_poses(window: Clip) -> FloatArray:
    """The window's camera path (T, 4, 4) T_source_camera."""
    return rigid_inverse(window.poses[0]) @ window.poses


def scaled_translation(poses: FloatArray, scale: float) -> FloatArray:
    """Poses (T, 4, 4) whose translations are multiplied by scale."""
    scaled: FloatArray = poses.copy()
    scaled[:, :3, 3] *= scale
    return scaled


def depth_scale(depth: NDArray[np.float32], window: Clip) -> float:
    """Median ratio of predicted depth (H, W) to the sensor's in the source image; NaN without sensor depth there."""
    return float("nan") if window.depth is None else depth_ratio(depth, window.depth[0])


def image_scale(forecaster: Forecaster, scene: DynamicGaussians, window: Clip) -> float:
    """The scale of one window's camera path: from sensor depth where there is some, else from its frames."""
    if window.depth is not None:
        height, width = window.images.shape[1:3]
        view = forecaster.views(scene, np.eye(4)[None], np.zeros(1), window.K, (width, height))
        return depth_scale(view.depth[0], window)
    return _search(forecaster, [(scene, window)])


def clip_scale(forecaster: Forecaster, windows: Sequence[Clip], seed: int = 0) -> float:
    """One scale for all camera paths of a clip, found in a few of its windows.

    The median over source images of predicted to sensor depth; without sensor depth the scale at which the later
    frames' mean PSNR is highest. Raises ValueError when depth is there but empty in all windows.
    """
    probes = [(forecaster.predict(w.images[0], w.K, 1, seed), w) for w in windows]
    if all(window.depth is None for _, window in probes):
        return _search(forecaster, probes)
    ratios = np.array([image_scale(forecaster, scene, window) for scene, window in probes])
    if not np.isfinite(ratios).any():
        raise ValueError("no source image has sensor depth to scale the camera path by: use --align given")
    return float(np.nanmedian(ratios))


def _search(forecaster: Forecaster, probes: Sequence[tuple[DynamicGaussians, Clip]]) -> float:
    """The scale with the highest mean PSNR over the probes' later frames: a coarse search, then finer ones."""
    probes = [(scene, _few_frames(window)) for scene, window in probes]
    scales, scores = COARSE, np.array([_agreement(forecaster, probes, s) for s in COARSE])
    for _ in range(ROUNDS):
        best = int(scores.argmax())
        low, high = scales[max(0, best - 1)], scales[min(len(scales) - 1, best + 1)]
        scales = np.geomspace(low, high, FINE + 2)
        scores = np.array([_agreement(forecaster, probes, s) for s in scales])
    return float(scales[scores.argmax()])


def _agreement(forecaster: Forecaster, probes: Sequence[tuple[DynamicGaussians, Clip]], scale: float) -> float:
    values = []
    for scene, window in probes:
        size = window.images.shape[2], window.images.shape[1]
        poses, times = source_poses(window)[1:], window.times[1:] - window.times[0]
        frames = forecaster.render(scene, scaled_translation(poses, scale), times, window.K, size)
        values += [psnr(frame, truth) for frame, truth in zip(frames, window.images[1:])]
    return float(np.mean(values))


def _few_frames(window: Clip) -> Clip:
    """The source image and some later frames of a window, small."""
    chosen = [0, *np.unique(np.linspace(1, len(window) - 1, PROBED_FRAMES).round().astype(int))]
    height, width = window.images.shape[1:3]
    images = np.asarray(window.images)[chosen]
    few = Clip(window.name, images, window.K, window.poses[chosen], window.times[chosen])
    return resized(few, (PROBED_WIDTH, max(16, round(height * PROBED_WIDTH / width)))) if width > PROBED_WIDTH else few
