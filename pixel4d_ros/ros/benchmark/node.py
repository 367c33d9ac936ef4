# SPDX-License-Identifier: Apache-2.0
"""`pixel4d benchmark --node`: feed the real node, a separate process, like a camera, and time it from outside."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Path
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tqdm import tqdm

from pixel4d_ros.benchmark.node_times import Feed, NodeTimes, Publishing
from pixel4d_ros.benchmark.source_image import SPEED, STEP
from pixel4d_ros.benchmark.statistics import Spread, course
from pixel4d_ros.ros.benchmark.listener import OUTPUT_QOS
from pixel4d_ros.ros.benchmark.publishing import CAMERA, REST_S, START_S, measure_publishing
from pixel4d_ros.ros.benchmark.services import check_candidates, measure_service, path_message
from pixel4d_ros.ros.compat import interface
from pixel4d_ros.ros.memory import freeze_gc
from pixel4d_ros.ros.messages import conversions as c
from pixel4d_ros.ros.messages.headers import nanoseconds, time_message
from pixel4d_ros.ros.processes import Child, ProcessError, Watch, ros_environment
from pixel4d_ros.ros.session import ros_node, spinning

FORECAST = "/forecast_node/forecast"
CAMERA_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # as camera drivers publish
HEADER_BYTES = 64  # at the start of a serialised message: its header
FIRST_S, POLL_S = 120.0, 0.05  # timeout of the first forecast, polling period
SETTLED = 5  # forecasts before the measurement
PLAN_S, PLAN_HZ = 3.0, 10.0
COUNTERS = {"received frames": "received", "dropped frames": "dropped", "published forecasts": "published"}
REPORTED = ("latency p50 (ms)", "latency p99 (ms)", "latency worst (ms)", "motion source", "GPU memory")


def measure_node(feed: Feed) -> NodeTimes:
    """Start the node, feed it, then call its service.

    Raises ValueError for more candidates than the node accepts, ProcessError if it fails, and KeyboardInterrupt on
    SIGINT or SIGTERM.
    """
    check_candidates(feed)
    # A private ROS domain for this process and its children.
    os.environ.update(ros_environment())
    freeze_gc()  # GC passes of this process would distort the times
    with (
        tempfile.TemporaryDirectory(prefix="pixel4d_benchmark_") as folder,
        ros_node("pixel4d_benchmark") as (node, stop),
    ):
        publishing = measure_publishing(node, feed, FilePath(folder), stop)
        child = Child.start("forecast node", _node_command(feed), dict(os.environ), FilePath(folder) / "node.log")
        watch = Watch(child, stop)
        try:
            watch.wait(lambda: "active: " in child.output, START_S, "the node was not active", POLL_S)
            rig = Rig(node, feed, watch)
            with spinning(node, "listener"):
                times = _drive(rig, publishing)
                if feed.candidates:
                    stamp_ns = _rest_on_an_image(rig, 1e-3 * times.to_arrived.worst)
                    times = replace(times, services=measure_service(node, feed, stamp_ns, watch))
            child.stop()
        finally:
            child.end()
        if stop.is_set():
            raise KeyboardInterrupt
    return times


class Rig:
    """Camera, planner and subscriber."""

    def __init__(self, node: Node, feed: Feed, watch: Watch) -> None:
        self.feed, self.watch = feed, watch
        self.image = node.create_publisher(Image, "image", CAMERA_QOS)
        self.info = node.create_publisher(CameraInfo, "camera_info", CAMERA_QOS)
        self.plan = node.create_publisher(Path, "trajectory", 1)
        self.messages: list[tuple[int, int, int]] = []  # of each ForecastSequence: image stamp, published, arrived; ns
        self.status: dict[str, str] = {}
        self.statuses = 0
        self._message = c.image_message(feed.source.pixels, Header(frame_id=CAMERA))
        kind = interface("msg", "ForecastSequence")
        node.create_subscription(kind, FORECAST, self._on_forecast, OUTPUT_QOS, raw=True)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def send_image(self) -> int:
        """Publish an image stamped now; returns its stamp in ns."""
        header = Header(frame_id=CAMERA, stamp=time_message(time.time_ns()))
        self.info.publish(c.camera_info_message(self.feed.source.camera, header))
        stamp_ns = time.time_ns()
        self._message.header.stamp = time_message(stamp_ns)
        self.image.publish(self._message)
        return stamp_ns

    def send_plan(self) -> None:
        """Publish a straight path ahead."""
        times = np.arange(0, PLAN_S, STEP)
        poses = np.tile(np.eye(4), (len(times), 1, 1))
        poses[:, 0, 3] = SPEED * times
        self.plan.publish(path_message(poses, times, time.time_ns()))

    def forecast_one(self, patience_s: float) -> int | None:
        """Send an image and wait for its forecast; returns the image's stamp in ns, None after patience_s."""
        self.send_plan()
        stamp, end = self.send_image(), time.monotonic() + patience_s
        while stamp not in self.whole():
            self.watch.check()
            if time.monotonic() > end:
                return None
            time.sleep(0.005)
        return stamp

    def whole(self, since_ns: int = 0) -> dict[int, tuple[int, int]]:
        """Times of publication and arrival, ns, by image stamp, of forecasts that arrived with all samples."""
        parts: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for stamp, published, arrived in tuple(self.messages):
            if stamp >= since_ns:
                parts[stamp].append((published, arrived))
        return {s: max(p, key=lambda times: times[1]) for s, p in parts.items() if len(p) == self.feed.samples}

    def counters(self) -> dict[str, int]:
        """The node's own counts, from its second next status: that one is newer than this call."""
        seen = self.statuses
        self.watch.wait(lambda: self.statuses >= seen + 2, FIRST_S, "the node publishes no /diagnostics")
        return {name: int(self.status[key]) for key, name in COUNTERS.items()}

    def _on_forecast(self, data: bytes, info: dict[str, int]) -> None:
        arrived = time.time_ns()
        stamp = nanoseconds(deserialize_message(data[:HEADER_BYTES], Header).stamp)
        self.messages.append((stamp, info["source_timestamp"], arrived))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "forecast_node: forecast":
                self.status = {pair.key: pair.value for pair in status.values}
                self.statuses += 1


def _drive(rig: Rig, publishing: Publishing) -> NodeTimes:
    """Warm the node up, then measure for feed.seconds."""
    feed, watch = rig.feed, rig.watch
    _settle(rig)
    _rest(rig)
    before, sent = rig.counters(), []
    next_plan, began = 0.0, time.monotonic()
    for i in tqdm(range(round(feed.seconds * feed.rate)), "node", unit="image", leave=False, mininterval=0.5):
        watch.rest(max(0.0, began + i / feed.rate - time.monotonic()))
        if time.monotonic() >= next_plan:
            rig.send_plan()
            next_plan = time.monotonic() + 1 / PLAN_HZ
        sent.append(rig.send_image())
    _rest(rig)
    after = rig.counters()
    arrived = rig.whole(sent[0])
    if not arrived:
        raise ProcessError(
            f"of {len(sent)} images the node published no forecast that arrived{watch.child.last_words()}"
        )
    in_order = sorted(arrived.items())
    latencies = [1e-6 * (arrival - stamp) for stamp, (_, arrival) in in_order]
    published = [1e-6 * (publication - stamp) for stamp, (publication, _) in in_order]
    has_publication_times = min(published) > 0
    camera = feed.source.camera
    return NodeTimes(
        size=(camera.width, camera.height),
        frames=feed.frames,
        samples=feed.samples,
        rate=feed.rate,
        seconds=feed.seconds,
        sent=len(sent),
        **{name: after[name] - before[name] for name in before},
        arrived=len(arrived),
        to_published=Spread.of(published) if has_publication_times else None,
        to_arrived=Spread.of(latencies),
        course=course(published if has_publication_times else latencies),
        node={name: rig.status[name] for name in REPORTED if name in rig.status},
        publishing=publishing,
        services=(),
    )


def _settle(rig: Rig) -> None:
    """Send images one by one until SETTLED forecasts have arrived: the first ones record graphs and fill caches."""
    end = time.monotonic() + FIRST_S
    while len(rig.whole()) < SETTLED:
        if time.monotonic() > end:
            status = "; ".join(f"{k}: {text}" for k, text in rig.status.items() if "error" in k or "frames" in k)
            raise ProcessError(f"no {SETTLED} forecasts within {FIRST_S:g} s ({status}){rig.watch.child.last_words()}")
        rig.forecast_one(REST_S)


def _rest(rig: Rig) -> None:
    """Wait until no forecast has arrived for longer than any has taken."""
    slowest_s = 1e-9 * max((arrived - stamp for stamp, (_, arrived) in rig.whole().items()), default=0)
    count, quiet = -1, 0.0
    while (now := time.monotonic()) < quiet + REST_S + slowest_s or count < 0:
        if len(rig.messages) != count:
            count, quiet = len(rig.messages), now
        rig.watch.rest(POLL_S)


def _rest_on_an_image(rig: Rig, usual_s: float) -> int:
    """Make the node forecast one more image, which takes usual_s; returns the image's stamp in ns."""
    end = time.monotonic() + FIRST_S
    while (stamp_ns := rig.forecast_one(REST_S + usual_s)) is None:
        if time.monotonic() > end:
            raise ProcessError(
                f"no forecast for the service arrived within {FIRST_S:g} s{rig.watch.child.last_words()}"
            )
    return stamp_ns


def _node_command(feed: Feed) -> list[str]:
    parameters: dict[str, Any] = {
        "device": feed.device,
        "steps": feed.frames,
        "step": STEP,
        "num_samples": feed.samples,
        "diagnostics_period": 0.2,
        **({"weights": str(feed.weights.resolve())} if feed.weights else {}),
    }
    options = [word for name, value in parameters.items() for word in ("-p", f"{name}:={json.dumps(value)}")]
    return [sys.executable, "-m", "pixel4d_ros.ros.forecast_node", "--ros-args", *options]
