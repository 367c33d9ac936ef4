# SPDX-License-Identifier: Apache-2.0
"""The replay's controls as ros2 bag play has them, and its evaluation mode: processes of their own over real DDS."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.commands import arrivals, command, finish, hear, pace_error, recorder, run_here, start, stopped
from support.log_samples import entries, write_mcap
from support.paths import SUPPORT

pytest.importorskip("rclpy", reason="needs ROS 2: run `make test`")

from pixel4d_ros.evaluation.metrics import PSNR_CEILING
from pixel4d_ros.logs.reader import LogReader
from pixel4d_ros.logs.transforms import stamp_ns

pytestmark = pytest.mark.ros
IMAGE, ODOMETRY = "/camera/left/image_raw", "/odometry"


@pytest.mark.parametrize(("rate", "seconds"), [(0.1, 0.5), (10.0, 24.0)])
def test_slow_and_fast(
    tmp_path: Path, environment: dict[str, str], processes: list, rate: float, seconds: float
) -> None:
    """`-r 0.1` and `-r 10` from an offset for a duration: the right messages, at the right pace."""
    log, out = write_mcap(tmp_path / "drive.mcap", entries(260)), tmp_path / "out.mcap"
    processes.append(listener := recorder(out, environment, ODOMETRY))
    options = ("-r", rate, "--start-offset", 1, "--playback-duration", seconds, "--topics", ODOMETRY)
    finish(start(environment, command("replay", log, *options, "--wait-for-subscribers", ODOMETRY)))
    finish(listener, signal.SIGINT)
    with LogReader(log) as source, LogReader(out) as got:
        sent = [stamp_ns(m.message.header) for m in source.messages([ODOMETRY])]
        first, last = source.start_ns + 10**9, source.start_ns + 10**9 + round(seconds * 1e9)
        expected = [t for t in sent if first <= t <= last]
        assert [stamp_ns(m.message.header) for m in got.messages([ODOMETRY])] == expected
    error = pace_error(arrivals(out, ODOMETRY), np.array(expected) * 1e-9 / rate)
    assert abs(error) < 0.2 * seconds / rate


def oracle(log: Path, environment: dict[str, str], topic: str, steps: int = 4) -> subprocess.Popen[str]:
    script = SUPPORT / "oracle_node.py"
    process = start(environment, [sys.executable, str(script), str(log), topic, str(steps)])
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_every_forecast_is_scored(tmp_path: Path, environment: dict[str, str], processes: list) -> None:
    """A node that knows the log gets full marks, each forecast a line; repeating the image does not."""
    frames, steps = 12, 4
    log, out = write_mcap(tmp_path / "drive.mcap", entries(frames)), tmp_path / "scores"
    processes.append(oracle(log, environment, "/car/forecast", steps))
    said = finish(start(environment, command("replay", log, "--score", out, "--score-topic", "/car/forecast")))
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


def test_nobody_to_score(tmp_path: Path, environment: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    log = write_mcap(tmp_path / "drive.mcap", entries(3))
    assert run_here(environment, "replay", log, "--score", tmp_path / "scores", "--wait-timeout", 0.5) == 1
    said = "".join(capfd.readouterr())
    assert "nobody publishes /forecast_node/forecast (waited 0.5 s): start the node first" in said
    assert "Traceback" not in said


def test_a_looped_replay_is_scored_when_it_is_interrupted(
    tmp_path: Path, environment: dict[str, str], processes: list
) -> None:
    frames = 8
    log, out = write_mcap(tmp_path / "drive.mcap", entries(frames)), tmp_path / "scores"
    processes.append(oracle(log, environment, "/forecast_node/forecast"))
    process = start(environment, command("replay", log, "--score", out, "--loop", "--rate", 2))
    processes.append(process)
    hear(process.stderr, "100%", 6)
    assert process.poll() is None
    finish(process, signal.SIGINT)
    lines = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert len(lines) > frames
    assert {line["psnr"][0] for line in lines} == {PSNR_CEILING}


def test_security_that_cannot_be_kept_is_one_line(tmp_path: Path, environment: dict[str, str]) -> None:
    log = write_mcap(tmp_path / "drive.mcap", entries(3))
    secure = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce", "ROS_SECURITY_KEYSTORE": str(tmp_path)}
    code, said = stopped(start({**environment, **secure}, command("replay", log)))
    assert code == 1
    assert "security" in said.lower() and "Traceback" not in said
