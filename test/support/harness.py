# SPDX-License-Identifier: Apache-2.0
"""For tests of the node over real DDS: the node in a process of its own, and a client that feeds it and listens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path as FilePath
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
from support.ros_domain import ros_domain

# One domain per test run, so that neither other runs nor robots of this network are disturbed or disturb.
DOMAIN = ros_domain(os.getpid())
os.environ["ROS_DOMAIN_ID"] = str(DOMAIN)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

WIDTH, HEIGHT = 208, 64
K = [120.0, 0.0, 103.5, 0.0, 120.0, 31.5, 0.0, 0.0, 1.0]
T0 = 1_700_000_000.0
PATIENCE = 120.0  # seconds; a loaded machine with two cores is slow


FORECAST_NODE = ("-m", "pixel4d_ros.ros.forecast_node")


class NodeProcess:
    """`python -m pixel4d_ros.ros.forecast_node`, or another program, with its output in a file."""

    def __init__(
        self, log: FilePath, *arguments: str, program: Sequence[str] = FORECAST_NODE, **parameters: Any
    ) -> None:
        self._log = log
        ros = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        command = [sys.executable, *program, "--ros-args", *arguments, *ros]
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "NO_COLOR": "1"})

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def errors(self) -> list[str]:
        """Its ERROR lines, except that the first image came before its calibration."""
        return [line for line in self.log.splitlines() if "[ERROR]" in line and "camera_info: nothing" not in line]

    @property
    def resident_mib(self) -> float:
        """Its resident memory."""
        lines = FilePath(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def wait_for(self, words: str, count: int = 1) -> None:
        """Until words are in the log so many times."""
        end = time.monotonic() + PATIENCE
        while self.log.count(words) < count:
            assert self.process.poll() is None, f"the node ended with {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < end, f"{words!r} not in the log:\n{self.log}"
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """End it; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextmanager
def running_node(log: FilePath, *arguments: str, **parameters: Any) -> Iterator[NodeProcess]:
    """A node that is active (or, with autostart false, there); ended at the end."""
    node = NodeProcess(log, *arguments, **parameters)
    try:
        if parameters.get("autostart", "true") == "true":
            node.wait_for("active: ")
        yield node
    finally:
        node.stop()


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
        self.listen(DiagnosticArray, "/diagnostics")
        if listen:
            self.listen(interface("msg", "ForecastSequence"), "forecast_node/forecast")
            self.listen(Image, "forecast_node/forecast/image")
            self.listen(PointCloud2, "forecast_node/gaussians")
            self.listen(PointCloud2, "forecast_node/gaussians/forecast")

    def listen(self, message_type: type, topic: str) -> None:
        """Keep this topic's messages."""
        name = topic.removeprefix("forecast_node/")
        self.create_subscription(message_type, topic, self.got[name].append, QoSProfile(depth=50))

    def connect(self) -> Client:
        """Wait until the node's subscriptions and publishers are discovered in both directions."""
        inputs = [self.image, self.info, self.trajectory, self.odometry]
        self.until(lambda: all(p.get_subscription_count() for p in inputs))
        topics = [s.topic_name for s in self.subscriptions if "forecast_node" in s.topic_name]
        self.until(lambda: all(self.count_publishers(t) for t in topics))
        self.spin_for(1.0)  # the node must have seen this side too
        return self

    def until(self, true: Callable[[], Any], patience: float = PATIENCE) -> Any:
        """Spin until something holds; its value."""
        end = time.monotonic() + patience
        while not (value := true()):
            assert time.monotonic() < end, (
                f"waited {patience} s in vain; got { {k: len(v) for k, v in self.got.items()} }"
            )
            rclpy.spin_once(self, timeout_sec=0.05)
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
        """The next diagnostics of the node in this namespace."""
        name = f"{self.get_namespace()}/forecast_node: forecast".lstrip("/")
        self.got["/diagnostics"].clear()
        own = self.until(lambda: [m.status[0] for m in self.got["/diagnostics"] if m.status[0].name == name])
        return own[-1]

    def values(self) -> dict[str, str]:
        """The next diagnostics as a dictionary."""
        return {pair.key: pair.value for pair in self.status().values}

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
        """Give what was sent before time to arrive: images do not wait for other topics."""
        self.spin_for(0.3)

    def forecast(self, seconds: float) -> Any:
        """Send frames with this stamp until one is forecast; its first ForecastSequence."""
        self.clear()
        end = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < end, "no forecast came"
            self.send_frame(seconds)
            self.spin_for(0.5)
            own = [m for m in self.got["forecast"] if m.header.stamp == stamp(seconds)]
            if own:
                return own[0]


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
