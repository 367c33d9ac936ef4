# SPDX-License-Identifier: Apache-2.0
"""Time to publish a forecast: building, serialising and sending the message to another process."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from threading import Event

import numpy as np
from rclpy.node import Node
from rclpy.serialization import serialize_message
from std_msgs.msg import Header
from tqdm import tqdm

from pixel4d_ros.benchmark.node_times import Feed, Publishing
from pixel4d_ros.benchmark.source_image import forecast_times
from pixel4d_ros.benchmark.statistics import Spread
from pixel4d_ros.ros.benchmark.listener import OUTPUT_QOS, TOPIC
from pixel4d_ros.ros.compat import interface
from pixel4d_ros.ros.processes import Child, Watch
from pixel4d_ros.ros.publishing import CameraViews, sequence_message

CAMERA = "camera"
START_S, REST_S = 300.0, 2.0  # timeouts of the subscriber's start and the last message
MESSAGES, LONGEST_S = 50, 0.1  # count, longest interval


def measure_publishing(node: Node, feed: Feed, folder: Path, stop: Event) -> Publishing:
    """Send one forecast repeatedly to a subscriber process, whose output goes to `folder`.

    Raises ProcessError on failure, KeyboardInterrupt when `stop` is set.
    """
    camera, header = feed.source.camera, Header(frame_id=CAMERA)
    frames = np.repeat(feed.source.pixels[None], feed.frames, 0)
    poses = np.tile(np.eye(4), (feed.frames, 1, 1))
    views = CameraViews(camera, forecast_times(feed.frames), poses, np.ones(feed.frames, np.float32), frames)
    publisher = node.create_publisher(interface("msg", "ForecastSequence"), TOPIC, OUTPUT_QOS)
    listener = Child.start(
        "listener",
        [sys.executable, "-m", "pixel4d_ros.ros.benchmark.listener"],
        dict(os.environ),
        folder / "listener.log",
    )
    watch = Watch(listener, stop)
    build, serialize, publish, size = [], [], [], 0
    try:
        watch.wait(lambda: publisher.get_subscription_count() > 0, START_S, "the listener was not found over DDS")
        for _ in tqdm(range(MESSAGES), "publishing", unit="message", leave=False):
            began = time.perf_counter()
            message = sequence_message(views, header)
            built = time.perf_counter()
            size = len(serialize_message(message))
            serialized = time.perf_counter()
            publisher.publish(message)
            done = time.perf_counter()
            build.append(1e3 * (built - began))
            serialize.append(1e3 * (serialized - built))
            publish.append(1e3 * (done - serialized))
            watch.rest(max(0.0, min(1 / feed.rate, LONGEST_S) - (done - began)))
        watch.rest(REST_S)
        listener.stop()
        delays = json.loads(listener.output.splitlines()[-1])
    finally:
        listener.end()
        node.destroy_publisher(publisher)
    arrive = Spread.of(delays) if delays else None
    return Publishing(
        size / 1e6, MESSAGES, len(delays), Spread.of(build), Spread.of(serialize), Spread.of(publish), arrive
    )
