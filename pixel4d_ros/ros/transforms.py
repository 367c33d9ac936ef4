# SPDX-License-Identifier: Apache-2.0
"""Poses of frames over time: tf, odometry, and the camera's mounting."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.geometry.optical import optical_mounting
from pixel4d_ros.geometry.pose_buffer import BASELINE_S, RESTART_S, TransformTree
from pixel4d_ros.geometry.rotations import FloatArray, rigid_from_xyzw, rigid_inverse
from pixel4d_ros.ros.messages.headers import frame_name, nanoseconds
from pixel4d_ros.ros.odometry import FrameMotion, OdometryTrack, StampError, check_not_future
from pixel4d_ros.ros.topics import overridable

Found = TypeVar("Found")


class TransformSource(Protocol):
    """Source of the transform between two frames at a time, as tf."""

    def lookup(self, target: str, source: str, stamp_ns: int) -> FloatArray | None:
        """T_target_source (4, 4) at a time, without waiting; None if unknown."""

    def has_frame(self, frame: str) -> bool:
        """Whether any transform names the frame."""

    def clear(self) -> None:
        """Drop all but static transforms."""


class NullTransforms:
    """A source without frames, for installations without tf2_msgs."""

    def lookup(self, target: str, source: str, stamp_ns: int) -> FloatArray | None:
        return None

    def has_frame(self, frame: str) -> bool:
        return False

    def clear(self) -> None:
        pass


def transform_source(node: Node, now_ns: Callable[[], int | None] = lambda: None) -> TransformSource:
    """A transform tree fed by /tf and /tf_static; NullTransforms if tf2_msgs is not installed.

    now_ns: the time that stamps are compared with. tf2_ros's buffer is not used: one transform stamped an hour ahead
    clears it and hides all later ones, and it does not extrapolate beyond its newest transform.
    """
    try:
        from tf2_msgs.msg import TFMessage
    except ImportError:
        return NullTransforms()
    listener = TransformListener(now_ns, node.get_logger())
    static = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    for topic, take, qos in (
        ("/tf", listener.take, QoSProfile(depth=100)),
        ("/tf_static", listener.take_static, static),
    ):
        node.create_subscription(TFMessage, topic, take, qos, qos_overriding_options=overridable())
    return listener.tree


class TransformListener:
    """Adds TFMessages to a tree and warns about unusable transforms."""

    def __init__(self, now_ns: Callable[[], int | None], logger: Any) -> None:
        self.tree = TransformTree(restart_s=RESTART_S)
        self._now_ns, self._logger = now_ns, logger

    def take(self, message: Any) -> None:
        """A message of /tf."""
        for t in message.transforms:
            self._take(t, self._add)

    def take_static(self, message: Any) -> None:
        """A message of /tf_static."""
        for t in message.transforms:
            self._take(t, self._add_static)

    def _add_static(self, parent: str, child: str, stamp_ns: int, pose: FloatArray) -> None:
        conflict = self.tree.static_conflict(parent, child, pose)
        if conflict:
            self._logger.warning(f"tf_static: {conflict}; the newest is used", throttle_duration_sec=10.0)
        self.tree.add_static(parent, child, pose)

    def _add(self, parent: str, child: str, stamp_ns: int, pose: FloatArray) -> None:
        check_not_future(stamp_ns, self._now_ns(), "it")
        if self.tree.static_conflict(parent, child, pose):
            self._logger.warning(
                f"both tf and tf_static give {child!r}; tf_static is used: is a static transform left over?",
                throttle_duration_sec=10.0,
            )
        other = self.tree.parent(child)
        if other not in (None, parent):
            self._logger.warning(
                f"tf gives {child!r} the parents {other!r} and {parent!r}, which take turns: only one can be right",
                throttle_duration_sec=10.0,
            )
        if self.tree.add(parent, child, stamp_ns, pose):
            raise StampError(f"its stamps went back by {RESTART_S:g} s or more: older transforms are dropped")

    def _take(self, transform: Any, add: Callable[[str, str, int, FloatArray], None]) -> None:
        parent, child = frame_name(transform.header.frame_id), frame_name(transform.child_frame_id)
        r, t = transform.transform.rotation, transform.transform.translation
        try:
            pose = rigid_from_xyzw((r.x, r.y, r.z, r.w), (t.x, t.y, t.z))
            self.tree.check_new(parent, child)
            add(parent, child, nanoseconds(transform.header.stamp), pose)
        except StampError as error:
            self._logger.warning(f"tf {parent} -> {child}: {error}", throttle_duration_sec=10.0)
        except ValueError as error:
            self._logger.warning(f"tf {parent} -> {child} is ignored: {error}", throttle_duration_sec=10.0)


@dataclass(frozen=True)
class EgoState:
    """Poses of the vehicle and its camera from odometry, tf and the mounting parameters.

    Created for each image or request. Results are cached, so that all candidate paths of a request share one start pose
    although odometry continues.
    """

    odometry: OdometryTrack
    transforms: TransformSource
    mounting: FloatArray  # T_base_camera if tf has none
    base_frame: str = ""  # "": the odometry's child frame
    odometry_timeout: float = 0.5
    trajectory_timeout: float = 2.0
    _found: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def base(self) -> str:
        """The frame whose poses a trajectory gives."""
        return frame_name(self.base_frame) or self.odometry.child or "base_link"

    def camera_in_base(self, camera: str, stamp_ns: int) -> FloatArray:
        """T_base_camera: from tf, else the mounting; identity if odometry is of the camera itself."""
        return self._mounting(camera, stamp_ns)[0]

    def mounting_fault(self, camera: str, stamp_ns: int) -> str:
        """What is doubtful about camera_in_base: a body frame, or a tf that does not say; else empty."""
        base, camera = self.base, frame_name(camera)
        doubt = self._mounting(camera, stamp_ns)[1]
        if doubt or self._lookup(base, camera, stamp_ns) is not None:
            return doubt
        if camera == base or not (self.transforms.has_frame(base) or self.transforms.has_frame(camera)):
            return ""
        return (
            f"tf does not connect the images' frame {camera!r} with {base!r}: the parameters mounting.translation and"
            " mounting.rotation are used"
        )

    def _mounting(self, camera: str, stamp_ns: int) -> tuple[FloatArray, str]:
        """T_base_camera, and what is doubtful about it."""
        base, camera = self.base, frame_name(camera)
        if camera == base:
            return np.eye(4), ""
        known = self._lookup(base, camera, stamp_ns)
        if known is not None:
            return optical_mounting(known, base, camera)
        mounting, doubt = optical_mounting(self.mounting, base, camera)
        if not doubt and optical_mounting(self.mounting, base, "")[1]:
            doubt = f"the camera {camera!r} looks at the sky"
        return mounting, doubt and f"{doubt}; mounting.translation and mounting.rotation must be its pose in metres"

    def base_in_child(self, stamp_ns: int) -> FloatArray | None:
        """T_child_base, from odometry's child frame to the base: from tf; None when unknown."""
        child, base = self.odometry.child, self.base
        return np.eye(4) if child in ("", base) else self._lookup(child, base, stamp_ns)

    def odometry_fault(self, stamp_ns: int) -> str:
        """Why fresh odometry is unusable for the base; empty if it is usable, or there is none."""
        if self.odometry_pose(stamp_ns) is None or self.base_in_child(stamp_ns) is not None:
            return ""
        child, base = self.odometry.child, self.base
        return (
            f"odometry gives poses of {child!r}, and tf does not connect it with base_frame {base!r}: publish a static "
            "transform between the two, or leave base_frame empty"
        )

    def base_in(self, frame: str, stamp_ns: int) -> FloatArray | None:
        """T_frame_base at a time, from odometry or tf; None if neither has it."""
        frame = frame_name(frame)
        if frame == self.odometry.frame:
            pose, offset = self.odometry_pose(stamp_ns), self.base_in_child(stamp_ns)
            if pose is not None and offset is not None:
                return pose @ offset
        return self._lookup(frame, self.base, stamp_ns)

    def odometry_pose(self, stamp_ns: int) -> FloatArray | None:
        """T_frame_child of odometry at a time; None without fresh odometry."""
        return self._once(("odometry", stamp_ns), lambda: self.odometry.pose(stamp_ns, self.odometry_timeout))

    def base_motion(self, stamp_ns: int, horizon_s: float) -> FrameMotion | None:
        """Constant-velocity motion of the base from a time: T_base(t0)_base(t). None without usable odometry."""
        motion = self._once(
            ("motion", stamp_ns, horizon_s),
            lambda: self.odometry.motion(stamp_ns, self.odometry_timeout, horizon_s),
        )
        offset = self.base_in_child(stamp_ns)
        if motion is None or offset is None:
            return None
        poses = rigid_inverse(offset) @ motion.path.poses @ offset
        return FrameMotion(CameraPath(motion.path.times, poses), motion.warning)

    def velocity(self, stamp_ns: int) -> FloatArray | None:
        """Velocity (3,) of the base along its own axes, m/s; None without usable odometry."""
        motion = self.base_motion(stamp_ns, BASELINE_S)
        return None if motion is None else np.asarray(motion.path.at(BASELINE_S)[0, :3, 3] / BASELINE_S)

    def speed(self, stamp_ns: int) -> float | None:
        """Metres per second along the base's path; None without usable odometry."""
        velocity = self.velocity(stamp_ns)
        return None if velocity is None else float(np.linalg.norm(velocity))

    def _lookup(self, target: str, source: str, stamp_ns: int) -> FloatArray | None:
        key = ("tf", target, source, stamp_ns)
        return self._once(key, lambda: self.transforms.lookup(target, source, stamp_ns))

    def _once(self, key: Hashable, find: Callable[[], Found]) -> Found:
        """The first result of find for this key."""
        if key not in self._found:
            self._found[key] = find()
        found: Found = self._found[key]
        return found
