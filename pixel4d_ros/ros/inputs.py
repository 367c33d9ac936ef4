# SPDX-License-Identifier: Apache-2.0
"""Input messages: the newest of each topic as the executor stores them, and how the worker reads them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Condition
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.camera_info import read_camera_info
from pixel4d_ros.geometry.rectification import Rectifier, Undistortion
from pixel4d_ros.logs.images import RgbImage, decode_depth, decode_image
from pixel4d_ros.ros.messages.conversions import frame_name, nanoseconds, rigid_from_xyzw
from pixel4d_ros.ros.odometry import OdometryTrack
from pixel4d_ros.ros.parameters import Parameters
from pixel4d_ros.ros.plans import Plan, PlanError
from pixel4d_ros.ros.transforms import EgoState, TransformSource

Depth = NDArray[np.float32]
DEPTHS_KEPT = 10
MAX_SIDE = 8192  # pixels of an image


class InputFault(ValueError):
    """A message that cannot be used; place says which input, the text why."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


class DepthBuffer:
    """The newest depth messages. The executor's thread adds, the worker waits for the one of its image."""

    def __init__(self) -> None:
        self._messages: deque[Image | CompressedImage] = deque(maxlen=DEPTHS_KEPT)
        self._changed = Condition()

    def add(self, message: Image | CompressedImage) -> None:
        """Keep a message and wake up whoever waits for it."""
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()

    def nearest(self, stamp_ns: int, tolerance_s: float, wait_s: float) -> Image | CompressedImage | None:
        """The message nearest to a stamp; waits up to wait_s for one within tolerance_s while depth is coming in."""
        with self._changed:
            if self._messages:
                self._changed.wait_for(lambda: self._nearest(stamp_ns, tolerance_s) is not None, wait_s)
            return self._nearest(stamp_ns, tolerance_s)

    def _nearest(self, stamp_ns: int, tolerance_s: float) -> Image | CompressedImage | None:
        distances = [(abs(nanoseconds(m.header.stamp) - stamp_ns), m) for m in self._messages]
        distance, found = min(distances, key=lambda pair: pair[0], default=(0, None))
        return found if distance <= tolerance_s * 1e9 else None


@dataclass(frozen=True)
class TrajectoryMessage:
    """A trajectory message."""

    message: Any
    received_ns: int  # ROS time when it came in
    read: Callable[[Any, int], Plan]  # one of PLAN_READERS


@dataclass
class Inputs:
    """What the node keeps of its inputs; replaced as a whole, except for the calibration, when time jumps back."""

    info: CameraInfo | None = None  # newest calibration
    odometry: OdometryTrack = field(default_factory=OdometryTrack)
    trajectory: TrajectoryMessage | None = None  # newest
    plan: tuple[TrajectoryMessage, Plan | PlanError] | None = None  # that trajectory, read
    depths: DepthBuffer = field(default_factory=DepthBuffer)
    stamp_ns: int | None = None  # of the newest image
    image: ImageMessage | None = None  # newest
    outdated: bool = False  # time jumped back since


@dataclass(frozen=True)
class ImageMessage:
    """An image message to forecast from, and the inputs at its time."""

    message: Image | CompressedImage
    received_at: float  # time.monotonic()
    inputs: Inputs


@dataclass(frozen=True)
class Source:
    """A decoded image with its camera. Its header is used for everything forecast from it."""

    rgb: RgbImage
    camera: Camera
    header: Header
    undistortion: Undistortion | None = None  # applied to the image; None: it was not distorted

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.camera.width, self.camera.height

    @property
    def stamp_ns(self) -> int:
        """When the image was taken."""
        return nanoseconds(self.header.stamp)


@dataclass(frozen=True)
class CalibrationSource:
    """A CameraInfo, or none yet, and where it comes from."""

    info: CameraInfo | None
    name: str  # the topic's, for people


def read_source(
    message: Image | CompressedImage, calibration: CalibrationSource, rectifier: Rectifier, rectify: bool
) -> Source:
    """Decode an image, match it with its calibration, and undo lens distortion if asked to. Raises InputFault."""
    try:
        rgb = decode_image(message)
    except ValueError as error:
        raise InputFault("image", str(error)) from error
    info = calibration.info
    if info is None:
        raise InputFault(
            "camera_info", f"nothing received on {calibration.name} yet: remap camera_info to the camera's"
        )
    height, width, _ = rgb.shape
    if max(width, height) > MAX_SIDE:
        raise InputFault("image", f"image is {width}x{height}: more than {MAX_SIDE} pixels along a side are not taken")
    frame = frame_name(message.header.frame_id) or frame_name(info.header.frame_id)
    header = Header(stamp=message.header.stamp, frame_id=frame)
    try:
        camera = read_camera_info(info, width, height, rectified=not rectify, rectifier=rectifier)
    except ValueError as error:
        raise InputFault("camera_info", str(error)) from error
    return Source(camera.image(rgb), camera.camera, header, camera.undistortion)


def describe(source: Source) -> str:
    """The calibration in words."""
    (fx, _, cx), (_, fy, cy), _ = source.camera.K
    done = "" if source.undistortion is None else ", undistorted"
    return f"{source.size[0]}x{source.size[1]}, f {fx:.1f} {fy:.1f}, c {cx:.1f} {cy:.1f}{done}"


def read_depth(message: Image | CompressedImage, source: Source) -> Depth:
    """The depth (H, W) of an image in metres, 0 where unknown. Raises InputFault when it does not belong to it."""
    frame, image_frame = frame_name(message.header.frame_id), source.header.frame_id
    if frame and image_frame and frame != image_frame:
        raise InputFault(
            "depth", f"depth is in frame {frame!r}, the image in {image_frame!r}: register it to the image"
        )
    try:
        metres = decode_depth(message)
    except ValueError as error:
        raise InputFault("depth", str(error)) from error
    if metres.shape != source.rgb.shape[:2]:
        height, width = metres.shape
        raise InputFault(
            "depth", f"depth is {width}x{height}, the image {source.size[0]}x{source.size[1]}: register it to the image"
        )
    return metres if source.undistortion is None else source.undistortion.depth(metres)


def read_plan(inputs: Inputs) -> Plan | PlanError | None:
    """The newest trajectory, read once per message; a PlanError says why it cannot be used."""
    newest = inputs.trajectory
    if newest is None:
        return None
    if inputs.plan is None or inputs.plan[0] is not newest:
        try:
            inputs.plan = (newest, newest.read(newest.message, newest.received_ns))
        except PlanError as error:
            inputs.plan = (newest, error)
    return inputs.plan[1]


def ego_state(inputs: Inputs, transforms: TransformSource, parameters: Parameters) -> EgoState:
    """Where the vehicle and its camera are, by these inputs and tf."""
    return EgoState(
        inputs.odometry,
        transforms,
        rigid_from_xyzw(parameters.mounting_rotation, parameters.mounting_translation),
        parameters.base_frame,
        parameters.odometry_timeout,
        parameters.trajectory_timeout,
    )
