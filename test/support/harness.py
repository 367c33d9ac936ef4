# SPDX-License-Identifier: Apache-2.0
"""For tests of the node over real DDS: the node in a process of its own, and a client that feeds it and listens."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry, Path
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue, SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from pixel4d_ros.geometry.rotations import rigid
from pixel4d_ros.ros.compat import interface
from pixel4d_ros.ros.messages.conversions import fill, pose_message
from support.node_process import NodeProcess, running_node  # noqa: F401 (with the client: all that tests need)
from support.ros_domain import ros_domain
from support.waiting import wait_until

# One domain per test run, so that neither other runs nor robots of this network are disturbed or disturb.
DOMAIN = ros_domain(os.getpid())
os.environ["ROS_DOMAIN_ID"] = str(DOMAIN)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

WIDTH, HEIGHT = 208, 64
K = [120.0, 0.0, 103.5, 0.0, 120.0, 31.5, 0.0, 0.0, 1.0]
T0 = 1_700_000_000.0
SETTLED = 4  # answers
RESEND_S = 1.5  # wait before sending again what may be lost


def picture(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A smooth colourful image (height, width, 3)."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 8, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def stamp(seconds: float) -> Time:
    """A time so many seconds after T0."""
    nanoseconds = round((T0 + seconds) * 1e9)
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


class Client(Node):
    """Publishes the node's inputs and keeps what it publishes, by topic."""

    def __init__(self, listen: bool = True, namespace: str = "", compressed: bool = False) -> None:
        super().__init__("test_client", namespace=namespace)
        self.got: dict[str, list[Any]] = defaultdict(list)
        self.image = self.create_publisher(CompressedImage if compressed else Image, "image", 1)
        self.info = self.create_publisher(CameraInfo, "camera_info", 1)
        self.trajectory = self.create_publisher(Path, "trajectory", 1)
        self.odometry = self.create_publisher(Odometry, "odometry", 10)
        self.clock_source = self.create_publisher(Clock, "/clock", 10)
        self._statuses: dict[str, tuple[int, DiagnosticStatus]] = {}  # by name: when it was sent (ns), and the newest
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=50))
        if listen:
            self.listen(interface("msg", "ForecastSequence"), "forecast_node/forecast")
            self.listen(Image, "forecast_node/forecast/image")
            self.listen(PointCloud2, "forecast_node/gaussians")
            self.listen(PointCloud2, "forecast_node/gaussians/forecast")

    def listen(self, message_type: type, topic: str) -> None:
        """Keep this topic's messages."""
        name = topic.removeprefix("forecast_node/")
        self.create_subscription(message_type, topic, self.got[name].append, QoSProfile(depth=50))

    def _on_diagnostics(self, message: DiagnosticArray, info: dict[str, int]) -> None:
        self.got["/diagnostics"].append(message)
        self._statuses[message.status[0].name] = info["source_timestamp"], message.status[0]

    def connect(self) -> Client:
        """Wait until the node's subscriptions and publishers are discovered in both directions."""
        inputs = [self.image, self.info, self.trajectory, self.odometry]
        self.until(lambda: all(p.get_subscription_count() for p in inputs))
        topics = [s.topic_name for s in self.subscriptions if "forecast_node" in s.topic_name]
        self.until(lambda: all(self.count_publishers(t) for t in topics))
        self.round_trip()  # the node has discovered this side's publishers and subscriptions before this service client
        return self

    def round_trip(self) -> None:
        """Have the node answer something small: it has received what was sent before."""
        call(self, GetState, "forecast_node/get_state", GetState.Request())

    def until(self, true: Callable[[], Any]) -> Any:
        """Spin until something holds; its value."""

        def received() -> str:
            return f"got { {topic: len(messages) for topic, messages in self.got.items()} }"

        return wait_until(true, received, lambda: rclpy.spin_once(self, timeout_sec=0.05))

    def send_until(self, send: Callable[[], object], true: Callable[[], Any]) -> Any:
        """Send something until something holds; its value. Sent again, as best effort messages may be lost."""

        def sent() -> Any:
            send()
            return self.wait(true, RESEND_S)

        return self.until(sent)

    def wait(self, true: Callable[[], Any], seconds: float) -> Any:
        """Spin until something holds, but no longer than this; its value."""
        end = time.monotonic() + seconds
        while not (value := true()) and time.monotonic() < end:
            rclpy.spin_once(self, timeout_sec=0.02)
        return value

    def spin_for(self, seconds: float) -> None:
        """Take messages for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rclpy.spin_once(self, timeout_sec=0.02)

    def clear(self) -> None:
        for messages in self.got.values():
            messages.clear()

    def status(self) -> DiagnosticStatus:
        """The next diagnostics that the node in this namespace sends: none of those on their way."""
        called_ns = time.time_ns()
        name = f"{self.get_namespace()}/forecast_node: forecast".lstrip("/")
        self.until(lambda: name in self._statuses and self._statuses[name][0] > called_ns)
        return self._statuses[name][1]

    def status_with(self, words: str) -> DiagnosticStatus:
        """The first diagnostics of that node whose message has these words."""
        return self.until(lambda: words in (status := self.status()).message and status)

    def values(self) -> dict[str, str]:
        """The next diagnostics as a dictionary."""
        return values_of(self.status())

    def send_frame(self, seconds: float, rgb: np.ndarray | None = None, **changes: Any) -> None:
        """Calibration and image with this stamp; changes replace fields of the image."""
        rgb = picture() if rgb is None else rgb
        self.send_info(seconds, rgb.shape[1], rgb.shape[0])
        self.image.publish(image(seconds, rgb, **changes))

    def send_info(self, seconds: float, width: int = WIDTH, height: int = HEIGHT, **changes: Any) -> None:
        """The calibration; changes replace fields."""
        self.info.publish(calibration(seconds, width, height, **changes))

    def send_odometry(self, seconds: float, speed: float = 5.0) -> None:
        """base_link in odom, driving along x at this speed."""
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id, message.header.stamp = "odom", stamp(seconds)
        message.pose.pose.position.x = speed * seconds
        message.twist.twist.linear.x = speed
        self.odometry.publish(message)

    def send_path(self, seconds: float, speed: float = 5.0, frame: str = "odom", count: int = 21) -> None:
        """The poses of the next two seconds."""
        self.trajectory.publish(path(seconds, speed, frame, count))

    def settle(self) -> None:
        """Until the node has taken what was sent before, few messages a topic: images do not wait for other topics."""
        for _ in range(SETTLED):  # between two answers it takes at least one message of each topic
            self.round_trip()

    def forecast(self, seconds: float) -> Any:
        """Send frames with this stamp until one is forecast; its first ForecastSequence."""
        self.clear()
        return self.send_until(lambda: self.send_frame(seconds), lambda: self.stamped("forecast", seconds))[0]

    def stamped(self, topic: str, seconds: float) -> list[Any]:
        """The messages that came with this stamp; others, of earlier images, may still have been on their way."""
        return [m for m in self.got[topic] if m.header.stamp == stamp(seconds)]


def values_of(status: DiagnosticStatus) -> dict[str, str]:
    """The values of one diagnostics message, which all are of the same moment."""
    return {pair.key: pair.value for pair in status.values}


def balanced(values: dict[str, str]) -> bool:
    """Whether every frame received was dropped, published, or skipped for want of listeners; none waits."""
    ended = sum(int(values[key]) for key in ("published forecasts", "dropped frames", "frames without subscribers"))
    return int(values["received frames"]) == ended


def call(client: Client, kind: type, name: str, request: Any) -> Any:
    """The response of a service."""
    service = client.create_client(kind, name)
    client.until(service.service_is_ready)
    future = service.call_async(request)
    client.until(future.done)
    client.destroy_client(service)
    return future.result()


def recovers(client: Client, seconds: float) -> None:
    """The next good message is forecast, and diagnostics no longer complain."""
    assert client.forecast(seconds).images
    client.until(lambda: client.status().level in (b"\x00", b"\x01"))


def transition(client: Client, identifier: int) -> str:
    """Ask for a lifecycle transition; the state after it."""
    request = ChangeState.Request(transition=Transition(id=identifier))
    call(client, ChangeState, "forecast_node/change_state", request)
    return call(client, GetState, "forecast_node/get_state", GetState.Request()).current_state.label


def set_parameter(client: Client, name: str, value: ParameterValue) -> SetParametersResult:
    """Set a parameter of the node; whether it was taken, and why not."""
    request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
    return call(client, SetParameters, "forecast_node/set_parameters", request).results[0]


def integer(value: int) -> ParameterValue:
    """The value of an integer parameter."""
    return ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value)


def number(value: float) -> ParameterValue:
    """The value of a floating point parameter."""
    return ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)


def text(value: str) -> ParameterValue:
    """The value of a string parameter."""
    return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)


def calibration(seconds: float, width: int = WIDTH, height: int = HEIGHT, **changes: Any) -> CameraInfo:
    """The CameraInfo of the pictures, with the principal point in their middle; changes replace fields."""
    k = [*K[:2], (width - 1) / 2, *K[3:5], (height - 1) / 2, *K[6:]]
    info = CameraInfo(width=width, height=height, k=k)
    info.header.frame_id, info.header.stamp = "camera", stamp(seconds)
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def image(seconds: float, rgb: np.ndarray, **changes: Any) -> Image:
    """An rgb8 Image; changes replace fields."""
    message = Image(height=rgb.shape[0], width=rgb.shape[1], encoding="rgb8", step=3 * rgb.shape[1])
    message.header.frame_id, message.header.stamp = "camera", stamp(seconds)
    fill(message, rgb)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def path(seconds: float, speed: float = 5.0, frame: str = "odom", count: int = 21) -> Path:
    """A straight drive along x from T0 on, its next count poses at 10 Hz."""
    message = Path()
    message.header.frame_id, message.header.stamp = frame, stamp(seconds)
    for i in range(count):
        t = seconds + 0.1 * i
        pose = PoseStamped(pose=pose_message(rigid(np.eye(3), [speed * t, 0, 0])))
        pose.header.frame_id, pose.header.stamp = frame, stamp(t)
        message.poses.append(pose)
    return message
