"""`pixel4d benchmark --node`: its counts, and the real node fed over DDS."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pixel4d_ros.camera import Camera
from pixel4d_ros.cli import main
from pixel4d_ros.performance.node_times import Feed, NodeTimes, Publishing, describe_node
from pixel4d_ros.performance.source_image import SourceImage
from pixel4d_ros.performance.statistics import Spread

WIDTH, HEIGHT = 96, 32


def test_the_nodes_counts_add_up() -> None:
    spread = Spread(1, 2, 3, 4)
    publishing = Publishing(9.0, 50, 49, spread, spread, spread, None)
    times = NodeTimes(
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
        None,
        {"motion source": "trajectory"},
        publishing,
    )
    assert (times.lost_images, times.waiting, times.lost_forecasts, times.per_second) == (2, 2, 2, 22)
    text = describe_node(times)
    assert "22.0 forecasts per second; 60 images sent, 2 lost on the way, 10 replaced" in text
    assert "49 of 50 messages of 9.0 MB arrived" in text and "too short to tell" in text


@pytest.mark.parametrize(("seconds", "rate"), [(0.0, 30.0), (1.0, 0.0), (-1.0, 30.0), (0.1, 1.0), (float("nan"), 1.0)])
def test_a_feed_needs_images(seconds: float, rate: float) -> None:
    source = SourceImage(np.zeros((HEIGHT, WIDTH, 3), np.uint8), Camera(np.eye(3), WIDTH, HEIGHT), "black")
    with pytest.raises(ValueError, match="--node and --rate must be positive"):
        Feed(source, 14, 1, seconds, rate, "cpu")


@pytest.mark.ros
@pytest.mark.slow
def test_the_node_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    path, photo = tmp_path / "node.json", tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 256, (4, 12, 3), np.uint8)
    assert cv2.imwrite(str(photo), cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
    feed = ["--node", "4", "--rate", "2", "--sizes", f"{WIDTH}x{HEIGHT}", "--frames", "3", "--samples", "2"]
    assert main(["benchmark", *feed, "--device", "cpu", "--image", str(photo), "--json", str(path)]) == 0
    (times,) = json.loads(path.read_text())["nodes"]
    assert times["sent"] == 8 and 1 <= times["arrived"] <= 8
    assert times["waiting"] == 0 and times["lost_forecasts"] == 0
    assert 0 < times["to_published"]["p50"] < times["to_arrived"]["p50"] < 60_000
    assert times["node"]["motion source"] == "trajectory"
    assert times["publishing"]["megabytes"] == pytest.approx(3 * 3 * WIDTH * HEIGHT * 1e-6, rel=0.2)
    assert times["publishing"]["arrived"] > 0
