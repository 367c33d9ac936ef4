"""What two frames of a posed clip with depth tell of motion: flow, the refined pose, and what these do not explain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import unproject
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.optical_flow import CheckedFlow, Flow, flow_both_ways, length, sample
from pixel4d_ros.rotations import FloatArray, rigid_inverse, rotation_matrix

Map = NDArray[np.float32]  # (H, W)
V = TypeVar("V")

NOISE = 1.1  # pixels of flow at 832 columns that are not worth believing
RELATIVE_NOISE = 0.12  # of the flow of a static world: what depth and poses get wrong
AGREEMENT = 1.0  # pixels at 832 columns by which there and back again may differ
DEPTH_SLACK = 0.05  # relative, of sensor depth
REACH = 0.02  # of the image's width: how far a depth value speaks for pixels around it
PRIOR = 1 / np.array([0.002, 0.002, 0.002, 0.02, 0.02, 0.02]) ** 2  # of pose errors between frames, rad and metres
EVIDENCE = 100  # independent pixels that all the flow is worth


@dataclass(frozen=True)
class Known:
    """Between which inverse depths each pixel of a frame lies; unknown where far is NaN."""

    near: Map  # (H, W) 1 / m
    far: Map  # (H, W) 1 / m


@dataclass(frozen=True)
class Residual:
    """How pixels of a frame differ from a static world in another frame."""

    static: Flow  # (H, W, 2) pixels: the static flow next to the measured one; NaN where no depth is near
    excess: Map  # (H, W) distance of the flow from it, noise = 1; NaN where that or the flow is unknown
    denial: Map  # (H, W) grey levels by which the images deny that the pixel is static; 0 where it could be


class FramePairs:
    """Flows and residuals between frames of a clip with depth, each computed once and the latest `kept` of them kept.

    Threads may share it.
    """

    def __init__(self, clip: Clip, kept: int = 32) -> None:
        self.clip, self.count = clip, len(clip)
        self.noise = clip.images.shape[2] / 832
        self.grey = _Once(self._grey, kept)
        self.known = _Once(self._known, kept)
        self.pose = _Once(self._pose, kept)
        self.residual = _Once(self._residual, kept)
        self._both = _Once(self._both_ways, kept)

    def flow(self, a: int, b: int) -> CheckedFlow:
        """Flow from frame a to frame b."""
        return self._both(a, b)[0] if a < b else self._both(b, a)[1]

    def depth(self, t: int) -> Map:
        """Sensor depth (H, W) of frame t, metres; 0 where unknown."""
        assert self.clip.depth is not None
        return self.clip.depth[t]

    def flow_noise(self, flow: Flow) -> Map:
        """Pixels (H, W) by which a flow that is measured may differ from that of a static world."""
        return np.asarray(NOISE * self.noise + RELATIVE_NOISE * length(flow), np.float32)

    def _grey(self, t: int) -> NDArray[np.uint8]:
        return np.asarray(cv2.cvtColor(self.clip.images[t], cv2.COLOR_RGB2GRAY), np.uint8)

    def _known(self, t: int) -> Known:
        return _inverse_depth(self.depth(t))

    def _both_ways(self, a: int, b: int) -> tuple[CheckedFlow, CheckedFlow]:
        return flow_both_ways(self.grey(a), self.grey(b), AGREEMENT * self.noise)

    def _pose(self, a: int, b: int) -> FloatArray:
        """T_b_a (4, 4) of the cameras, refined."""
        T = rigid_inverse(self.clip.poses[b]) @ self.clip.poses[a]
        return _refined(T, self.flow(a, b), self.depth(a), self.clip.K)

    def _residual(self, a: int, b: int) -> Residual:
        flow, agrees, known = self.flow(a, b).flow, self.flow(a, b).agrees, self.known(a)
        T = self.pose(a, b)
        near, far = static_flow(known.near, T, self.clip.K), static_flow(known.far, T, self.clip.K)
        span, beyond = near - far, flow - far
        along = (beyond[..., 0] * span[..., 0] + beyond[..., 1] * span[..., 1]) / np.maximum(length(span) ** 2, 1e-6)
        static = far + np.clip(along, 0, 1)[..., None] * span
        excess = length(flow - static) / self.flow_noise(static)
        excess[~agrees] = np.nan
        denial = np.where(excess > 1, self._mismatch(a, b, static) - self._mismatch(a, b, flow), 0)
        return Residual(static, excess, denial.astype(np.float32))

    def _mismatch(self, a: int, b: int, flow: Flow) -> Map:
        """Mean difference in grey levels around each pixel of frame a between it and frame b where the flow leads."""
        seen = sample(self.grey(b).astype(np.float32), np.nan_to_num(flow))
        size = max(3, int(4 * self.noise) * 2 + 1)
        return np.asarray(cv2.blur(np.abs(seen - self.grey(a)), (size, size)), np.float32)


class _Entry(Generic[V]):
    """A place for one value, and a lock for who makes it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.values: list[V] = []


class _Once(Generic[V]):
    """A function of frame numbers that is called once for each, whichever thread asks first."""

    def __init__(self, make: Callable[..., V], kept: int) -> None:
        self.make, self.kept = make, kept
        self.entries: dict[tuple[int, ...], _Entry[V]] = {}
        self.lock = Lock()

    def __call__(self, *key: int) -> V:
        with self.lock:
            entry = self.entries.setdefault(key, _Entry())
            while len(self.entries) > self.kept:
                del self.entries[next(iter(self.entries))]
        with entry.lock:
            if not entry.values:
                entry.values.append(self.make(*key))
        return entry.values[0]


def pixels(height: int, width: int) -> tuple[Map, Map]:
    """Columns and rows (H, W) of an image."""
    u, v = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return u, v


def static_flow(inverse_depth: Map, T: FloatArray, K: FloatArray) -> Flow:
    """Flow (H, W, 2) of static points at inverse depths (H, W), when the camera moves so that p_b = T p_a."""
    u, v = pixels(*inverse_depth.shape)
    turn, shift = (K @ T[:3, :3] @ np.linalg.inv(K)).astype(np.float32), (K @ T[:3, 3]).astype(np.float32)
    x, y, z = (turn[i, 0] * u + (turn[i, 1] * v + turn[i, 2]) + shift[i] * inverse_depth for i in range(3))
    z[~(z > 1e-3)] = np.nan
    return np.stack((x / z - u, y / z - v), -1)


def _inverse_depth(depth: Map) -> Known:
    """The range of inverse depth around each pixel; a pixel with no depth nearby has none."""
    reach = max(3, int(REACH * depth.shape[1] / 2) * 2 + 1)
    window = np.ones((reach, reach), np.uint8)
    inverse = np.where(depth > 0, 1 / np.maximum(depth, 1e-3), 0).astype(np.float32)
    # The laser sits above the camera and looks over the rims of near things: what is below may reach up to here.
    below = np.zeros((6 * (reach // 2) + 1, reach), np.uint8)
    below[2 * (reach // 2) :] = 1
    near = cv2.dilate(inverse, below)
    far = cv2.erode(np.where(depth > 0, inverse, np.float32(np.inf)), window)
    # Above the topmost values of the laser nothing tells which of two surfaces a pixel shows.
    above = np.zeros_like(window)
    above[: reach // 2 + 1] = 1
    unknown = cv2.dilate(inverse, above) == 0
    near[unknown] = far[unknown] = np.nan
    return Known(near * (1 + DEPTH_SLACK), far * (1 - DEPTH_SLACK))


def _refined(T: FloatArray, checked: CheckedFlow, depth: Map, K: FloatArray) -> FloatArray:
    """T_b_a refined so that the flow at pixels with depth is that of a static world: Gauss-Newton with Cauchy weights.

    Logged poses are some hundredths of a degree off from frame to frame, which looks like motion far away.
    """
    v, u = np.nonzero((depth > 0) & checked.agrees)
    if len(u) < 100:
        return T
    step = max(1, len(u) // 2000)
    u, v = u[::step], v[::step]
    pixel = K[0, 0] / 483  # a pixel of KITTI at 832 columns
    points = unproject(np.stack((u, v), -1), depth[v, u], K)
    target = np.stack((u, v), -1) + checked.flow[v, u]
    moved = np.zeros(6)  # by the refinement so far
    for _ in range(10):
        p = points @ T[:3, :3].T + T[:3, 3]
        ahead = p[:, 2] > 0.1
        x, y, w = p[ahead].T
        error = target[ahead] - np.stack((K[0, 0] * x / w + K[0, 2], K[1, 1] * y / w + K[1, 2]), -1)
        zero, one = np.zeros_like(x), np.ones_like(x)
        # Derivative of the projection by (rotation, translation) of a small motion put before T.
        du = np.stack((-x * y / w, w + x * x / w, -y, one, zero, -x / w), -1) * (K[0, 0] / w)[:, None]
        dv = np.stack((-w - y * y / w, x * y / w, x, zero, one, -y / w), -1) * (K[1, 1] / w)[:, None]
        weight = EVIDENCE / len(x) / (1 + (error / pixel) ** 2) / pixel**2
        J, r, s = np.concatenate((du, dv)), error.T.ravel(), weight.T.ravel()
        change = np.linalg.solve((J * s[:, None]).T @ J + np.diag(PRIOR), (J * s[:, None]).T @ r - PRIOR * moved)
        moved += change
        small = np.eye(4)
        small[:3, :3], small[:3, 3] = rotation_matrix(change[:3]), change[3:]
        T = small @ T
    return T
