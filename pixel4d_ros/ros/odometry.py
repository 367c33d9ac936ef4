# SPDX-License-Identifier: Apache-2.0
"""Recent odometry: poses of its child frame and the newest twist, checked against each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nav_msgs.msg import Odometry

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.geometry.interpolation import FASTEST
from pixel4d_ros.geometry.jumps import JUMP_M, jump_limit, step_noise
from pixel4d_ros.geometry.optical import OVERTURNED, is_overturned
from pixel4d_ros.geometry.pose_buffer import BASELINE_S, RESTART_S, PoseBuffer
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse, rotation_matrix, rotation_vector
from pixel4d_ros.ros.messages.conversions import read_pose
from pixel4d_ros.ros.messages.headers import frame_name, nanoseconds

FUTURE_S = 2.0  # localisation stamps map -> odom up to a second ahead (AMCL's transform_tolerance)
DIFFERENCE_S = 0.2  # interval over which the velocity of the poses is measured
LONG_DIFFERENCE_S = 0.5  # long enough that a jump of the poses (GPS) does not count as a velocity
NOISE_S = 1.0  # over which the noise of the poses is measured
# A twist agrees with the poses within an absolute tolerance plus a share of the larger of the two.
LINEAR_TOLERANCE, RELATIVE_TOLERANCE = 0.5, 0.2  # m/s
YAW_TOLERANCE, TILT_TOLERANCE = 0.1, 0.3  # rad/s, about the vertical and the other axes (bumps)
# An exactly zero part is often unfilled: it then must match the poses within a tighter tolerance.
LINEAR_ZERO, ANGULAR_ZERO = 0.1, 0.03  # m/s, rad/s
FASTEST_TURN = 1e2  # rad/s: no robot turns faster, and numbers stay far from overflow
DISAGREEMENT = (
    "odometry's twist contradicts its poses, whose difference is used: twist must be in child_frame_id, with both its "
    "linear and angular part filled"
)


class StampError(ValueError):
    """A message with an implausible stamp; it is dropped."""


def check_not_future(stamp_ns: int, now_ns: int | None, what: str) -> None:
    """Raise StampError for a stamp more than FUTURE_S after now; now_ns None: the time is not known."""
    if now_ns is not None and stamp_ns > now_ns + FUTURE_S * 1e9:
        raise StampError(
            f"{what} is stamped more than {FUTURE_S:g} s in the future and dropped: synchronise the clocks, or set "
            "use_sim_time for a replay with /clock"
        )


class JumpError(ValueError):
    """A message whose pose does not continue those before, which are dropped."""


@dataclass(frozen=True)
class FrameMotion:
    """Constant-velocity motion of a frame from a time t0."""

    path: CameraPath  # T_frame(t0)_frame(t)
    warning: str = ""  # why a given twist is not used


class OdometryTrack:
    """The poses of odometry's child frame in its frame, and the newest twist of the child frame."""

    def __init__(self) -> None:
        self._poses = PoseBuffer(restart_s=RESTART_S)
        self.frame = ""
        self.child = ""
        self._twist: tuple[FloatArray, FloatArray] = (np.zeros(3), np.zeros(3))
        self._restarts = 0

    @property
    def origin(self) -> tuple[str, int]:
        """What the poses refer to: another one after a jump, whose poses do not continue those before."""
        return self.frame, self._restarts

    def add(self, message: Odometry, now_ns: int | None = None) -> None:
        """Add one message; earlier poses are dropped if stamps go back by RESTART_S or more, or the poses jump.

        Raises ValueError if pose or twist are not finite or implausibly large, StampError if the stamp is later than
        now_ns or goes back, JumpError where the poses jump.
        """
        pose = read_pose(message.pose.pose)
        twist = message.twist.twist
        linear, angular = ([getattr(v, axis) for axis in "xyz"] for v in (twist.linear, twist.angular))
        if not np.isfinite(linear + angular).all():
            raise ValueError("odometry twist contains NaN or Inf")
        if max(map(abs, linear)) > FASTEST or max(map(abs, angular)) > FASTEST_TURN:
            raise ValueError(
                f"odometry twist (linear {linear}, angular {angular}) is faster than any robot: it must be in "
                "m/s and rad/s"
            )
        stamp_ns = nanoseconds(message.header.stamp)
        check_not_future(stamp_ns, now_ns, "odometry")
        if stamp_ns == 0 and now_ns is not None and now_ns > FUTURE_S * 1e9:  # a simulation may begin at 0
            raise StampError("odometry has stamp 0 and is dropped: have its publisher stamp it as the images are")
        frame, child = frame_name(message.header.frame_id), frame_name(message.child_frame_id)
        if (frame, child) == (self.frame, self.child) and self._is_too_fast(stamp_ns, pose):
            raise ValueError(f"odometry's poses move faster than {FASTEST:g} m/s: positions must be in metres")
        before = (self.frame, self.child) if len(self._poses) else (frame, child)
        jumped = self._jumped(stamp_ns, pose)
        if jumped or (frame, child) != (self.frame, self.child):
            self._poses = PoseBuffer(restart_s=RESTART_S)
            self._restarts += 1
        self.frame, self.child = frame, child
        restarted = self._poses.add(stamp_ns, pose)
        newest = self._poses.newest
        if newest is not None and newest[0] == stamp_ns:
            self._twist = (np.array(linear), np.array(angular))
        if restarted:
            self._restarts += 1
            raise StampError(
                f"odometry's stamps went back by {RESTART_S:g} s or more: earlier poses are dropped (if this repeats, "
                "two publishers conflict)"
            )
        if before != (frame, child):
            raise JumpError(
                f"odometry's frames change between {before[0]!r} -> {before[1]!r} and {frame!r} -> {child!r}: earlier"
                " poses are dropped (if this repeats, two publishers share the topic)"
            )
        if jumped:
            raise JumpError("odometry's poses jump (relocalisation?): those before are dropped")

    @property
    def fault(self) -> str:
        """What is doubtful about the newest pose; empty if nothing is."""
        newest = self._poses.newest
        return f"odometry: {OVERTURNED}" if newest is not None and is_overturned(newest[1], self.child) else ""

    def _jumped(self, stamp_ns: int, pose: FloatArray) -> bool:
        """Whether a pose continues neither the motion of those before nor their twist."""
        newest = self._poses.newest
        if newest is None or stamp_ns <= newest[0]:
            return False
        seconds, step = (stamp_ns - newest[0]) * 1e-9, pose[:3, 3] - newest[1][:3, 3]
        before = self._poses.at(newest[0] - round(DIFFERENCE_S * 1e9), 0.0)
        if before is None:
            return False
        velocities = ((newest[1][:3, 3] - before[:3, 3]) / DIFFERENCE_S, newest[1][:3, :3] @ self._twist[0])
        off = min(float(np.linalg.norm(step - velocity * seconds)) for velocity in velocities)
        if off <= jump_limit(seconds, 0.0, JUMP_M):
            return False
        times, poses = self._poses.since(newest[0] - round(NOISE_S * 1e9))
        return off > float(jump_limit(seconds, step_noise(times, poses[:, :3, 3]), JUMP_M))

    def _is_too_fast(self, stamp_ns: int, pose: FloatArray) -> bool:
        """Whether the poses before have moved, and go on, faster than any vehicle; a jump alone is no motion."""
        newest = self._poses.newest
        before = None if newest is None else self._poses.at(newest[0] - round(DIFFERENCE_S * 1e9), 0.0)
        if newest is None or before is None or stamp_ns <= newest[0]:
            return False
        step, seconds = pose[:3, 3] - newest[1][:3, 3], (stamp_ns - newest[0]) * 1e-9
        speeds = np.linalg.norm(newest[1][:3, 3] - before[:3, 3]) / DIFFERENCE_S, np.linalg.norm(step) / seconds
        return bool(min(speeds) > FASTEST)

    def pose(self, stamp_ns: int, tolerance_s: float) -> FloatArray | None:
        """T_frame_child at a time, or None when odometry is more than tolerance_s away from it.

        A single pose, as after a start, is extrapolated by the twist.
        """
        pose, newest = self._poses.at(stamp_ns, tolerance_s), self._poses.newest
        if pose is not None or newest is None:
            return pose
        linear, angular = self._twist
        seconds = (stamp_ns - newest[0]) * 1e-9
        if abs(seconds) > tolerance_s or not (linear.any() or angular.any()):
            return None
        extrapolated: FloatArray = newest[1] @ CameraPath.constant_twist(linear, angular, BASELINE_S).at(seconds)[0]
        return extrapolated

    def motion(self, stamp_ns: int, tolerance_s: float, horizon_s: float) -> FrameMotion | None:
        """Constant-velocity motion of the child frame from a time; None without fresh odometry.

        Uses the message's twist, or the difference of poses if the twist is exactly zero or contradicts them.
        """
        if self.pose(stamp_ns, tolerance_s) is None:
            return None
        twist, step = self._twist, self._step(stamp_ns, tolerance_s, DIFFERENCE_S)
        given = bool(twist[0].any() or twist[1].any())
        if given and (step is None or self._agrees(stamp_ns, tolerance_s)):
            return FrameMotion(CameraPath.constant_twist(*twist, max(horizon_s, BASELINE_S)))
        if step is None:
            return FrameMotion(CameraPath.still())
        path = CameraPath(np.array([-DIFFERENCE_S, 0.0]), np.stack([rigid_inverse(step), np.eye(4)]))
        return FrameMotion(path, DISAGREEMENT if given else "")

    def _agrees(self, stamp_ns: int, tolerance_s: float) -> bool:
        """Whether the twist agrees with the poses over either interval."""
        pose = self.pose(stamp_ns, tolerance_s)
        assert pose is not None
        for seconds in (DIFFERENCE_S, LONG_DIFFERENCE_S):
            step = self._step(stamp_ns, tolerance_s, seconds)
            if step is not None and _agree(self._twist, step, seconds, pose[2, :3]):
                return True
        return False

    def _step(self, stamp_ns: int, tolerance_s: float, seconds: float) -> FloatArray | None:
        """T_child(t0 - seconds)_child(t0) from the poses alone; None if they do not cover the interval."""
        now = self._poses.at(stamp_ns, tolerance_s)
        before = self._poses.at(stamp_ns - round(seconds * 1e9), tolerance_s)
        return None if now is None or before is None else rigid_inverse(before) @ now


def _agree(twist: tuple[FloatArray, FloatArray], step: FloatArray, seconds: float, up: FloatArray) -> bool:
    """Whether a body twist agrees with a motion T_then_now over some seconds; up (3,) is the vertical in the body."""
    turned = rotation_vector(step[:3, :3])
    # A constant twist moves along the chord at the orientation of half the turn.
    velocity, turn = rotation_matrix(-turned / 2) @ step[:3, 3] / seconds, turned / seconds
    linear, angular = twist
    if not linear.any() and np.linalg.norm(velocity) > LINEAR_ZERO:
        return False
    if not angular.any() and np.linalg.norm(turn) > ANGULAR_ZERO:
        return False
    off, yaw_off = linear - velocity, float((angular - turn) @ up)
    tilt_off = angular - turn - yaw_off * up
    larger = max(np.linalg.norm(linear), np.linalg.norm(velocity))
    faster = max(np.linalg.norm(angular), np.linalg.norm(turn))
    return bool(
        np.linalg.norm(off) < LINEAR_TOLERANCE + RELATIVE_TOLERANCE * larger
        and abs(yaw_off) < YAW_TOLERANCE + RELATIVE_TOLERANCE * faster
        and np.linalg.norm(tilt_off) < TILT_TOLERANCE + RELATIVE_TOLERANCE * faster
    )
