# SPDX-License-Identifier: Apache-2.0
"""Trajectory messages of all supported types converted to one form: Plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from nav_msgs.msg import Path
from numpy.typing import NDArray

from pixel4d_ros.geometry.interpolation import FASTEST, step_speeds
from pixel4d_ros.geometry.rotations import FloatArray, rigid_from_xyzw
from pixel4d_ros.ros.messages.headers import frame_name, nanoseconds

MAX_POSES = 10_000  # longer trajectories are rejected: reading them takes seconds
LONGEST_S = 1e6  # of a drive at the planned speeds: in nanoseconds, some longer ones are no integers of 64 bits
STOPPED = 0.01  # m/s: below this planned speed the vehicle stands


class PlanError(ValueError):
    """A trajectory that cannot be followed. The text has no changing numbers, so it is logged once."""


@dataclass(frozen=True)
class Plan:
    """A planned trajectory of the base."""

    frame: str
    stamp_ns: int  # when it was planned
    poses: FloatArray  # (n, 4, 4) T_frame_base
    times_ns: NDArray[np.int64] | None  # (n,) strictly increasing; None: the trajectory has no times


def plan_from_path(message: Path, received_ns: int) -> Plan:
    """Read a nav_msgs/Path; received_ns replaces a missing stamp. Raises PlanError."""
    poses = _poses(message, message.poses, _place)
    return _stamped(message, poses, [nanoseconds(p.header.stamp) for p in message.poses], received_ns)


def plan_from_multi_dof(message: Any, received_ns: int) -> Plan:
    """Read a trajectory_msgs/MultiDOFJointTrajectory, whose first joint is the base. Raises PlanError."""
    if any(not p.transforms for p in message.points):
        raise PlanError("trajectory has points without transforms")

    def place(point: Any) -> tuple[Any, Any]:
        return point.transforms[0].translation, point.transforms[0].rotation

    return _from_start(message, _poses(message, message.points, place), received_ns)


def plan_from_nav_trajectory(message: Any, received_ns: int) -> Plan:
    """Read a nav_msgs/Trajectory (newer than Jazzy), whose points have stamps. Raises PlanError."""
    poses = _poses(message, message.points, _place)
    return _stamped(message, poses, [nanoseconds(p.header.stamp) for p in message.points], received_ns)


def plan_from_points(message: Any, received_ns: int) -> Plan:
    """Read a nav2_msgs/Trajectory or autoware_planning_msgs/Trajectory. Raises PlanError.

    Autoware's planners may leave all times at zero; times then follow from the planned speeds.
    """
    poses = _poses(message, message.points, _place)
    if hasattr(message.points[0], "longitudinal_velocity_mps"):
        speeds = np.array([p.longitudinal_velocity_mps for p in message.points], np.float64)
        if not any(nanoseconds(p.time_from_start) for p in message.points) and speeds.any():
            return _timed_by_speeds(message, poses, speeds, received_ns)
    return _from_start(message, poses, received_ns)


PLAN_READERS: dict[str, Callable[[Any, int], Plan]] = {
    "nav_msgs/Path": plan_from_path,
    "trajectory_msgs/MultiDOFJointTrajectory": plan_from_multi_dof,
    "nav_msgs/Trajectory": plan_from_nav_trajectory,
    "nav2_msgs/Trajectory": plan_from_points,
    "autoware_planning_msgs/Trajectory": plan_from_points,
}
"""Reader of each message type: (message, reception time in ns) -> Plan, or raises PlanError."""


def plan_type(name: str) -> type:
    """The class of one of PLAN_READERS' message types. Raises ImportError naming the package to install."""
    package, _, kind = name.partition("/")
    try:
        found: type = getattr(import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"trajectory_type {name} is not installed here: install the ROS package {package} (of a distribution that "
            "has it), or choose another trajectory_type"
        ) from error
    return found


def with_path_headings(poses: FloatArray, chosen: NDArray[np.bool_]) -> FloatArray:
    """Poses (n, 4, 4) with the orientations of the chosen ones (n,) replaced: x along the path, z up."""
    xy = poses[:, :2, 3]
    new = np.append(True, np.linalg.norm(np.diff(xy, axis=0), axis=1) > 1e-6)  # repeated points have no direction
    if new.sum() < 2:
        raise PlanError("trajectory has a zero quaternion, and its positions define no heading")
    direction = np.gradient(xy[new], axis=0)[np.cumsum(new) - 1]
    heading = np.arctan2(direction[:, 1], direction[:, 0])
    along = np.tile(np.eye(3), (len(poses), 1, 1))
    along[:, 0, 0] = along[:, 1, 1] = np.cos(heading)
    along[:, 1, 0], along[:, 0, 1] = np.sin(heading), -np.sin(heading)
    out: FloatArray = poses.copy()
    out[chosen, :3, :3] = along[chosen]
    return out


def _place(point: Any) -> tuple[Any, Any]:
    """Position and orientation of a point with a pose."""
    return point.pose.position, point.pose.orientation


def _poses(message: Any, points: Sequence[Any], place: Callable[[Any], tuple[Any, Any]]) -> FloatArray:
    if not points:
        raise PlanError("trajectory is empty")
    if len(points) > MAX_POSES:
        raise PlanError(f"trajectory has more than {MAX_POSES} poses")
    if not message.header.frame_id:
        raise PlanError("trajectory has no frame_id in its header")
    frame = frame_name(message.header.frame_id)
    if any(frame_name(p.header.frame_id) not in ("", frame) for p in points if hasattr(p, "header")):
        raise PlanError("trajectory has poses whose frame_id is not that of its header: give all in one frame")
    places = [place(point) for point in points]
    quaternions = np.array([(q.x, q.y, q.z, q.w) for _, q in places], np.float64)
    # Position-only planners leave all four numbers at zero.
    missing: NDArray[np.bool_] = np.logical_not(quaternions.any(axis=1))
    quaternions[missing, 3] = 1.0
    try:
        poses = rigid_from_xyzw(quaternions, [(p.x, p.y, p.z) for p, _ in places])
    except ValueError as error:
        raise PlanError(f"trajectory: {error}") from error
    return with_path_headings(poses, missing) if missing.any() else poses


def _stamped(message: Any, poses: FloatArray, stamps: list[int], received_ns: int) -> Plan:
    """A plan whose points have absolute times."""
    times = np.array(stamps, np.int64)
    return _plan(
        message.header.frame_id, nanoseconds(message.header.stamp) or int(times[0]) or received_ns, poses, times
    )


def _from_start(message: Any, poses: FloatArray, received_ns: int) -> Plan:
    """A plan whose points have times after its stamp."""
    start = nanoseconds(message.header.stamp) or received_ns
    times = start + np.array([nanoseconds(p.time_from_start) for p in message.points], np.int64)
    return _plan(message.header.frame_id, start, poses, times)


def _timed_by_speeds(message: Any, poses: FloatArray, speeds: FloatArray, received_ns: int) -> Plan:
    """A plan whose points have speeds: each segment is driven at the mean speed of its ends."""
    if not np.isfinite(speeds).all():
        raise PlanError("trajectory has speeds that are NaN or Inf")
    start = nanoseconds(message.header.stamp) or received_ns
    mean = (np.abs(speeds[:-1]) + np.abs(speeds[1:])) / 2
    stop = int(np.argmax(mean < STOPPED)) if (mean < STOPPED).any() else len(mean)
    steps = np.linalg.norm(np.diff(poses[: stop + 1, :3, 3], axis=0), axis=1) / mean[:stop]
    seconds, followed = np.append(0.0, np.cumsum(steps)), poses[: stop + 1]
    if seconds[-1] > LONGEST_S:
        raise PlanError(
            f"trajectory takes more than {LONGEST_S:g} s at its speeds: are they in m/s, positions in metres?"
        )
    if stop < len(mean) or abs(speeds[-1]) < STOPPED:
        # Two equal poses at the end: paths are extrapolated, and this one must stop.
        seconds, followed = np.append(seconds, seconds[-1] + 1.0), np.concatenate([followed, followed[-1:]])
    return _plan(message.header.frame_id, start, followed, start + np.round(seconds * 1e9).astype(np.int64))


def _plan(frame: str, stamp_ns: int, poses: FloatArray, times: NDArray[np.int64]) -> Plan:
    if not times.any() or (len(times) > 1 and (times == times[0]).all()):
        return Plan(frame, stamp_ns, poses, None)
    steps = np.diff(times)
    if (steps < 0).any():
        raise PlanError("trajectory's stamps do not increase from pose to pose")
    new = np.append(True, steps > 0)  # some planners repeat a pose
    poses, times = poses[new], times[new]
    if (step_speeds((times - times[0]) * 1e-9, poses) > FASTEST).any():
        raise PlanError(f"trajectory is faster than {FASTEST:g} m/s: positions must be in metres, times in seconds")
    return Plan(frame, stamp_ns, poses, times)
