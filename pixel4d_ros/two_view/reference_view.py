# SPDX-License-Identifier: Apache-2.0
"""An earlier image and its pose: a second view, from which depth and object motion are estimated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import check_poses
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.two_view.flow import check_pair, shrunk

AGO, LONGEST_AGO = 0.2, 1.0  # seconds between the two images: as wanted, and at most
SLOW_AGO = 0.6  # seconds, of a camera that moves less than WIDEST in that time
WIDEST = 1.2  # metres that the camera moves between them, at most, if there is a choice
BASELINE = 3.0  # metres that it moves between the images by which depth is corrected, as wanted


@dataclass(frozen=True)
class ReferenceView:
    """An earlier image of the scene, for a Forecaster's `reference`.

    Raises ValueError for an image, K, pose or time that cannot be right.
    """

    image: NDArray[np.uint8]  # (h, w, 3) RGB
    K: FloatArray  # (3, 3) of this image
    T_source_reference: FloatArray  # (4, 4) pose of the earlier camera in the frame of the source image's camera
    time: float  # seconds relative to the source image, below 0
    older: ReferenceView | None = None  # an older image: velocities of what moves are measured over the time since
    wider: ReferenceView | None = None  # an image from farther away, by which depth is corrected; None: by this one

    def __post_init__(self) -> None:
        image, K = np.asarray(self.image), np.asarray(self.K, np.float64)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"a reference image must be (h, w, 3) uint8 RGB, got {image.shape} {image.dtype}")
        if K.shape != (3, 3) or not np.isfinite(K).all() or not (K[0, 0] > 0 and K[1, 1] > 0):
            raise ValueError(f"K of a reference image must be 3x3 with focal lengths above 0, got {K.tolist()}")
        if not (np.isfinite(self.time) and self.time < 0):
            raise ValueError(f"a reference image is taken before the image, at a time below 0, got {self.time}")
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "K", K)
        T = check_poses(np.asarray(self.T_source_reference)[None])[0]
        object.__setattr__(self, "T_source_reference", T)

    @property
    def T_reference_source(self) -> FloatArray:
        """(4, 4) maps points of the source image's frame to that of the earlier camera."""
        return rigid_inverse(self.T_source_reference)

    @property
    def seconds(self) -> float:
        """From the earlier image to the source image."""
        return -self.time

    @property
    def views(self) -> tuple[ReferenceView, ...]:
        """This view, and the older one, if there is one."""
        return (self,) if self.older is None else (self, self.older)

    @property
    def is_near(self) -> bool:
        """Whether the camera has moved so little that both images show much the same."""
        return float(np.linalg.norm(self.T_source_reference[:3, 3])) <= WIDEST

    def beside(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """An image (H, W, 3) RGB and the earlier one, (h, w, 3) each, at the size at which flow is measured.

        Raises ValueError for images of different sizes, or too small for flow.
        """
        check_pair(image.shape, self.image.shape)
        small = shrunk(image)
        return small, self.image if self.image.shape == small.shape else shrunk(self.image)


def view_for_motion(ages: FloatArray, distances: FloatArray) -> int | None:
    """Index of the best reference view for motion; None: none fits.

    ages (N,) in seconds and distances (N,) in metres that the camera has moved since, newest first. The age nearest to
    AGO among views up to WIDEST away, else the newest. Over less time noise dominates the flow. Over more time, or a
    wider baseline, the flow is longer than what can be measured.
    """
    fits = (ages > AGO / 4) & (ages <= LONGEST_AGO)
    if not fits.any():
        return None
    near = fits & (distances <= WIDEST)
    return int(np.where(near, np.abs(ages - AGO), np.inf).argmin() if near.any() else fits.argmax())


def view_for_velocity(ages: FloatArray, distances: FloatArray) -> int | None:
    """Index of the reference view over which velocities are measured, where it is not view_for_motion's; None: it is.

    ages (N,) and distances (N,) as there. What moves is found more safely over a short baseline, but its velocity is
    more accurate over a longer time: the age nearest to AGO at any distance, or nearest to SLOW_AGO up to WIDEST away,
    since near a slow camera traffic is slow, too.
    """
    chosen = view_for_motion(ages, distances)
    if chosen is None:
        return None
    usual = view_for_motion(ages, np.zeros_like(distances))
    slow = int(np.where((distances <= WIDEST) & (ages <= LONGEST_AGO), np.abs(ages - SLOW_AGO), np.inf).argmin())
    older = slow if distances[slow] <= WIDEST and ages[slow] > AGO else usual
    return None if older == chosen else older


def view_for_depth(ages: FloatArray, distances: FloatArray) -> int | None:
    """Index of the best reference view for depth, nearest to BASELINE away; None: none is young enough.

    ages (N,) and distances (N,) as for view_for_motion. Parallax grows with the distance, and so does what only one of
    the images shows.
    """
    young = ages <= LONGEST_AGO
    return int(np.where(young, np.abs(distances - BASELINE), np.inf).argmin()) if young.any() else None


def chosen_views(
    view: Callable[[int], ReferenceView], ages: FloatArray, T_source_reference: FloatArray
) -> ReferenceView | None:
    """The best of N earlier images as reference view for motion, and with it those for velocity and depth; None: none.

    view(k) makes that of image k. ages (N,) in seconds, newest first; T_source_reference (N, 4, 4).
    """
    distances = np.asarray(np.linalg.norm(T_source_reference[:, :3, 3], axis=1), np.float64)
    chosen = view_for_motion(ages, distances)
    if chosen is None:
        return None
    older, wider = (
        None if k is None or k == chosen else view(k)
        for k in (choose(ages, distances) for choose in (view_for_velocity, view_for_depth))
    )
    return replace(view(chosen), older=older, wider=wider)
