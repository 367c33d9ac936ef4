# SPDX-License-Identifier: Apache-2.0
"""Motion between two frames of a posed clip with depth: flow, refined pose, and residual flow."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.two_view.flow import AGREEMENT, CheckedFlow, fineness, flow_both_ways
from pixel4d_ros.two_view.rigid_flow import Known, Map, Residual, reach_of, refined_pose, residual

V = TypeVar("V")

DEPTH_SLACK = 0.05  # relative, of sensor depth


class FramePairs:
    """Flows and residuals between frames of a clip with depth; the latest `cached` of each are cached. Thread-safe."""

    def __init__(self, clip: Clip, cached: int = 32) -> None:
        self.clip, self.count = clip, len(clip)
        self.slack = AGREEMENT * fineness(clip.images.shape[2])
        self.grey = _Once(self._grey, cached)
        self.known = _Once(self._known, cached)
        self.pose = _Once(self._pose, cached)
        self.residual = _Once(self._residual, cached)
        self._both = _Once(self._both_ways, cached)

    def flow(self, a: int, b: int) -> CheckedFlow:
        """Flow from frame a to frame b."""
        return self._both(a, b)[0] if a < b else self._both(b, a)[1]

    def depth(self, t: int) -> Map:
        """Sensor depth (H, W) of frame t, metres; 0 where unknown."""
        assert self.clip.depth is not None
        return self.clip.depth[t]

    def _grey(self, t: int) -> NDArray[np.uint8]:
        return np.asarray(cv2.cvtColor(self.clip.images[t], cv2.COLOR_RGB2GRAY), np.uint8)

    def _known(self, t: int) -> Known:
        return _inverse_depth(self.depth(t))

    def _both_ways(self, a: int, b: int) -> tuple[CheckedFlow, CheckedFlow]:
        return flow_both_ways(self.grey(a), self.grey(b), self.slack)

    def _pose(self, a: int, b: int) -> FloatArray:
        """T_b_a (4, 4) of the cameras, refined."""
        T = rigid_inverse(self.clip.poses[b]) @ self.clip.poses[a]
        return refined_pose(T, self.flow(a, b), self.depth(a), self.clip.K)

    def _residual(self, a: int, b: int) -> Residual:
        return residual(self.flow(a, b), self.known(a), self.pose(a, b), self.clip.K, self.grey(a), self.grey(b))


class _Entry(Generic[V]):
    """One cached value and the lock of its computation."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.values: list[V] = []


class _Once(Generic[V]):
    """A thread-safe cache of a function of frame numbers."""

    def __init__(self, make: Callable[..., V], cached: int) -> None:
        self.make, self.cached = make, cached
        self.entries: dict[tuple[int, ...], _Entry[V]] = {}
        self.lock = Lock()

    def __call__(self, *key: int) -> V:
        with self.lock:
            entry = self.entries.setdefault(key, _Entry())
            while len(self.entries) > self.cached:
                del self.entries[next(iter(self.entries))]
        with entry.lock:
            if not entry.values:
                entry.values.append(self.make(*key))
        return entry.values[0]


def _inverse_depth(depth: Map) -> Known:
    """The range of inverse depth around each pixel; NaN without depth nearby."""
    reach = reach_of(depth.shape[1])
    window = np.ones((reach, reach), np.uint8)
    inverse = np.where(depth > 0, 1 / np.maximum(depth, 1e-3), 0).astype(np.float32)
    # The laser is above the camera and sees beyond the rims of near objects: depth below a pixel may apply to it.
    below = np.zeros((6 * (reach // 2) + 1, reach), np.uint8)
    below[2 * (reach // 2) :] = 1
    near = cv2.dilate(inverse, below)
    far = cv2.erode(np.where(depth > 0, inverse, np.float32(np.inf)), window)
    # Above the topmost laser points the surface of a pixel is ambiguous.
    above = np.zeros_like(window)
    above[: reach // 2 + 1] = 1
    unknown = cv2.dilate(inverse, above) == 0
    near[unknown] = far[unknown] = np.nan
    return Known(near * (1 + DEPTH_SLACK), far * (1 - DEPTH_SLACK))
