# SPDX-License-Identifier: Apache-2.0
"""The listener of /tf and /tf_static with the real tf2_msgs, where an installation has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run `make test`")
pytest.importorskip("tf2_msgs", reason="needs tf2_msgs, which only ROS distributions have")

import rclpy
import support.harness  # noqa: F401  (a ROS domain of the test's own)
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from support.waiting import wait_until
from tf2_msgs.msg import TFMessage

from pixel4d_ros.ros.transforms import transform_source

pytestmark = pytest.mark.ros
SECOND = 10**9
T0 = 1_700_000_000 * SECOND


@pytest.fixture
def node() -> Iterator[Node]:
    """On simulated time, as in a replay."""
    rclpy.init()
    node = Node("tf_listener", parameter_overrides=[Parameter("use_sim_time", value=True)])
    yield node
    node.destroy_node()
    rclpy.shutdown()


def transform(parent: str, child: str, x: float, stamp_ns: int) -> TFMessage:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp.sec, message.header.stamp.nanosec = stamp_ns // SECOND, stamp_ns % SECOND
    message.transform.translation.x, message.transform.rotation.w = x, 1.0
    return TFMessage(transforms=[message])


def until(node: Node, true: Callable[[], bool]) -> None:
    """Spin until it holds."""
    wait_until(true, meanwhile=lambda: rclpy.spin_once(node, timeout_sec=0.05))


def test_frames_survive_a_log_that_loops(node: Node) -> None:
    """Interpolated between stamps; at a jump back nothing breaks, and after `clear` only static frames are known."""
    frames = transform_source(node)
    clock = node.create_publisher(Clock, "/clock", 10)
    moving = node.create_publisher(TFMessage, "/tf", 10)
    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    static = node.create_publisher(TFMessage, "/tf_static", latched)

    def set_clock(ns: int) -> None:
        message = Clock()
        message.clock.sec, message.clock.nanosec = ns // SECOND, ns % SECOND

        def has_come() -> bool:
            clock.publish(message)
            return node.get_clock().now().nanoseconds == ns

        until(node, has_come)

    set_clock(T0 + 5 * SECOND)
    static.publish(transform("base", "camera", 2.0, T0))
    until(node, lambda: moving.get_subscription_count() > 0)
    moving.publish(transform("odom", "base", 10.0, T0))
    moving.publish(transform("odom", "base", 20.0, T0 + SECOND))
    until(node, lambda: frames.lookup("odom", "camera", T0 + SECOND) is not None)
    found = frames.lookup("odom", "camera", T0 + SECOND // 2)
    assert found is not None
    assert found[0, 3] == pytest.approx(17.0)
    assert frames.lookup("odom", "camera", T0 + 2 * SECOND) is None  # not extrapolated so far
    assert frames.lookup("map", "camera", T0) is None
    set_clock(T0)
    frames.clear()
    assert frames.lookup("odom", "camera", T0) is None
    assert frames.lookup("base", "camera", T0) is not None
