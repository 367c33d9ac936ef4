"""The synthetic street as a driving log, with the topics of a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.logs.types import jazzy_types
from pixel4d_ros.logs.writer import LogWriter
from pixel4d_ros.rotations import FloatArray, rigid, rigid_inverse, rotation_vector
from pixel4d_ros.synthetic.motion import BODY_OPTICAL
from pixel4d_ros.synthetic.views import clip_layout, street_clip

STEP = 0.1  # seconds between frames
PLAN = 30  # steps of the planned path
START_NS = 1_700_000_000_000_000_000
CAMERA_FRAME = "camera_left_optical"
BASE_CAMERA = rigid(BODY_OPTICAL, (1.08, 0.0, 0.73))  # T_base_camera: the camera ahead of and above the inertial unit
MAX_DEPTH = 65.535  # metres: what 16 bits of millimetres hold


def write_street_log(
    path: Path, seed: int = 0, frames: int = 100, size: tuple[int, int] = (416, 128), progress: bool = True
) -> None:
    """Write `frames` images at 10 Hz with CameraInfo, depth, odometry, tf and the plan of the next 3 s to an MCAP file.

    size is (width, height). Poses are of base_link in odom, where base_link is at time 0. Raises LogError when the path
    cannot be written.
    """
    with LogWriter(path) as log:
        clip = street_clip(seed, frames, STEP, size, progress=progress)
        camera = clip_layout(seed, float(clip.times[-1])).camera(
            np.arange(-1, frames + PLAN + 1, dtype=np.float64) * STEP
        )
        base = camera @ rigid_inverse(BASE_CAMERA)
        base = rigid_inverse(base[1]) @ base
        make = _Messages()
        log.write("/tf_static", START_NS, make.tf(START_NS, "base_link", CAMERA_FRAME, BASE_CAMERA))
        for i in range(frames):
            _write_frame(log, make, clip, i, base)


def _write_frame(log: LogWriter, make: _Messages, clip: Clip, i: int, base: FloatArray) -> None:
    """Everything of frame i; base[i + 1] is its pose T_odom_base, with one more before the first frame."""
    now = _stamp(i)
    pose = base[i + 1]
    log.write("/tf", now, make.tf(now, "odom", "base_link", pose))
    log.write("/odometry", now, make.odometry(now, pose, _twist(base[i], pose, base[i + 2])))
    log.write("/planned_path", now, make.path(now, i, base[i + 1 : i + 2 + PLAN]))
    log.write("/camera/left/camera_info", now, make.camera_info(now, clip))
    image = cv2.imencode(".jpg", clip.images[i][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    log.write("/camera/left/image_raw/compressed", now, make.compressed(now, "bgr8; jpeg compressed bgr8", image))
    assert clip.depth is not None  # street_clip always renders it
    known = np.where(clip.depth[i] <= MAX_DEPTH, clip.depth[i], 0)
    depth = cv2.imencode(".png", np.round(known * 1000).astype(np.uint16))[1]
    log.write("/camera/left/depth/compressed", now, make.compressed(now, "16UC1; png compressed", depth))


def _stamp(frame: int) -> int:
    return START_NS + round(frame * STEP * 1e9)


def _twist(before: FloatArray, now: FloatArray, after: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Linear and angular velocity in the body's frame, by central differences over two frames."""
    linear = now[:3, :3].T @ (after[:3, 3] - before[:3, 3]) / (2 * STEP)
    return linear, rotation_vector(before[:3, :3].T @ after[:3, :3]) / (2 * STEP)


class _Messages:
    """Makes the messages; the types come from rosbags, no ROS needed."""

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
        # Rotation vector to (x, y, z, w).
        r = rotation_vector(R)
        angle = float(np.linalg.norm(r))
        return self._vector("Quaternion", np.append(r * 0.5 * np.sinc(angle / (2 * np.pi)), np.cos(angle / 2)))

    def _pose(self, T: FloatArray) -> Any:
        return self._make("geometry_msgs/msg/Pose", self._vector("Point", T[:3, 3]), self._rotation(T[:3, :3]))

    def tf(self, ns: int, parent: str, child: str, T: FloatArray) -> Any:
        """T_parent_child as tf2_msgs/TFMessage."""
        transform = self._make(
            "geometry_msgs/msg/Transform", self._vector("Vector3", T[:3, 3]), self._rotation(T[:3, :3])
        )
        stamped = self._make("geometry_msgs/msg/TransformStamped", self._header(ns, parent), child, transform)
        return self._make("tf2_msgs/msg/TFMessage", [stamped])

    def odometry(self, ns: int, T: FloatArray, twist: tuple[FloatArray, FloatArray]) -> Any:
        """nav_msgs/Odometry of base_link in odom."""
        unknown = np.zeros(36)
        pose = self._make("geometry_msgs/msg/PoseWithCovariance", self._pose(T), unknown)
        motion = self._make("geometry_msgs/msg/Twist", *(self._vector("Vector3", v) for v in twist))
        twisted = self._make("geometry_msgs/msg/TwistWithCovariance", motion, unknown)
        return self._make("nav_msgs/msg/Odometry", self._header(ns, "odom"), "base_link", pose, twisted)

    def path(self, ns: int, first: int, poses: FloatArray) -> Any:
        """nav_msgs/Path of poses from frame `first` on, with their times."""
        stamped = [
            self._make("geometry_msgs/msg/PoseStamped", self._header(_stamp(first + k), "odom"), self._pose(T))
            for k, T in enumerate(poses)
        ]
        return self._make("nav_msgs/msg/Path", self._header(ns, "odom"), stamped)

    def camera_info(self, ns: int, clip: Clip) -> Any:
        """sensor_msgs/CameraInfo of an undistorted camera."""
        height, width = clip.images.shape[1:3]
        P = np.hstack((clip.K, np.zeros((3, 1))))
        whole = self._make("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
        return self._make(
            "sensor_msgs/msg/CameraInfo",
            *(self._header(ns, CAMERA_FRAME), height, width, "plumb_bob", np.zeros(5)),
            *(clip.K.reshape(-1), np.eye(3).reshape(-1), P.reshape(-1), 0, 0, whole),
        )

    def compressed(self, ns: int, encoding: str, data: NDArray[np.uint8]) -> Any:
        """sensor_msgs/CompressedImage in the camera's frame."""
        return self._make("sensor_msgs/msg/CompressedImage", self._header(ns, CAMERA_FRAME), encoding, data.reshape(-1))
