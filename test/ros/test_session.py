# SPDX-License-Identifier: Apache-2.0
"""What commands that are no nodes share: spinning on a thread that ends cleanly, and waiting that the user can end."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy")

import rclpy
from rclpy.executors import Executor
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header
from support.paths import REPOSITORY
from support.waiting import PATIENCE, wait_until

from pixel4d_ros.ros.processes import ProcessError, Watch
from pixel4d_ros.ros.session import spinning

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context")]


def test_spinning_ends_cleanly_amid_a_large_message(monkeypatch):
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    taking, take = threading.Event(), Executor._take_subscription

    def take_slowly(executor: Executor, subscription: Any) -> Any:
        taking.set()
        time.sleep(0.2)
        return take(executor, subscription)

    monkeypatch.setattr(Executor, "_take_subscription", take_slowly)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node = rclpy.create_node("listener", start_parameter_services=False)
    heard: list[Header] = []
    node.create_publisher(Header, "spoken", latched).publish(Header())
    node.create_subscription(Header, "spoken", heard.append, latched)
    with spinning(node, "listener"):
        assert taking.wait(PATIENCE)
    assert not raised and not any(t.name == "listener" for t in threading.enumerate())
    heard.clear()
    with spinning(node, "listener"):  # and can be had again
        node.create_publisher(Header, "spoken", latched).publish(Header())
        wait_until(lambda: heard)
    node.destroy_node()
    assert not raised


def watch(ended: bool = False) -> Watch:
    def check_alive() -> None:
        if ended:
            raise ProcessError("it ended")

    child: Any = SimpleNamespace(check_alive=check_alive, last_words=lambda: ": its last words")
    return Watch(child, threading.Event())


def test_waiting_ends_with_what_is_waited_for_or_when_time_is_up():
    answers = iter([False, False, True])
    watch().wait(lambda: next(answers), 10, "never")
    with pytest.raises(ProcessError, match=r"it never came \(waited 0.02 s\): its last words"):
        watch().wait(lambda: False, 0.02, "it never came")


def test_waiting_ends_with_the_program_and_before_that_with_the_user():
    with pytest.raises(ProcessError, match="it ended"):
        watch(ended=True).wait(lambda: False, 10, "never")
    with pytest.raises(ProcessError, match="it ended"):
        watch(ended=True).rest(0.01)
    # Ctrl-C ends the program too: that is no fault to complain about.
    both = watch(ended=True)
    both.stop.set()
    for wait in (both.check, lambda: both.rest(10), lambda: both.wait(lambda: False, 10, "never")):
        with pytest.raises(KeyboardInterrupt):
            wait()


def test_a_second_interrupt_while_a_command_ends_does_not_break_the_ending():
    """As from `ros2 launch`, which passes on the Ctrl-C that the terminal has sent to the command already."""
    program = """
import time
from pixel4d_ros.ros.session import ros_node
with ros_node("waiting") as (node, stop):
    print("ready", flush=True)
    stop.wait()
print("ending", flush=True)
time.sleep(1.0)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for said in ("ready", "ending"):
            assert process.stdout.readline().strip() == said
            process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


def test_ctrl_c_while_the_node_imports_torch_ends_it_without_a_traceback() -> None:
    node = subprocess.Popen(
        [sys.executable, REPOSITORY / "scripts" / "forecast_node"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    maps = Path(f"/proc/{node.pid}/maps")
    wait_until(lambda: node.poll() is not None or "libtorch" in maps.read_text())
    node.send_signal(signal.SIGINT)
    said, _ = node.communicate(timeout=PATIENCE)
    assert (node.returncode, said) == (0, b"")
