# SPDX-License-Identifier: Apache-2.0
"""Whether the node's images move as odometry says: pairs of received images, a second apart and, later, ten seconds.

As datasets/pose_agreement.py does for clips. A pair is decoded and costs two optical flows at 420 pixels, about 30 ms
of one core. Where no sensor gives depth, the first NEEDED pairs cost a prediction each, which shows the unit of poses.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.lazy_frames import LazyFrames
from pixel4d_ros.datasets.moving_points import MovingPoints, moving_points
from pixel4d_ros.datasets.pose_agreement import AGO_S, PAIRS, Predict, pairs_doubt, predicted_depth, scale_doubt
from pixel4d_ros.datasets.pose_mistakes import OFFSETS_S
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.ros.inputs import RECENT_KEPT, Depth, InputFault, Inputs, Source, read_depth, some_bytes
from pixel4d_ros.ros.messages.headers import nanoseconds, time_message
from pixel4d_ros.ros.messages.images import rgb_pixels
from pixel4d_ros.ros.object_tracks import camera_in_odometry
from pixel4d_ros.ros.reference_candidates import PastImage, past_image
from pixel4d_ros.ros.transforms import EgoState

FIRST_S, LATER_S = 1.0, 8.0  # between pairs: until there are PAIRS of them, and then; odometry is kept for 10 s
NEEDED, MOST_PREDICTIONS = 4, 8  # pairs, and predictions for want of depth
AGES_S = AGO_S / 4, 2 * AGO_S  # of the earlier image of a pair
FROZEN_M = 0.05  # of the camera's motion while images repeat
FROZEN = "images show the same while odometry moves: is the camera frozen?"


@dataclass(frozen=True)
class ComparedPair:
    """Points that move from an image back to an earlier one, both with their poses in odometry."""

    points: MovingPoints
    now: PastImage
    before: PastImage
    depth: Depth | None  # (H, W) metres, of the image
    around: dict[int, FloatArray] = field(default_factory=dict)  # T_odometry_camera by stamp, ns, within OFFSETS_S


class PoseCheck:
    """Compares received images with the poses that odometry gives for them. One thread uses it."""

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self._pairs: deque[ComparedPair] = deque(maxlen=PAIRS)
        self._ratios: list[float] = []  # of distances by pairs to predicted depth, see MovingPoints.distance_ratio
        self._predictions = 0
        self._doubt = ""

    def doubt(self, inputs: Inputs, source: Source, ego: EgoState, depth_tolerance_s: float) -> str:
        """What is doubtful about the newest images and their poses; else empty.

        source: an image of the same camera, whose calibration is used.
        """
        recent = list(inputs.recent)
        if len(recent) < 2:
            return ""
        if len(recent) == RECENT_KEPT and _are_frozen(recent, ego):
            return FROZEN
        newest_ns = nanoseconds(recent[-1].header.stamp)
        if self._pairs and not self._is_due(inputs, newest_ns):
            return self._doubt
        ages = [(newest_ns - nanoseconds(message.header.stamp)) * 1e-9 for message in recent]
        fitting = [(abs(age - AGO_S), i) for i, age in enumerate(ages) if AGES_S[0] <= age <= AGES_S[1]]
        if fitting:
            now, before = (_decoded(message, source) for message in (recent[-1], recent[min(fitting)[1]]))
            if now is not None and before is not None:
                depth = _depth(inputs, now, depth_tolerance_s)
                if self._pairs:  # by now odometry has the poses after it
                    _add_poses_around(self._pairs[-1], source, ego)
                self._compare(past_image(now, ego, inputs), past_image(before, ego, inputs), depth)
        return self._doubt

    def _is_due(self, inputs: Inputs, newest_ns: int) -> bool:
        """Whether it is time for another pair."""
        last = self._pairs[-1].now
        pause_s = FIRST_S if len(self._pairs) < PAIRS else LATER_S
        return last.inputs is not inputs or newest_ns - last.stamp_ns >= pause_s * 1e9

    def _compare(self, now: PastImage | None, before: PastImage | None, depth: Depth | None) -> None:
        if now is None or before is None or not before.is_comparable_with(now):
            return
        if self._pairs and not self._pairs[-1].now.is_comparable_with(now):
            self._pairs.clear()
            self._ratios, self._predictions, self._doubt = [], 0, ""
        points = moving_points(now.image, before.image)
        T_before_now = rigid_inverse(before.T_odometry_camera) @ now.T_odometry_camera
        if points is None or not points.shows_camera_motion((now.camera.K, T_before_now)):
            return
        self._pairs.append(ComparedPair(points, now, before, depth))
        if depth is None and len(self._ratios) < NEEDED and self._predictions < MOST_PREDICTIONS:
            self._predictions += 1
            predicted = predicted_depth(self._predict(now.image, now.camera.K))
            ratio = points.distance_ratio((now.camera.K, T_before_now), predicted)
            self._ratios += [] if ratio is None else [ratio]
        if len(self._pairs) >= NEEDED:
            scale = scale_doubt(float(np.median(self._ratios))) if len(self._ratios) >= NEEDED else ""
            self._doubt = pairs_doubt(*_as_clip(list(self._pairs))) or scale


def _are_frozen(recent: list[Any], ego: EgoState) -> bool:
    """Whether images are all the same although odometry moves."""
    first, last = (ego.odometry_pose(nanoseconds(recent[i].header.stamp)) for i in (0, -1))
    if first is None or last is None or np.linalg.norm((last - first)[:3, 3]) < FROZEN_M:
        return False
    return len({some_bytes(message) for message in recent}) == 1


def _add_poses_around(pair: ComparedPair, source: Source, ego: EgoState) -> None:
    """Store the camera's poses somewhat before and after both images, which show whether images are late or early."""
    for image in (pair.before, pair.now):
        for offset in OFFSETS_S:
            for sign in (-1, 1):
                stamp_ns = image.stamp_ns + sign * round(offset * 1e9)
                header = Header(stamp=time_message(stamp_ns), frame_id=source.header.frame_id)
                pose = camera_in_odometry(replace(source, header=header), ego)
                if pose is not None:
                    pair.around[stamp_ns] = pose


def _decoded(message: Any, source: Source) -> Source | None:
    """Another image of a source's camera; None if it is damaged or of another frame or size."""
    try:
        rgb = rgb_pixels(message)
    except ValueError:  # reported when it is forecast from
        return None
    if message.header.frame_id not in ("", source.header.frame_id) or rgb.shape != source.rgb.shape:
        return None
    rgb = rgb if source.undistortion is None else source.undistortion.image(rgb)
    return replace(source, rgb=rgb, header=Header(stamp=message.header.stamp, frame_id=source.header.frame_id))


def _depth(inputs: Inputs, image: Source, tolerance_s: float) -> Depth | None:
    """The sensor's depth of an image; None if there is none, or it is unusable (reported when it is used)."""
    message = inputs.depths.nearest(image.stamp_ns, tolerance_s, 0.0)
    try:
        return None if message is None else read_depth(message, image, inputs.depths.is_rectified)
    except InputFault:
        return None


def _as_clip(compared: list[ComparedPair]) -> tuple[Clip, dict[tuple[int, int], MovingPoints]]:
    """A clip with poses and depth of pairs, without their pixels, and the points by pair of its images."""
    poses: dict[int, FloatArray] = {}
    for pair in compared:
        poses |= pair.around
    poses |= {image.stamp_ns: image.T_odometry_camera for pair in compared for image in (pair.before, pair.now)}
    stamps = sorted(poses)
    height, width = compared[0].now.image.shape[:2]
    nothing: NDArray[np.float32] = np.zeros((height, width), np.float32)
    depths = {pair.now.stamp_ns: pair.depth for pair in compared if pair.depth is not None}
    clip = Clip(
        "images",
        LazyFrames(lambda i: np.zeros((height, width, 3), np.uint8), len(stamps), (height, width, 3), np.uint8),
        compared[0].now.camera.K,
        np.stack([poses[stamp] for stamp in stamps]),
        np.array([(stamp - stamps[0]) * 1e-9 for stamp in stamps]),
        LazyFrames(lambda i: depths.get(stamps[i], nothing), len(stamps), (height, width), np.float32),
    )
    places = {stamp: i for i, stamp in enumerate(stamps)}
    return clip, {(places[pair.now.stamp_ns], places[pair.before.stamp_ns]): pair.points for pair in compared}
