# SPDX-License-Identifier: Apache-2.0
"""Windows of a clip: a source image and the true images after it, in memory and at the size of the evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.protocol import Protocol, choose_sequences
from pixel4d_ros.geometry.rotations import rigid_inverse
from pixel4d_ros.two_view.reference_view import LONGEST_AGO, ReferenceView, chosen_views

M = TypeVar("M", bound=np.generic)
SQUEEZE = 2.0  # by which the shape of images may change: a size with height first changes it more


def clip_windows(clip: Clip, protocol: Protocol) -> Iterator[Clip]:
    """One clip per source: its first frame is the source, the others are the true later images."""
    return windows_of(clip, choose_sequences(clip.times, protocol), protocol)


def windows_of(clip: Clip, sequences: Sequence[NDArray[np.intp]], protocol: Protocol) -> Iterator[Clip]:
    """The given sequences of a clip, at the protocol's size; frames are read as they are needed."""
    height, width = clip.images.shape[1:3]
    size = protocol.image_size(width, height)
    for sequence in sequences:
        yield resized(cut(clip, sequence), size)


def cut(clip: Clip, sequence: NDArray[np.intp]) -> Clip:
    """The frames of one sequence as a clip in memory, without the stereo camera."""
    every = int(sequence[1] - sequence[0])
    return replace(clip, stereo=None).part(int(sequence[0]), int(sequence[-1]) + 1, every).in_memory()


def resized(clip: Clip, size: tuple[int, int] | None) -> Clip:
    """The clip with images, depth and object ids resampled to size (width, height); None leaves it as it is.

    Raises ValueError for a size that squeezes the images beyond recognition.
    """
    height, width = clip.images.shape[1:3]
    if size is None or size == (width, height):
        return clip
    squeeze = size[0] * height / (size[1] * width)
    if max(squeeze, 1 / squeeze) > SQUEEZE:
        raise ValueError(
            f"size {size[0]}x{size[1]} would squeeze images of {width}x{height}: width comes first, their shape stays"
        )
    camera = Camera(clip.K, width, height).resized(*size)
    images = np.stack([resize_image(image, size) for image in clip.images])
    depth = None if clip.depth is None else _nearest(np.asarray(clip.depth), size)
    ids = None if clip.object_ids is None else _nearest(clip.object_ids, size)
    return replace(clip, images=images, K=camera.K, depth=depth, object_ids=ids, stereo=None)


def _nearest(maps: NDArray[M], size: tuple[int, int]) -> NDArray[M]:
    """Maps (T, H, W) resampled without interpolation: means of returns and empty pixels are no depth, of ids no id."""
    return np.stack([cv2.resize(m, size, interpolation=cv2.INTER_NEAREST) for m in maps])


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image (H, W, 3) resampled to size (width, height); area averaging when it shrinks."""
    if (image.shape[1], image.shape[0]) == tuple(size):
        return image
    shrinks = size[0] < image.shape[1] or size[1] < image.shape[0]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8)


def reference_view(clip: Clip, window: Clip) -> ReferenceView | None:
    """An earlier frame of its clip, whose poses are metric, beside a window's source; None where none is near."""
    source = int(np.searchsorted(clip.times, window.times[0]))
    first = int(np.searchsorted(clip.times, window.times[0] - LONGEST_AGO))
    before = np.arange(source - 1, first - 1, -1)
    T_source_frame = rigid_inverse(clip.poses[source]) @ clip.poses[before]
    ages, size = window.times[0] - clip.times[before], (window.images.shape[2], window.images.shape[1])

    def view(k: int) -> ReferenceView:
        image = resize_image(np.asarray(clip.images[before[k]]), size)
        return ReferenceView(image, window.K, T_source_frame[k], -float(ages[k]))

    return chosen_views(view, ages, T_source_frame)


def moving_masks(clip: Clip) -> NDArray[np.bool_] | None:
    """Pixels (T, H, W) of moving objects in every frame of a window; None where the clip has no labels."""
    masks = [clip.moving_mask(t) for t in range(len(clip))]
    known = [mask for mask in masks if mask is not None]
    return np.stack(known) if len(known) == len(masks) else None
