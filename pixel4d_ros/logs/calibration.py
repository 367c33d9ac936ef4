# SPDX-License-Identifier: Apache-2.0
"""The camera of a log's images, from its CameraInfo, as in the node."""

from __future__ import annotations

import logging
from typing import Any

from pixel4d_ros.geometry.camera_info import (
    AlreadyRectifiedError,
    ImageCamera,
    frame_mismatch,
    is_rectified_topic,
    read_camera_info,
)
from pixel4d_ros.logs.images import decode_image
from pixel4d_ros.logs.reader import LogError, LogReader, Topic

logger = logging.getLogger(__name__)


def camera_frame(log: LogReader, message: Any, info: Topic | None) -> str:
    """The frame of an image message: its own, else that of its CameraInfo, else ""."""
    frame = str(message.header.frame_id).strip("/")
    if not frame and info is not None:
        frame = str(_first(log, info).header.frame_id).strip("/")
    return frame


def read_image_camera(
    log: LogReader, image: Topic, info: Topic | None, message: Any = None, rectified: bool | None = None
) -> ImageCamera:
    """The camera of an image topic by its first CameraInfo; its images are undistorted by ImageCamera.image.

    message: the topic's first image, if already read. rectified: the images are rectified already, P is used. None: if
    the topic is named so (image_rect), or if K and D cannot be of images of that size but P can (kitti2bag).
    Raises LogError if the CameraInfo is missing or does not fit the images.
    """
    if info is None:
        raise LogError(f"{log.path} has no CameraInfo for {image.name}: record the camera's camera_info topic as well")
    message = next(log.messages([image.name])).message if message is None else message
    try:
        height, width = decode_image(message).shape[:2]
    except ValueError as error:
        raise LogError(f"{log.path}: {image.name}, image 0: {error}") from error
    calibration = _first(log, info)
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
    if camera.undistortion is not None and rectified is None:
        logger.warning(
            "%s: the images of %s are undistorted by %s; pass --rectified if they are rectified already",
            *(log.path, image.name, info.name),
        )
    return camera


def stereo_baseline(log: LogReader, right_info: Topic) -> float:
    """Metres from the left to the right camera of a stereo pair, by the right one's P; 0 where it does not say."""
    P = _first(log, right_info).p
    return -float(P[3]) / float(P[0]) if P[0] > 0 else 0.0


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
