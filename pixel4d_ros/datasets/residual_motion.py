# SPDX-License-Identifier: Apache-2.0
"""Moving pixels without labels: optical flow that depth and the camera's motion do not explain."""

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

GAPS = (1, 3)  # frames between the two images of a pair, for fast and slow objects
OVERLAP = 0.4  # share of a patch that must be in a patch of a neighbouring frame


def with_residual_masks(clip: Clip) -> Clip:
    """The clip with the pixels of residual_moving_masks as object 1, whose motion is unknown."""
    ids = residual_moving_masks(clip).astype(np.uint8)
    return replace(clip, object_ids=ids, object_motions=None, object_centroids=None, stereo=None)


def residual_moving_masks(clip: Clip) -> Mask:
    """Independently moving pixels (T, H, W), from images, sensor depth and poses.

    Per pair of frames: dense optical flow (DIS, T. Kroeger et al., ECCV 2016) with a forward-backward check; a robust
    refinement of the relative pose on the flow at pixels with depth; the distance of the flow from that of a static
    point at any depth near the pixel. A pixel moves if that distance is clearly above the noise both in an earlier and
    in a later frame (at the ends of the clip: in two later or earlier ones), and its patch is large enough and present
    in a neighbouring frame. Pixels without depth nearby do not move. Raises ValueError without depth or with fewer than
    3 frames.
    """
    if clip.depth is None:
        raise ValueError(f"clip {clip.name} has no depth: without it moving and near pixels look alike")
    if len(clip) < 3:
        raise ValueError(f"clip {clip.name} has {len(clip)} frames: motion needs three")
    return moving_masks(FramePairs(clip), map)


def moving_masks(pairs: FramePairs, run: Callable[..., Iterable[Mask]]) -> Mask:
    """residual_moving_masks with cached flows; run is map, or that of a thread pool."""
    raw = np.stack(list(run(lambda t: moving_patches(_photometric_evidence(pairs, t)), range(pairs.count))))
    return np.stack(list(run(lambda t: _confirmed(raw, pairs, t), range(pairs.count))))


def _photometric_evidence(pairs: FramePairs, t: int) -> NDArray[np.float32]:
    """Photometric evidence (H, W), grey levels, for motion in frame t: the smaller of an earlier and a later frame's.

    The larger value of all gaps counts. At the ends of the clip, both frames are on the same side.
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


def _confirmed(masks: Mask, pairs: FramePairs, t: int) -> Mask:
    """The patches of frame t that reappear along the flow in the previous or the next frame."""
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
