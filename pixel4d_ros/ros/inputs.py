"""What comes in: the newest messages as they are stored, and how the worker reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from pixel4d_ros.camera import Camera
from pixel4d_ros.logs.images import RgbImage, decode_image
from pixel4d_ros.ros.conversions import nanoseconds, read_intrinsics, rigid_from_xyzw
from pixel4d_ros.ros.parameters import Parameters
from pixel4d_ros.ros.trajectory import PLAN_READERS, Plan, PlanError
from pixel4d_ros.ros.transforms import FrameSource, OdometryTrack, Surroundings


class InputFault(ValueError):
    """A message that cannot be used; place says which input, the text why."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


@dataclass
class Inputs:
    """What the node remembers of its inputs; replaced as a whole, but for the calibration, when time jumps back."""

    info: CameraInfo | None = None  # newest calibration
    odometry: OdometryTrack = field(default_factory=OdometryTrack)
    trajectory: tuple[Any, int] | None = None  # newest message, ROS time in ns when it came in
    plan: tuple[Any, Plan | PlanError] | None = None  # that message, read
    stamp_ns: int = 0  # of the newest image
    frame: Frame | None = None  # newest
    outdated: bool = False  # time jumped back since


@dataclass(frozen=True)
class Frame:
    """An image to forecast from, and the inputs at its time."""

    message: Image | CompressedImage
    received_at: float  # time.monotonic()
    inputs: Inputs


@dataclass(frozen=True)
class Source:
    """A decoded image with its camera; the header is that of everything forecast from it."""

    rgb: RgbImage
    camera: Camera
    header: Header
    distorted: bool  # whether the calibration has lens distortion

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.camera.width, self.camera.height

    @property
    def stamp_ns(self) -> int:
        """When the image was taken."""
        return nanoseconds(self.header.stamp)


def read_source(message: Image | CompressedImage, info: CameraInfo | None, info_topic: str) -> Source:
    """Decode an image and match it with its calibration. Raises InputFault."""
    try:
        rgb = decode_image(message)
    except ValueError as error:
        raise InputFault("image", str(error)) from error
    if info is None:
        raise InputFault("camera_info", f"nothing received on {info_topic} yet: remap camera_info to the camera's")
    height, width, _ = rgb.shape
    try:
        K = read_intrinsics(info, width, height)
    except ValueError as error:
        raise InputFault("camera_info", str(error)) from error
    header = Header(stamp=message.header.stamp, frame_id=message.header.frame_id or info.header.frame_id)
    return Source(rgb, Camera(K, width, height), header, bool(np.any(info.d)))


def read_plan(inputs: Inputs) -> Plan | PlanError | None:
    """The newest trajectory, read once per message; a PlanError says why it cannot be used."""
    if inputs.trajectory is None:
        return None
    message, received_ns = inputs.trajectory
    if inputs.plan is None or inputs.plan[0] is not message:
        try:
            inputs.plan = (message, PLAN_READERS[type(message)](message, received_ns))
        except PlanError as error:
            inputs.plan = (message, error)
    return inputs.plan[1]


def surroundings(inputs: Inputs, frames: FrameSource, parameters: Parameters) -> Surroundings:
    """What is known of the vehicle's motion and the camera's mounting."""
    return Surroundings(
        inputs.odometry,
        frames,
        rigid_from_xyzw(parameters.mounting_rotation, parameters.mounting_translation),
        parameters.base_frame,
        parameters.odometry_timeout,
        parameters.trajectory_timeout,
    )
