# SPDX-License-Identifier: Apache-2.0
"""The camera of a log's images, from its CameraInfo, as in the node."""

from __future__ import annotations

from typing import Any

from pixel4d_ros.geometry.camera_info import ImageCamera, is_rectified_topic, read_camera_info
from pixel4d_ros.logs.images import decode_image
from pixel4d_ros.logs.reader import LogError, LogReader, Topic


def camera_frame(log: LogReader, message: Any, info: Topic | None) -> str:
    """The frame of an image message: its own, else that of its CameraInfo, else ""."""
    frame = str(message.header.frame_id).strip("/")
    if not frame and info is not None:
        frame = str(next(log.messages([info.name])).message.header.frame_id).strip("/")
    return frame


def read_image_camera(log: LogReader, image: Topic, info: Topic | None, message: Any = None) -> ImageCamera:
    """The camera of an image topic by its first CameraInfo; its images are undistorted by ImageCamera.image.

    message: the topic's first image, if already read. Topics named as rectified (image_rect) use P.
    Raises LogError if the CameraInfo is missing or does not fit the images.
    """
    if info is None:
        raise LogError(f"{log.path} has no CameraInfo for {image.name}: record the camera's camera_info topic as well")
    message = next(log.messages([image.name])).message if message is None else message
    try:
        height, width = decode_image(message).shape[:2]
    except ValueError as error:
        raise LogError(f"{log.path}: {image.name}, image 0: {error}") from error
    try:
        calibration = next(log.messages([info.name])).message
        return read_camera_info(calibration, width, height, is_rectified_topic(image.name))
    except LogError:
        raise
    except ValueError as error:
        raise LogError(f"{log.path}: {info.name}: {error}") from error
