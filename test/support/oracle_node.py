# SPDX-License-Identifier: Apache-2.0
"""A node that knows the log, for tests of scoring: frame k of its forecasts is the log's image k periods later.

`python oracle_node.py LOG TOPIC STEPS` listens to the left camera of test/log_samples.py and publishes on TOPIC.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import rclpy
from builtin_interfaces.msg import Duration
from rclpy.executors import ExternalShutdownException
from sensor_msgs.msg import Image

from pixel4d_ros.logs.images import decode_image
from pixel4d_ros.logs.reader import LogReader
from pixel4d_ros.logs.transforms import stamp_ns
from pixel4d_ros.ros.compat import interface
from pixel4d_ros.ros.messages.conversions import fill

IMAGE = "/camera/left/image_raw"
PERIOD_NS = 100_000_000


def main(log: str, topic: str, steps: int) -> None:
    """Publish a forecast for every image until interrupted."""
    with LogReader(log) as reader:
        images = [(stamp_ns(m.message.header), decode_image(m.message)) for m in reader.messages([IMAGE])]
    stamps = [stamp for stamp, _ in images]
    rclpy.init()
    node = rclpy.create_node("oracle")
    forecast_type = interface("msg", "ForecastSequence")
    publisher = node.create_publisher(forecast_type, topic, 10)

    def foresee(message: Image) -> None:
        index = stamps.index(stamp_ns(message.header))
        forecast = forecast_type(header=message.header, sample_count=1)
        for k in range(steps):
            rgb = images[min(index + k, len(images) - 1)][1]
            frame = Image(height=rgb.shape[0], width=rgb.shape[1], encoding="rgb8", step=3 * rgb.shape[1])
            fill(frame, rgb)
            forecast.images.append(frame)
            forecast.time_from_start.append(Duration(nanosec=k * PERIOD_NS))
        publisher.publish(forecast)

    node.create_subscription(Image, IMAGE, foresee, 10)
    print("ready", flush=True)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
