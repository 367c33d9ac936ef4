# SPDX-License-Identifier: Apache-2.0
"""ROS messages of a driving log from arrays, with the types of rosbags; needs no ROS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.geometry.rotations import FloatArray, xyzw_from_matrix
from pixel4d_ros.logs.types import jazzy_types

ODOM, BASE = "odom", "base_link"


class Messages:
    """Creates messages; stamps are ns, poses T_parent_child (4, 4)."""

    def __init__(self) -> None:
        self.types = jazzy_types().types

    def _make(self, name: str, *fields: Any) -> Any:
        return self.types[name](*fields)

    def _header(self, ns: int, frame: str) -> Any:
        stamp = self._make("builtin_interfaces/msg/Time", ns // 10**9, ns % 10**9)
        return self._make("std_msgs/msg/Header", stamp, frame)

    def _vector(self, name: str, v: FloatArray) -> Any:
        return self._make(f"geometry_msgs/msg/{name}", *(float(x) for x in v))

    def _rotation(self, R: FloatArray) -> Any:
        return self._vector("Quaternion", xyzw_from_matrix(R))

    def _pose(self, T: FloatArray) -> Any:
        return self._make("geometry_msgs/msg/Pose", self._vector("Point", T[:3, 3]), self._rotation(T[:3, :3]))

    def tf(self, ns: int, edges: Sequence[tuple[str, str, FloatArray]]) -> Any:
        """tf2_msgs/TFMessage of (parent, child, T_parent_child)."""
        transforms = []
        for parent, child, T in edges:
            transform = self._make(
                "geometry_msgs/msg/Transform", self._vector("Vector3", T[:3, 3]), self._rotation(T[:3, :3])
            )
            header = self._header(ns, parent)
            transforms.append(self._make("geometry_msgs/msg/TransformStamped", header, child, transform))
        return self._make("tf2_msgs/msg/TFMessage", transforms)

    def odometry(self, ns: int, T: FloatArray, twist: tuple[FloatArray, FloatArray]) -> Any:
        """nav_msgs/Odometry of base_link in odom; twist: linear (3,) m/s and angular (3,) rad/s in the base's frame."""
        unknown = np.zeros(36)
        pose = self._make("geometry_msgs/msg/PoseWithCovariance", self._pose(T), unknown)
        motion = self._make("geometry_msgs/msg/Twist", *(self._vector("Vector3", v) for v in twist))
        twisted = self._make("geometry_msgs/msg/TwistWithCovariance", motion, unknown)
        return self._make("nav_msgs/msg/Odometry", self._header(ns, ODOM), BASE, pose, twisted)

    def path(self, ns: int, stamps: Sequence[int], poses: FloatArray) -> Any:
        """nav_msgs/Path in odom of poses (n, 4, 4) with their times, ns."""
        stamped = [
            self._make("geometry_msgs/msg/PoseStamped", self._header(stamp, ODOM), self._pose(T))
            for stamp, T in zip(stamps, poses)
        ]
        return self._make("nav_msgs/msg/Path", self._header(ns, ODOM), stamped)

    def camera_info(self, ns: int, frame: str, K: FloatArray, width: int, height: int) -> Any:
        """sensor_msgs/CameraInfo of an undistorted camera."""
        P = np.hstack((K, np.zeros((3, 1))))
        whole = self._make("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
        return self._make(
            "sensor_msgs/msg/CameraInfo",
            *(self._header(ns, frame), height, width, "plumb_bob", np.zeros(5)),
            *(K.reshape(-1), np.eye(3).reshape(-1), P.reshape(-1), 0, 0, whole),
        )

    def compressed(self, ns: int, frame: str, encoding: str, data: NDArray[np.uint8]) -> Any:
        """sensor_msgs/CompressedImage."""
        return self._make("sensor_msgs/msg/CompressedImage", self._header(ns, frame), encoding, data.reshape(-1))
