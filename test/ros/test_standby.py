# SPDX-License-Identifier: Apache-2.0
"""Which image a late subscriber gets: none that is old while the next one is due."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import Image

from pixel4d_ros.ros import diagnostics, inputs, standby
from pixel4d_ros.ros.diagnostics import Statistics
from pixel4d_ros.ros.inputs import ImageMessage, Inputs
from pixel4d_ros.ros.standby import Standby


class World:
    """A node's standby whose time is set by the test, both the machine's and ROS's; what it says is in `said`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.said = 1000.0, []
        for module in (diagnostics, inputs, standby):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.seconds))
        self.statistics = Statistics()
        node: Any = SimpleNamespace(
            get_clock=lambda: SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=int(self.seconds * 1e9))),
            get_logger=lambda: SimpleNamespace(info=self.said.append),
            resolve_topic_name=lambda name: name.replace("~", "/forecast_node"),
        )
        self.standby = Standby(node, self.statistics)

    def skips(self, *names: str, period: float = 0.1) -> Inputs:
        """Receive images of these encodings, each of which is skipped; the inputs that they came with."""
        came = Inputs()
        for name in names:
            self.seconds += period
            self.statistics.frame_received(False)
            self.standby.skip(ImageMessage(Image(encoding=name), self.seconds, came))
        return came

    def forecasts_within(self, seconds: float, subscribed: bool = True) -> str | None:
        """The image that is forecast within this time, four times a second."""
        end = self.seconds + seconds
        while self.seconds < end:
            image = self.standby.due(subscribed)
            if image is not None:
                return image.message.encoding
            self.seconds += 0.25
        return None


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_the_newest_skipped_image_is_forecast_once_for_a_subscriber_that_is_settled(world):
    world.skips("first", "second", "third")
    assert world.standby.due(True) is None  # the subscriber has not discovered the publisher yet
    assert world.forecasts_within(1.0) == "third"
    assert world.statistics.skipped == 2
    assert world.forecasts_within(10) is None


def test_an_old_image_is_not_forecast_while_the_next_one_is_due(world):
    """A camera that sends an image every three seconds."""
    world.skips("first", "second", period=3.0)
    assert world.forecasts_within(1.5, subscribed=False) is None
    assert world.forecasts_within(1.5) is None
    world.skips("third", period=0.0)
    assert world.forecasts_within(1.0) == "third"


def test_after_the_last_image_it_is_forecast_even_if_it_is_old(world):
    world.skips("first", "second")
    assert world.forecasts_within(50, subscribed=False) is None
    assert world.forecasts_within(1) == "second"


def test_a_skipped_image_is_not_forecast_after_a_newer_one(world):
    world.skips("first")
    world.standby.forget()  # as a newer one is forecast
    assert world.forecasts_within(10) is None


def test_an_image_of_a_minute_ago_is_of_no_use(world):
    world.skips("first")
    assert world.forecasts_within(61, subscribed=False) is None
    assert world.forecasts_within(10) is None
    assert world.statistics.skipped == 1


def test_an_image_before_a_jump_of_time_is_not_forecast(world):
    world.skips("first").outdated = True
    assert world.forecasts_within(10) is None


def test_the_console_says_once_that_nobody_subscribes_and_once_what_became_of_the_images(world):
    """Not within the first second: DDS discovers subscribers asynchronously."""
    topic = "images come in; nothing is computed until somebody subscribes, e.g. to /forecast_node/forecast/image"
    end = "images have stopped: 3 received, 0 forecast, 0 dropped, 3 without a subscriber; the newest is forecast as"
    world.skips("first", "second", "third")
    assert world.forecasts_within(0.9, subscribed=False) is None and world.said == []
    world.forecasts_within(10, subscribed=False)
    assert world.said == [topic, f"{end} soon as somebody subscribes"]
    world.skips("fourth")
    world.forecasts_within(11, subscribed=False)
    assert len(world.said) == 3 and "4 received" in world.said[2]


def test_a_slow_camera_has_not_stopped(world):
    for _ in range(5):
        world.skips("image", period=0.0)
        world.forecasts_within(5.0, subscribed=False)
    assert not [line for line in world.said if "stopped" in line][1:]  # after the first image it seemed so
