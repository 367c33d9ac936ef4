"""The replay's controls as ros2 bag play has them, and its evaluation mode: processes of their own over real DDS."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from log_samples import entries, write_mcap

pytest.importorskip("rclpy", reason="needs ROS 2: run `make test`")

from pixel4d_ros.evaluation.metrics import PSNR_CEILING
from pixel4d_ros.logs.reader import LogReader
from pixel4d_ros.logs.transforms import stamp_ns

pytestmark = pytest.mark.ros
IMAGE, ODOMETRY = "/camera/left/image_raw", "/odometry"
PATIENCE_S = 60.0


@pytest.fixture
def environment() -> dict[str, str]:
    """A ROS domain that only this test uses."""
    domain = 1 + (os.getpid() * 7 + time.monotonic_ns() // 1000) % 100
    return {**os.environ, "ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are killed at the end if they still run."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pixel4d_ros.cli", *map(str, arguments)]


def start(words: list[str], environment: dict[str, str], **options: Any) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(words, env=environment, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True, **options)


def finish(process: subprocess.Popen[str], how: signal.Signals | None = None) -> str:
    """What it said; it must have ended well."""
    if how is not None:
        process.send_signal(how)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, out + err
    return out + err


def recorder(out: Path, environment: dict[str, str], *topics: str) -> subprocess.Popen[str]:
    return start(command("record", out, "--topics", *topics), environment)


def arrivals(out: Path, topic: str) -> np.ndarray:
    """When a recorder on the wall clock got this topic's messages, s."""
    with LogReader(out) as log:
        return np.array([m.time_ns for m in log.raw([topic])]) * 1e-9


@pytest.mark.parametrize(("rate", "seconds"), [(0.1, 0.3), (10.0, 8.0)])
def test_slow_and_fast(
    tmp_path: Path, environment: dict[str, str], processes: list, rate: float, seconds: float
) -> None:
    """`-r 0.1` and `-r 10` from an offset for a duration: the right messages, at the right pace."""
    log, out = write_mcap(tmp_path / "drive.mcap", entries(100)), tmp_path / "out.mcap"
    processes.append(listener := recorder(out, environment, ODOMETRY))
    options = ("-r", rate, "--start-offset", 1, "--playback-duration", seconds, "--topics", ODOMETRY)
    finish(start(command("replay", log, *options, "--wait-for-subscribers", ODOMETRY), environment))
    finish(listener, signal.SIGINT)
    with LogReader(log) as source, LogReader(out) as got:
        sent = [stamp_ns(m.message.header) for m in source.messages([ODOMETRY])]
        first, last = source.start_ns + 10**9, source.start_ns + 10**9 + round(seconds * 1e9)
        assert [stamp_ns(m.message.header) for m in got.messages([ODOMETRY])] == [t for t in sent if first <= t <= last]
    times = arrivals(out, ODOMETRY)
    assert times[-1] - times[0] == pytest.approx(seconds / rate, rel=0.3)


def test_the_space_bar_pauses_and_resumes(tmp_path: Path, environment: dict[str, str], processes: list) -> None:
    """Started paused on a terminal: only the time comes; keys let it run, stand and run; no message is lost."""
    log, out = write_mcap(tmp_path / "drive.mcap", entries(20)), tmp_path / "out.mcap"
    processes.append(listener := recorder(out, environment, ODOMETRY, "/clock"))
    master, terminal = os.openpty()
    words = command("replay", log, "--start-paused", "--wait-for-subscribers", ODOMETRY, "--topics", ODOMETRY)
    # A session of its own makes the terminal the one that controls it, as in a shell.
    on_terminal = [sys.executable, "-c", AS_SHELL, *words]
    replay = start(on_terminal, environment, stdin=terminal, start_new_session=True)
    processes.append(replay)
    assert replay.stderr is not None

    def key_once_it_says(text: str, wait: float) -> None:
        said = ""
        end = time.monotonic() + PATIENCE_S
        while text not in said:
            assert time.monotonic() < end, said
            if select.select([replay.stderr], [], [], 0.1)[0]:
                said += os.read(replay.stderr.fileno(), 1000).decode()
        time.sleep(wait)
        os.write(master, b" ")

    key_once_it_says("paused at 0.00 s", 1.0)
    time.sleep(1.0)
    os.write(master, b" ")
    key_once_it_says("paused at", 1.5)
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


def oracle(log: Path, environment: dict[str, str], topic: str, steps: int = 4) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("oracle_node.py")
    process = start([sys.executable, str(script), str(log), topic, str(steps)], environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_every_forecast_is_scored(tmp_path: Path, environment: dict[str, str], processes: list) -> None:
    """A node that knows the log gets full marks, each forecast a line; repeating the image does not."""
    frames, steps = 12, 4
    log, out = write_mcap(tmp_path / "drive.mcap", entries(frames)), tmp_path / "scores"
    processes.append(oracle(log, environment, "/car/forecast", steps))
    said = finish(start(command("replay", log, "--score", out, "--score-topic", "/car/forecast"), environment))
    assert f"{frames} forecasts of 32x24" in said
    lines = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    with LogReader(log) as source:
        stamps = [stamp_ns(m.message.header) for m in source.messages([IMAGE])]
    assert [line["stamp"] for line in lines] == stamps
    for i, line in enumerate(lines):
        known = min(steps, frames - i)
        assert line["time"] == pytest.approx([0.0, 0.1, 0.2, 0.3])
        assert line["psnr"] == [PSNR_CEILING] * known + [None] * (steps - known)
        assert line["ssim"][:known] == pytest.approx([1.0] * known)
        assert all(value < PSNR_CEILING for value in line["repeat_psnr"][1:known])
        assert len(line["repeat_ssim"]) == steps
    numbers = json.loads((out / "report.json").read_text())
    assert numbers["scored"] == numbers["forecasts"] == frames
    assert numbers["steps"][1]["count"] == frames - 1
    assert numbers["node"]["age_s"]["p50"] < 1.0  # on the log's clock
    assert re.search(r"<html", (out / "report.html").read_text())


def test_nobody_to_score(tmp_path: Path, environment: dict[str, str]) -> None:
    log = write_mcap(tmp_path / "drive.mcap", entries(3))
    process = start(command("replay", log, "--score", tmp_path / "scores", "--wait-timeout", 0.5), environment)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "nobody publishes /forecast_node/forecast (waited 0.5 s): start the node first" in err, out + err
    assert "Traceback" not in err


def test_paused_without_a_terminal(tmp_path: Path, environment: dict[str, str]) -> None:
    log = write_mcap(tmp_path / "drive.mcap", entries(3))
    process = start(command("replay", log, "--start-paused"), environment, stdin=subprocess.DEVNULL)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "--start-paused needs a terminal" in err


def test_a_looped_replay_is_scored_when_it_is_interrupted(
    tmp_path: Path, environment: dict[str, str], processes: list
) -> None:
    frames = 8
    log, out = write_mcap(tmp_path / "drive.mcap", entries(frames)), tmp_path / "scores"
    processes.append(oracle(log, environment, "/forecast_node/forecast"))
    process = start(command("replay", log, "--score", out, "--loop", "--rate", 2), environment)
    processes.append(process)
    time.sleep(6)
    assert process.poll() is None
    finish(process, signal.SIGINT)
    lines = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert len(lines) > frames
    assert {line["psnr"][0] for line in lines} == {PSNR_CEILING}
