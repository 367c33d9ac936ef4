# SPDX-License-Identifier: Apache-2.0
"""Patches of an image whose flow no static world explains: which may be objects, and how far these reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view import compiled
from pixel4d_ros.two_view.flow import Mask
from pixel4d_ros.two_view.image_pair import ImagePair, box_of, dilated, margin_of, pixels_of, widened
from pixel4d_ros.two_view.motion_evidence import Evidence, motion_evidence
from pixel4d_ros.two_view.rigid_flow import Grey, Map
from pixel4d_ros.two_view.two_images import Ids, TwoImages
from pixel4d_ros.two_view.velocity_fit import EXPLAINED, Fit, fitted_mover

REMOTE = 120.0  # metres: patches beyond it are wires, clouds and treetops; what drives there is an instance
LOWEST = 0.3  # metres, height of an added object: shadows and painted lines are lower
TAKEN = 0.3  # share of a patch's pixels on a predicted object, from which on the patch is part of that object
GAP = 0.06  # of the image's width: narrower gaps of unknown flow in an object are filled
AROUND = 3  # outlines of an instance are searched for so many times the error of its mask around it
OUTLINE = 0.2  # of a vehicle's pixels: a smaller patch beside it is its outline
THICK = 1.1  # depth ratio, at most, of what is joined to an object

Sizes = NDArray[np.int64]  # (h, w)


def candidates(
    pair: TwoImages, ids: Ids, judged: Mask | None = None, pool: Executor | None = None
) -> Iterator[tuple[Mask, Fit, Evidence]]:
    """Moving patches (h, w) that are no predicted object and may be one by shape, place and speed, the largest first.

    ids (h, w) are those of predicted objects, 0 elsewhere. Pixels that are judged already (h, w) are in no patch. The
    pool begins at once.
    """
    moving = pair.moving if judged is None else pair.moving & ~judged
    count, labels, sizes, _ = cv2.connectedComponentsWithStats(moving.view(np.uint8), connectivity=4)

    def judge(label: int) -> tuple[Mask, Fit, Evidence] | None:
        patch = np.asarray(labels == label)
        is_candidate, fit, evidence = judged_patch(pair.images, patch, ids)
        return (patch, fit, evidence) if is_candidate else None

    run = map if pool is None else pool.map
    return filter(None, run(judge, 1 + np.argsort(-sizes[1:count, cv2.CC_STAT_AREA])))


@njit(cache=True, nogil=True)
def judged_patch(pair: ImagePair, patch: Mask, ids: Ids) -> tuple[bool, Fit, Evidence]:
    """Whether a patch (h, w) may be an object that moves, its velocity and the evidence; ids (h, w): of candidates."""
    v, u = pixels_of(patch)
    taken = 0
    for i in range(len(v)):
        taken += ids[v[i], u[i]] > 0
    down = np.sort(compiled.unprojected(v, u, pair.depth, pair.K)[:, 1].copy())
    is_seen, fit = False, Fit(np.zeros(3), np.zeros((3, 3)), np.inf, np.inf)
    is_high = compiled.quantile(down, 0.95) - compiled.quantile(down, 0.05) >= LOWEST
    if taken / len(v) <= TAKEN and is_high and compiled.median(compiled.depths(v, u, pair.depth)) <= REMOTE:
        is_seen, fit = fitted_mover(pair, v, u)
    if not is_seen:
        return False, fit, Evidence(0.0, 0.0, 0.0, 0.0, 0.0)
    return True, fit, motion_evidence(pair, v, u, fit.velocity * pair.seconds)


def sizes_of(masks: Sequence[Mask], shape: tuple[int, ...]) -> Sizes:
    """The number of pixels (h, w) of the largest of the vehicles (h, w) that a pixel belongs to, 0: none."""
    sizes = np.zeros(shape, np.int64)
    for mask in masks:
        _add_size(sizes, mask)
    return sizes


@njit(cache=True, nogil=True)
def _add_size(sizes: Sizes, mask: Mask) -> None:
    """Enter the size of one vehicle (h, w)."""
    top, bottom, left, right = box_of(mask)
    size = mask.sum()
    for v in range(top, bottom):
        for u in range(left, right):
            if mask[v, u]:
                sizes[v, u] = max(sizes[v, u], size)


@njit(cache=True, nogil=True)
def is_outline(patch: Mask, sizes: Sizes) -> bool:
    """Whether a patch (h, w) is a small strip beside a vehicle, where what is behind comes and goes.

    sizes (h, w) are those of vehicles.
    """
    reach = round(GAP * patch.shape[1] / 4)
    top, bottom, left, right = widened(box_of(patch), reach, patch)
    own, near = patch[top:bottom, left:right].copy(), sizes[top:bottom, left:right]
    return bool(own.sum() < OUTLINE * np.where(dilated(own, reach), near, 0).max())


@njit(cache=True, nogil=True)
def with_outline(mask: Mask, moving: Mask, free: Mask, judged: Mask) -> Mask:
    """An instance's pixels (h, w), given its mask, with what moves beside it, is free and not judged yet (h, w) each.

    Marks as judged what is around it: there, too, patches are its outline, not another object.
    """
    own = box_of(mask)
    margin = margin_of(own)
    out: Mask = mask.copy()
    top, bottom, left, right = widened(own, AROUND * margin, mask)
    inside = mask[top:bottom, left:right].copy()
    beside, around = dilated(inside, margin), dilated(inside, AROUND * margin)
    for v in range(top, bottom):
        for u in range(left, right):
            out[v, u] |= beside[v - top, u - left] and moving[v, u] and free[v, u] and not judged[v, u]
            judged[v, u] |= around[v - top, u - left]
    return out


def grown(pair: TwoImages, patch: Mask, velocity: FloatArray) -> Mask:
    """The patch (h, w) with connected pixels that move alike at (3,) m/s, and with gaps of unknown flow filled."""
    reach = 2 * round(GAP * patch.shape[1] / 2) + 1
    top, bottom, left, right = widened(box_of(patch), reach, patch)  # nothing grows farther
    area = slice(top, bottom), slice(left, right)
    inner, depth = patch[area], pair.depth[area]
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    near = cv2.erode(np.where(inner, depth, np.float32(1e6)), disc)
    far = cv2.dilate(np.where(inner, depth, np.float32(0)), disc)
    closed = cv2.morphologyEx(inner.view(np.uint8), cv2.MORPH_CLOSE, disc)
    whole = _with_alike(pair.images, patch, velocity, (top, left), (near, far, closed))
    count, labels = cv2.connectedComponents(whole.view(np.uint8), connectivity=4)
    joins = np.zeros(count, bool)
    joins[labels[inner]] = True
    out = np.zeros_like(patch)
    out[area] = joins[labels]
    return out


@njit(cache=True, nogil=True)
def _with_alike(
    pair: ImagePair, patch: Mask, velocity: FloatArray, corner: tuple[int, int], around: tuple[Map, Map, Grey]
) -> Mask:
    """The part from a corner, row and column, on of a patch (h, w) with pixels beside it that may move as it does.

    around are of each pixel there the least and largest depth of the patch near it, and whether it is in a gap.
    """
    (top, left), (near, far, closed) = corner, around
    moves, stands = _seen_by(pair, velocity), _seen_by(pair, np.zeros(3))
    out: Mask = patch[top : top + len(near), left : left + near.shape[1]].copy()
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            v, u = top + i, left + j
            depth = pair.depth[v, u]
            if out[i, j] or not (near[i, j] / np.float32(THICK) < depth < far[i, j] * np.float32(THICK)):
                continue
            if pair.agrees[v, u]:
                out[i, j] = _difference(pair, moves, v, u) < EXPLAINED * _difference(pair, stands, v, u)
            else:
                out[i, j] = closed[i, j] > 0
    return out


@njit(cache=True, nogil=True)
def _seen_by(pair: ImagePair, velocity: FloatArray) -> tuple[FloatArray, FloatArray]:
    """turn (3, 3) and shift (3,): where a world of a velocity (3,) in m/s is seen, as rigid_flow.static_flow says."""
    R, t = np.ascontiguousarray(pair.T_there_here[:3, :3]), pair.T_there_here[:3, 3].copy()
    return pair.K @ R @ np.linalg.inv(pair.K), pair.K @ (t - R @ velocity * pair.seconds)


@njit(cache=True, nogil=True)
def _difference(pair: ImagePair, seen_by: tuple[FloatArray, FloatArray], v: int, u: int) -> float:
    """Length in pixels of the difference between the flow at a pixel and that of a world; NaN behind the camera."""
    turn, shift = seen_by
    inverse = 1 / max(pair.depth[v, u], np.float32(1e-3))
    x, y = compiled.static_end(u, v, inverse, turn, shift)
    return float(np.hypot(x - u - pair.flow[v, u, 0], y - v - pair.flow[v, u, 1]))
