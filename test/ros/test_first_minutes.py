# SPDX-License-Identifier: Apache-2.0
"""The first minutes of use over DDS: who comes late is served, and the console says what happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

import rclpy
from support.harness import Client, NodeProcess, balanced, image, picture, running_node, stamp

from pixel4d_ros import Forecaster
from pixel4d_ros.ros.compat import interface
from pixel4d_ros.ros.forecast_node import ForecastNode
from pixel4d_ros.ros.messages.headers import nanoseconds
from pixel4d_ros.ros.worker import IDLE_S

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context")]
PARAMETERS = {"steps": 4, "diagnostics_period": 0.2}


@contextmanager
def world(log: Path, namespace: str) -> Iterator[tuple[NodeProcess, Client]]:
    """An active node and a client that does not listen to forecasts yet."""
    options = ("-r", f"__ns:=/{namespace}", "--log-level", f"{namespace}.forecast_node:=debug")
    with running_node(log, *options, **PARAMETERS) as node:
        client = Client(listen=False, namespace=namespace).connect()
        try:
            yield node, client
        finally:
            client.destroy_node()


def test_who_subscribes_after_the_last_image_gets_its_forecast(tmp_path):
    """A log of three images that nobody has subscribed to, or whose subscriber DDS has not discovered yet."""
    with world(tmp_path / "log.txt", "late") as (node, client):
        for s in (1.0, 1.1, 1.2):
            client.send_odometry(s)
            client.settle()
            received = f"image {nanoseconds(stamp(s))} received"
            client.send_until(lambda at=s: client.send_frame(at), lambda words=received: words in node.log)
        node.wait_for("nothing is computed until somebody subscribes, e.g. to /late/forecast_node/forecast/image")
        node.wait_for("without a subscriber; the newest is forecast as soon as somebody subscribes")

        client.listen(interface("msg", "ForecastSequence"), "forecast_node/forecast")
        (forecast,) = client.until(lambda: client.got["forecast"])
        assert forecast.header.stamp == stamp(1.2)
        assert [p.position.z for p in forecast.camera_poses] == pytest.approx([0, 0.5, 1.0, 1.5], abs=1e-3)

        node.wait_for("first forecast after")
        client.spin_for(1.0)
        assert len(client.got["forecast"]) == 1  # it comes once
        values = client.values()
        assert values["published forecasts"] == "1" and balanced(values)
        assert float(values["latency worst (ms)"]) < 1e3 * 60  # since the subscription, not since the image
        assert not node.errors


def test_an_image_waits_for_the_first_calibration(tmp_path):
    """A replayed log, whose camera_info is discovered moments after its images."""
    with world(tmp_path / "log.txt", "first") as (node, client):
        client.listen(interface("msg", "ForecastSequence"), "forecast_node/forecast")
        client.connect()
        client.image.publish(image(1.0, picture()))
        client.spin_for(0.3)
        client.send_info(1.0)
        client.until(lambda: client.stamped("forecast", 1.0))
        assert client.values()["received frames"] == "1" and not node.errors


def test_a_calibration_that_does_not_come_is_an_error(tmp_path):
    with world(tmp_path / "log.txt", "none") as (node, client):
        client.image.publish(image(1.0, picture()))
        node.wait_for("camera_info: nothing received on /none/camera_info yet: remap camera_info to the camera's")
        node.wait_for("images have stopped: 1 received, 0 forecast, 0 dropped; there is no forecast")


def test_an_idle_node_ends_quietly_after_its_context(monkeypatch):
    """Ctrl-C shuts the context down before the node, which looks for subscribers meanwhile."""
    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    context = rclpy.Context()
    rclpy.init(context=context)
    node = ForecastNode(Forecaster.load, namespace="idle", context=context)
    node.trigger_configure()
    node.trigger_activate()
    context.shutdown()
    time.sleep(3 * IDLE_S)
    node.destroy_node()
    assert not raised
