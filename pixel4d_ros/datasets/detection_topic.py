# SPDX-License-Identifier: Apache-2.0
"""Labelled 3D boxes of a log: from vision_msgs/Detection3DArray messages, whose definition MCAP contains.

A detection's `bbox` is centre (pose; x forward, y left, z up) and size (length, width, height) in the frame of the
array's header, `id` the name of its track, the first result's `class_id` its class. Frames are those of tf, or the
parent frame of the odometry.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.box_mistakes import gaps_doubt, unmatched_doubt
from pixel4d_ros.datasets.boxes import Box, is_moving
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.logs.reader import LogError, LogReader
from pixel4d_ros.logs.streams import pick_streams
from pixel4d_ros.logs.transforms import Frames, pose_matrix, read_frames, stamp_ns

logger = logging.getLogger(__name__)
DETECTIONS = "vision_msgs/msg/Detection3DArray"
Labels = dict[int, list[tuple[str, str, FloatArray, FloatArray]]]  # by frame: track, class, T_camera_box, size


def read_detections(
    path: Path, times: FloatArray, poses: FloatArray, slack: float
) -> tuple[tuple[Box, ...], ...] | None:
    """Boxes of images at times (T,) s with poses (T, 4, 4) in the odometry's frame; None without such messages.

    Messages belong to the image whose stamp is at most slack seconds away. A track moves if it spans more than a
    metre in the world. Detections that have no id of their own, or are of no image, are ignored with a warning. Raises
    LogError for frames without a transform and for messages that cannot be read.
    """
    with LogReader(path) as log:
        topics = [topic.name for topic in log.topics.values() if topic.type == DETECTIONS and topic.count]
        if not topics:
            return None
        if len(topics) > 1:
            raise LogError(f"{path} has detections on {' and '.join(topics)}: keep one of the topics")
        labels: Labels = defaultdict(list)
        known = np.zeros(len(times), bool)  # images with a message, be it empty
        stamps: list[float] = []  # of messages with detections
        world = _world(read_frames(log, pick_streams(log)), path)
        for logged in log.messages(topics):
            stamp = stamp_ns(logged.message.header) or logged.time_ns
            if logged.message.detections:
                stamps.append(stamp * 1e-9)
            i = int(np.abs(times - stamp * 1e-9).argmin())
            if abs(times[i] - stamp * 1e-9) > slack:
                continue
            T_camera_frame = rigid_inverse(poses[i]) @ world(logged.message.header.frame_id.strip("/"), stamp)
            known[i] = True
            labels[i] += [_detection(d, T_camera_frame, path) for d in logged.message.detections]
    for doubt in (unmatched_doubt(np.array(stamps), times, slack), gaps_doubt(known)):
        if doubt:
            logger.warning("%s: %s: %s", path, topics[0], doubt)
    if any(len({name for name, *_ in frame}) < len(frame) for frame in labels.values()):
        logger.warning("%s: detections on %s are ignored, as several of a message have one id", path, topics[0])
        return None
    return _boxes(labels, poses) if any(labels.values()) or not stamps else None


def _world(frames: Frames, path: Path) -> Callable[[str, int], FloatArray]:
    """T_world_frame of a frame at a stamp, ns."""

    def pose(frame: str, stamp: int) -> FloatArray:
        if frames.odometry is not None and frame == frames.odometry.parent:
            return np.eye(4)
        try:
            track, mount = frames.camera_track(frame)
        except LogError as error:
            raise LogError(f"{path}: detections in the frame {frame}: {error}") from None
        stamps: NDArray[np.int64] = np.array([stamp], np.int64)
        return np.asarray(track.at(stamps)[0] @ mount)

    return pose


def _detection(message: Any, T_camera_frame: FloatArray, path: Path) -> tuple[str, str, FloatArray, FloatArray]:
    try:
        T = T_camera_frame @ pose_matrix(message.bbox.center.position, message.bbox.center.orientation)
        size = np.array([message.bbox.size.x, message.bbox.size.y, message.bbox.size.z], np.float64)
        label = message.results[0].hypothesis.class_id if message.results else "unknown"
        return str(message.id), str(label), T, size
    except (AttributeError, ValueError) as error:
        raise LogError(f"{path}: a detection cannot be read: {error}") from error


def _boxes(labels: Labels, poses: FloatArray) -> tuple[tuple[Box, ...], ...]:
    """Boxes by frame; tracks are numbered in the order of their names."""
    places: dict[str, list[FloatArray]] = defaultdict(list)
    for i, frame in labels.items():
        for name, _, T, _ in frame:
            places[name].append((poses[i] @ T)[:3, 3])
    moving = {name: is_moving(np.stack(points)) for name, points in places.items()}
    numbers = {name: i for i, name in enumerate(sorted(places), 1)}
    return tuple(
        tuple(Box(numbers[name], label, T, size, moving[name]) for name, label, T, size in labels.get(i, []))
        for i in range(len(poses))
    )
