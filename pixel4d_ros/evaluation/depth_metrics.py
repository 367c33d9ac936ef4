# SPDX-License-Identifier: Apache-2.0
"""Depth metrics on numpy arrays: errors, also beside depth edges, and boundaries. Depth is along z, 0 = unknown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

DELTA1 = 1.25
EDGE_WINDOW, EDGE_RATIO = 5, 1.3  # a pixel is beside a depth edge where the depths in its window differ by this ratio
BOUNDARY_RATIOS = np.linspace(1.05, 1.25, 10)  # Depth Pro's thresholds; each weighs in proportion to its value
LEAST_NEIGHBOURS = 0.5  # share of the known pixels with a known right neighbour from which on truth is dense


@dataclass(frozen=True)
class DepthErrors:
    """Errors of one depth map over the pixels where the sensor has a value; NaN beside edges where there are none."""

    abs_rel: float  # mean of |predicted - true| / true
    delta1: float  # share of pixels with max(predicted / true, true / predicted) < 1.25
    pixels: int
    edge_abs_rel: float  # the same over the pixels beside depth edges
    edge_delta1: float


@dataclass(frozen=True)
class Boundaries:
    """Occluding contours of a predicted depth map against those of dense truth, 0..1 each."""

    f1: float
    precision: float
    recall: float


def valid_depth(predicted: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.bool_]:
    """Where (H, W) both depth maps hold a finite, positive value."""
    if predicted.shape != truth.shape:
        raise ValueError(f"depth maps of different size cannot be compared: {predicted.shape} and {truth.shape}")
    valid: NDArray[np.bool_] = np.isfinite(predicted) & np.isfinite(truth) & (predicted > 0) & (truth > 0)
    return valid


def depth_ratio(predicted: NDArray[Any], truth: NDArray[Any]) -> float:
    """Median over the valid pixels of predicted / true depth; NaN when no pixel is valid."""
    valid = valid_depth(predicted, truth)
    return float(np.median(predicted[valid] / truth[valid])) if valid.any() else float("nan")


def depth_errors(predicted: NDArray[Any], truth: NDArray[Any], median_scaled: bool = False) -> DepthErrors | None:
    """Errors of predicted against true depth (H, W), both in metres along z, 0 where unknown; None without any pixel.

    median_scaled first gives the prediction the truth's median, the usual protocol for depth without a metric scale
    (T. Zhou et al., "Unsupervised learning of depth and ego-motion from video", CVPR 2017).
    """
    valid = valid_depth(predicted, truth)
    if not valid.any():
        return None
    p, t = predicted[valid].astype(np.float64), truth[valid].astype(np.float64)
    if median_scaled:
        p = p * (np.median(t) / np.median(p))
    relative, close = np.abs(p - t) / t, np.maximum(p / t, t / p) < DELTA1
    beside = depth_edges(truth)[valid]
    edge_abs_rel, edge_delta1 = (float(v[beside].mean()) if beside.any() else float("nan") for v in (relative, close))
    return DepthErrors(float(relative.mean()), float(close.mean()), int(valid.sum()), edge_abs_rel, edge_delta1)


def depth_edges(depth: NDArray[Any]) -> NDArray[np.bool_]:
    """Known pixels (H, W) whose known neighbours within 5x5 differ by a factor of EDGE_RATIO or more."""
    known = np.isfinite(depth) & (depth > 0)
    window = np.ones((EDGE_WINDOW, EDGE_WINDOW), np.uint8)
    far = cv2.dilate(np.where(known, depth, 0).astype(np.float32), window)
    near = cv2.erode(np.where(known, depth, np.inf).astype(np.float32), window)
    return np.asarray(known & (far >= EDGE_RATIO * np.where(known, near, 0)))


def is_dense(truth: NDArray[Any]) -> bool:
    """Whether enough neighbouring pixels (H, W) are both known that depth boundaries can be measured."""
    known = np.isfinite(truth) & (truth > 0)
    return bool(known.any()) and float((known[:, 1:] & known[:, :-1]).sum() / known.sum()) >= LEAST_NEIGHBOURS


def boundaries(predicted: NDArray[Any], truth: NDArray[Any]) -> Boundaries | None:
    """Boundary precision, recall and F1 as Depth Pro measures them; None where truth is too sparse for it.

    A. Bochkovskii et al., "Depth Pro: sharp monocular metric depth in less than a second", ICLR 2025, section 4: a pair
    of neighbouring pixels is an occluding contour where the ratio of their depths exceeds a threshold t, in each of the
    four directions for itself; precision and recall are means over the directions, F1 is taken at each of ten t from
    1.05 to 1.25 and averaged with weights proportional to t. Here only pairs count whose depths are both known in
    truth. The scale of the prediction does not matter.
    """
    if not is_dense(truth):
        return None
    known = valid_depth(predicted, truth)
    p, t = (np.log(np.where(known, depth, 1.0).astype(np.float64)) for depth in (predicted, truth))
    steps = []  # per direction the log ratios of predicted and true neighbours whose depths are known
    for axis in (0, 1):
        after, before = (np.take(known, range(*r), axis) for r in ((1, known.shape[axis]), (0, known.shape[axis] - 1)))
        pairs = after & before
        differences = [np.diff(depth, axis=axis)[pairs] for depth in (p, t)]
        steps += [(differences[0], differences[1]), (-differences[0], -differences[1])]
    scores = np.array([_at_threshold(steps, float(np.log(ratio))) for ratio in BOUNDARY_RATIOS])
    f1, precision, recall = BOUNDARY_RATIOS / BOUNDARY_RATIOS.sum() @ scores
    return Boundaries(float(f1), float(precision), float(recall))


def _at_threshold(
    steps: list[tuple[NDArray[np.float64], NDArray[np.float64]]], limit: float
) -> tuple[float, float, float]:
    """F1, precision and recall at one threshold of the log ratio."""
    found, true, both = (
        np.array([np.count_nonzero(mask) for mask in masks])
        for masks in zip(*((p > limit, t > limit, (p > limit) & (t > limit)) for p, t in steps), strict=True)
    )
    precision, recall = (float(np.mean(both / np.maximum(count, 1))) for count in (found, true))
    return (2 * precision * recall / (precision + recall) if precision + recall else 0.0), precision, recall
