# SPDX-License-Identifier: Apache-2.0
"""Whether the node's images move as odometry says, on pairs of images a second apart and, later, ten seconds.

As datasets/pose_agreement.py does for clips. A pair costs two optical flows at 420 pixels, about 30 ms of one core.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.lazy_frames import LazyFrames
from pixel4d_ros.datasets.moving_points import MovingPoints, moving_points
from pixel4d_ros.datasets.pose_agreement import AGO_S, PAIRS, pairs_doubt
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse

if TYPE_CHECKING:
    from pixel4d_ros.ros.reference_candidates import PastImage

FIRST_S, LATER_S = 1.0, 10.0  # between pairs: until there are PAIRS of them, and then
AGES_S = AGO_S / 4, 2 * AGO_S  # of the earlier image of a pair
FROZEN_M, FROZEN_IMAGES = 0.05, 3  # the camera's motion between two images, and images in a row that repeat
FROZEN = "images show the same while odometry moves: is the camera frozen?"


@dataclass(frozen=True)
class ComparedPair:
    """Points that move from an image back to an earlier one, and both cameras' poses in odometry."""

    points: MovingPoints
    now: PastImage
    before: PastImage
    depth: NDArray[np.float32] | None  # (H, W) metres, of the image


class PoseCheck:
    """Compares images with the poses that odometry gives for them. One thread uses it."""

    def __init__(self) -> None:
        self._pairs: deque[ComparedPair] = deque(maxlen=PAIRS)
        self._repeated = 0  # images in a row that show the same although the camera moves
        self._doubt = ""

    def repeats(self, now: PastImage, before: PastImage) -> bool:
        """Whether an image is the one before it although the camera has moved; counts them."""
        moved = np.linalg.norm((now.T_odometry_camera - before.T_odometry_camera)[:3, 3]) > FROZEN_M
        same = bool(moved and np.array_equal(now.image, before.image))
        self._repeated = self._repeated + 1 if same else self._repeated * (not moved)
        return same

    def doubt(self, now: PastImage, earlier: Sequence[PastImage], depth: NDArray[np.float32] | None) -> str:
        """What is doubtful about images and poses, given the images before this one, newest first; else empty."""
        if self._repeated >= FROZEN_IMAGES:
            return FROZEN
        if self._pairs and not _is_comparable(self._pairs[-1].now, now):
            self._pairs.clear()
            self._doubt = ""
        pause = FIRST_S if len(self._pairs) < PAIRS else LATER_S
        if self._pairs and now.stamp_ns - self._pairs[-1].now.stamp_ns < pause * 1e9:
            return self._doubt
        ages = [(now.stamp_ns - before.stamp_ns) * 1e-9 for before in earlier]
        fitting = [(abs(age - AGO_S), i) for i, age in enumerate(ages) if AGES_S[0] <= age <= AGES_S[1]]
        if fitting:
            self._compare(now, earlier[min(fitting)[1]], depth)
        return self._doubt

    def _compare(self, now: PastImage, before: PastImage, depth: NDArray[np.float32] | None) -> None:
        points = moving_points(now.image, before.image)
        if points is None or not points.shows_camera_motion((now.camera.K, _motion(now, before))):
            return
        self._pairs.append(ComparedPair(points, now, before, depth))
        if len(self._pairs) == PAIRS:
            self._doubt = pairs_doubt(*_as_clip(list(self._pairs)))


def _is_comparable(a: PastImage, b: PastImage) -> bool:
    """Whether two images are of one camera and their poses of one track of odometry."""
    return (
        a.inputs is b.inputs
        and (a.frame, a.odometry_origin, a.image.shape) == (b.frame, b.odometry_origin, b.image.shape)
        and a.stamp_ns < b.stamp_ns
        and np.array_equal(a.camera.K, b.camera.K)
    )


def _motion(now: PastImage, before: PastImage) -> FloatArray:
    """T_before_now (4, 4) of the camera."""
    return rigid_inverse(before.T_odometry_camera) @ now.T_odometry_camera


def _as_clip(compared: list[ComparedPair]) -> tuple[Clip, dict[tuple[int, int], MovingPoints]]:
    """A clip with the poses and depth of pairs, without their pixels, and the points by pair of its images."""
    images = [image for pair in compared for image in (pair.before, pair.now)]
    times = np.array([(image.stamp_ns - images[0].stamp_ns) * 1e-9 for image in images])
    height, width = images[0].image.shape[:2]
    nothing = np.zeros((height, width), np.float32)
    depths = [nothing if depth is None else depth for pair in compared for depth in (None, pair.depth)]
    clip = Clip(
        "images",
        LazyFrames(lambda i: images[i].image, len(images), (height, width, 3), np.uint8),
        images[0].camera.K,
        np.stack([image.T_odometry_camera for image in images]),
        times,
        LazyFrames(lambda i: depths[i], len(images), (height, width), np.float32),
    )
    return clip, {(2 * i + 1, 2 * i): pair.points for i, pair in enumerate(compared)}
