"""Planned trajectories -> the camera's path after the source image, with fallbacks that say why.

A trajectory gives poses of the vehicle's base in a frame. With the base's pose at the image's stamp t0, the camera's is
T_source_camera(t) = (T_frame_base(t0) T_base_camera)^-1 T_frame_base(t) T_base_camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.geometry.interpolation import poses_along
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.ros.plans import Plan, PlanError
from pixel4d_ros.ros.transforms import EgoState

STANDSTILL = 0.05  # m/s: slower counts as standing when a trajectory without times is timed by speed


@dataclass(frozen=True)
class EgoMotion:
    """How the camera moves during the forecast, and where that is known from."""

    path: CameraPath
    source: str  # for people: "trajectory", "constant velocity from odometry", ...
    warning: str = ""  # why nothing better is used; empty when all is well


@dataclass(frozen=True)
class BasePath:
    """The way of the base along a plan, and where on it the base is when."""

    knots: FloatArray  # (n,) seconds after the image or, of a plan without times, metres; strictly increasing
    poses: FloatArray  # (n, 4, 4) T_frame_base there
    begin: float  # where on it the base is at the image's stamp
    places: FloatArray  # (T,) where it is at the forecast times
    start: FloatArray | None = None  # (4, 4) the pose that the others are relative to; None: that at begin


def ego_motion(
    plan: Plan | PlanError | None, near: EgoState, camera: str, stamp_ns: int, times: FloatArray
) -> EgoMotion:
    """The camera's motion at times (T,) s after stamp_ns: along the plan, else at constant velocity, else standing.

    A PlanError in place of a plan is why there is none.
    """
    reason = str(plan) if isinstance(plan, PlanError) else ""
    if isinstance(plan, Plan):
        try:
            return planned_motion(plan, near, camera, stamp_ns, times)
        except PlanError as error:
            reason = str(error)
    mounting = near.camera_in_base(camera, stamp_ns)
    path = near.odometry.twist_path(stamp_ns, near.odometry_timeout, float(times[-1]))
    if path is not None:
        poses = _seen_by_camera(path.at(times), mounting, times)
        return EgoMotion(CameraPath(times, poses), "constant velocity from odometry", reason)
    missing = "odometry is stale" if near.odometry.frame else "no odometry"
    reason = f"{reason or 'no trajectory'}, {missing}"
    return EgoMotion(CameraPath(times, np.tile(np.eye(4), (len(times), 1, 1))), "standing camera", reason)


def planned_motion(plan: Plan, near: EgoState, camera: str, stamp_ns: int, times: FloatArray) -> EgoMotion:
    """The camera's motion along the plan. Raises PlanError when the plan cannot be followed."""
    source = "trajectory" if plan.times_ns is not None else "trajectory, timed by odometry speed"
    way = planned_way(plan, near, camera, stamp_ns, times)
    (poses,) = driven([way], near.camera_in_base(camera, stamp_ns), times)
    return EgoMotion(CameraPath(times, poses), source)


def planned_way(plan: Plan, near: EgoState, camera: str, stamp_ns: int, times: FloatArray) -> BasePath:
    """The way along the plan at times (T,) s after stamp_ns. Raises PlanError when the plan cannot be followed."""
    if abs(stamp_ns - plan.stamp_ns) > near.trajectory_timeout * 1e9:
        older = "older" if plan.stamp_ns < stamp_ns else "newer"
        raise PlanError(f"trajectory is stale: {older} than the image by more than trajectory_timeout")
    start = _base_in_plan_frame(plan, near, camera, stamp_ns)
    if plan.times_ns is None:
        return _untimed_way(plan, near, start, stamp_ns, times)
    seconds: FloatArray = np.asarray((plan.times_ns - stamp_ns) * 1e-9, np.float64)
    poses = plan.poses
    if seconds[-1] <= 0:
        raise PlanError("trajectory lies wholly in the past")
    if seconds[0] > 0:
        if start is None:
            raise PlanError(f"trajectory begins after the image, and where the vehicle is in {plan.frame!r} is unknown")
        seconds, poses = np.append(0.0, seconds), np.concatenate([start[None], poses])
    return BasePath(seconds, poses, 0.0, times, start)


def driven(ways: Sequence[BasePath], mounting: FloatArray, times: FloatArray) -> FloatArray:
    """Camera poses (P, T, 4, 4) along P ways at times (T,) s; mounting is T_base_camera."""
    places = np.stack([np.append(way.begin, way.places) for way in ways])
    base = poses_along([(way.knots, way.poses) for way in ways], places)
    start = np.stack([at[0] if way.start is None else way.start for way, at in zip(ways, base)])
    return _seen_by_camera(rigid_inverse(start)[:, None] @ base[:, 1:], mounting, times)


def _seen_by_camera(base_poses: FloatArray, mounting: FloatArray, times: FloatArray) -> FloatArray:
    """Poses (..., T, 4, 4) of the camera relative to where it was at t0, from those of the base."""
    poses: FloatArray = rigid_inverse(mounting) @ base_poses @ mounting
    poses[..., times == 0, :, :] = np.eye(4)  # the source image was taken where the camera is, whatever the plan says
    return poses


def _base_in_plan_frame(plan: Plan, near: EgoState, camera: str, stamp_ns: int) -> FloatArray | None:
    """T_frame_base(t0); None when only the plan itself can tell. Raises PlanError for a frame nobody knows."""
    if plan.frame in (near.base, camera):
        # The frame moves with the vehicle: it is meant where it was when the plan was made.
        then, now = near.odometry_pose(plan.stamp_ns), near.odometry_pose(stamp_ns)
        if then is None or now is None:
            return None
        moved = rigid_inverse(then) @ now
        return moved if plan.frame == near.base else rigid_inverse(near.camera_in_base(camera, stamp_ns)) @ moved
    start = near.base_in(plan.frame, stamp_ns)
    if start is None and near.odometry.frame not in ("", plan.frame):
        raise PlanError(
            f"trajectory frame {plan.frame!r} is unknown: tf does not connect it with {near.odometry.frame!r}"
        )
    return start


def _untimed_way(plan: Plan, near: EgoState, start: FloatArray | None, stamp_ns: int, times: FloatArray) -> BasePath:
    """Like planned_way for a plan without times: at odometry's speed from its point nearest to the vehicle."""
    speed = near.speed(stamp_ns)
    if speed is None:
        raise PlanError("trajectory has no times, and there is no odometry whose speed could time it")
    poses = _with_headings(plan.poses)
    positions = poses[:, :3, 3]
    lengths = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(positions, axis=0), axis=1)))
    new = np.append(True, np.diff(lengths) > 1e-6)
    if speed < STANDSTILL or new.sum() < 2:
        return BasePath(np.zeros(1), np.eye(4)[None], 0.0, np.zeros(len(times)))
    poses, lengths = poses[new], lengths[new]
    begin = 0.0 if start is None else _arc_length_nearest(poses[:, :3, 3], lengths, start[:3, 3])
    return BasePath(lengths, poses, begin, begin + speed * times)


def _arc_length_nearest(positions: FloatArray, lengths: FloatArray, point: FloatArray) -> float:
    """Arc length of the polyline's point nearest to a point."""
    a, ab = positions[:-1], np.diff(positions, axis=0)
    s = np.clip(((point - a) * ab).sum(1) / (ab * ab).sum(1), 0, 1)
    nearest = int(np.linalg.norm(a + s[:, None] * ab - point, axis=1).argmin())
    return float(lengths[nearest] + s[nearest] * (lengths[nearest + 1] - lengths[nearest]))


def _with_headings(poses: FloatArray) -> FloatArray:
    """Poses with x along the way, z up, where a planner left all orientations but the goal's at identity, as NavFn."""
    if len(poses) < 2 or not np.allclose(poses[:-1, :3, :3], np.eye(3)):
        return poses
    way = np.gradient(poses[:, :3, 3], axis=0)
    heading = np.arctan2(way[:, 1], way[:, 0])
    out = poses.copy()
    out[:, :3, :3] = np.eye(3)
    out[:, 0, 0] = out[:, 1, 1] = np.cos(heading)
    out[:, 1, 0], out[:, 0, 1] = np.sin(heading), -np.sin(heading)
    return out
