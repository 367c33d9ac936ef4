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
from support.commands import arrivals, command, finish, hear, recorder, start
from support.log_samples import entries, write_mcap
from support.waiting import PATIENCE, wait_until

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
    """Started paused on a terminal: only the time comes; keys let it run, pause and run; no message is lost."""
    log, out = write_mcap(tmp_path / "drive.mcap", entries(40)), tmp_path / "out.mcap"
    processes.append(listener := recorder(out, environment, ODOMETRY, "/clock"))
    master, terminal = os.openpty()
    words = command("replay", log, "--start-paused", "--wait-for-subscribers", ODOMETRY, "--topics", ODOMETRY)
    # A session of its own makes the terminal the one that controls it, as in a shell.
    on_terminal = [sys.executable, "-c", AS_SHELL, *words]
    replay = start(environment, on_terminal, stdin=terminal, start_new_session=True)
    processes.append(replay)

    def key() -> float:
        os.write(master, b" ")
        return time.monotonic()

    hear(replay.stderr, "paused at 0.00 s")
    hear(listener.stdout, "first message on /clock")  # it may discover the replay late
    time.sleep(1.0)
    key()
    hear(listener.stdout, f"first message on {ODOMETRY}")
    time.sleep(0.5)
    began = key()
    hear(replay.stderr, "paused at")
    time.sleep(1.5)
    pause = key() - began
    finish(replay)
    finish(listener, signal.SIGINT)
    os.close(master)
    os.close(terminal)
    times, clock = arrivals(out, ODOMETRY), arrivals(out, "/clock")
    assert len(times) == 81
    with LogReader(out) as got:
        shown = np.array([m.message.clock.sec * 10**9 + m.message.clock.nanosec for m in got.messages(["/clock"])])
    assert (np.diff(shown) >= 0).all()
    # Twice the time stands, which is known meanwhile: before anything comes, and in the pause, in which nothing does.
    values, ticks = np.unique(shown, return_counts=True)
    first, second = (clock[shown == value] for value in values[ticks > 10])
    assert first[-1] - first[0] > 0.5 and first[0] < times[0] - 0.5
    assert second[-1] - second[0] == pytest.approx(pause, abs=0.5)
    assert not ((times > np.median(second)) & (times < second[-1])).any()
    assert max(np.median(np.diff(first)), np.median(np.diff(second))) < 0.1


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
        assert client.wait_for_service(PATIENCE)
        future = client.call_async(service_type(name).Request())
        self._executor.spin_until_future_complete(future, PATIENCE)
        return future.result()

    def _tick(self, message: Clock) -> None:
        self.clock.append(message.clock.sec * 10**9 + message.clock.nanosec)

    def is_paused(self) -> bool:
        answer = self.call("is_paused")
        return answer.paused if hasattr(answer, "paused") else answer.message == "paused"

    def until(self, true: Callable[[], object]) -> None:
        """Take messages until something holds."""
        wait_until(true, self._heard, lambda: self._executor.spin_once(timeout_sec=0.02))

    def _heard(self) -> str:
        return f"heard {len(self.odometry)} of odometry, {len(self.clock)} of clock"

    def hears(self) -> bool:
        """Whether it knows the replay's publishers: it may discover them late, and silence says nothing before."""
        return bool(self.clock) and all(s.get_publisher_count() for s in self._subscriptions)

    def hears_no_time_pass(self) -> bool:
        """Whether the time stood at last: what was sent before the replay paused has come."""
        return self.clock[-2:-1] == self.clock[-1:]

    def spin(self, seconds: float) -> None:
        """Take messages for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.02)

    def hears_clock_only(self) -> bool:
        """Whether within a second, and ten messages of the clock, none of odometry comes."""
        before, ticks = len(self.odometry), len(self.clock) + 10
        self.spin(1.0)
        self.until(lambda: len(self.clock) > ticks)
        return len(self.odometry) == before

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
    assert remote.hears_clock_only()  # the time is known while it stands
    remote.call("resume")
    assert not remote.is_paused()
    remote.until(lambda: len(remote.odometry) > 10)
    remote.call("pause")
    remote.call("pause")  # as often as one likes
    assert remote.is_paused()
    said += hear(replay.stderr, "paused at")
    remote.until(remote.hears_no_time_pass)
    remote.spin(0.3)
    assert remote.hears_clock_only()
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
