"""Which pixels move, where nobody has labelled them: optical flow that depth and the camera's motion do not explain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.rotations import FloatArray, rigid_inverse, rotation_matrix

Flow = NDArray[np.float32]  # (H, W, 2) pixels
Mask = NDArray[np.bool_]  # (H, W)

GAPS = (1, 3)  # frames between the two images of a pair: one for what is fast, one for what is slow
NOISE = 1.1  # pixels of flow at 832 columns that are not worth believing
RELATIVE_NOISE = 0.12  # of the flow of a static world: what depth and poses get wrong
DENIAL = 3.0  # grey levels by which the images must fit the flow better than a static world, somewhere in a patch
DOUBT = 1.0  # grey levels in the rest of the patch
SURE = 0.2  # share of a patch that must be denied by that much
HOLE = 0.005  # of the image's pixels: smaller holes in a patch are filled
AGREEMENT = 1.0  # pixels at 832 columns by which there and back again may differ
DEPTH_SLACK = 0.05  # relative, of sensor depth
REACH = 0.02  # of the image's width: how far a depth value speaks for pixels around it
SMALLEST = 0.0004  # of the image's pixels: smaller patches are no object
PRIOR = 1 / np.array([0.002, 0.002, 0.002, 0.02, 0.02, 0.02]) ** 2  # of pose errors between frames, rad and metres
EVIDENCE = 100  # independent pixels that all the flow is worth
OVERLAP = 0.4  # of a patch that must be a patch in a neighbouring frame too


@dataclass(frozen=True)
class _Known:
    """Between which inverse depths each pixel of a frame lies; unknown where far is NaN."""

    near: NDArray[np.float32]  # (H, W) 1 / m
    far: NDArray[np.float32]  # (H, W) 1 / m


def with_residual_masks(clip: Clip) -> Clip:
    """The clip with what moves by residual_moving_masks as its object 1; its true motion stays unknown."""
    ids = residual_moving_masks(clip).astype(np.uint8)
    return replace(clip, object_ids=ids, object_motions=None, object_centroids=None, stereo=None)


def residual_moving_masks(clip: Clip) -> Mask:
    """Pixels (T, H, W) that move on their own, found in images, sensor depth and poses alone.

    Per pair of frames: dense optical flow (DIS, T. Kroeger et al., ECCV 2016), kept where the flow back agrees; the
    pose of the pair refined on the flow at pixels with depth, robustly; and the distance of the flow from what any
    depth near the pixel would give a static point. A pixel moves when that distance is clearly above the noise both in
    an earlier and in a later frame (at the ends of the clip: in two later or earlier ones), and its patch is large
    enough and is there in a neighbouring frame too. Where no depth is near, nothing moves. Raises ValueError without
    depth or with fewer than 3 frames.
    """
    if clip.depth is None:
        raise ValueError(f"clip {clip.name} has no depth, without which moving pixels cannot be told from near ones")
    if len(clip) < 3:
        raise ValueError(f"clip {clip.name} has {len(clip)} frames: to see what moves takes three")
    pairs = _Pairs(clip)
    raw = np.stack([_patches(_denial(pairs, t)) for t in range(len(clip))])
    return _lasting(raw, pairs)


class _Pairs:
    """Flows and residuals between frames of a clip, each computed once."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.count = len(clip)
        self.noise = clip.images.shape[2] / 832
        self.grey: Callable[[int], NDArray[np.uint8]] = lru_cache(16)(self._grey)
        self.flow: Callable[[int, int], Flow] = lru_cache(32)(self._flow)
        self.known: Callable[[int], _Known] = lru_cache(16)(self._known)

    def _grey(self, t: int) -> NDArray[np.uint8]:
        return np.asarray(cv2.cvtColor(self.clip.images[t], cv2.COLOR_RGB2GRAY), np.uint8)

    def _flow(self, a: int, b: int) -> Flow:
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return np.asarray(dis.calc(self.grey(a), self.grey(b), None), np.float32)

    def _known(self, t: int) -> _Known:
        assert self.clip.depth is not None
        return _inverse_depth(self.clip.depth[t])

    def agrees(self, a: int, b: int) -> Mask:
        """Pixels of frame a whose flow to frame b leads back again."""
        there = self.flow(a, b)
        back = sample(self.flow(b, a), there)
        slack = AGREEMENT * self.noise + 0.05 * np.linalg.norm(there, axis=-1)
        agrees: Mask = np.linalg.norm(there + back, axis=-1) < slack
        return agrees

    def denial(self, a: int, b: int) -> NDArray[np.float32]:
        """By how many grey levels the images deny that pixels of frame a are static; 0 where their flow could be."""
        flow, known, agrees = self.flow(a, b), self.known(a), self.agrees(a, b)
        T = rigid_inverse(self.clip.poses[b]) @ self.clip.poses[a]
        assert self.clip.depth is not None
        T = _refined(T, flow, self.clip.depth[a], agrees, self.clip.K)
        near, far = static_flow(known.near, T, self.clip.K), static_flow(known.far, T, self.clip.K)
        span = near - far
        along = ((flow - far) * span).sum(-1) / np.maximum((span * span).sum(-1), 1e-6)
        static = far + np.clip(along, 0, 1)[..., None] * span
        off = np.linalg.norm(flow - static, axis=-1)
        noise = NOISE * self.noise + RELATIVE_NOISE * np.linalg.norm(static, axis=-1)
        worse = self.mismatch(a, b, static) - self.mismatch(a, b, flow)
        moves = agrees & np.isfinite(off) & (off > noise)
        return np.where(moves, worse, 0).astype(np.float32)

    def mismatch(self, a: int, b: int, flow: Flow) -> NDArray[np.float32]:
        """Mean difference in grey levels around each pixel of frame a between it and frame b where the flow leads."""
        seen = sample(self.grey(b).astype(np.float32), np.nan_to_num(flow))
        size = max(3, int(4 * self.noise) * 2 + 1)
        return np.asarray(cv2.blur(np.abs(seen - self.grey(a)), (size, size)), np.float32)


def _denial(pairs: _Pairs, t: int) -> NDArray[np.float32]:
    """Grey levels (H, W) by which an earlier and a later frame deny that frame t stands still, for the better gap.

    At the ends of the clip two frames on the same side take their place.
    """
    out = np.zeros(pairs.grey(t).shape, np.float32)
    for gap in GAPS:
        sides = [s for s in (t - gap, t + gap) if 0 <= s < pairs.count]
        if len(sides) == 1:
            other = 2 * sides[0] - t
            sides += [other if 0 <= other < pairs.count else (sides[0] + t) // 2]
        if len(sides) == 2 and t not in sides:
            out = np.maximum(out, np.minimum(pairs.denial(t, sides[0]), pairs.denial(t, sides[1])))
    return out


def _patches(denial: NDArray[np.float32]) -> Mask:
    """Patches of pixels that move: specks left out, gaps and holes closed, each surely moving somewhere."""
    out = cv2.morphologyEx((denial > DOUBT).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    reach = max(3, int(REACH * out.shape[1] / 2) * 2 + 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    out = cv2.morphologyEx(out, cv2.MORPH_CLOSE, disc)
    _, holes, sizes, _ = cv2.connectedComponentsWithStats(1 - out, connectivity=4)
    out[(sizes[:, cv2.CC_STAT_AREA] < HOLE * out.size)[holes]] = 1
    count, labels, sizes, _ = cv2.connectedComponentsWithStats(out, connectivity=4)
    sure = np.bincount(labels[denial > DENIAL], minlength=count)
    keep = (sizes[:, cv2.CC_STAT_AREA] >= SMALLEST * out.size) & (sure >= SURE * sizes[:, cv2.CC_STAT_AREA])
    keep[0] = False
    kept: Mask = keep[labels]
    return kept


def _lasting(masks: Mask, pairs: _Pairs) -> Mask:
    """Only the patches that are found again, where the flow leads, in a frame before or after."""
    out = np.zeros_like(masks)
    for t, mask in enumerate(masks):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
        share = np.zeros(count)
        for s in (t - 1, t + 1):
            if 0 <= s < len(masks):
                again = sample(masks[s].astype(np.float32), pairs.flow(t, s)) > 0.5
                found = np.bincount(labels[again], minlength=count) / np.bincount(labels.ravel(), minlength=count)
                share = np.maximum(share, found)
        keep = share >= OVERLAP
        keep[0] = False
        out[t] = keep[labels]
    return out


def sample(values: NDArray[np.float32], flow: Flow) -> NDArray[np.float32]:
    """values (H, W, ...) of another frame where the flow (H, W, 2) leads; 0 beyond the border."""
    height, width = flow.shape[:2]
    u, v = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.asarray(cv2.remap(values, u + flow[..., 0], v + flow[..., 1], cv2.INTER_LINEAR), np.float32)


def static_flow(inverse_depth: NDArray[np.float32], T: FloatArray, K: FloatArray) -> Flow:
    """Flow (H, W, 2) of static points at inverse depths (H, W), when the camera moves so that p_b = T p_a."""
    height, width = inverse_depth.shape
    u, v = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    rays = np.stack((u, v, np.ones_like(u)), -1) @ (T[:3, :3] @ np.linalg.inv(K)).T
    points = (rays + inverse_depth[..., None] * T[:3, 3]) @ K.T
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.where(points[..., 2:] > 1e-3, points[..., :2] / points[..., 2:], np.nan)
    return (moved - np.stack((u, v), -1)).astype(np.float32)


def _inverse_depth(depth: NDArray[np.float32]) -> _Known:
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
    return _Known(near * (1 + DEPTH_SLACK), far * (1 - DEPTH_SLACK))


def _refined(T: FloatArray, flow: Flow, depth: NDArray[np.float32], agrees: Mask, K: FloatArray) -> FloatArray:
    """T_b_a refined so that the flow at pixels with depth is that of a static world: Gauss-Newton with Cauchy weights.

    Logged poses are some hundredths of a degree off from frame to frame, which looks like motion far away.
    """
    v, u = np.nonzero((depth > 0) & agrees)
    if len(u) < 100:
        return T
    step = max(1, len(u) // 4000)
    u, v = u[::step], v[::step]
    z = depth[v, u].astype(np.float64)
    pixel = K[0, 0] / 483  # a pixel of KITTI at 832 columns
    points = np.stack((u, v, np.ones(len(u))), -1) @ np.linalg.inv(K).T * z[:, None]
    target = np.stack((u, v), -1) + flow[v, u]
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
