# SPDX-License-Identifier: Apache-2.0
"""Every topic and service of the node gets any messages and requests, over real DDS, and good ones in between.

The node lives on, answers every request, keeps its memory bounded, and forecasts in the end. For ten minutes in place
of seconds: `PIXEL4D_FUZZ_SECONDS=600 pytest -s test/ros/test_fuzz_node.py`.
"""

from __future__ import annotations

import copy
import os
import time
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from geometry_msgs.msg import Point32, Polygon, Transform, TransformStamped
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState
from nav_msgs.msg import Odometry
from pixel4d_ros.srv import ForecastTrajectories
from rcl_interfaces.msg import Parameter
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.node import NodeNameNonExistentError
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from support import fuzz
from support.any_message import any_message, varied
from support.harness import (
    HEIGHT,
    WIDTH,
    Client,
    NodeProcess,
    calibration,
    call,
    image,
    path,
    picture,
    running_node,
    stamp,
)
from trajectory_msgs.msg import MultiDOFJointTrajectory, MultiDOFJointTrajectoryPoint
from type_description_interfaces.srv import GetTypeDescription

from pixel4d_ros.ros.messages.conversions import fill
from pixel4d_ros.ros.messages.headers import duration_message
from pixel4d_ros.ros.topics import LATCHED

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # then the node does not subscribe to tf
    TFMessage = None

SECONDS = float(os.environ.get("PIXEL4D_FUZZ_SECONDS", "0"))
GROWTH_MIB = 100
NODE = "/forecast_node"
pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context"), pytest.mark.timeout(300 + 2 * SECONDS)]
round_of = settings(
    max_examples=10 if SECONDS else 4, phases=[Phase.generate], deadline=None, suppress_health_check=list(HealthCheck)
)
ENDS = (4, 7)  # transitions of an active node: deactivate, shut down
WORDS = fuzz.frames | st.sampled_from(
    ["steps", "step", "num_samples", "output_size", "footprint", "rectify", "device", "base_frame", "use_sim_time"]
)


@dataclass(frozen=True)
class Taken:
    """What a topic or service takes: its type, a good message, and others."""

    kind: Any
    good: Any
    others: st.SearchStrategy[Any]


def taken(good: Any, others: st.SearchStrategy[Any] | None = None) -> Taken:
    others = any_message(type(good), WORDS) if others is None else others
    return Taken(type(good), good, others | varied(good, WORDS) | st.just(good))


def compressed(pixels: np.ndarray) -> CompressedImage:
    message = CompressedImage(format="png")
    message.header.frame_id, message.header.stamp = "camera", stamp(1.0)
    message.data.frombytes(cv2.imencode(".png", pixels)[1].tobytes())
    return message


def transform(parent: str, child: str) -> Any:
    made = TransformStamped(child_frame_id=child, transform=Transform())
    made.header.frame_id, made.header.stamp = parent, stamp(1.0)
    return TFMessage(transforms=[made])


def depth() -> Image:
    message = image(1.0, picture(), encoding="16UC1", step=2 * WIDTH)
    fill(message, np.full((HEIGHT, WIDTH), 5000, np.uint16))
    return message


def odometry() -> Odometry:
    message = Odometry(child_frame_id="base_link")
    message.header.frame_id, message.header.stamp = "odom", stamp(1.0)
    return message


def trajectory() -> MultiDOFJointTrajectory:
    message = MultiDOFJointTrajectory(joint_names=["base"])
    message.header.frame_id, message.header.stamp = "odom", stamp(1.0)
    for i in range(5):
        point = MultiDOFJointTrajectoryPoint(transforms=[Transform()], time_from_start=duration_message(0.1 * i))
        point.transforms[0].translation.x = 0.5 * i
        message.points.append(point)
    return message


def request() -> Any:
    corners = [Point32(x=x, y=y) for x, y in ((2.0, 1.0), (2.0, -1.0), (-1.0, 0.0))]
    return ForecastTrajectories.Request(trajectories=[path(1.0)], footprint=Polygon(points=corners), with_images=True)


TF = {"/tf": transform("odom", "base_link"), "/tf_static": transform("base_link", "camera")} if TFMessage else {}
COMMON = {
    "/camera_info": taken(calibration(1.0), fuzz.camera_infos),
    "/odometry": taken(odometry(), fuzz.odometry),
    **{topic: taken(good) for topic, good in TF.items()},
}
TOPICS = {
    "raw": {
        "/image": taken(image(1.0, picture()), fuzz.images()),
        "/depth": taken(depth(), fuzz.images()),
        "/trajectory": taken(path(1.0), fuzz.paths),
        **COMMON,
    },
    "compressed": {
        "/image": taken(compressed(picture()), fuzz.compressed_images()),
        "/depth": taken(compressed(np.full((HEIGHT, WIDTH), 5000, np.uint16)), fuzz.compressed_images()),
        "/trajectory": taken(trajectory()),
        "/clock": taken(Clock(clock=stamp(1.0))),
        **COMMON,
    },
}
PARAMETERS = {
    "raw": {},
    "compressed": {
        "image_transport": "compressed",
        "depth.transport": "compressed",
        "trajectory_type": "trajectory_msgs/MultiDOFJointTrajectory",
        "use_sim_time": "true",
    },
}
SERVICES = {
    "forecast_trajectories": (ForecastTrajectories, varied(request(), WORDS)),
    "change_state": (ChangeState, st.nothing()),
    "get_state": (GetState, st.nothing()),
    "get_available_states": (GetAvailableStates, st.nothing()),
    "get_available_transitions": (GetAvailableTransitions, st.nothing()),
    "get_transition_graph": (GetAvailableTransitions, st.nothing()),
    "describe_parameters": (DescribeParameters, st.nothing()),
    "get_parameter_types": (GetParameterTypes, st.nothing()),
    "get_parameters": (GetParameters, st.nothing()),
    "list_parameters": (ListParameters, st.nothing()),
    "set_parameters": (SetParameters, st.nothing()),
    "set_parameters_atomically": (SetParametersAtomically, st.nothing()),
    "get_type_description": (GetTypeDescription, st.nothing()),
}


def requests(name: str) -> st.SearchStrategy[Any]:
    """Any requests to a service, without commands that end the fuzzing."""
    kind, others = SERVICES[name]
    found = any_message(kind.Request, WORDS) | others
    return found if kind is not ChangeState else found.filter(lambda asked: asked.transition.id not in ENDS)


class Fuzzed:
    """A client that sends the node anything, counts it, and subscribes to all that the node publishes."""

    def __init__(self, node: NodeProcess, topics: dict[str, Taken]) -> None:
        self._node, self._topics = node, topics
        self.client = Client(listen=False, namespace="apart")  # its own publishers are not latched
        self.examples, self.forecasts, self.sent = 0, 0, Counter[str]()
        self._publishers = {name: self.client.create_publisher(t.kind, name, LATCHED) for name, t in topics.items()}
        self._services = {name: self.client.create_client(SERVICES[name][0], f"{NODE}/{name}") for name in SERVICES}
        self.client.until(lambda: all(p.get_subscription_count() for p in self._publishers.values()))
        self.client.until(lambda: all(s.service_is_ready() for s in self._services.values()))
        self.client.until(lambda: self._subscribed() >= set(topics))
        for topic, (kind,) in self.client.get_publisher_names_and_types_by_node(NODE[1:], "/"):
            if topic.startswith(NODE):
                package, _, name = kind.split("/")
                self.client.listen(getattr(import_module(f"{package}.msg"), name), topic)
        self._parameters = self._declared_parameters()

    def _subscribed(self) -> set[str]:
        """What the node subscribes to; nothing while discovery shows no node, or that of the test before."""
        try:
            return {name for name, _ in self.client.get_subscriber_names_and_types_by_node(NODE[1:], "/")}
        except NodeNameNonExistentError:
            return set()

    def _declared_parameters(self) -> list[Parameter]:
        """The parameters of the node that can be set, with their values."""
        names = call(self.client, ListParameters, f"{NODE}/list_parameters", ListParameters.Request()).result.names
        names = [name for name in names if "qos_overrides" not in name]
        asked = call(self.client, GetParameters, f"{NODE}/get_parameters", GetParameters.Request(names=names))
        return [Parameter(name=name, value=value) for name, value in zip(names, asked.values, strict=True)]

    def check_all_are_fuzzed(self) -> None:
        """Assert that the node has no other topics and services than those that are fuzzed."""
        services = dict(self.client.get_service_names_and_types_by_node(NODE[1:], "/"))
        assert self._subscribed() == set(self._topics)
        assert {name.rpartition("/")[2] for name in services} == set(SERVICES)

    def messages(self) -> st.SearchStrategy[list[tuple[str, Any]]]:
        """A few messages and requests, each with its topic or service."""
        pairs = [st.tuples(st.just(name), t.others) for name, t in self._topics.items()]
        pairs += [st.tuples(st.just(name), requests(name)) for name in SERVICES]
        return st.lists(st.one_of(pairs), min_size=4, max_size=12)

    def send(self, messages: list[tuple[str, Any]]) -> None:
        """Send good messages, then these, then a good image, and wait for the answers.

        The node takes only the newest image, so each is given time. Stamps of good ones go on, and begin anew.
        """
        now, self.examples = 1.0 + 0.1 * (self.examples % 20), self.examples + 1
        self.send_good(now)
        self._wait_for_forecast(now)
        answers = []
        for name, message in messages:
            self.sent[name] += 1
            if name in self._services:
                answers.append(self._services[name].call_async(message))
            else:
                self._publish(name, message, now)
        self.client.spin_for(0.05)
        self._publish("/image", self._topics["/image"].good, now + 0.05)
        self._wait_for_forecast(now + 0.05)
        self.client.until(lambda: self._has_ended or all(answer.done() for answer in answers))
        assert not self._has_ended, self._node.log[-3000:]
        self.forecasts += len(self.client.got[f"{NODE}/forecast"])
        self.client.clear()

    @property
    def _has_ended(self) -> bool:
        return self._node.process.poll() is not None

    def _wait_for_forecast(self, seconds: float) -> None:
        """Until it is there, or a little: some messages prevent it."""
        self.client.wait(lambda: self.client.stamped(f"{NODE}/forecast", seconds), 0.4)

    def send_good(self, now: float) -> None:
        for name, t in self._topics.items():
            self._publish(name, t.good, now)

    def _publish(self, name: str, message: Any, now: float) -> None:
        message = copy.deepcopy(message)
        if getattr(message, "header", None) is not None and message.header.stamp == stamp(1.0):
            message.header.stamp = stamp(now)
        self._publishers[name].publish(message)

    def restore(self) -> None:
        """Set the parameters that the node began with."""
        call(self.client, SetParameters, f"{NODE}/set_parameters", SetParameters.Request(parameters=self._parameters))

    def check_that_it_forecasts(self) -> None:
        """Assert that the next good messages are forecast."""
        self.client.clear()
        later = 1e6
        self.client.send_until(lambda: self.send_good(later), lambda: self.client.stamped(f"{NODE}/forecast", later))


@pytest.mark.parametrize("kind", TOPICS)
def test_any_messages_and_requests(kind: str, tmp_path: Any) -> None:
    with running_node(tmp_path / "log.txt", steps=2, diagnostics_period=0.2, **PARAMETERS[kind]) as node:
        fuzzed = Fuzzed(node, TOPICS[kind])
        fuzzed.check_all_are_fuzzed()

        @round_of
        @given(fuzzed.messages())
        def fuzz_for_a_while(messages: list[tuple[str, Any]]) -> None:
            fuzzed.send(messages)

        fuzz_for_a_while()
        before, end = node.resident_mib, time.monotonic() + SECONDS
        while True:
            fuzz_for_a_while()
            fuzzed.restore()
            if time.monotonic() >= end:
                break
        fuzzed.check_that_it_forecasts()
        after = node.resident_mib
        fuzzed.client.destroy_node()
    counts = f"{fuzzed.examples} examples, {fuzzed.forecasts} forecasts, of each {dict(fuzzed.sent)}"
    print(f"\n{kind}: resident {before:.0f} MiB, then {after:.0f} MiB; {counts}")
    assert after < before + GROWTH_MIB
    assert "Traceback" not in node.log, node.log[-3000:]
