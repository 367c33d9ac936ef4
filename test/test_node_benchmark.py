# SPDX-License-Identifier: Apache-2.0
"""`pixel4d benchmark --node`: its counts, and the real node fed over DDS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from pixel4d_ros.benchmark.node_times import Feed, NodeTimes, Publishing, ServiceTimes, describe_node
from pixel4d_ros.benchmark.results import Benchmark
from pixel4d_ros.benchmark.source_image import SourceImage
from pixel4d_ros.benchmark.statistics import Spread
from pixel4d_ros.benchmark.stopwatch import Effort
from pixel4d_ros.camera import Camera
from pixel4d_ros.cli import main

WIDTH, HEIGHT = 96, 32


def node_times(*services: ServiceTimes) -> NodeTimes:
    spread = Spread(1, 2, 3, 4)
    publishing = Publishing(9.0, 50, 49, spread, spread, spread, None)
    return NodeTimes(
        (832, 256),
        14,
        1,
        30.0,
        2.0,
        60,
        58,
        10,
        46,
        44,
        None,
        spread,
        (20.04, 21, 22),
        {"motion source": "trajectory"},
        publishing,
        services,
    )


def test_the_nodes_counts_add_up() -> None:
    times = node_times()
    assert (times.lost_images, times.waiting, times.lost_forecasts, times.per_second) == (2, 2, 2, 22)
    text = describe_node(times)
    assert "22.0 forecasts per second; 60 images sent, 2 lost on the way, 10 replaced" in text
    assert "49 of 50 messages of 9.0 MB arrived" in text
    assert "image stamp to arrival, ms: 20.0, 21.0, 22.0" in text
    assert "too short" in describe_node(replace(times, course=()))
    assert "candidate" not in text


def test_answers_of_the_service_are_rows_of_the_table() -> None:
    answers = Spread(20.04, 30, 40, 30)
    times = node_times(ServiceTimes(30, False, 0.2, answers), ServiceTimes(1, True, 8.94, answers))
    text = describe_node(times)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "30 candidates, answer without images 20.0 30.0 40.0 30" in rows
    assert "1 candidate, answer with images, 8.9 MB 20.0 30.0 40.0 30" in rows
    assert "no images meanwhile" in text


@pytest.mark.parametrize(("seconds", "rate"), [(0.0, 30.0), (1.0, 0.0), (-1.0, 30.0), (0.1, 1.0), (float("nan"), 1.0)])
def test_a_feed_needs_images(seconds: float, rate: float) -> None:
    source = SourceImage(np.zeros((HEIGHT, WIDTH, 3), np.uint8), Camera(np.eye(3), WIDTH, HEIGHT), "black")
    with pytest.raises(ValueError, match="--node and --rate must be positive"):
        Feed(source, 14, 1, seconds, rate, "cpu", (), Effort(30, 3))


def small_feed(folder: Path) -> list[str]:
    """Options of `pixel4d benchmark --node` that make it a matter of seconds."""
    photo, noise = folder / "photo.png", np.random.default_rng(0).integers(0, 256, (4, 12, 3), np.uint8)
    assert cv2.imwrite(str(photo), cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
    feed = ["--rate", "20", "--sizes", f"{WIDTH}x{HEIGHT}", "--frames", "3", "--candidates", "2"]
    return [*feed, "--device", "cpu", "--image", str(photo)]


@pytest.mark.ros
@pytest.mark.slow
def test_the_node_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    path = tmp_path / "node.json"
    feed = ["--node", "0.4", "--samples", "2", "--runs", "3", "--warm-up", "1"]
    assert main(["benchmark", *feed, *small_feed(tmp_path), "--json", str(path)]) == 0
    (times,) = json.loads(path.read_text())["nodes"]
    check_feed(times)
    check_services(times["services"])
    Benchmark.read(path).write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == path.read_text()


@pytest.mark.ros
@pytest.mark.slow
def test_a_benchmark_that_is_told_to_end_does_so_quietly_and_leaves_nothing_running(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    feed = ["--node", "0.1", "--samples", "1", "--runs", "100000", *small_feed(tmp_path)]
    command, log = [sys.executable, "-m", "pixel4d_ros.cli", "benchmark", *feed], tmp_path / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    try:
        end = time.monotonic() + 300
        while "without images" not in log.read_text():
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
        text = log.read_text()
        assert "Traceback" not in text and "pixel4d benchmark:" not in text
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def check_feed(times: dict[str, Any]) -> None:
    assert times["sent"] == 8 and 1 <= times["arrived"] <= 8
    assert times["waiting"] == 0 and times["lost_forecasts"] == 0
    assert 0 < times["to_published"]["p50"] < times["to_arrived"]["p50"] < 60_000
    assert times["node"]["motion source"] == "trajectory"
    assert times["publishing"]["megabytes"] == pytest.approx(3 * 3 * WIDTH * HEIGHT * 1e-6, rel=0.2)
    assert times["publishing"]["arrived"] > 0


def check_services(found: list[dict[str, Any]]) -> None:
    assert [(s["candidates"], s["with_images"]) for s in found] == [(2, False), (2, True)]
    assert all(s["answer"]["runs"] == 3 and 0 < s["answer"]["p50"] <= s["answer"]["worst"] < 60_000 for s in found)
    images = 2 * 3 * 3 * WIDTH * HEIGHT * 1e-6
    assert found[0]["megabytes"] < images / 4
    assert found[1]["megabytes"] == pytest.approx(images, rel=0.2)


@pytest.mark.ros
def test_candidates_begin_at_the_image_and_fan_out() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    from pixel4d_ros.ros.benchmark.services import candidate_messages
    from pixel4d_ros.ros.plans import plan_from_path

    stamp_ns = 1_700_000_000_900_000_000
    plans = [plan_from_path(message, 0) for message in candidate_messages(5, 14, stamp_ns)]
    for plan in plans:
        assert plan.frame == "base_link" and plan.stamp_ns == stamp_ns
        assert plan.times_ns is not None and plan.times_ns[0] == stamp_ns and plan.times_ns[-1] == stamp_ns + 1.4e9
        np.testing.assert_allclose(plan.poses[0], np.eye(4), atol=1e-9)
        np.testing.assert_allclose(plan.poses[:, 2, 3], 0, atol=1e-9)  # on the ground
    ends = np.stack([plan.poses[-1] for plan in plans])
    assert ends[:, 0, 3].min() > 5  # ahead
    turned = np.arctan2(ends[:, 1, 0], ends[:, 0, 0])
    np.testing.assert_allclose(turned, np.linspace(0.3, -0.3, 5) * 1.4, atol=1e-6)  # from the left to the right
    (still,) = candidate_messages(1, 1, stamp_ns)
    assert len(still.poses) == 2  # one pose alone would lie in the past


@pytest.mark.ros
def test_a_refusal_of_the_service_ends_the_measurement() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    from rclpy.task import Future

    from pixel4d_ros.ros.benchmark.services import Planner
    from pixel4d_ros.ros.processes import ProcessError, Watch

    future: Any = Future()
    future.set_result(SimpleNamespace(success=False, message="no image yet"))
    client: Any = SimpleNamespace(call_async=lambda request: future)
    child: Any = SimpleNamespace(check_alive=lambda: None)
    with pytest.raises(ProcessError, match="refused 2 candidates: no image yet"):
        Planner(client, Watch(child, Event())).ask(SimpleNamespace(trajectories=[1, 2]))
