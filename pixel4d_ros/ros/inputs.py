"""What comes in: the newest messages as they are stored, and how the worker reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rectification import Lens, Rectifier, Undistortion, is_distorted
from pixel4d_ros.logs.images import RgbImage, decode_depth, decode_image
from pixel4d_ros.ros.messages.conversions import nanoseconds, read_intrinsics, rigid_from_xyzw
from pixel4d_ros.ros.parameters import Parameters
from pixel4d_ros.ros.plans import Plan, PlanError
from pixel4d_ros.ros.transforms import EgoState, OdometryTrack, TransformSource

Depth = NDArray[np.float32]
DEPTHS_KEPT = 10
MAX_SIDE = 8192  # pixels of an image


class InputFault(ValueError):
    """A message that cannot be used; place says which input, the text why."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True)
class Trajectory:
    """A trajectory message."""

    message: Any
    received_ns: int  # ROS time when it came in
    read: Callable[[Any, int], Plan]  # one of PLAN_READERS


@dataclass
class Inputs:
    """What the node remembers of its inputs; replaced as a whole, but for the calibration, when time jumps back."""

    info: CameraInfo | None = None  # newest calibration
    odometry: OdometryTrack = field(default_factory=OdometryTrack)
    trajectory: Trajectory | None = None  # newest
    plan: tuple[Trajectory, Plan | PlanError] | None = None  # that trajectory, read
    depths: tuple[Image | CompressedImage, ...] = ()  # the newest, latest last
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
    undistortion: Undistortion | None = None  # what was done to the image, where its lens is distorted

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
    """A calibration, or none yet, and where it comes from."""

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
    header = Header(stamp=message.header.stamp, frame_id=message.header.frame_id or info.header.frame_id)
    try:
        camera = Camera(read_intrinsics(info, width, height, rectified=not rectify), width, height)
        if not (rectify and is_distorted(info.d)):
            return Source(rgb, camera, header)
        made = rectifier.undistortion(Lens(camera, info.distortion_model, tuple(info.d)))
    except ValueError as error:
        raise InputFault("camera_info", str(error)) from error
    return Source(made.image(rgb), made.camera, header, made)


def describe(source: Source) -> str:
    """The calibration in words."""
    (fx, _, cx), (_, fy, cy), _ = source.camera.K
    done = "" if source.undistortion is None else ", undistorted"
    return f"{source.size[0]}x{source.size[1]}, f {fx:.1f} {fy:.1f}, c {cx:.1f} {cy:.1f}{done}"


def depth_of(source: Source, depths: tuple[Image | CompressedImage, ...], tolerance_s: float) -> Depth | None:
    """The depth (H, W) in metres, 0 where unknown, nearest in time to an image; None when none is near enough.

    Raises InputFault when that one cannot be used.
    """
    stamp_ns = source.stamp_ns
    nearest = min(depths, key=lambda m: abs(nanoseconds(m.header.stamp) - stamp_ns), default=None)
    if nearest is None or abs(nanoseconds(nearest.header.stamp) - stamp_ns) > tolerance_s * 1e9:
        return None
    frame = nearest.header.frame_id
    if frame and source.header.frame_id and frame != source.header.frame_id:
        raise InputFault(
            "depth", f"depth is in frame {frame!r}, the image in {source.header.frame_id!r}: register it to the image"
        )
    try:
        metres = decode_depth(nearest)
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


def surroundings(inputs: Inputs, frames: TransformSource, parameters: Parameters) -> EgoState:
    """What is known of the vehicle's motion and the camera's mounting."""
    return EgoState(
        inputs.odometry,
        frames,
        rigid_from_xyzw(parameters.mounting_rotation, parameters.mounting_translation),
        parameters.base_frame,
        parameters.odometry_timeout,
        parameters.trajectory_timeout,
    )
