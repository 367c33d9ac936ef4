# SPDX-License-Identifier: Apache-2.0
"""The subscriber process of publishing.py. A module of its own: with publishing.py comes torch, which takes seconds."""

from __future__ import annotations

import json
import time

import rclpy
from rclpy.qos import QoSProfile

from pixel4d_ros.ros.compat import interface
from pixel4d_ros.ros.session import ros_node

TOPIC = "/pixel4d_benchmark/forecast"
OUTPUT_QOS = QoSProfile(depth=10)


def listen() -> None:
    """Receive ForecastSequences until interrupted, then print the delay of each in ms."""
    delays: list[float] = []
    with ros_node("pixel4d_benchmark_listener") as (node, stop):
        node.create_subscription(
            interface("msg", "ForecastSequence"),
            TOPIC,
            lambda _, info: delays.append(1e-6 * (time.time_ns() - info["source_timestamp"])),
            OUTPUT_QOS,
            raw=True,
        )
        while not stop.is_set():
            rclpy.spin_once(node, timeout_sec=0.1)
    print(json.dumps(delays))


if __name__ == "__main__":
    listen()
