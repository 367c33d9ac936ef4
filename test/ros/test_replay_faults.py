# SPDX-License-Identifier: Apache-2.0
"""Parts that fail while `pixel4d replay` runs: a node that is killed, a camera that stops, a log that begins anew."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from support.commands import command, start
from support.log_samples import SPEED, entries, write_mcap
from support.waiting import PATIENCE

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from support.harness import Client, call, running_node, values_of

from pixel4d_ros.ros.bag.services import service_type

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context")]
SECONDS, PER_ROUND = 4.0, 8  # of the log, and forecasts in that time at least
LONGEST_ROUND = 30.0  # seconds: a machine that is busy while it is measured may be quicker later
TOPICS = {
    "image": "/camera/left/image_raw",
    "camera_info": "/camera/left/camera_info",
    "trajectory": "/planned_path",
    "odometry": "/odometry",
}
REMAPS = [word for name, topic in TOPICS.items() for word in ("-r", f"{name}:={topic}")]
SCALE = 2
PARAMETERS = {"steps": 2, "use_sim_time": "true", "diagnostics_period": 0.2, "diagnostics_silence": 1.5}
STALE = b"\x03"


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of driving along a plan."""
    return write_mcap(
        tmp_path_factory.mktemp("log") / "drive.mcap", entries(round(10 * SECONDS), path=True, scale=SCALE)
    )


@pytest.fixture
def client() -> Iterator[Client]:
    made = Client(listen=True)
    yield made
    made.destroy_node()


@contextmanager
def replaying(log: Path, rate: float = 0.5) -> Iterator[subprocess.Popen[str]]:
    """A replay that begins anew at its end; slow, as a forecast in work at that time is not published."""
    process = start(dict(os.environ), command("replay", log, "--loop", "--rate", rate))
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)


def forecasts(client: Client, count: int) -> list:
    """The next forecasts that come."""
    client.clear()
    return client.until(lambda: len(client.got["forecast"]) >= count and client.got["forecast"])


def way(pose) -> float:
    """Metres from where the image was taken."""
    return float(np.hypot(pose.position.x, pose.position.z))


def follows_the_plan(sequence) -> bool:
    """Whether it was made along the log's plan, of which the second frame shows a tenth of a second."""
    return way(sequence.camera_poses[1]) == pytest.approx(0.1 * SPEED, rel=0.1)


def begins(sequences: list) -> list[int]:
    """Which of them are the first of a round."""
    return [int(i) + 1 for i in np.flatnonzero(np.diff(stamps(sequences)) < 0)]


def stamps(sequences: list) -> np.ndarray:
    return np.array([m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for m in sequences])


def test_a_node_that_is_killed_and_restarted_under_a_running_replay(drive, client, tmp_path):
    """Replay and listener go on as they are; the new node forecasts along the plan as the old one did."""
    with replaying(drive) as replay:
        with running_node(tmp_path / "first.txt", *REMAPS, **PARAMETERS) as first:
            forecasts(client, 3)
            first.stop(signal.SIGKILL)
        client.spin_for(1.0)
        client.clear()
        client.spin_for(1.0)
        assert not client.got["forecast"]
        with running_node(tmp_path / "second.txt", *REMAPS, **PARAMETERS) as second:
            got = forecasts(client, 3)
            assert {(m.images[0].width, m.images[0].height) for m in got} == {(32 * SCALE, 24 * SCALE)}
            client.until(lambda: follows_the_plan(forecasts(client, 1)[-1]))
            client.until(lambda: client.status().level == b"\x00")
            assert not second.errors
        assert replay.poll() is None


def test_a_camera_that_stops_and_comes_back(drive, client, tmp_path):
    """The replay is paused: the node says that no images come, and forecasts again when they do."""
    with replaying(drive) as replay, running_node(tmp_path / "log.txt", *REMAPS, **PARAMETERS) as node:
        forecasts(client, 2)

        def service(name: str) -> None:
            call(client, service_type(name), f"/pixel4d_replay/{name}", service_type(name).Request())

        service("pause")
        stale = client.until(lambda: (status := client.status()).level == STALE and status)
        assert stale.message == "no images are coming in: simulated time stands, is the simulation paused?"
        assert values_of(stale)["clock"] == "simulated, standing"

        def no_forecasts() -> bool:
            """Whether none comes within a second; that of the last image may still be in work."""
            client.clear()
            client.spin_for(1.0)
            return not client.got["forecast"]

        client.until(no_forecasts)
        service("resume")
        forecasts(client, 2)
        client.until(lambda: client.status().level == b"\x00")
        client.until(lambda: client.values()["clock"] == "simulated, running")  # a tick may be late
        assert replay.poll() is None and not node.errors


def rounds(client: Client) -> list:
    """Forecasts of two rounds of the log, or of more until there are ten that do not begin one."""
    forecasts(client, 1)
    client.clear()
    got = client.got["forecast"]
    client.until(lambda: len(begins(got)) >= 2 and len(got) >= len(begins(got)) + 10)
    return list(got)


def seconds_apart(client: Client) -> float:
    """How long this machine takes for a forecast, where images do not wait."""
    forecasts(client, 2)  # the first ones take longer
    began = time.monotonic()
    forecasts(client, 3)
    return (time.monotonic() - began) / 3


def test_a_log_that_begins_anew_again_and_again(drive, client, tmp_path):
    """Each time the clock goes back state is dropped; forecasts go on along the plan, their ages stay small."""
    with running_node(tmp_path / "log.txt", *REMAPS, **PARAMETERS) as node, ExitStack() as stack:
        replay = stack.enter_context(replaying(drive, 1.0))
        rate = SECONDS / min(LONGEST_ROUND, PER_ROUND * seconds_apart(client))
        if rate < 1:  # too fast for this machine: what takes longer than a round is not published
            stack.close()
            replay = stack.enter_context(replaying(drive, rate))
        got = rounds(client)
        # The first image of a round may come before its plan and odometry; those after it follow them.
        later = np.delete(np.arange(len(got)), [0, *begins(got)])
        assert np.mean([follows_the_plan(got[i]) for i in later]) > 0.7
        assert max(way(pose) for m in got for pose in m.camera_poses) < 0.2 * SPEED
        values = client.values()
        slow = 2e-3 * float(values["latency worst (ms)"])  # where a forecast takes long
        assert float(values["age of the last published (s)"]) < max(3.0, slow)
        assert "the clock jumped back: all state is dropped" in node.log
        assert not node.errors
        assert replay.poll() is None
