# SPDX-License-Identifier: Apache-2.0
"""The node on a device whose memory runs out, for tests: `python short_of_memory_node.py SWITCH --ros-args ...`.

While the file SWITCH exists, every prediction fails as one on a full GPU does.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import rclpy
import torch
from rclpy.executors import ExternalShutdownException

from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.ros.forecast_node import ForecastNode

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"


def main(switch: Path, arguments: list[str]) -> None:
    """Run the node until interrupted."""

    def load(weights: str | None, device: str) -> Forecaster:
        forecaster = Forecaster.load(weights, device)
        predict = forecaster.predictor.predict

        def predict_or_fail(*words: Any, **options: Any) -> Any:
            if switch.exists():
                raise torch.cuda.OutOfMemoryError(FULL)
            return predict(*words, **options)

        forecaster.predictor.predict = predict_or_fail
        return forecaster

    rclpy.init(args=arguments)
    node = ForecastNode(load)
    node.trigger_configure()
    node.trigger_activate()
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    node.destroy_node()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
