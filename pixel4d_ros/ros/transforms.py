"""Where frames are at a time: odometry, tf where a ROS installation has it, and the camera's mounting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np
from nav_msgs.msg import Odometry

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.ros.messages.conversions import nanoseconds, read_pose

Found = TypeVar("Found")
HISTORY_S = 10.0  # how long poses are remembered
BASELINE_S = 0.05  # extrapolation and differences use poses at least so far apart: nearer ones are mostly noise


class PoseBuffer:
    """The newest poses T_fixed_moving of one frame, by stamp; one thread adds, others may read."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._poses: deque[tuple[int, FloatArray]] = deque()

    def add(self, stamp_ns: int, pose: FloatArray) -> None:
        """Append a pose; one that is not newer than the last is ignored."""
        with self._lock:
            if self._poses and stamp_ns <= self._poses[-1][0]:
                return
            self._poses.append((stamp_ns, pose))
            while stamp_ns - self._poses[0][0] > HISTORY_S * 1e9:
                self._poses.popleft()

    def at(self, stamp_ns: int, tolerance_s: float) -> FloatArray | None:
        """The pose (4, 4) at a time: interpolated, or extrapolated by at most tolerance_s; None beyond that.

        A single pose does not say how fast it changes, so it stands for BASELINE_S around it only.
        """
        times, poses = self._around(stamp_ns)
        tolerance_s = tolerance_s if len(times) > 1 else min(tolerance_s, BASELINE_S)
        if not times or not -tolerance_s <= times[-1] or not times[0] <= tolerance_s:
            return None
        return CameraPath(np.array(times), np.stack(poses)).at(0.0)[0]

    def newest(self) -> tuple[int, FloatArray] | None:
        """The last pose, and its stamp."""
        with self._lock:
            return self._poses[-1] if self._poses else None

    def _around(self, stamp_ns: int) -> tuple[list[float], list[FloatArray]]:
        """The two poses to inter- or extrapolate with; times are seconds relative to stamp_ns."""
        with self._lock:
            poses = list(self._poses)
        if not poses:
            return [], []
        stamps = [stamp for stamp, _ in poses]
        later = int(np.searchsorted(stamps, stamp_ns))
        if later == len(stamps):  # after the newest
            older = [i for i in range(later - 1) if stamps[-1] - stamps[i] >= BASELINE_S * 1e9]
            chosen = [*older[-1:], later - 1]
        elif later == 0:  # at or before the oldest
            newer = [i for i in range(1, len(stamps)) if stamps[i] - stamps[0] >= BASELINE_S * 1e9]
            chosen = [0, *newer[:1]]
        else:
            chosen = [later - 1, later]
        return [(stamps[i] - stamp_ns) * 1e-9 for i in chosen], [poses[i][1] for i in chosen]


class OdometryTrack:
    """What odometry said lately: the pose of child frame in its frame, and the newest body twist."""

    def __init__(self) -> None:
        self._poses = PoseBuffer()
        self.frame = ""
        self.child = ""
        self._twist: tuple[FloatArray, FloatArray] = (np.zeros(3), np.zeros(3))

    def add(self, message: Odometry) -> None:
        """Take one message. Raises ValueError when its pose or twist are not finite."""
        pose = read_pose(message.pose.pose)
        twist = message.twist.twist
        linear, angular = ([getattr(v, axis) for axis in "xyz"] for v in (twist.linear, twist.angular))
        if not np.isfinite(linear + angular).all():
            raise ValueError("odometry twist contains NaN or Inf")
        if (message.header.frame_id, message.child_frame_id) != (self.frame, self.child):
            self._poses = PoseBuffer()
        self.frame, self.child = message.header.frame_id, message.child_frame_id
        self._twist = (np.array(linear), np.array(angular))
        self._poses.add(nanoseconds(message.header.stamp), pose)

    def pose(self, stamp_ns: int, tolerance_s: float) -> FloatArray | None:
        """T_frame_child at a time, or None when odometry is more than tolerance_s away from it.

        Where there is but one pose, as after a start, its twist says how it goes on.
        """
        known, newest = self._poses.at(stamp_ns, tolerance_s), self._poses.newest()
        if known is not None or newest is None:
            return known
        linear, angular = self._twist
        seconds = (stamp_ns - newest[0]) * 1e-9
        if abs(seconds) > tolerance_s or not (linear.any() or angular.any()):
            return None
        onward: FloatArray = newest[1] @ CameraPath.constant_twist(linear, angular, BASELINE_S).at(seconds)[0]
        return onward

    def twist_path(self, stamp_ns: int, tolerance_s: float, horizon_s: float) -> CameraPath | None:
        """How child goes on from a time at constant velocity: T_child(t0)_child(t), or None without fresh odometry.

        The twist is the message's; where that is exactly zero (not measured), the difference of poses stands in.
        """
        now = self.pose(stamp_ns, tolerance_s)
        if now is None:
            return None
        linear, angular = self._twist
        if linear.any() or angular.any():
            return CameraPath.constant_twist(linear, angular, max(horizon_s, BASELINE_S))
        dt = 2 * BASELINE_S
        before = self.pose(stamp_ns - round(dt * 1e9), tolerance_s)
        if before is None:
            return CameraPath.still()
        return CameraPath(np.array([-dt, 0.0]), np.stack([rigid_inverse(now) @ before, np.eye(4)]))

    def speed(self, stamp_ns: int, tolerance_s: float) -> float | None:
        """Metres per second along the path driven, or None without fresh odometry."""
        path = self.twist_path(stamp_ns, tolerance_s, BASELINE_S)
        return None if path is None else float(np.linalg.norm(path.at(BASELINE_S)[0, :3, 3])) / BASELINE_S


class TransformSource(Protocol):
    """Something that knows where frames are, as tf does."""

    def lookup(self, target: str, source: str, stamp_ns: int) -> FloatArray | None:
        """T_target_source (4, 4) at a time, without waiting; None when not known."""

    def clear(self) -> None:
        """Forget everything that depends on time."""


class NullTransforms:
    """A frame source that knows nothing: an installation without tf."""

    def lookup(self, target: str, source: str, stamp_ns: int) -> FloatArray | None:
        return None

    def clear(self) -> None:
        pass


class TransformTree:
    """A small tf: frames, each with its parent and its poses in it; static ones hold at all times."""

    tolerance_s = 0.5

    def __init__(self) -> None:
        self._edges: dict[str, tuple[str, PoseBuffer | FloatArray]] = {}

    def add(self, parent: str, child: str, stamp_ns: int, pose: FloatArray, static: bool) -> None:
        """Take one T_parent_child."""
        if static:
            self._edges[child] = (parent, pose)
            return
        known = self._edges.get(child)
        if known is None or known[0] != parent or not isinstance(known[1], PoseBuffer):
            known = self._edges[child] = (parent, PoseBuffer())
        buffer = known[1]
        assert isinstance(buffer, PoseBuffer)
        buffer.add(stamp_ns, pose)

    def lookup(self, target: str, source: str, stamp_ns: int) -> FloatArray | None:
        up, down = self._chain(target, stamp_ns), self._chain(source, stamp_ns)
        common = next((frame for frame in down if frame in up), None)
        return None if common is None else rigid_inverse(up[common]) @ down[common]

    def clear(self) -> None:
        self._edges = {child: edge for child, edge in self._edges.items() if not isinstance(edge[1], PoseBuffer)}

    def _chain(self, frame: str, stamp_ns: int) -> dict[str, FloatArray]:
        """T_ancestor_frame of the frame itself and all its ancestors known at that time."""
        chain = {frame: np.eye(4)}
        pose = np.eye(4)
        while frame in self._edges:
            parent, edge = self._edges[frame]
            step = edge.at(stamp_ns, self.tolerance_s) if isinstance(edge, PoseBuffer) else edge
            if step is None or parent in chain:  # not known then, or a loop
                break
            pose, frame = step @ pose, parent
            chain[frame] = pose
        return chain


@dataclass(frozen=True)
class EgoState:
    """What the node knows besides image and trajectory, and how far it trusts it.

    Made anew for each image or request, it remembers what it was asked: thirty candidate paths look for the base once,
    and start from one place even when odometry comes in meanwhile.
    """

    odometry: OdometryTrack
    frames: TransformSource
    mounting: FloatArray  # T_base_camera where tf does not know it
    base_frame: str = ""  # "": the odometry's child frame
    odometry_timeout: float = 0.5
    trajectory_timeout: float = 2.0
    _found: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def base(self) -> str:
        """The frame whose poses a trajectory gives."""
        return self.base_frame or self.odometry.child or "base_link"

    def camera_in_base(self, camera: str, stamp_ns: int) -> FloatArray:
        """T_base_camera: from tf, else the mounting; identity when odometry is the camera's own."""
        base = self.base
        if camera == base:
            return np.eye(4)
        known = self._once(("tf", base, camera, stamp_ns), lambda: self.frames.lookup(base, camera, stamp_ns))
        return self.mounting if known is None else known

    def base_in(self, frame: str, stamp_ns: int) -> FloatArray | None:
        """T_frame_base at a time, from odometry or tf; None when neither knows."""
        pose = self.odometry_pose(stamp_ns) if frame == self.odometry.frame else None
        if pose is not None:
            return pose
        base = self.base
        return self._once(("tf", frame, base, stamp_ns), lambda: self.frames.lookup(frame, base, stamp_ns))

    def odometry_pose(self, stamp_ns: int) -> FloatArray | None:
        """T_frame_child of odometry at a time; None without fresh odometry."""
        return self._once(("odometry", stamp_ns), lambda: self.odometry.pose(stamp_ns, self.odometry_timeout))

    def speed(self, stamp_ns: int) -> float | None:
        """Metres per second along the path driven; None without fresh odometry."""
        return self._once(("speed", stamp_ns), lambda: self.odometry.speed(stamp_ns, self.odometry_timeout))

    def _once(self, key: Hashable, find: Callable[[], Found]) -> Found:
        """What find says the first time."""
        if key not in self._found:
            self._found[key] = find()
        found: Found = self._found[key]
        return found
