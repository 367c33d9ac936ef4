# SPDX-License-Identifier: Apache-2.0
"""Clips: posed images with depth, boxes and object motion where known. All readers of data sets return them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import check_intrinsics, check_pinhole, check_poses
from pixel4d_ros.datasets.boxes import Box, box_mask
from pixel4d_ros.datasets.lazy_frames import LazyFrames
from pixel4d_ros.files import printable
from pixel4d_ros.geometry.rotations import FloatArray

SHORTEST_STEP_S = 2e-4  # between images: no camera of a vehicle takes 5000 a second
LONGEST_STEP_S = 30.0  # times of a camera in milliseconds are farther apart


@dataclass(frozen=True)
class Clip:
    """T posed images of one camera, in time order.

    World is any fixed frame; poses are T_world_camera of the optical frame. Moving objects, if known, are numbered 1..M
    through the clip; their motion is per frame, in that frame's optical frame. Images and depth are arrays, or
    LazyFrames, which read frames on access; np.asarray converts both to an array.
    """

    name: str
    images: NDArray[np.uint8] | LazyFrames[np.uint8]  # (T, H, W, 3) RGB
    K: FloatArray  # (3, 3) pixels
    poses: FloatArray  # (T, 4, 4) T_world_camera
    times: FloatArray  # (T,) seconds, increasing
    depth: NDArray[np.float32] | LazyFrames[np.float32] | None = None  # (T, H, W) metres along z, 0 where unknown
    object_ids: NDArray[np.uint8] | None = None  # (T, H, W), 0 = static
    object_motions: NDArray[np.float32] | None = None  # (T, M + 1, 4, 3): v, a, w, a_w in frame t's optical frame
    object_centroids: NDArray[np.float32] | None = None  # (T, M + 1, 3) metres, in frame t's optical frame
    stereo: Clip | None = None  # the other camera of a stereo pair: same times, its own K and poses
    boxes: tuple[tuple[Box, ...], ...] | None = None  # per frame, the labelled objects in view
    boxes_complete: bool = True  # False: objects without a box may move too
    metric: bool = True  # False: positions are in units of unknown length

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))
        object.__setattr__(self, "K", check_intrinsics(self.K))
        object.__setattr__(self, "poses", check_poses(self.poses))
        for name in self._per_frame():
            count = len(getattr(self, name))
            if count != len(self.images):
                raise ValueError(f"clip {self.name}: {len(self.images)} images but {count} {name}")
        height, width = self.images.shape[1:3]
        check_pinhole(self.K, width, height, f"clip {self.name}: K")
        if not np.isfinite(self.times).all() or (np.diff(self.times) <= 0).any():
            raise ValueError(f"clip {self.name}: its times must be finite numbers of seconds that increase")
        step = float(np.median(np.diff(self.times))) if len(self.times) > 1 else SHORTEST_STEP_S
        if not SHORTEST_STEP_S <= step <= LONGEST_STEP_S:
            raise ValueError(f"clip {self.name}: {step:.2g} s lie between its images: times must be seconds")

    def _per_frame(self) -> list[str]:
        """Names of the fields with one entry per frame."""
        kinds = (np.ndarray, LazyFrames, tuple)
        return [f.name for f in fields(self) if f.name != "K" and isinstance(getattr(self, f.name), kinds)]

    def __len__(self) -> int:
        return len(self.images)

    def part(self, start: int, stop: int | None, step: int = 1) -> Clip:
        """Frames start..stop (exclusive; None: the end) at every step-th frame; arrays and LazyFrames are views."""
        cut = {name: getattr(self, name)[start:stop:step] for name in self._per_frame()}
        stereo = None if self.stereo is None else self.stereo.part(start, stop, step)
        return replace(self, **cut, stereo=stereo)

    def only(self, indices: Sequence[int]) -> Clip:
        """The frames with these increasing indices; LazyFrames are views."""

        def chosen(values: Any) -> Any:
            if isinstance(values, LazyFrames):
                return values.only(indices)
            return tuple(values[i] for i in indices) if isinstance(values, tuple) else values[list(indices)]

        stereo = None if self.stereo is None else self.stereo.only(indices)
        return replace(self, **{name: chosen(getattr(self, name)) for name in self._per_frame()}, stereo=stereo)

    def in_memory(self) -> Clip:
        """The clip, and its stereo partner, with images and depth as arrays."""
        depth = None if self.depth is None else np.asarray(self.depth)
        stereo = None if self.stereo is None else self.stereo.in_memory()
        return replace(self, images=np.asarray(self.images), depth=depth, stereo=stereo)

    def moving_mask(self, t: int) -> NDArray[np.bool_] | None:
        """Pixels (H, W) of frame t on moving objects: by object_ids, else in a moving box; None if neither exists."""
        if self.object_ids is not None:
            moving: NDArray[np.bool_] = self.object_ids[t] > 0
            return moving
        if self.boxes is None:
            return None
        height, width = self.images.shape[1:3]
        mask = np.zeros((height, width), bool)
        for box in self.boxes[t]:
            if box.moving:
                mask |= box_mask(box, self.K, width, height)
        return mask
