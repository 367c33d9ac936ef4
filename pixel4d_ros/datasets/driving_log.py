# SPDX-License-Identifier: Apache-2.0
"""Driving logs (MCAP, rosbag2, rosbag1) as clips: images with the camera's poses in the odometry frame, and depth."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.lazy_frames import LazyFrames
from pixel4d_ros.datasets.log_frames import ImageIndex, index_images, indexed_messages, lazy_images
from pixel4d_ros.datasets.log_frames import image_messages as image_messages
from pixel4d_ros.geometry.camera_info import ImageCamera, is_rectified_topic
from pixel4d_ros.logs.calibration import (
    calibration_change,
    camera_frame,
    read_image_camera,
    stereo_baseline,
    warn_of_shared_frame,
)
from pixel4d_ros.logs.images import decode_depth, decode_image
from pixel4d_ros.logs.pose_track import PoseTrack, seconds, warn_of_scatter
from pixel4d_ros.logs.reader import LogError, LogReader
from pixel4d_ros.logs.streams import Streams, pick_streams
from pixel4d_ros.logs.transforms import Frames, read_frames

POSE_SLACK_NS = 200_000_000  # poses are extrapolated at most this far
MANY_BEYOND = 0.2  # share of the images before or after the poses
CLOCKS_APART_S = 0.5  # more than cameras and pipelines delay


def read_clip(path: str | Path, camera: str | None = None, rectified: bool | None = None) -> Clip:
    """A log as a Clip whose images and depth are decoded on access.

    camera: the image topic or its namespace (None: the most plausible one). Times are the images' stamps, s. Poses are
    odometry's, interpolated to the stamps, times base -> camera of tf; without odometry those of tf, or the first poses
    of the Path messages. Images outside the time of the poses are omitted. Depth is from a depth topic of the same
    camera; `stereo` is the right camera if each image has a partner within half a frame. Images and depth are
    undistorted, and K is that of the undistorted images. rectified: whether the images are rectified already (None: see
    read_image_camera). Raises LogError, also on access to a damaged image.
    """
    with LogReader(path) as log:
        streams = pick_streams(log, camera)
        others = (streams.depth, streams.right_image if streams.right_camera_info else None)
        indices = index_images(log, [streams.image.name, *(topic.name for topic in others if topic)])
        if streams.image.name not in indices:
            raise LogError(f"{log.path}: {streams.image.name} has no images, but its index claims some: copy it again")
        frames = read_frames(log, streams)
        frame = camera_frame(log, indices[streams.image.name].first, streams.camera_info)
        index = indices[streams.image.name].before(calibration_change(log, streams.camera_info, frame))
        if not len(index.stamps):
            raise LogError(f"{log.path}: {index.topic} has no image 0: it holds 0")
        camera_model = read_image_camera(
            log, streams.image, streams.camera_info, indexed_messages(log.path, index), rectified
        )
        warn_of_shared_frame(log, streams, frame)
        try:
            track, mount = frames.camera_track(frame)
        except LogError as error:
            raise LogError(f"{log.path}: {error}") from None
        keep = track.covers(index.stamps, POSE_SLACK_NS)
        if not keep.any():
            raise LogError(
                f"{log.path}: no image was taken while poses were logged: images are stamped {_span(index.stamps)},"
                f" poses {_span(track.stamps)}; record both with one clock"
            )
        _check_one_clock(log, index, track)
        _warn_of_left_out(log, index.stamps, keep, track)
        index = index[keep]
        images = lazy_images(log.path, index, _image_decoder(camera_model))
        depth = indices.get(streams.depth.name) if streams.depth else None
        try:
            return Clip(
                name=log.path.stem,
                images=images,
                K=camera_model.camera.K,
                poses=track.at(index.stamps) @ mount,
                times=seconds(index.stamps),
                depth=_read_depth(log, depth, index, camera_model, frame),
                stereo=_read_stereo(log, streams, indices, index, frames),
            )
        except LogError:
            raise
        except ValueError as error:
            raise LogError(f"{log.path}: {error}") from error


def _span(stamps: NDArray[np.int64]) -> str:
    return f"{stamps[0] * 1e-9:.1f} to {stamps[-1] * 1e-9:.1f} s"


def _check_one_clock(log: LogReader, index: ImageIndex, track: PoseTrack) -> None:
    """Warn where the stamps of images and poses lie differently to the times at which the messages were logged."""
    if not index.unstamped:
        warn_of_scatter(f"{log.path}: {index.topic}", index.stamps, index.logged)
    lag = 0 if index.unstamped else int(np.median(index.logged - index.stamps))
    apart = abs(lag - track.lag_ns) * 1e-9
    if apart > CLOCKS_APART_S:
        warnings.warn(
            f"{log.path}: images and poses of the same moment are stamped {apart:.1f} s apart, if they were logged at"
            " once: the poses may belong to other images; record both with one clock",
            stacklevel=2,
        )


def _warn_of_left_out(log: LogReader, stamps: NDArray[np.int64], keep: NDArray[np.bool_], track: PoseTrack) -> None:
    """Count the images that are left out: amid a pause of the poses, and many before or after them."""
    first, last = track.stamps[[0, -1]]
    left_out = stamps[~keep]
    beyond = int(((left_out < first) | (left_out > last)).sum())
    if beyond > MANY_BEYOND * len(stamps):
        warnings.warn(
            f"{log.path}: {beyond} of {len(stamps)} images are left out, as poses were logged from {first * 1e-9:.1f}"
            f" to {last * 1e-9:.1f} s only",
            stacklevel=3,
        )
    lost = left_out[(left_out > first) & (left_out < last)]
    if len(lost):
        warnings.warn(
            f"{log.path}: {len(lost)} images are left out, the first at {lost[0] * 1e-9:.1f} s, as there are no poses"
            " around them: did odometry pause, or is a part of its log missing?",
            stacklevel=3,
        )


def _image_decoder(camera_model: ImageCamera) -> Callable[[Any], NDArray[np.uint8]]:
    return lambda message: camera_model.image(decode_image(message))


def nearest(stamps: NDArray[np.int64], to: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Index of the nearest of the increasing stamps (T,) to each of `to`."""
    if len(stamps) == 1:
        return np.zeros(np.shape(to), np.int64)
    after = np.clip(np.searchsorted(stamps, to), 1, len(stamps) - 1)
    return np.where(np.asarray(to) - stamps[after - 1] <= stamps[after] - np.asarray(to), after - 1, after)


def half_period(stamps: NDArray[np.int64]) -> float:
    """Half the usual time between images, ns."""
    return float(np.median(np.diff(stamps))) / 2 if len(stamps) > 1 else 50e6


def _read_depth(
    log: LogReader, found: ImageIndex | None, index: ImageIndex, camera_model: ImageCamera, frame: str
) -> LazyFrames[np.float32] | None:
    """Depth (T, H, W) at the images' stamps, nearest within half a frame; None without registered depth.

    frame: that of the images; depth in another frame is not registered.
    """
    if found is None:
        return None
    size = camera_model.camera.height, camera_model.camera.width
    depth_frame = str(found.first.header.frame_id).strip("/")
    if frame and depth_frame and depth_frame != frame:
        warnings.warn(
            f"{log.path}: depth on {found.topic} is in frame {depth_frame!r}, the images in {frame!r}: it is ignored;"
            " record depth that is registered to the images",
            stacklevel=2,
        )
        return None
    rectified = is_rectified_topic(found.topic)
    decode = decode_depth if rectified else lambda message: camera_model.depth(decode_depth(message))
    depth = lazy_images(log.path, found, decode)
    if depth.shape[1:] != size:
        warnings.warn(
            f"{log.path}: depth {depth.shape[2]}x{depth.shape[1]} is not registered to the images and is ignored",
            stacklevel=2,
        )
        return None
    partner = nearest(found.stamps, index.stamps)
    paired = np.abs(found.stamps[partner] - index.stamps) <= half_period(index.stamps)
    if not paired.all():
        warnings.warn(
            f"{log.path}: {paired.sum()} of {len(paired)} images have depth on {found.topic}: its stamps must be within"
            " half the time between images",
            stacklevel=2,
        )
    if not paired.any():
        return None
    empty = np.zeros(size, np.float32)
    return LazyFrames(lambda i: depth[partner[i]] if paired[i] else empty, len(partner), size, np.float32)


def _read_stereo(
    log: LogReader, streams: Streams, indices: dict[str, ImageIndex], left: ImageIndex, frames: Frames
) -> Clip | None:
    """The right camera at the left images' stamps; None if there is none or an image has no partner."""
    if streams.right_image is None or streams.right_camera_info is None:
        return None
    found = indices[streams.right_image.name]
    frame = camera_frame(log, found.first, streams.right_camera_info)
    found = found.before(calibration_change(log, streams.right_camera_info, frame))
    if not len(found.stamps):
        return None
    camera_model = read_image_camera(
        log, streams.right_image, streams.right_camera_info, indexed_messages(log.path, found)
    )
    partner = nearest(found.stamps, left.stamps)
    if (np.abs(found.stamps[partner] - left.stamps) > half_period(left.stamps)).any():
        return None
    found = found[partner]
    track, mount = frames.camera_track(frame)
    if frame == camera_frame(log, left.first, streams.camera_info):
        # sensor_msgs/CameraInfo: both cameras of a stereo pair may name the left one's frame; P says how far apart.
        baseline = stereo_baseline(log, streams.right_camera_info)
        if not baseline > 0:
            warnings.warn(f"{log.path}: both cameras are in frame {frame!r}; the right one is ignored", stacklevel=2)
            return None
        mount = mount.copy()
        mount[:3, 3] += mount[:3, 0] * baseline
    images = lazy_images(log.path, found, _image_decoder(camera_model))
    return Clip(
        f"{log.path.stem}_right", images, camera_model.camera.K, track.at(found.stamps) @ mount, seconds(left.stamps)
    )
