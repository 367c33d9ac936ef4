# SPDX-License-Identifier: Apache-2.0
"""The camera of a log's images, from its CameraInfo, as in the node."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from pixel4d_ros.geometry.camera_info import (
    AlreadyRectifiedError,
    ImageCamera,
    frame_mismatch,
    is_rectified_topic,
    read_camera_info,
)
from pixel4d_ros.logs.images import decode_image, first_decoded, picture_doubt
from pixel4d_ros.logs.reader import LogError, LogReader, RawMessage, Topic, raw_frame_id, raw_stamp_ns
from pixel4d_ros.logs.streams import Streams, is_picture, own_camera_info

logger = logging.getLogger(__name__)
FIRST_INFOS = 100  # messages: cameras that share a topic alternate
STAMP_END = 12  # of the bytes of a message with a header
SAME_PIXELS, SAME_NUMBERS = 0.5, 1e-3  # of K and P, and of D and R: within these, two calibrations are one


@dataclass(frozen=True)
class CalibrationChange:
    """The first message of another calibration."""

    stamp_ns: int  # 0: it has none
    logged_ns: int


def camera_frame(log: LogReader, message: Any, info: Topic | None) -> str:
    """The frame of an image message: its own, else that of its CameraInfo, else ""."""
    frame = str(message.header.frame_id).strip("/")
    if not frame and info is not None:
        frame = str(_first(log, info).header.frame_id).strip("/")
    return frame


def read_image_camera(
    log: LogReader,
    image: Topic,
    info: Topic | None,
    messages: Iterable[Any] | None = None,
    rectified: bool | None = None,
) -> ImageCamera:
    """The camera of an image topic by its first CameraInfo; its images are undistorted by ImageCamera.image.

    messages: the images (None: those of the topic), of which the first whole one gives the size. rectified: the images
    are rectified already, P is used. None: if the topic is named so (image_rect), or if K and D cannot be of images of
    that size but P can (kitti2bag). Raises LogError if the CameraInfo is missing or does not fit the images.
    """
    if info is None:
        raise LogError(f"{log.path} has no CameraInfo for {image.name}: record the camera's camera_info topic as well")
    if messages is None:
        messages = (logged.message for logged in log.messages([image.name]))
    try:
        message, rgb = first_decoded(messages, decode_image)
    except ValueError as error:
        raise LogError(f"{log.path}: {image.name}, image 0: {error}") from error
    height, width = rgb.shape[:2]
    if doubt := picture_doubt(rgb):
        logger.warning("%s: %s, image 0: %s", log.path, image.name, doubt)
    calibration = _own(log, image, info, message.header.frame_id)
    _check_same_camera(log, image, message, info, calibration)
    promised = is_rectified_topic(image.name) if rectified is None else rectified
    try:
        camera = read_camera_info(calibration, width, height, promised)
    except AlreadyRectifiedError as error:
        if rectified is not None:
            raise LogError(f"{log.path}: {info.name}: {error}") from error
        logger.warning("%s: %s: %s; its P is used", log.path, info.name, error)
        return read_camera_info(calibration, width, height, rectified=True)
    except ValueError as error:
        raise LogError(f"{log.path}: {info.name}: {error}") from error
    if camera.doubt:
        logger.warning("%s: %s: %s", log.path, info.name, camera.doubt)
    if camera.undistortion is not None and rectified is None:
        logger.warning(
            "%s: the images of %s are undistorted by %s; pass --rectified if they are rectified already",
            *(log.path, image.name, info.name),
        )
    return camera


def calibration_change(log: LogReader, info: Topic | None, frame: str) -> CalibrationChange | None:
    """When a CameraInfo topic first differs from its first message (zoom, another resolution); None if it never does.

    frame: of the images; where cameras share the topic, only its messages count. A warning says so, as the images after
    it are left out: a clip has one camera. Differences below half a pixel, as of a calibration that is refined while
    driving, do not count.
    """
    first = None
    frames = {} if info is None else _frames(log, info)
    own = frame if frame in frames else next(iter(frames), "")
    for raw in log.raw([] if info is None else [info.name]):
        if len(frames) > 1 and raw_frame_id(raw, log.types) != own:
            continue
        if first is None:
            first, same = log.decode(raw), raw.data[STAMP_END:]
        elif raw.data[STAMP_END:] != same and _differ(first, log.decode(raw)):
            logger.warning(
                "%s: %s changes after %.1f s (zoom, or another resolution): the images from there on are left out; cut"
                " the log there to use them",
                *(log.path, raw.topic, (raw.time_ns - log.start_ns) * 1e-9),
            )
            return CalibrationChange(raw_stamp_ns(raw, log.types), raw.time_ns)
    return None


def _differ(a: Any, b: Any) -> bool:
    def exact(info: Any) -> list[Any]:
        roi = info.roi
        window = [roi.x_offset, roi.y_offset, roi.width, roi.height]
        return [info.width, info.height, info.distortion_model, info.binning_x, info.binning_y, len(info.d), *window]

    if exact(a) != exact(b):
        return True
    tolerances = {"k": SAME_PIXELS, "p": SAME_PIXELS, "d": SAME_NUMBERS, "r": SAME_NUMBERS}
    pairs = ((getattr(a, name), getattr(b, name), tolerance) for name, tolerance in tolerances.items())
    return not all(np.allclose(x, y, rtol=0, atol=tolerance, equal_nan=True) for x, y, tolerance in pairs)


def warn_of_shared_frame(log: LogReader, streams: Streams, frame: str) -> None:
    """Warn where another camera of the log names the same frame as the images, unless it is the right one of a pair."""
    infos = {info.name for info in (streams.camera_info, streams.right_camera_info) if info is not None}
    for topic in log.topics.values():
        info = own_camera_info(log, topic) if is_picture(topic) else None
        if info is None or info.name in infos or not info.count:
            continue
        infos.add(info.name)
        if frame and str(_first(log, info).header.frame_id).strip("/") == frame:
            logger.warning(
                "%s: %s and %s name the same frame %r: tf can place only one of the two cameras",
                *(log.path, streams.image.name, topic.name, frame),
            )


def stereo_baseline(log: LogReader, right_info: Topic) -> float:
    """Metres from the left to the right camera of a stereo pair, by the right one's P; 0 where it does not say."""
    P = _first(log, right_info).p
    return -float(P[3]) / float(P[0]) if P[0] > 0 else 0.0


def _frames(log: LogReader, info: Topic) -> dict[str, RawMessage]:
    """The frames of a CameraInfo topic's first messages, each with its first message."""
    frames: dict[str, RawMessage] = {}
    for raw in islice(log.raw([info.name]), FIRST_INFOS):
        frames.setdefault(raw_frame_id(raw, log.types), raw)
    return frames


def _own(log: LogReader, image: Topic, info: Topic, image_frame: str) -> Any:
    """The CameraInfo of an image's frame; a warning, or LogError if there is none, where several cameras share it."""
    frames, frame = _frames(log, info), str(image_frame).strip("/")
    if len(frames) < 2:
        return _first(log, info)
    shared = f"{log.path}: CameraInfo of the frames {', '.join(map(repr, sorted(frames)))} share the topic {info.name}"
    if frame not in frames:
        raise LogError(
            f"{shared}, and the images of {image.name} are of {frame!r}: choose another camera with --camera, or record"
            " the CameraInfo of each camera on a topic of its own"
        )
    logger.warning("%s; those of %r, the frame of the images, are used", shared, frame)
    return log.decode(frames[frame])


def _first(log: LogReader, info: Topic) -> Any:
    """A topic's first message."""
    try:
        return next(log.messages([info.name])).message
    except StopIteration:
        raise LogError(f"{log.path}: {info.name} holds no messages, but its index claims some: copy it again") from None


def _check_same_camera(log: LogReader, image: Topic, message: Any, info: Topic, calibration: Any) -> None:
    """Raise LogError for the CameraInfo of another camera; a warning where it lies in the images' own namespace."""
    mismatch = frame_mismatch(message.header.frame_id, calibration.header.frame_id)
    if not mismatch:
        return
    if not image.name.startswith(info.name.rpartition("/")[0] + "/"):
        raise LogError(
            f"{log.path} has no CameraInfo for {image.name}, and {info.name} is of another camera ({mismatch}): record"
            " the camera's camera_info topic as well"
        )
    logger.warning("%s: is %s of the camera of %s? %s", log.path, info.name, image.name, mismatch)
