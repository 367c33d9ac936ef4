"""What the commands that are no nodes of their own share: a ROS context, clean stops, message classes by name."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions


@contextmanager
def ros_node(name: str, use_sim_time: bool = False) -> Iterator[tuple[Node, Event]]:
    """A node, and an event that SIGINT and SIGTERM set: the command ends its loop and tidies up.

    Raises ValueError with rcl's reason when there can be no node, for want of what security asks for, say.
    """
    stop = Event()
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        overrides = [Parameter("use_sim_time", value=use_sim_time)]
        try:
            rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
            node = rclpy.create_node(name, parameter_overrides=overrides, start_parameter_services=False)
        except RuntimeError as error:
            raise ValueError(" ".join(str(error).split())) from error
        yield node, stop
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
        for s, handler in before.items():
            signal.signal(s, handler)


def message_class(type_name: str) -> Any | None:
    """The class of "package/msg/Name"; None when the package is not installed or not built."""
    package, _, name = type_name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None


@contextmanager
def spinning(node: Node, name: str) -> Iterator[None]:
    """Spin a node meanwhile, on a thread of this name."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = Thread(target=executor.spin, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown()
        thread.join()
