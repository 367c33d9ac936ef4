# SPDX-License-Identifier: Apache-2.0
"""A plan for logs without one: the recorded poses of the next seconds as nav_msgs/Path."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.node import Node

from pixel4d_ros.logs.pose_track import PoseTrack
from pixel4d_ros.logs.reader import LogReader, RawMessage
from pixel4d_ros.logs.streams import Streams
from pixel4d_ros.logs.transforms import read_frames, stamp_ns
from pixel4d_ros.ros.messages.conversions import pose_message
from pixel4d_ros.ros.messages.headers import time_message

HORIZON_S = 3.0
STEP_S = 0.1


def driven_path(track: PoseTrack, start_ns: int) -> Path | None:
    """The base's poses from start_ns on, in the track's parent frame, with times; None at the end of the track."""
    stamps = start_ns + (np.arange(round(HORIZON_S / STEP_S) + 1) * STEP_S * 1e9).astype(np.int64)
    stamps = stamps[track.covers(stamps, slack_ns=0)]
    if len(stamps) < 2:
        return None
    path = Path()
    path.header.frame_id = track.parent
    path.header.stamp = time_message(start_ns)
    for stamp, pose in zip(stamps, track.at(stamps)):
        entry = PoseStamped(pose=pose_message(pose))
        entry.header.frame_id = track.parent
        entry.header.stamp = time_message(int(stamp))
        path.poses.append(entry)
    return path


class DrivenPlan:
    """Publishes the driven path before each image of a log. Raises LogError if the log has no poses."""

    def __init__(self, log: LogReader, streams: Streams, node: Node, topic: str) -> None:
        self._log = log
        self._image = streams.image.name
        self._publisher = node.create_publisher(Path, topic, 10)
        first = next(log.messages([self._image])).message
        self._track, _ = read_frames(log, streams).camera_track(first.header.frame_id.strip("/"))

    def publish_with(self, raw: RawMessage) -> None:
        """Publish the plan if this message is an image."""
        if raw.topic != self._image:
            return
        path = driven_path(self._track, stamp_ns(self._log.decode(raw).header) or raw.time_ns)
        if path is not None:
            self._publisher.publish(path)
