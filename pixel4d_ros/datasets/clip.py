"""Clip.

Posed images with whatever else a data set knows about them; every reader and the synthetic street make these.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import check_intrinsics, check_poses
from pixel4d_ros.rotations import FloatArray


@dataclass(frozen=True)
class Clip:
    """T posed images of one camera, in time order.

    World is any fixed frame; poses are T_world_camera of the optical frame. Moving objects, where known, are numbered
    1..M through the whole clip; their motion is given per frame in that frame's own optical frame.
    """

    name: str
    images: NDArray[np.uint8]  # (T, H, W, 3) RGB
    K: FloatArray  # (3, 3) pixels
    poses: FloatArray  # (T, 4, 4) T_world_camera
    times: FloatArray  # (T,) seconds, increasing
    depth: NDArray[np.float32] | None = None  # (T, H, W) metres along z, 0 where unknown
    object_ids: NDArray[np.uint8] | None = None  # (T, H, W), 0 = static
    object_motions: NDArray[np.float32] | None = None  # (T, M + 1, 4, 3): v, a, w, a_w in frame t's optical frame
    object_centroids: NDArray[np.float32] | None = None  # (T, M + 1, 3) metres, in frame t's optical frame
    stereo: Clip | None = None  # the other camera of a stereo pair: same times, its own K and poses

    def __post_init__(self) -> None:
        object.__setattr__(self, "K", check_intrinsics(self.K))
        object.__setattr__(self, "poses", check_poses(self.poses))
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray) and field.name != "K" and len(value) != len(self.images):
                raise ValueError(f"clip {self.name}: {len(self.images)} images but {len(value)} {field.name}")

    def __len__(self) -> int:
        return len(self.images)

    def part(self, start: int, stop: int, step: int = 1) -> Clip:
        """Frames start..stop (exclusive) at every step-th frame; arrays are views."""
        cut = {
            f.name: getattr(self, f.name)[start:stop:step]
            for f in fields(self)
            if isinstance(getattr(self, f.name), np.ndarray) and f.name != "K"
        }
        stereo = None if self.stereo is None else self.stereo.part(start, stop, step)
        return replace(self, **cut, stereo=stereo)
