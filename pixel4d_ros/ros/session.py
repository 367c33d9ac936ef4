# SPDX-License-Identifier: Apache-2.0
"""Shared by the ROS commands: a node with clean shutdown, message classes by name, spinning on a thread."""

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

from pixel4d_ros.ros.shared_memory import set_fastdds_profile


@contextmanager
def ros_node(name: str, use_sim_time: bool = False) -> Iterator[tuple[Node, Event]]:
    """A node, and an event that SIGINT and SIGTERM set; the command then ends its loop and cleans up.

    Further signals are ignored. Raises ValueError with rcl's reason if the node cannot be created, e.g. missing
    security files.
    """
    stop = Event()
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        overrides = [Parameter("use_sim_time", value=use_sim_time)]
        try:
            set_fastdds_profile()
            rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
            node = rclpy.create_node(name, parameter_overrides=overrides, start_parameter_services=False)
        except RuntimeError as error:
            raise ValueError(" ".join(str(error).split())) from error
        yield node, stop
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
        for s, handler in before.items():
            # Ctrl-C arrives twice under `ros2 launch`: the second must not interrupt the shutdown.
            signal.signal(s, signal.SIG_IGN if stop.is_set() else handler)


def message_class(type_name: str) -> Any | None:
    """The class of "package/msg/Name"; None when the package is not installed or not built."""
    package, _, name = type_name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None


@contextmanager
def spinning(node: Node, name: str) -> Iterator[None]:
    """Spin a node on a thread of this name."""
    executor, done = SingleThreadedExecutor(), Event()
    executor.add_node(node)

    def spin() -> None:
        while executor.context.ok() and not done.is_set():
            executor.spin_once()

    thread = Thread(target=spin, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        # Stop the thread first: Jazzy's executor.shutdown destroys handles that spin_once still waits for, which raises
        # InvalidHandle.
        done.set()
        executor.create_task(lambda: None)  # ends the wait
        thread.join()
        executor.shutdown()
