# SPDX-License-Identifier: Apache-2.0
"""The camera's path after the source image, from the plan, else from odometry, else standing.

A trajectory gives poses of the vehicle's base in a frame. With the base's pose at the image's stamp t0, the camera's is
T_source_camera(t) = (T_frame_base(t0) T_base_camera)^-1 T_frame_base(t) T_base_camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.geometry.interpolation import poses_along
from pixel4d_ros.geometry.jumps import ROUGH_JUMP_M, find_jumps
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse, rotation_vector
from pixel4d_ros.ros.messages.headers import frame_name
from pixel4d_ros.ros.plans import Plan, PlanError, with_path_headings
from pixel4d_ros.ros.transforms import EgoState

STANDSTILL = 0.05  # m/s: a lower speed counts as standing when it times a trajectory without times


@dataclass(frozen=True)
class EgoMotion:
    """The camera's motion during the forecast, and its source."""

    path: CameraPath
    source: str  # for diagnostics: "trajectory", "constant velocity from odometry", ...
    warning: str = ""  # why no better source is used


ENDS_EARLY = "trajectory ends before the forecast does: the camera stops at its end"
FAR_OFF_M, FAR_OFF_ANGLE = 3.0, np.radians(45)  # of a plan's place of now from the vehicle: more is no tracking error
FAR_OFF = (
    f"trajectory is more than {FAR_OFF_M:g} m or 45 degrees away from where the vehicle is: is it in the right frame,"
    " with orientations?"
)

SOON_S = 0.3  # after the image, over which the plan's speed is compared with odometry's
SPEED_APART_MPS, SPEED_SHARE = 2.0, 0.2  # between the two: metres a second, and share of the larger one on top
OTHER_SPEED = (
    "trajectory goes on at another speed than the vehicle's by odometry: are its times in seconds, its positions in"
    " metres?"
)
OTHER_DIRECTION = (
    "trajectory leads elsewhere than the vehicle drives by odometry: are its poses in the axes of its frame (of a body:"
    " x ahead, y left, z up)?"
)
BACK = "trajectory leads away behind the vehicle: is it in reverse order, or of another vehicle?"
BACK_COSINE = -0.5  # between the x axes of vehicle and plan
JUMPS = "trajectory jumps from one pose to the next: are all its poses of one drive, in one frame?"


@dataclass(frozen=True)
class BasePath:
    """The path of the base along a plan, and the base's places on it over time."""

    knots: FloatArray  # (n,) seconds after the image or, of a plan without times, metres; strictly increasing
    poses: FloatArray  # (n, 4, 4) T_frame_base there
    begin: float  # the base's place at the image's stamp, in units of knots
    places: FloatArray  # (T,) its places at the forecast times
    start: FloatArray | None = None  # (4, 4) reference of the relative poses; None: the pose at begin
    warning: str = ""  # a fault of a plan that is followed nevertheless


def ego_motion(
    plan: Plan | PlanError | None, ego: EgoState, camera: str, stamp_ns: int, times: FloatArray
) -> EgoMotion:
    """The camera's motion at times (T,) s after stamp_ns: along the plan, else at constant velocity, else standing.

    plan: a PlanError gives the reason why there is none.
    """
    reason = str(plan) if isinstance(plan, PlanError) else ""
    if isinstance(plan, Plan):
        try:
            return planned_motion(plan, ego, camera, stamp_ns, times)
        except PlanError as error:
            reason = str(error)
    mounting = ego.camera_in_base(camera, stamp_ns)
    motion = ego.base_motion(stamp_ns, float(times[-1]))
    if motion is not None:
        poses = _camera_poses(motion.path.at(times), mounting, times)
        return EgoMotion(CameraPath(times, poses), "constant velocity from odometry", _joined(reason, motion.warning))
    missing = "odometry is stale" if ego.odometry.frame else "no odometry"
    reason = _joined(reason or "no trajectory", ego.odometry_fault(stamp_ns) or missing)
    return EgoMotion(CameraPath(times, np.tile(np.eye(4), (len(times), 1, 1))), "standing camera", reason)


def planned_motion(plan: Plan, ego: EgoState, camera: str, stamp_ns: int, times: FloatArray) -> EgoMotion:
    """The camera's motion along the plan. Raises PlanError when the plan cannot be followed."""
    source = "trajectory" if plan.times_ns is not None else "trajectory, timed by odometry speed"
    path = planned_base_path(plan, ego, camera, stamp_ns, times)
    (poses,) = camera_poses_along([path], ego.camera_in_base(camera, stamp_ns), times)
    return EgoMotion(CameraPath(times, poses), source, path.warning)


def planned_base_path(plan: Plan, ego: EgoState, camera: str, stamp_ns: int, times: FloatArray) -> BasePath:
    """The path along the plan at times (T,) s after stamp_ns; it stops at the plan's end. Raises PlanError."""
    if abs(stamp_ns - plan.stamp_ns) > ego.trajectory_timeout * 1e9:
        older = "older" if plan.stamp_ns < stamp_ns else "newer"
        raise PlanError(f"trajectory is stale: {older} than the image by more than trajectory_timeout")
    start = _base_in_plan_frame(plan, ego, camera, stamp_ns)
    if plan.times_ns is None:
        return _untimed_path(plan, ego, start, stamp_ns, times)
    seconds: FloatArray = np.asarray((plan.times_ns - stamp_ns) * 1e-9, np.float64)
    poses = plan.poses
    if seconds[-1] <= 0:
        raise PlanError("trajectory is entirely in the past")
    ends_early = bool(seconds[-1] < times[-1] - 1e-6) and not _stands_at_end(seconds, poses)
    if seconds[0] > times[-1] + ego.trajectory_timeout:
        raise PlanError("trajectory begins long after the forecast ends: are its times on the images' clock?")
    if seconds[0] > 0:
        if start is None:
            reason = ego.odometry_fault(stamp_ns) or f"where the vehicle is in {plan.frame!r} is unknown"
            raise PlanError(f"trajectory begins after the image, and {reason}")
        seconds, poses = np.append(0.0, seconds), np.concatenate([start[None], poses])
    doubts = _joined(
        _warning(plan, ego, stamp_ns, ends_early), JUMPS if len(find_jumps(seconds, poses, ROUGH_JUMP_M)) else ""
    )
    if start is not None:
        ((now, soon),) = poses_along([(seconds, poses)], np.array([[0.0, SOON_S]]))
        doubts = _joined(doubts, _far_off(start, now))
        if seconds[-1] >= SOON_S:  # a shorter rest of a plan tells no speed
            doubts = _joined(doubts, _other_motion(soon[:3, 3] - now[:3, 3], start, ego.velocity(stamp_ns)))
    return BasePath(seconds, poses, 0.0, np.minimum(times, seconds[-1]), start, doubts)


def camera_poses_along(paths: Sequence[BasePath], mounting: FloatArray, times: FloatArray) -> FloatArray:
    """Camera poses (P, T, 4, 4) along P paths of the base at times (T,) s; mounting is T_base_camera."""
    places = np.stack([np.append(path.begin, path.places) for path in paths])
    base = poses_along([(path.knots, path.poses) for path in paths], places)
    start = np.stack([at[0] if path.start is None else path.start for path, at in zip(paths, base)])
    return _camera_poses(rigid_inverse(start)[:, None] @ base[:, 1:], mounting, times)


def _camera_poses(base_poses: FloatArray, mounting: FloatArray, times: FloatArray) -> FloatArray:
    """Poses (..., T, 4, 4) of the camera relative to where it was at t0, from those of the base."""
    poses: FloatArray = rigid_inverse(mounting) @ base_poses @ mounting
    poses[..., times == 0, :, :] = np.eye(4)  # by definition, whatever the plan contains
    return poses


def _joined(first: str, *others: str) -> str:
    """Unique reasons in one line."""
    for reason in others:
        if reason and reason not in first:
            first = f"{first}, {reason}" if first else reason
    return first


def _warning(plan: Plan, ego: EgoState, stamp_ns: int, ends_early: bool) -> str:
    """Warning about a plan that is followed."""
    fault = ego.odometry_fault(stamp_ns) if frame_name(plan.frame) == ego.odometry.frame else ""
    return _joined(fault, ENDS_EARLY if ends_early else "")


def _far_off(vehicle: FloatArray, planned: FloatArray, with_heading: bool = True) -> str:
    """A warning where the plan's pose of now (4, 4) is not where the vehicle is; without heading, tilt counts alone."""
    step = rigid_inverse(vehicle) @ planned
    angle = np.linalg.norm(rotation_vector(step[:3, :3])) if with_heading else np.arccos(np.clip(step[2, 2], -1, 1))
    return FAR_OFF if angle > FAR_OFF_ANGLE or np.linalg.norm(step[:3, 3]) > FAR_OFF_M else ""


def _other_motion(way: FloatArray, vehicle: FloatArray, velocity: FloatArray | None) -> str:
    """A warning where no vehicle changes from odometry's velocity (3,) to the plan's so soon; else empty.

    way (3,): the plan's over SOON_S, in the frame of the vehicle's pose (4, 4).
    """
    if velocity is None:
        return ""
    planned, driven = way / SOON_S, vehicle[:3, :3] @ velocity
    speeds = np.linalg.norm(planned), np.linalg.norm(driven)
    most = SPEED_APART_MPS + SPEED_SHARE * max(speeds)
    if abs(speeds[0] - speeds[1]) >= most:
        return OTHER_SPEED
    return OTHER_DIRECTION if np.linalg.norm(planned - driven) >= most else ""


def _stands_at_end(seconds: FloatArray, poses: FloatArray) -> bool:
    """Whether the plan itself ends at standstill."""
    if len(seconds) < 2:
        return False
    return bool(np.linalg.norm(poses[-1, :3, 3] - poses[-2, :3, 3]) < STANDSTILL * (seconds[-1] - seconds[-2]))


def _base_in_plan_frame(plan: Plan, ego: EgoState, camera: str, stamp_ns: int) -> FloatArray | None:
    """T_frame_base(t0); None without odometry: the plan's own pose at t0 applies. Raises PlanError if unknown."""
    frame, odometry = frame_name(plan.frame), ego.odometry.frame
    if frame in (ego.base, frame_name(camera)):
        # The frame moves with the vehicle: poses refer to its place at the plan's stamp.
        then, now = (ego.base_in(odometry, at) if odometry else None for at in (plan.stamp_ns, stamp_ns))
        if then is None or now is None:
            return None
        moved = rigid_inverse(then) @ now
        return moved if frame == ego.base else rigid_inverse(ego.camera_in_base(camera, stamp_ns)) @ moved
    start = ego.base_in(frame, stamp_ns)
    if start is None and odometry not in ("", frame):
        raise PlanError(f"trajectory frame {plan.frame!r} is unknown: tf does not connect it with {odometry!r}")
    return start


def _untimed_path(plan: Plan, ego: EgoState, start: FloatArray | None, stamp_ns: int, times: FloatArray) -> BasePath:
    """Like planned_base_path for a plan without times: at odometry's speed from its point nearest to the vehicle."""
    speed, motion = ego.speed(stamp_ns), ego.base_motion(stamp_ns, float(times[-1]))
    if speed is None or motion is None:
        reason = ego.odometry_fault(stamp_ns) or "there is no odometry whose speed could time it"
        raise PlanError(f"trajectory has no times, and {reason}")
    poses = _with_headings(plan.poses)
    positions = poses[:, :3, 3]
    lengths = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(positions, axis=0), axis=1)))
    new = np.append(True, np.diff(lengths) > 1e-6)
    if speed < STANDSTILL or new.sum() < 2:
        warning = motion.warning
        if speed >= STANDSTILL:  # a place alone, which the vehicle drives to or past
            far = "" if start is None else _far_off(start, poses[0], with_heading=False)
            warning = _joined(warning, ENDS_EARLY, far)
        return BasePath(np.zeros(1), np.eye(4)[None], 0.0, np.zeros(len(times)), warning=warning)
    poses, lengths = poses[new], lengths[new]
    begin = 0.0 if start is None else _arc_length_nearest(poses[:, :3, 3], lengths, start[:3, 3])
    places = begin + speed * times
    warning = _joined(motion.warning, ENDS_EARLY if places[-1] > lengths[-1] + 1e-6 else "")
    if start is not None:
        ((now, soon),) = poses_along([(lengths, poses)], np.array([[begin, begin + speed * SOON_S]]))
        back = BACK if start[:3, 0] @ now[:3, 0] < BACK_COSINE else ""
        if not back and begin + speed * SOON_S <= lengths[-1]:
            back = _other_motion(soon[:3, 3] - now[:3, 3], start, ego.velocity(stamp_ns))
        warning = _joined(warning, _far_off(start, now, with_heading=False), back)
    return BasePath(lengths, poses, begin, np.minimum(places, lengths[-1]), warning=warning)


def _arc_length_nearest(positions: FloatArray, lengths: FloatArray, point: FloatArray) -> float:
    """Arc length of the polyline's point nearest to a point."""
    a, ab = positions[:-1], np.diff(positions, axis=0)
    s = np.clip(((point - a) * ab).sum(1) / (ab * ab).sum(1), 0, 1)
    nearest = int(np.linalg.norm(a + s[:, None] * ab - point, axis=1).argmin())
    return float(lengths[nearest] + s[nearest] * (lengths[nearest + 1] - lengths[nearest]))


def _with_headings(poses: FloatArray) -> FloatArray:
    """Poses with headings along the path if all orientations but the goal's are identity, as from NavFn."""
    if len(poses) < 2 or not np.allclose(poses[:-1, :3, :3], np.eye(3)):
        return poses
    return with_path_headings(poses, np.ones(len(poses), bool))
