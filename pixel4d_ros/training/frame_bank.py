# SPDX-License-Identifier: Apache-2.0
"""The frames of real clips with their labels, on the training device."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.training.flow import clip_flow, is_stills, no_flow
from pixel4d_ros.training.flow_teacher import FlowTeacher
from pixel4d_ros.training.given_labels import given_labels
from pixel4d_ros.training.motion_labels import MotionLabels, label_motion
from pixel4d_ros.training.stereo_depth import stereo_depth

CLIPS_AT_ONCE = max(4, min(16, os.cpu_count() or 1))  # decoded side by side
LEAST_ASPECT = 2.0  # width by height of a street camera's image; squarer ones are cut to squarer crops


@dataclass(frozen=True)
class Bank:
    """All images of one native size, one after another, on the device."""

    images: Tensor  # (F, 3, H, W) uint8
    depth: Tensor  # (F, H, W) float16 in the clip's units, 0 where unknown, negative where matched and not measured
    flow: Tensor  # (F, 2, h, w) float16 to a later frame, shares of width and height; NaN where unknown
    object_ids: Tensor  # (F, h, w) int8: 0 still, 1..M patches of the frame, -1 unknown
    velocities: NDArray[np.float32]  # (F, M + 1, 3) of the patches, m/s in the frame's camera; NaN where unknown
    centroids: NDArray[np.float32]  # (F, M + 1, 3) metres
    moving: NDArray[np.float32]  # (F, M + 1) 1 it moves, 0 it stands, NaN unknown


@dataclass(frozen=True)
class BankEntry:
    """Where a clip's frames lie in its bank."""

    clip: Clip  # poses, times, K and sizes; its images are those of the data set, not of the bank
    bank: int
    first: int  # index of its first frame
    first_right: int  # index of the other camera's first frame
    static: bool  # nothing moves on its own in it


def is_static(clip: Clip) -> bool:
    """Whether nothing moves on its own in a clip: a room, or photographs of a place outdoors; by its name."""
    return "indoor" in clip.name or "outdoor" in clip.name


def is_wide(clip: Clip) -> bool:
    """Whether a clip has a street camera's format."""
    return clip.images.shape[2] >= LEAST_ASPECT * clip.images.shape[1] and not is_static(clip)


def fill_banks(
    clips: list[Clip], device: torch.device, match: bool, teacher: FlowTeacher | None, images_only: bool = False
) -> tuple[list[Bank], list[BankEntry]]:
    """All frames of clips, a bank for each native size, and where each clip's are.

    With images_only, nothing is known of them but their images.
    """
    sizes = sorted({clip.images.shape[1:3] for clip in clips})
    parts: list[list[_ClipFrames]] = [[] for _ in sizes]
    # First the clips that this process labels, so that no two processes wait for each other.
    order = sorted(range(len(clips)), key=lambda i: teacher is not None and not teacher.is_own(i))
    with ThreadPoolExecutor(CLIPS_AT_ONCE) as pool:
        found = pool.map(lambda i: _measured(clips[i], match, teacher, i, images_only), order)
        text = "images" if images_only else "flow, depth and what moves"
        bar = tqdm(found, text, len(clips), leave=False, unit="clip")
        measured = dict(zip(order, bar))
    entries = []
    for i, clip in enumerate(clips):
        bank = sizes.index(clip.images.shape[1:3])
        first = sum(len(before.images) for before in parts[bank])
        parts[bank] += measured.pop(i)
        entries.append(BankEntry(clip, bank, first, first + len(clip), is_static(clip)))
    return [_bank(group, device) for group in parts], entries


@dataclass(frozen=True)
class _ClipFrames:
    """What a bank takes from a clip, on the host."""

    images: NDArray[np.uint8]
    depth: NDArray[np.float16]
    flow: NDArray[np.float16]
    labels: MotionLabels


def _measured(
    clip: Clip, match: bool, teacher: FlowTeacher | None, number: int, images_only: bool
) -> list[_ClipFrames]:
    """A clip with its flow, what moves in it, and depth: the sensor's, and where that has none what matching finds.

    Then the other camera's images, if there is one.
    """
    if images_only:
        return [_seen_only(replace(c, depth=None)) for c in (clip, clip.stereo) if c is not None]
    clip = clip.in_memory()  # each frame is read once
    known, labels = _depth(clip), _labels(clip)
    if teacher is None:
        found, flow = stereo_depth(clip) if match else None, clip_flow(clip)
        matched = None if found is None else found.astype(np.float16)
    else:
        taught = teacher.labels(clip, number)
        matched, flow = _without_movers(taught.depth, clip, labels) if match else None, taught.flow
    if matched is not None:
        known = np.where(known > 0, known, -matched)
    measured = _ClipFrames(np.asarray(clip.images), known, flow, labels)
    return [measured] if clip.stereo is None else [measured, _seen_only(clip.stereo)]


def _without_movers(depth: NDArray[np.float16], clip: Clip, labels: MotionLabels) -> NDArray[np.float16]:
    """Matched depth without what moves, where it comes from two moments: there it is wrong."""
    if clip.stereo is not None:
        return depth
    height, width = depth.shape[1:]
    rows = np.arange(height) * labels.ids.shape[1] // height
    columns = np.arange(width) * labels.ids.shape[2] // width
    for t, ids in enumerate(labels.ids):
        moves = (ids > 0) & (labels.moving[t][np.maximum(ids, 0)] != 0)
        if moves.any():
            depth[t][moves[rows][:, columns]] = 0
    return depth


def _labels(clip: Clip) -> MotionLabels:
    if is_static(clip):
        return MotionLabels.uniform(clip, 0)
    given = given_labels(clip)
    if given is not None:
        return given
    return MotionLabels.uniform(clip, -1) if is_stills(clip) else label_motion(clip)


def _seen_only(clip: Clip) -> _ClipFrames:
    """A clip that is never a source: only its images are used."""
    return _ClipFrames(np.asarray(clip.images), _depth(clip), no_flow(clip), MotionLabels.uniform(clip, -1))


def _bank(group: list[_ClipFrames], device: torch.device) -> Bank:
    labels = MotionLabels.join([frames.labels for frames in group])
    most = max(1, int(labels.ids.max()) + 1)
    images = torch.cat([torch.from_numpy(np.ascontiguousarray(frames.images)).to(device) for frames in group])
    flow = torch.from_numpy(np.concatenate([frames.flow for frames in group]))
    return Bank(
        images.permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(np.concatenate([frames.depth for frames in group])).to(device),
        flow.permute(0, 3, 1, 2).contiguous().to(device),
        torch.from_numpy(labels.ids).to(device),
        labels.velocities[:, :most],
        labels.centroids[:, :most],
        labels.moving[:, :most],
    )


def _depth(clip: Clip) -> NDArray[np.float16]:
    if clip.depth is None:
        return np.zeros(clip.images.shape[:3], np.float16)
    return np.asarray(clip.depth).astype(np.float16)
