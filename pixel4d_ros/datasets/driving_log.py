"""Driving logs (MCAP, rosbag2, rosbag1) as clips: images with the camera's poses in the odometry frame, and depth."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.camera import check_intrinsics
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.logs.images import decode_depth, decode_image
from pixel4d_ros.logs.reader import LogError, LogReader
from pixel4d_ros.logs.streams import Streams, pick_streams
from pixel4d_ros.logs.transforms import Frames, read_frames, seconds, stamp_ns
from pixel4d_ros.rotations import FloatArray

POSE_SLACK_NS = 200_000_000  # frames this far beyond the first and last known pose still get an extrapolated one


@dataclass(frozen=True)
class ImageSeries:
    """The pictures of one topic: stamps (T,) ns, strictly increasing; images (T, H, W, 3) RGB uint8."""

    stamps: NDArray[np.int64]
    images: NDArray[np.uint8]
    frame_id: str


def read_clip(path: str | Path, camera: str | None = None, start: int = 0, count: int | None = None) -> Clip:
    """A log, or its images start .. start + count, as a Clip.

    camera names the image topic or its namespace (None: the most plausible one). Times are the images' stamps, s. Poses
    are the odometry's, interpolated to the stamps, times base -> camera of tf; without odometry those of tf, or the
    first poses of the Path messages. Images outside the time of the poses are left out. Depth comes from a depth topic
    of the same camera; `stereo` from the right camera when each image has a partner within half a frame.
    Raises LogError.
    """
    with LogReader(path) as log:
        streams = pick_streams(log, camera)
        K = read_intrinsics(log, streams.camera_info.name if streams.camera_info else None, streams.image.name)
        frames = read_frames(log, streams)
        series = read_images(log, streams.image.name, start, count)
        try:
            track, mount = frames.camera_track(series.frame_id)
        except LogError as error:
            raise LogError(f"{log.path}: {error}") from None
        keep = track.covers(series.stamps, POSE_SLACK_NS)
        if not keep.any():
            raise LogError(f"{log.path}: no image was taken while poses were logged: check the stamps of both")
        series = ImageSeries(series.stamps[keep], series.images[keep], series.frame_id)
        return Clip(
            name=log.path.stem,
            images=series.images,
            K=K,
            poses=track.at(series.stamps) @ mount,
            times=seconds(series.stamps),
            depth=_read_depth(log, streams, series),
            stereo=_read_stereo(log, streams, series, frames),
        )


def read_intrinsics(log: LogReader, info_topic: str | None, image_topic: str) -> FloatArray:
    """K (3, 3) of a camera's first CameraInfo. Raises LogError when there is none, or it is not calibrated."""
    if info_topic is None:
        raise LogError(f"{log.path} has no CameraInfo for {image_topic}: record the camera's camera_info topic as well")
    info = next(log.messages([info_topic])).message
    try:
        return check_intrinsics(np.reshape(info.k, (3, 3)))
    except ValueError as error:
        raise LogError(f"{log.path}: {info_topic}: {error}") from error


def image_messages(log: LogReader, topic: str) -> Iterator[tuple[int, Any]]:
    """(stamp ns, message) of an image topic, in strictly increasing order; a missing stamp is the time of logging."""
    last = -1
    for logged in log.messages([topic]):
        stamp = stamp_ns(logged.message.header) or logged.time_ns
        if stamp > last:
            last = stamp
            yield stamp, logged.message


def read_images(log: LogReader, topic: str, start: int = 0, count: int | None = None) -> ImageSeries:
    """Images start .. start + count of a topic. Raises LogError when there are none, or they cannot be decoded."""
    stop = None if count is None else start + count
    stamps: list[int] = []
    images: list[NDArray[np.uint8]] = []
    frame_id = ""
    for index, (stamp, message) in enumerate(image_messages(log, topic)):
        if stop is not None and index >= stop:
            break
        if index < start:
            continue
        try:
            images.append(decode_image(message))
        except ValueError as error:
            raise LogError(f"{log.path}: {topic}, image {index}: {error}") from error
        if images[-1].shape != images[0].shape:
            raise LogError(f"{log.path}: {topic}: image {index} is not as large as the first: a clip needs one size")
        stamps.append(stamp)
        frame_id = message.header.frame_id.strip("/")
    if not images:
        raise LogError(f"{log.path}: {topic} has no image {start}: it holds {log.topics[topic].count}")
    return ImageSeries(np.array(stamps, np.int64), np.stack(images), frame_id)


def nearest(stamps: NDArray[np.int64], to: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Index of the nearest of the increasing stamps (T,) to each of `to`."""
    if len(stamps) == 1:
        return np.zeros(np.shape(to), np.int64)
    after = np.clip(np.searchsorted(stamps, to), 1, len(stamps) - 1)
    return np.where(np.asarray(to) - stamps[after - 1] <= stamps[after] - np.asarray(to), after - 1, after)


def half_period(stamps: NDArray[np.int64]) -> float:
    """Half the usual time between images, ns."""
    return float(np.median(np.diff(stamps))) / 2 if len(stamps) > 1 else 50e6


def _read_depth(log: LogReader, streams: Streams, series: ImageSeries) -> NDArray[np.float32] | None:
    """Depth (T, H, W) at the images' stamps, nearest within half a frame; None without depth in the images' pixels."""
    if streams.depth is None:
        return None
    depth = np.zeros(series.images.shape[:3], np.float32)
    closest = np.full(len(depth), half_period(series.stamps))
    for stamp, message in image_messages(log, streams.depth.name):
        i = int(nearest(series.stamps, stamp))
        if abs(stamp - series.stamps[i]) > closest[i]:
            continue
        try:
            metres = decode_depth(message)
        except ValueError as error:
            raise LogError(f"{log.path}: {streams.depth.name}: {error}") from error
        if metres.shape != depth.shape[1:]:
            warnings.warn(
                f"{log.path}: depth {metres.shape[1]}x{metres.shape[0]} is not in the images' pixels and is ignored",
                stacklevel=2,
            )
            return None
        closest[i], depth[i] = abs(stamp - series.stamps[i]), metres
    return depth


def _read_stereo(log: LogReader, streams: Streams, left: ImageSeries, frames: Frames) -> Clip | None:
    """The right camera at the left images' stamps; None where there is none or an image has no partner."""
    if streams.right_image is None or streams.right_camera_info is None:
        return None
    topic = streams.right_image.name
    K = read_intrinsics(log, streams.right_camera_info.name, topic)
    partners: dict[int, tuple[float, int, Any]] = {}
    for stamp, message in image_messages(log, topic):
        i = int(nearest(left.stamps, stamp))
        gap = abs(stamp - int(left.stamps[i]))
        if gap <= half_period(left.stamps) and (i not in partners or gap < partners[i][0]):
            partners[i] = (gap, stamp, message)
    if len(partners) < len(left.stamps):
        return None
    messages = [partners[i] for i in range(len(left.stamps))]
    try:
        images = np.stack([decode_image(message) for _, _, message in messages])
    except ValueError as error:
        raise LogError(f"{log.path}: {topic}: {error}") from error
    track, mount = frames.camera_track(messages[0][2].header.frame_id.strip("/"))
    stamps = np.array([stamp for _, stamp, _ in messages], np.int64)
    return Clip(f"{log.path.stem}_right", images, K, track.at(stamps) @ mount, seconds(left.stamps))
