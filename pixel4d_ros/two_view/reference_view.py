"""What a camera saw a moment before an image, and from where: it shows what moves, and how far things are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import check_poses
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.flow import check_pair, shrunk

AGO, LONGEST_AGO = 0.2, 1.0  # seconds between the two images: as wanted, and at most


@dataclass(frozen=True)
class ReferenceView:
    """An earlier image of the same camera, for a Forecaster's `earlier` or for depth_from_motion.

    Raises ValueError for what cannot be.
    """

    image: NDArray[np.uint8]  # (h, w, 3) RGB, of the image's size or as optical_flow.shrunk makes it
    T_earlier_camera: FloatArray  # (4, 4) maps points of the image's frame to that of the earlier camera
    seconds: float  # from the earlier image to the image

    def __post_init__(self) -> None:
        image = np.asarray(self.image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an earlier image must be (h, w, 3) uint8 RGB, got {image.shape} {image.dtype}")
        if not (np.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError(f"an earlier view lies above 0 seconds before the image, got {self.seconds}")
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "T_earlier_camera", check_poses(np.asarray(self.T_earlier_camera)[None])[0])

    def beside(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """An image (H, W, 3) RGB and the earlier one, (h, w, 3) each, at the size at which flow is measured.

        Raises ValueError for images of different sizes, or too small for flow.
        """
        small = shrunk(image)
        before = self.image if self.image.shape == small.shape else shrunk(self.image)
        check_pair(small, before)
        return small, before


def view_for_motion(ages: FloatArray) -> int | None:
    """Which of earlier views, that many seconds (N,) old, tells motion best: the one whose age is nearest to AGO.

    Of less time noise is too large a part, in more time what moves goes too far. None where none is of use.
    """
    usable = np.where((ages > AGO / 4) & (ages <= LONGEST_AGO), np.abs(ages - AGO), np.inf)
    return int(usable.argmin()) if np.isfinite(usable).any() else None
