# SPDX-License-Identifier: Apache-2.0
"""Which pixels move, where nobody has labelled them: optical flow that depth and the camera's motion do not explain."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.frame_pairs import FramePairs
from pixel4d_ros.two_view.flow import Mask, sample
from pixel4d_ros.two_view.rigid_flow import moving_patches

GAPS = (1, 3)  # frames between the two images of a pair: one for what is fast, one for what is slow
OVERLAP = 0.4  # of a patch that must be a patch in a neighbouring frame too


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
    return moving_masks(FramePairs(clip), map)


def moving_masks(pairs: FramePairs, run: Callable[..., Iterable[Mask]]) -> Mask:
    """residual_moving_masks of frames whose flows are kept; run is map, or that of a thread pool."""
    raw = np.stack(list(run(lambda t: moving_patches(_denial(pairs, t)), range(pairs.count))))
    return np.stack(list(run(lambda t: _lasting(raw, pairs, t), range(pairs.count))))


def _denial(pairs: FramePairs, t: int) -> NDArray[np.float32]:
    """Grey levels (H, W) by which an earlier and a later frame deny that frame t stands still, for the better gap.

    At the ends of the clip two frames on the same side take their place.
    """
    out = np.zeros(pairs.clip.images.shape[1:3], np.float32)
    for gap in GAPS:
        sides = [s for s in (t - gap, t + gap) if 0 <= s < pairs.count]
        if len(sides) == 1:
            other = 2 * sides[0] - t
            sides += [other if 0 <= other < pairs.count else (sides[0] + t) // 2]
        if len(sides) == 2 and t not in sides:
            out = np.maximum(
                out,
                np.minimum(
                    pairs.residual(t, sides[0]).photometric_evidence, pairs.residual(t, sides[1]).photometric_evidence
                ),
            )
    return out


def _lasting(masks: Mask, pairs: FramePairs, t: int) -> Mask:
    """Only the patches of frame t that are found again, where the flow leads, in a frame before or after."""
    count, labels = cv2.connectedComponents(masks[t].astype(np.uint8), connectivity=4)
    share = np.zeros(count)
    for s in (t - 1, t + 1):
        if 0 <= s < len(masks) and count > 1:
            again = sample(masks[s].astype(np.float32), pairs.flow(t, s).flow) > 0.5
            found = np.bincount(labels[again], minlength=count) / np.bincount(labels.ravel(), minlength=count)
            share = np.maximum(share, found)
    keep = share >= OVERLAP
    keep[0] = False
    kept: Mask = keep[labels]
    return kept
