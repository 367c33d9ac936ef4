# SPDX-License-Identifier: Apache-2.0
"""Where two images show motion: optical flow that no static scene of the known depth explains."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view import compiled
from pixel4d_ros.two_view.flow import CheckedFlow, Flow, Mask, fineness, length, sample

Map = NDArray[np.float32]  # (H, W)
Grey = NDArray[np.uint8]  # (H, W)

NOISE = 1.1  # pixels at 832 columns: error of the flow
RELATIVE_NOISE = 0.12  # of the flow of a static world: error from depth and poses
REACH = 0.02  # of the image's width: a depth value is used for pixels up to so far away
PRIOR = 1 / np.array([0.002, 0.002, 0.002, 0.02, 0.02, 0.02]) ** 2  # of pose errors between frames, rad and metres
SETTLED = 1e-5  # rad and metres: a refinement by less is the last
EVIDENCE = 100  # number of independent pixels that the whole flow counts as
# Grey levels by which the images must fit the flow better than a static world: in STRONG_SHARE of a moving patch, and
# in the rest of it.
STRONG_EVIDENCE, WEAK_EVIDENCE = 3.0, 1.0
STRONG_SHARE = 0.2
HOLE = 0.005  # of the image's pixels: smaller holes in a patch are filled
SMALLEST = 0.0004  # of the image's pixels: smaller patches are no object


@dataclass(frozen=True)
class Known:
    """Bounds of the inverse depth of each pixel of a frame; unknown where far is NaN."""

    near: Map  # (H, W) 1 / m
    far: Map  # (H, W) 1 / m


@dataclass(frozen=True)
class Residual:
    """How pixels of a frame differ from a static world in another frame."""

    static: Flow  # (H, W, 2) pixels: the static flow next to the measured one; NaN where no depth is near
    excess: Map  # (H, W) distance of the flow from it, noise = 1; NaN where that or the flow is unknown
    photometric_evidence: Map  # (H, W) grey levels that speak against a static pixel; 0 where it may be static


def reach_of(width: int) -> int:
    """REACH in an image of this width, as the size of a window in pixels."""
    return max(3, int(REACH * width / 2) * 2 + 1)


def flow_noise(flow: Flow) -> Map:
    """Standard deviation (H, W) in pixels of measured flow around the flow of a static world."""
    return np.asarray(NOISE * fineness(flow.shape[1]) + RELATIVE_NOISE * length(flow), np.float32)


def residual(checked: CheckedFlow, known: Known, T: FloatArray, K: FloatArray, here: Grey, there: Grey) -> Residual:
    """Compare flow between two images with that of a static world, for a camera that moves so that p_there = T p.

    At each pixel the static world may have any depth between the known bounds.
    """
    flow = checked.flow
    static: Flow = compiled.nearest_static_flow((known.near, known.far), *_seen_by(T, K), flow)
    excess = length(flow - static) / flow_noise(static)
    excess[~checked.agrees] = np.nan
    photometric_evidence = np.where(excess > 1, _mismatch(here, there, static) - _mismatch(here, there, flow), 0)
    return Residual(static, excess, photometric_evidence.astype(np.float32))


def _mismatch(here: Grey, there: Grey, flow: Flow) -> Map:
    """Mean difference in grey levels around each pixel of one image between it and another where the flow leads."""
    seen = sample(there.astype(np.float32), np.nan_to_num(flow))
    size = max(3, int(4 * fineness(here.shape[1])) * 2 + 1)
    return np.asarray(cv2.blur(np.abs(seen - here), (size, size)), np.float32)


def moving_patches(photometric_evidence: NDArray[np.float32]) -> Mask:
    """Patches (H, W) of moving pixels, with strong evidence in a share of each; specks removed, holes closed."""
    weak = (photometric_evidence > WEAK_EVIDENCE).astype(np.uint8)
    out = cv2.morphologyEx(weak, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    reach = reach_of(out.shape[1])
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    out = cv2.morphologyEx(out, cv2.MORPH_CLOSE, disc)
    _, holes, sizes, _ = cv2.connectedComponentsWithStats(1 - out, connectivity=4)
    out[(sizes[:, cv2.CC_STAT_AREA] < HOLE * out.size)[holes]] = 1
    count, labels, sizes, _ = cv2.connectedComponentsWithStats(out, connectivity=4)
    strong = np.bincount(labels[photometric_evidence > STRONG_EVIDENCE], minlength=count)
    keep = (sizes[:, cv2.CC_STAT_AREA] >= SMALLEST * out.size) & (strong >= STRONG_SHARE * sizes[:, cv2.CC_STAT_AREA])
    keep[0] = False
    patches: Mask = keep[labels]
    return patches


def pixels(height: int, width: int) -> tuple[Map, Map]:
    """Columns and rows (H, W) of an image."""
    u, v = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return u, v


def static_flow(inverse_depth: Map, T: FloatArray, K: FloatArray) -> Flow:
    """Flow (H, W, 2) of static points at inverse depths (H, W), when the camera moves so that p_b = T p_a."""
    u, v = pixels(*inverse_depth.shape)
    turn, shift = _seen_by(T, K)
    x, y, z = (turn[i, 0] * u + (turn[i, 1] * v + turn[i, 2]) + shift[i] * inverse_depth for i in range(3))
    z[~(z > 1e-3)] = np.nan
    return np.stack((x / z - u, y / z - v), -1)


def _seen_by(T: FloatArray, K: FloatArray) -> tuple[Map, Map]:
    """turn (3, 3) and shift (3,): a pixel p = (u, v, 1) of inverse depth d is seen at turn p + d shift after T."""
    return (K @ T[:3, :3] @ np.linalg.inv(K)).astype(np.float32), (K @ T[:3, 3]).astype(np.float32)


def refined_pose(T: FloatArray, checked: CheckedFlow, depth: Map, K: FloatArray) -> FloatArray:
    """T_b_a refined so that the flow at pixels with depth is that of a static world: Gauss-Newton with Cauchy weights.

    Logged poses are some hundredths of a degree off from frame to frame, which looks like motion far away.
    """
    points, ends = compiled.flow_of_points(checked.flow, checked.agrees, depth, K, 2000)
    if len(points) < 100:
        return T
    pixel = K[0, 0] / 483  # a pixel of KITTI at 832 columns
    return np.asarray(compiled.refined_motion(points, ends, K, T, pixel, PRIOR, EVIDENCE, SETTLED))
