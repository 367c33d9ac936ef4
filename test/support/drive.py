# SPDX-License-Identifier: Apache-2.0
"""A drive for tests of trajectories: a vehicle on an arc, its odometry and its planned path as messages."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped, Twist, Vector3
from nav_msgs.msg import Odometry, Path

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.geometry.rotations import rigid, rigid_from_xyzw, rotation_matrix
from pixel4d_ros.ros.messages.conversions import pose_message
from pixel4d_ros.ros.odometry import OdometryTrack
from pixel4d_ros.ros.transforms import EgoState, NullTransforms

T0 = 1_700_000_000_000_000_000  # the image's stamp, ns
TIMES = np.arange(14) * 0.1
AHEAD = rigid_from_xyzw([-0.5, 0.5, -0.5, 0.5], [1.5, 0.0, 0.8])  # a camera that looks ahead, before base_link
ARC = CameraPath.constant_twist([8.0, 0, 0], [0, 0, 0.3], 5.0, step=0.01)  # a left turn at 8 m/s, T_start_base


def stamp(seconds: float) -> Time:
    """Seconds after T0 as a builtin_interfaces/Time."""
    sec, nanosec = divmod(T0 + round(seconds * 1e9), 10**9)
    return Time(sec=sec, nanosec=nanosec)


def drive(seconds) -> np.ndarray:
    """T_odom_base (n, 4, 4) of a vehicle somewhere in odom on its arc; T0 is one second into it."""
    return rigid(rotation_matrix([0, 0, 1.0]), [100, -50, 2]) @ ARC.at(np.asarray(seconds) + 1.0)


def path_message(seconds, poses, frame="odom", stamped=True, at: float = 0.0) -> Path:
    message = Path()
    message.header.frame_id, message.header.stamp = frame, stamp(at)
    for s, T in zip(seconds, poses):
        pose = PoseStamped(pose=pose_message(T))
        if stamped:
            pose.header.stamp = stamp(s)
        message.poses.append(pose)
    return message


def odometry_track(seconds=(-0.2, -0.1, 0.0), twist=True, frame="odom", child="base_link") -> OdometryTrack:
    track = OdometryTrack()
    for s in seconds:
        message = Odometry(child_frame_id=child)
        message.header.frame_id, message.header.stamp = frame, stamp(s)
        message.pose.pose = pose_message(drive([s])[0])
        if twist:
            message.twist.twist = Twist(linear=Vector3(x=8.0), angular=Vector3(z=0.3))
        track.add(message)
    return track


def ego_state(odometry: OdometryTrack | None = None, frames=None, mounting=AHEAD, **options) -> EgoState:
    return EgoState(odometry or OdometryTrack(), frames or NullTransforms(), mounting, **options)
