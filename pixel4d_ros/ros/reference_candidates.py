# SPDX-License-Identifier: Apache-2.0
"""Earlier images of the camera with their poses, as reference images."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.ros.inputs import Inputs, Source
from pixel4d_ros.ros.object_tracks import camera_in_odometry
from pixel4d_ros.ros.transforms import EgoState
from pixel4d_ros.two_view.reference_view import LONGEST_AGO, ReferenceView, chosen_views

IMAGES_KEPT = 10
APART = 0.12  # seconds over which three images need not be kept, so that IMAGES_KEPT reach back far enough
WIDEST_KEPT = 1280  # pixels: of a usual camera, the predictor sees no more


@dataclass(frozen=True)
class PastImage:
    """An image with its camera and pose, and the inputs of that time."""

    image: NDArray[np.uint8]  # (h, w, 3) RGB
    camera: Camera
    frame: str
    stamp_ns: int
    odometry_origin: tuple[str, int]
    T_odometry_camera: FloatArray  # (4, 4)
    inputs: Inputs

    def is_comparable_with(self, later: PastImage, longest_s: float = math.inf) -> bool:
        """Whether a later image, by longest_s seconds at most, is of the same camera and origin of odometry."""
        return (
            self.inputs is later.inputs  # else time jumped back in between
            and 0 < (later.stamp_ns - self.stamp_ns) * 1e-9 <= longest_s
            and (self.frame, self.odometry_origin) == (later.frame, later.odometry_origin)
            and self.image.shape == later.image.shape
            and np.array_equal(self.camera.K, later.camera.K)
        )


@dataclass(frozen=True)
class ReferenceCandidates:
    """An image and the earlier images it can be compared with, newest first."""

    now: PastImage
    images: list[PastImage]

    def reference(self) -> ReferenceView | None:
        """What the image is compared with; None if no image has the right age."""
        poses = np.array([image.T_odometry_camera for image in self.images]).reshape(-1, 4, 4)
        T_source_reference = rigid_inverse(self.now.T_odometry_camera) @ poses
        ages = np.array([(self.now.stamp_ns - image.stamp_ns) * 1e-9 for image in self.images])

        def view(k: int) -> ReferenceView:
            return ReferenceView(self.images[k].image, self.images[k].camera.K, T_source_reference[k], -float(ages[k]))

        return chosen_views(view, ages, T_source_reference)


class ImageHistory:
    """The newest images with their poses."""

    def __init__(self) -> None:
        self._images: deque[PastImage] = deque(maxlen=IMAGES_KEPT)

    def candidates(self, source: Source, ego: EgoState, inputs: Inputs) -> ReferenceCandidates | None:
        """Store an image and return its reference candidates; None without odometry at its time.

        An image that repeats the one before has none: they would show a camera that stands.
        """
        now = past_image(source, ego, inputs)
        if now is None:
            return None
        images = [image for image in reversed(self._images) if image.is_comparable_with(now, LONGEST_AGO)]
        if not self._images or self._images[-1].stamp_ns != now.stamp_ns:
            if len(self._images) > 1 and 0 < now.stamp_ns - self._images[-2].stamp_ns < APART * 1e9:
                self._images.pop()
            self._images.append(now)
        if images and np.array_equal(now.image, images[0].image):
            images = []
        return ReferenceCandidates(now, images)


def past_image(source: Source, ego: EgoState, inputs: Inputs) -> PastImage | None:
    """The stored form of an image; None if odometry has no pose at its time."""
    pose = camera_in_odometry(source, ego)
    if pose is None:
        return None
    width, height = min(source.size[0], WIDEST_KEPT), source.size[1]
    height = round(height * width / source.size[0])
    image = np.asarray(cv2.resize(source.rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    camera = source.camera.resized(width, height)
    return PastImage(image, camera, source.header.frame_id, source.stamp_ns, ego.odometry.origin, pose, inputs)
