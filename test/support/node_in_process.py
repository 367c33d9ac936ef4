# SPDX-License-Identifier: Apache-2.0
"""The node in a thread of the test process, for tests that look at what its forecaster does, or replace it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor

from pixel4d_ros.ros.forecast_node import ForecastNode
from support.coarse_predictions import coarse_predictions
from support.waiting import PATIENCE


@contextmanager
def node_in_process(
    load: Callable[[str | None, str], Any], namespace: str, active: bool = True, **parameters: Any
) -> Iterator[None]:
    """A node, active or not yet configured, whose forecaster is what `load(weights, device)` returns.

    Its predictions are coarse, and so are others of this process meanwhile.
    """
    values = {"steps": 2, "diagnostics_period": 0.2, "diagnostics_silence": PATIENCE, **parameters}
    overrides = [rclpy.Parameter(name, value=value) for name, value in values.items()]
    node = ForecastNode(load, namespace=namespace, parameter_overrides=overrides)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    if active:
        node.trigger_configure()
        node.trigger_activate()
    thread = Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        with coarse_predictions():
            yield
    finally:
        executor.shutdown()
        thread.join(PATIENCE)
        node.destroy_node()
