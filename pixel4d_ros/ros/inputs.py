# SPDX-License-Identifier: Apache-2.0
"""Input messages: the executor stores the newest of each topic, the worker converts them to arrays."""

from __future__ import annotations

import time
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
from pixel4d_ros.geometry.camera_info import frame_mismatch, read_camera_info
from pixel4d_ros.geometry.rectification import Rectifier, Undistortion
from pixel4d_ros.geometry.rotations import rigid_from_xyzw
from pixel4d_ros.logs.images import RgbImage, decode_depth
from pixel4d_ros.ros.messages.headers import frame_name, nanoseconds
from pixel4d_ros.ros.messages.images import rgb_pixels
from pixel4d_ros.ros.odometry import OdometryTrack
from pixel4d_ros.ros.parameters import Parameters
from pixel4d_ros.ros.plans import Plan, PlanError
from pixel4d_ros.ros.transforms import EgoState, TransformSource

Depth = NDArray[np.float32]
DEPTHS_KEPT, INFOS_KEPT = 10, 10
MISSED_INFOS = 3  # images without a CameraInfo of their own, after which none is waited for
FIRST_INFO_WAIT_S = 2.0  # for the first CameraInfo: its publisher may be discovered later than that of the images
INFO_WAIT_S, INFO_POLL_S = 0.05, 0.002  # for the CameraInfo of an image that overtook it
FRAMES_KEPT, BYTES_APART = 10, 997  # images whose frames and stamps are compared; between bytes of a sample
RECENT_KEPT, RECENT_APART_NS = 5, 90_000_000  # images to compare with each other, ns between them at least
MISSED_DEPTHS = 10  # images without a depth of their time, after which they are reported: depth may be slower
NO_DEPTH = (
    "depth is received, but none within depth.tolerance of the last images: synchronise the two, or raise"
    " depth.tolerance"
)
NO_STAMP = "images have stamp 0: odometry, tf, plans and depth cannot be matched with them; have the driver stamp them"
SAME_STAMPS = "images repeat their stamps: have the driver stamp each with its time, with fractions of a second"


class InputFault(ValueError):
    """An unusable message; place: the input, text: the reason."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


class DepthBuffer:
    """The newest depth messages. The executor's thread adds, the worker waits for the match of its image."""

    def __init__(self) -> None:
        self._messages: deque[Image | CompressedImage] = deque(maxlen=DEPTHS_KEPT)
        self._changed = Condition()
        self.is_rectified = False

    def add(self, message: Image | CompressedImage, is_rectified: bool = False) -> None:
        """Store a message and notify the waiting worker. is_rectified: the depth is undistorted already."""
        with self._changed:
            self.is_rectified = is_rectified
            self._messages.append(message)
            self._changed.notify_all()

    @property
    def is_empty(self) -> bool:
        """Whether no depth was received."""
        return not self._messages

    def nearest(self, stamp_ns: int, tolerance_s: float, wait_s: float) -> Image | CompressedImage | None:
        """The message nearest to a stamp within tolerance_s; waits up to wait_s for it if depth is being received."""
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
    received_ns: int  # ROS time of reception
    read: Callable[[Any, int], Plan]  # one of PLAN_READERS


@dataclass
class Inputs:
    """Stored inputs of the node. When time jumps back, all but the calibration is replaced."""

    infos: deque[CameraInfo] = field(default_factory=lambda: deque(maxlen=INFOS_KEPT))  # newest calibrations
    odometry: OdometryTrack = field(default_factory=OdometryTrack)
    trajectory: TrajectoryMessage | None = None  # newest
    plan: tuple[TrajectoryMessage, Plan | PlanError] | None = None  # the trajectory converted
    depths: DepthBuffer = field(default_factory=DepthBuffer)
    stamp_ns: int | None = None  # of the newest image
    image: ImageMessage | None = None  # newest
    outdated: bool = False  # time has jumped back since
    first_info_until: float | None = None  # time.monotonic() until which images wait for the first CameraInfo
    awaited: int = 0  # so many more images may wait for a CameraInfo of their stamp
    frames: deque[str] = field(default_factory=lambda: deque(maxlen=FRAMES_KEPT))  # of the newest images
    repeats: deque[bool] = field(default_factory=lambda: deque(maxlen=FRAMES_KEPT))  # newest images with old stamps
    recent: deque[Image | CompressedImage] = field(default_factory=lambda: deque(maxlen=RECENT_KEPT))
    depths_missed: int = 0  # images in a row without a depth of their time

    def info_of(self, image: Image | CompressedImage, wait_s: float = 0.0) -> CameraInfo | None:
        """The calibration with an image's stamp, else the newest; it may have changed since (zoom, resolution).

        Where cameras share the topic, only those of the image's frame count. Where one of the last images had one of
        its own, waits up to wait_s for it. The first images wait FIRST_INFO_WAIT_S for any, unless wait_s is 0.
        """
        deadline = time.monotonic() + wait_s
        if wait_s and not self.infos:
            deadline = self.first_info_until = self.first_info_until or time.monotonic() + FIRST_INFO_WAIT_S
        while True:
            infos = list(self.infos)
            infos = [info for info in infos if info.header.frame_id == image.header.frame_id] or infos
            own = next((info for info in reversed(infos) if info.header.stamp == image.header.stamp), None)
            if own is not None:
                self.awaited = MISSED_INFOS
                return own
            if time.monotonic() >= deadline or (infos and not self.awaited):
                self.awaited = max(0, self.awaited - 1)
                return infos[-1] if infos else None
            time.sleep(INFO_POLL_S)

    def frames_fault(self, frame: str) -> str:
        """Why images of this frame and the last ones may be of several cameras; else empty."""
        self.frames.append(frame)
        seen = sorted(set(self.frames))
        if len(seen) < 2:
            return ""
        return f"images of the frames {', '.join(map(repr, seen))} share the topic: run one node for each camera"

    def keep_recent(self, message: Image | CompressedImage) -> None:
        """Store an image to compare with later ones; those that follow soon are left out."""
        stamp = nanoseconds(message.header.stamp)
        if not self.recent or stamp - nanoseconds(self.recent[-1].header.stamp) >= RECENT_APART_NS:
            self.recent.append(message)

    def stamps_fault(self, message: Image | CompressedImage, is_simulated: bool) -> str:
        """Why the stamps of this image, and of the last ones, cannot be right; else empty. A simulation begins at 0."""
        before, stamp = None if self.image is None else self.image.message, message.header.stamp
        repeats = before is not None and before.header.stamp == stamp
        self.repeats.append(repeats and some_bytes(before) != some_bytes(message))
        if not nanoseconds(stamp) and (repeats or not is_simulated):
            return NO_STAMP
        return SAME_STAMPS if 2 * sum(self.repeats) >= FRAMES_KEPT else ""

    def depth_of(self, stamp_ns: int, tolerance_s: float, wait_s: float) -> tuple[Any | None, str]:
        """The depth message of an image, see DepthBuffer.nearest, and a fault where the last images had none."""
        found = self.depths.nearest(stamp_ns, tolerance_s, wait_s)
        self.depths_missed = 0 if found is not None or self.depths.is_empty else self.depths_missed + 1
        return found, NO_DEPTH if self.depths_missed >= MISSED_DEPTHS else ""


@dataclass(frozen=True)
class ImageMessage:
    """An image message to forecast from, and the inputs of its time."""

    message: Image | CompressedImage
    received_at: float  # time.monotonic()
    inputs: Inputs


@dataclass(frozen=True)
class Source:
    """A decoded image with its camera. All outputs forecast from it carry its header."""

    rgb: RgbImage
    camera: Camera
    header: Header
    undistortion: Undistortion | None = None  # already applied to the image; None: no distortion
    doubt: str = ""  # why the calibration may be another camera's

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
    """A CameraInfo, or none yet, and its topic."""

    info: CameraInfo | None
    name: str  # of the topic, for messages


def some_bytes(message: Image | CompressedImage) -> bytes:
    """A sample of an image's data: the same image may be sent twice."""
    return bytes(memoryview(message.data)[::BYTES_APART])


def read_source(
    message: Image | CompressedImage, calibration: CalibrationSource, rectifier: Rectifier, rectify: bool
) -> Source:
    """Decode an image, match it with its calibration, and undistort it if `rectify`. Raises InputFault."""
    try:
        rgb = rgb_pixels(message)
    except ValueError as error:
        raise InputFault("image", str(error)) from error
    info = calibration.info
    if info is None:
        raise InputFault(
            "camera_info", f"nothing received on {calibration.name} yet: remap camera_info to the camera's"
        )
    height, width, _ = rgb.shape
    frame = frame_name(message.header.frame_id) or frame_name(info.header.frame_id)
    header = Header(stamp=message.header.stamp, frame_id=frame)
    try:
        camera = read_camera_info(info, width, height, rectified=not rectify, rectifier=rectifier)
    except ValueError as error:
        raise InputFault("camera_info", str(error)) from error
    doubt = frame_mismatch(message.header.frame_id, info.header.frame_id)
    if doubt:
        doubt += f": is {calibration.name} that of this camera?"
    return Source(camera.image(rgb), camera.camera, header, camera.undistortion, doubt or camera.doubt)


def describe(source: Source) -> str:
    """Text about the calibration."""
    (fx, _, cx), (_, fy, cy), _ = source.camera.K
    undistorted = "" if source.undistortion is None else ", undistorted"
    return f"{source.size[0]}x{source.size[1]}, f {fx:.1f} {fy:.1f}, c {cx:.1f} {cy:.1f}{undistorted}"


def read_depth(message: Image | CompressedImage, source: Source, is_rectified: bool = False) -> Depth:
    """The depth (H, W) of an image in metres, 0 where unknown. Raises InputFault if frame or size differ.

    is_rectified: it is undistorted already, else it is registered to the image as recorded.
    """
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
    return metres if source.undistortion is None or is_rectified else source.undistortion.depth(metres)


def read_plan(inputs: Inputs) -> Plan | PlanError | None:
    """The newest trajectory, converted once per message; a PlanError if it is unusable."""
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
    """Poses of vehicle and camera from these inputs and tf."""
    return EgoState(
        inputs.odometry,
        transforms,
        rigid_from_xyzw(parameters.mounting_rotation, parameters.mounting_translation),
        parameters.base_frame,
        parameters.odometry_timeout,
        parameters.trajectory_timeout,
    )
