"""Frames from tf, by whatever the installation has to read it (tf2_ros comes with ROS distributions only)."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.ros.messages.conversions import nanoseconds, rigid_from_xyzw
from pixel4d_ros.ros.transforms import NullTransforms, TransformSource, TransformTree


def frame_source(node: Node) -> TransformSource:
    """tf2_ros where it is installed; else a small listener where tf2_msgs is; else a source that knows nothing."""
    try:
        return _Tf2(node)
    except ImportError:
        pass
    try:
        return _listen(node)
    except ImportError:
        return NullTransforms()


class _Tf2:
    """tf2_ros's buffer. Lookups never wait: a wait inside a callback would starve the listener."""

    def __init__(self, node: Node) -> None:
        import tf2_ros

        self._error = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer(node=node)
        # The buffer's own callback at jumps of time raises in tf2_ros_py up to 0.36.4 (geometry2 issue 710) and
        # would end the node; `clear` does its work.
        jumps = getattr(self._buffer, "jump_handle", None)
        if jumps is not None:
            jumps.unregister()
        self._listener = tf2_ros.TransformListener(self._buffer, node, spin_thread=False)

    def lookup(self, target: str, source: str, stamp_ns: int) -> FloatArray | None:
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns))
        except self._error:
            return None
        return _matrix(found.transform)

    def clear(self) -> None:
        self._buffer.clear()  # keeps static transforms


def _listen(node: Node) -> TransformTree:
    """A TransformTree that /tf and /tf_static fill."""
    from tf2_msgs.msg import TFMessage

    tree = TransformTree()

    def take(message: Any, static: bool) -> None:
        for t in message.transforms:
            try:
                tree.add(t.header.frame_id, t.child_frame_id, nanoseconds(t.header.stamp), _matrix(t.transform), static)
            except ValueError as error:
                node.get_logger().warning(
                    f"tf {t.header.frame_id} -> {t.child_frame_id} is ignored: {error}", throttle_duration_sec=10.0
                )

    latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(TFMessage, "/tf", lambda message: take(message, False), QoSProfile(depth=100))
    node.create_subscription(TFMessage, "/tf_static", lambda message: take(message, True), latched)
    return tree


def _matrix(transform: Any) -> FloatArray:
    r, t = transform.rotation, transform.translation
    return rigid_from_xyzw((r.x, r.y, r.z, r.w), (t.x, t.y, t.z))
