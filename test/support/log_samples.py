# SPDX-License-Identifier: Apache-2.0
"""Small driving logs in every format, written by the tests that read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags import rosbag1, rosbag2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from pixel4d_ros.logs.types import jazzy_types
from pixel4d_ros.logs.writer import LogWriter

START = 1_700_000_000_000_000_000
WIDTH, HEIGHT = 32, 24
SPEED = 5.0  # m/s along x of odom
TURN = 0.2  # rad/s about z
OLD_TF = "tf/msg/tfMessage"  # what ROS 1 called it first


@dataclass(frozen=True)
class Entry:
    """A message to be logged."""

    topic: str
    time_ns: int
    message: Any


def picture(index: int, scale: int = 1) -> np.ndarray:
    """RGB (HEIGHT * scale, WIDTH * scale, 3): smooth, different for every index."""
    y, x = np.mgrid[: HEIGHT * scale, : WIDTH * scale] // scale
    return np.stack([x * 7, y * 9, np.full_like(x, 10 * index)], -1).astype(np.uint8)


def entries(
    frames: int = 6, *, compressed: bool = False, odometry: bool = True, path: bool = False, types: Any = None,
    scale: int = 1,
) -> Iterator[Entry]:  # fmt: skip
    """A camera 2 m before the base, at 10 Hz, and odometry at 20 Hz of a car that turns slowly; all in time order.

    Images are of the sample's size times scale, the depth maps of the sample's.
    """
    t = (types or jazzy_types()).types
    yield Entry("/tf_static", START, tf_message(t, [("base_link", "camera", (2.0, 0.5, 1.0), (0.5, -0.5, 0.5, -0.5))]))
    for i in range(frames):
        stamp = START + i * 100_000_000
        for late in (0, 50_000_000) if odometry else ():
            # The odometry's stamps miss the images' by 20 ms, so that poses have to be interpolated.
            yield Entry("/odometry", stamp + late - 20_000_000, odometry_message(t, stamp + late - 20_000_000))
        if path:
            yield Entry("/planned_path", stamp, path_message(t, stamp))
        yield Entry("/camera/left/camera_info", stamp, camera_info(t, stamp, scale=scale))
        rgb = picture(i, scale)
        image = compressed_message(t, stamp, rgb) if compressed else image_message(t, stamp, rgb)
        yield Entry("/camera/left/image_raw" + ("/compressed" if compressed else ""), stamp, image)
        yield Entry("/camera/left/depth", stamp + 10_000_000, depth_message(t, stamp + 10_000_000, 1000 + i))
    yield Entry("/odometry", stamp + 80_000_000, odometry_message(t, stamp + 80_000_000))


def header(t: Any, stamp: int, frame: str) -> Any:
    """std_msgs/Header; ROS 1 has a sequence number in front."""
    time = t["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    kind = t["std_msgs/msg/Header"]
    extra = {"seq": 0} if "seq" in kind.__dataclass_fields__ else {}
    return kind(stamp=time, frame_id=frame, **extra)


def image_message(t: Any, stamp: int, rgb: np.ndarray) -> Any:
    h, w = rgb.shape[:2]
    head = header(t, stamp, "camera")
    return t["sensor_msgs/msg/Image"](head, h, w, "rgb8", 0, w * 3, rgb.reshape(-1))


def compressed_message(t: Any, stamp: int, rgb: np.ndarray) -> Any:
    data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].reshape(-1)
    return t["sensor_msgs/msg/CompressedImage"](header(t, stamp, "camera"), "bgr8; png compressed bgr8", data)


def depth_message(t: Any, stamp: int, millimetres: int) -> Any:
    data = np.full((HEIGHT, WIDTH), millimetres, np.uint16)
    data[0] = 0
    head = header(t, stamp, "camera")
    return t["sensor_msgs/msg/Image"](head, HEIGHT, WIDTH, "16UC1", 0, WIDTH * 2, data.view(np.uint8).reshape(-1))


def camera_info(t: Any, stamp: int, focal: float = 30.0, scale: int = 1) -> Any:
    cx, cy = WIDTH * scale / 2 - 0.5, HEIGHT * scale / 2 - 0.5
    focal = focal * scale
    k = np.array([focal, 0, cx, 0, focal, cy, 0, 0, 1])
    p = np.array([focal, 0, cx, 0, 0, focal, cy, 0, 0, 0, 1, 0])
    roi = t["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    head = header(t, stamp, "camera")
    return t["sensor_msgs/msg/CameraInfo"](
        head, HEIGHT * scale, WIDTH * scale, "plumb_bob", np.zeros(5), k, np.eye(3).reshape(-1), p, 0, 0, roi
    )


def base_pose(stamp: int) -> tuple[np.ndarray, float]:
    """Position (3,) and yaw of the base in odom."""
    s = (stamp - START) * 1e-9
    return np.array([SPEED * s, 0.1 * s, 0.0]), TURN * s


def pose(t: Any, stamp: int) -> Any:
    position, yaw = base_pose(stamp)
    orientation = t["geometry_msgs/msg/Quaternion"](0.0, 0.0, float(np.sin(yaw / 2)), float(np.cos(yaw / 2)))
    return t["geometry_msgs/msg/Pose"](t["geometry_msgs/msg/Point"](*map(float, position)), orientation)


def odometry_message(t: Any, stamp: int) -> Any:
    def vector() -> Any:
        return t["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)

    twist = t["geometry_msgs/msg/Twist"](vector(), vector())
    return t["nav_msgs/msg/Odometry"](
        header(t, stamp, "odom"),
        "base_link",
        t["geometry_msgs/msg/PoseWithCovariance"](pose(t, stamp), np.zeros(36)),
        t["geometry_msgs/msg/TwistWithCovariance"](twist, np.zeros(36)),
    )


def path_message(t: Any, stamp: int) -> Any:
    stamps = [stamp + i * 100_000_000 for i in range(30)]
    poses = [t["geometry_msgs/msg/PoseStamped"](header(t, s, "odom"), pose(t, s)) for s in stamps]
    return t["nav_msgs/msg/Path"](header(t, stamp, "odom"), poses)


def tf_message(t: Any, edges: list[tuple[str, str, tuple, tuple]], stamp: int = START) -> Any:
    """TFMessage of (parent, child, xyz, wxyz)."""
    transforms = []
    for parent, child, xyz, (w, x, y, z) in edges:
        rotation = t["geometry_msgs/msg/Quaternion"](x, y, z, w)
        transform = t["geometry_msgs/msg/Transform"](t["geometry_msgs/msg/Vector3"](*xyz), rotation)
        transforms.append(t["geometry_msgs/msg/TransformStamped"](header(t, stamp, parent), child, transform))
    kind = "tf2_msgs/msg/TFMessage"
    return t[kind if kind in t else OLD_TF](transforms)


def write_mcap(path: Path, items: Iterator[Entry] | list[Entry]) -> Path:
    """A bare MCAP file, by the project's own writer."""
    with LogWriter(path) as log:
        for e in items:
            log.write(e.topic, e.time_ns, e.message)
    return path


def write_rosbag2(path: Path, items: Iterator[Entry] | list[Entry], plugin: rosbag2.StoragePlugin) -> Path:
    """A rosbag2 folder."""
    types = jazzy_types()
    with rosbag2.Writer(path, version=9, storage_plugin=plugin) as bag:
        connections: dict[str, Any] = {}
        for e in items:
            kind = e.message.__msgtype__
            if e.topic not in connections:
                connections[e.topic] = bag.add_connection(e.topic, kind, typestore=types)
            bag.write(connections[e.topic], e.time_ns, types.serialize_cdr(e.message, kind))
    return path


def write_rosbag1(path: Path, frames: int = 6) -> Path:
    """A rosbag1 of the sample, chunks compressed with lz4."""
    types = get_typestore(Stores.ROS1_NOETIC)
    types.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", OLD_TF))
    bag = rosbag1.Writer(path)
    bag.set_compression(rosbag1.Writer.CompressionFormat.LZ4)
    with bag:
        connections: dict[str, Any] = {}
        for e in entries(frames, types=types):
            kind = e.message.__msgtype__
            if e.topic not in connections:
                connections[e.topic] = bag.add_connection(e.topic, kind, typestore=types)
            bag.write(connections[e.topic], e.time_ns, types.serialize_ros1(e.message, kind))
    return path
