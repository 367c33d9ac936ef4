# SPDX-License-Identifier: Apache-2.0
"""Pausing a replay: by the space bar and by the services of `ros2 bag play`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.commands import PATIENCE_S, arrivals, command, finish, hear, recorder, start
from support.log_samples import entries, write_mcap

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2: run `make test`")

from nav_msgs.msg import Odometry  # noqa: E402 (after the skip)
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402

from pixel4d_ros.logs.reader import LogReader  # noqa: E402
from pixel4d_ros.ros.bag.services import ACTIONS, service_type  # noqa: E402

pytestmark = pytest.mark.ros
ODOMETRY = "/odometry"


def test_the_space_bar_pauses_and_resumes(tmp_path: Path, environment: dict[str, str], processes: list) -> None:
    """Started paused on a terminal: only the time comes; keys let it run, stand and run; no message is lost."""
    log, out = write_mcap(tmp_path / "drive.mcap", entries(20)), tmp_path / "out.mcap"
    processes.append(listener := recorder(out, environment, ODOMETRY, "/clock"))
    master, terminal = os.openpty()
    words = command("replay", log, "--start-paused", "--wait-for-subscribers", ODOMETRY, "--topics", ODOMETRY)
    # A session of its own makes the terminal the one that controls it, as in a shell.
    on_terminal = [sys.executable, "-c", AS_SHELL, *words]
    replay = start(environment, on_terminal, stdin=terminal, start_new_session=True)
    processes.append(replay)

    def key_after(seconds: float) -> None:
        time.sleep(seconds)
        os.write(master, b" ")

    hear(replay.stderr, "paused at 0.00 s")
    hear(listener.stdout, "first message on /clock")  # it may discover the replay late
    key_after(1.0)
    key_after(1.0)
    hear(replay.stderr, "paused at")
    key_after(1.5)
    finish(replay)
    finish(listener, signal.SIGINT)
    os.close(master)
    os.close(terminal)
    times = arrivals(out, ODOMETRY)
    assert len(times) == 41
    gaps = np.diff(times)
    assert gaps.max() == pytest.approx(1.5, abs=0.5)
    assert (gaps > 0.5).sum() == 1
    clock = arrivals(out, "/clock")
    assert clock[0] < times[0] - 0.5  # the time is known before anything comes, and while all stands
    assert np.diff(clock).max() < 0.5
    with LogReader(out) as got:
        shown = [m.message.clock.sec * 10**9 + m.message.clock.nanosec for m in got.messages(["/clock"])]
    assert (np.diff(shown) >= 0).all()


AS_SHELL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Remote:
    """Listens to a replay and calls its services."""

    def __init__(self, domain: int) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = Node("remote", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self.odometry: list[Odometry] = []
        self.clock: list[int] = []
        self._subscriptions = [
            self._node.create_subscription(Odometry, ODOMETRY, self.odometry.append, 50),
            self._node.create_subscription(Clock, "/clock", self._tick, 50),
        ]
        self._clients = {n: self._node.create_client(service_type(n), f"/pixel4d_replay/{n}") for n in ACTIONS}

    def call(self, name: str):
        client = self._clients[name]
        assert client.wait_for_service(PATIENCE_S)
        future = client.call_async(service_type(name).Request())
        self._executor.spin_until_future_complete(future, PATIENCE_S)
        return future.result()

    def _tick(self, message: Clock) -> None:
        self.clock.append(message.clock.sec * 10**9 + message.clock.nanosec)

    def is_paused(self) -> bool:
        answer = self.call("is_paused")
        return answer.paused if hasattr(answer, "paused") else answer.message == "paused"

    def until(self, true: Callable[[], object]) -> None:
        """Take messages until something holds."""
        end = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < end, f"heard {len(self.odometry)} of odometry, {len(self.clock)} of clock"
            self._executor.spin_once(timeout_sec=0.02)

    def hears(self) -> bool:
        """Whether it knows the replay's publishers: it may discover them late, and silence says nothing before."""
        return bool(self.clock) and all(s.get_publisher_count() for s in self._subscriptions)

    def hears_no_time_pass(self) -> bool:
        """Whether the time stood at last: what was sent before the replay paused has come."""
        return self.clock[-2:-1] == self.clock[-1:]

    def spin(self, seconds: float) -> tuple[int, int]:
        """How many messages of odometry and clock came meanwhile."""
        before, end = (len(self.odometry), len(self.clock)), time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.02)
        return len(self.odometry) - before[0], len(self.clock) - before[1]

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()


@pytest.fixture
def remote(environment: dict[str, str]) -> Iterator[Remote]:
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    made = Remote(int(environment["ROS_DOMAIN_ID"]))
    yield made
    made.close()


def test_services_pause_and_resume(
    tmp_path: Path, environment: dict[str, str], processes: list, remote: Remote
) -> None:
    """Started paused without a terminal; resumed, paused, toggled: no message comes while paused, none is lost."""
    log = write_mcap(tmp_path / "drive.mcap", entries(40))
    words = command("replay", log, "--start-paused", "--wait-for-subscribers", ODOMETRY, "--topics", ODOMETRY)
    processes.append(replay := start(environment, words, stdin=subprocess.DEVNULL))
    assert remote.is_paused()
    said = hear(replay.stderr, "paused at 0.00 s")
    remote.until(remote.hears)
    odometry, clock = remote.spin(1.0)
    assert odometry == 0 and clock > 10  # the time is known while it stands
    remote.call("resume")
    assert not remote.is_paused()
    remote.until(lambda: len(remote.odometry) > 10)
    remote.call("pause")
    remote.call("pause")  # as often as one likes
    assert remote.is_paused()
    said += hear(replay.stderr, "paused at")
    remote.until(remote.hears_no_time_pass)
    remote.spin(0.3)
    odometry, clock = remote.spin(1.0)
    assert odometry == 0 and clock > 10
    remote.call("toggle_paused")
    assert not remote.is_paused()
    remote.until(lambda: replay.poll() is not None)  # its queue is shorter than what is left of the log
    said += finish(replay)
    with LogReader(log) as source:
        sent = sum(1 for _ in source.raw([ODOMETRY]))
    remote.until(lambda: len(remote.odometry) >= sent)
    remote.spin(0.3)
    stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in remote.odometry]
    assert len(stamps) == sent
    assert (np.diff(stamps) > 0).all() and (np.diff(remote.clock) >= 0).all()
    assert "paused at 0.00 s: /pixel4d_replay/resume resumes" in said
    assert said.count("paused at") == 2


def test_a_paused_replay_can_be_interrupted(tmp_path: Path, environment: dict[str, str], remote: Remote) -> None:
    log = write_mcap(tmp_path / "drive.mcap", entries(3))
    replay = start(environment, command("replay", log, "--start-paused"), stdin=subprocess.DEVNULL)
    assert remote.is_paused()
    finish(replay, signal.SIGINT)
