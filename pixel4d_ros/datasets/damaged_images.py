# SPDX-License-Identifier: Apache-2.0
"""Damaged images of a data set are left out, counted and named; where most are damaged, the data set is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.image_files import DatasetError
from pixel4d_ros.datasets.lazy_frames import LazyFrames

logger = logging.getLogger(__name__)
T = TypeVar("T")
MOST = 0.5  # share of the images
NAMED = 3  # damaged images in a warning


def without_damaged_images(clip: Clip) -> Clip:
    """The clip without the frames whose image, depth or stereo partner cannot be read; reads all of them.

    A warning counts and names them. Raises DatasetError if most frames are damaged.
    """
    cameras = (clip,) if clip.stereo is None else (clip, clip.stereo)
    found = [frames for camera in cameras for frames in (camera.images, camera.depth)]
    lazy = [frames for frames in found if isinstance(frames, LazyFrames)]

    def read(i: int) -> int:
        for frames in lazy:
            frames[i]
        return i

    kept = readable(clip.name, [partial(read, i) for i in range(len(clip))])
    return clip if len(kept) == len(clip) else clip.only(kept)


def readable(name: str, reads: Sequence[Callable[[], T]]) -> list[T]:
    """The results of those reads that raise no ValueError. name: of the data set.

    A warning counts and names the others. Raises DatasetError if they are most.
    """
    results, faults = [], []
    for read in reads:
        try:
            results.append(read())
        except ValueError as error:
            faults.append(str(error))
    if len(faults) > MOST * len(reads):
        raise DatasetError(f"{name}: {len(faults)} of {len(reads)} images cannot be read, the first: {faults[0]}")
    if faults:
        logger.warning("%s: %s", name, left_out(faults, len(reads)))
    return results


def left_out(faults: Sequence[str], count: int) -> str:
    """A line about the images of `count` that are left out: their number and the first of their faults."""
    more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
    return f"{len(faults)} of {count} images cannot be read and are left out: {'; '.join(faults[:NAMED])}{more}"
