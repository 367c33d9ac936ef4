"""What the commands that are no nodes of their own share: a ROS context, clean stops, message classes by name."""

from __future__ import annotations

import importlib
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from pixel4d_ros.processes import Child, ProcessError
from pixel4d_ros.ros.shared_memory import set_fastdds_profile


@dataclass(frozen=True)
class Watch:
    """A program while it is measured: waiting for something ends when the program does, or when the user wants that."""

    child: Child
    stop: Event

    def check(self) -> None:
        """Raise KeyboardInterrupt when the user wants an end, ProcessError when the program has ended."""
        # In this order: Ctrl-C reaches the program too.
        if self.stop.is_set():
            raise KeyboardInterrupt
        self.child.check_alive()

    def wait(self, true: Callable[[], bool], seconds: float, complaint: str, poll_s: float = 0.01) -> None:
        """Wait until something is true. Raises what check does, and ProcessError with the complaint when time is up."""
        end = time.monotonic() + seconds
        while not true():
            self.check()
            if time.monotonic() > end:
                raise ProcessError(f"{complaint} (waited {seconds:g} s){self.child.last_words()}")
            time.sleep(poll_s)

    def rest(self, seconds: float) -> None:
        """Do nothing for a while. Raises what check does."""
        self.stop.wait(seconds)
        self.check()


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
        # Not by the executor's shutdown: in Jazzy that destroys what the thread is still waiting for, which then raises
        # InvalidHandle there.
        done.set()
        executor.create_task(lambda: None)  # ends the wait
        thread.join()
        executor.shutdown()
