# SPDX-License-Identifier: Apache-2.0
"""Failing parts and time that jumps back: said once, the node goes on, and what comes next is forecast."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import Transition
from pixel4d_ros.srv import ForecastTrajectories
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from rosgraph_msgs.msg import Clock
from support.harness import (
    T0,
    Client,
    NodeProcess,
    balanced,
    call,
    path,
    picture,
    recovers,
    running_node,
    stamp,
    transition,
)
from support.node_in_process import node_in_process
from support.node_process import ForkedNodeProcess
from support.paths import SUPPORT
from support.waiting import PATIENCE

from pixel4d_ros.forecaster import DeviceError, Forecaster
from pixel4d_ros.ros.guarded_callbacks import guarded

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context")]
PARAMETERS = {"steps": 2, "diagnostics_period": 0.2}


def test_images_of_a_log_that_begins_anew(node, client):
    clock = 100.0
    client.send_odometry(clock)
    client.send_path(clock)
    client.settle()
    client.forecast(clock)
    # Without simulated time only the images tell; trajectory and odometry of the old round are forgotten.
    assert client.forecast(clock - 5).camera_poses[1].position.z == 0
    said = "the images' stamps jumped back: all state is dropped, with every image that is not published yet"
    assert node.log.count(said) == 1
    assert "no trajectory, no odometry" in client.until(lambda: client.values()["motion warning"])


def test_requests_that_rclpy_cannot_read_are_refused_and_the_node_goes_on(node, client):
    wrong = SetParameters.Request(parameters=[Parameter(name="steps", value=ParameterValue(type=200))])
    assert not call(client, SetParameters, "forecast_node/set_parameters", wrong).results
    node.wait_for("set_parameters: what came cannot be used: ValueError: 200 is not a valid Parameter.Type")
    assert transition(client, Transition.TRANSITION_ACTIVATE) == "active"  # as it is already
    assert transition(client, 77) == "active"
    recovers(client, 1000.0)


def test_a_callback_of_the_node_that_raises_is_logged_with_its_traceback():
    said: list[str] = []
    node = SimpleNamespace(get_logger=lambda: SimpleNamespace(error=lambda text, **_: said.append(text)))

    def callback(request: object, response: object) -> object:
        raise KeyError("a mistake")

    assert guarded(node, "/service", callback)("request", "response") == "response"
    assert said[0].startswith("/service: what came cannot be used: Traceback") and "KeyError: 'a mistake'" in said[0]


def test_a_negative_clock_is_left_out(tmp_path):
    parameters = {"steps": 2, "use_sim_time": "true"}
    with running_node(tmp_path / "log.txt", "-r", "__ns:=/negative", **parameters) as node:
        client = Client(namespace="negative").connect()
        try:
            client.clock_source.publish(Clock(clock=Time(sec=-5)))
            node.wait_for("/clock: what came cannot be used: ValueError: Seconds value must not be negative")
            client.clock_source.publish(Clock(clock=stamp(1.0)))
            client.forecast(1.0)
        finally:
            client.destroy_node()


def test_clock_that_jumps_back_drops_all_state_with_one_message(tmp_path):
    parameters = {"steps": 2, "use_sim_time": "true", "diagnostics_period": 0.2}
    with running_node(tmp_path / "log.txt", "-r", "__ns:=/simulated", **parameters) as node:
        client = Client(namespace="simulated").connect()
        try:
            for t in (100.0, 100.1, 100.2):
                client.clock_source.publish(Clock(clock=stamp(t)))
                client.send_odometry(t)
            client.send_path(100.2)
            client.settle()
            assert client.forecast(100.2).camera_poses[1].position.z == pytest.approx(0.5)
            age = client.until(lambda: (v := client.values()["age of the last published (s)"]) != "nan" and v)
            assert float(age) == pytest.approx(0.0, abs=1e-3)
            client.until(lambda: client.values()["clock"] == "simulated, standing")
            for t in (0.0, 0.1):
                client.clock_source.publish(Clock(clock=stamp(t)))
                client.settle()
            assert client.forecast(0.1).camera_poses[1].position.z == 0
            assert node.log.count("jumped back") == 1 and "the clock jumped back: all state is dropped" in node.log
        finally:
            client.destroy_node()


def test_ten_times_as_many_images_as_the_node_manages(tmp_path):
    """Memory and the forecasts' ages stay bounded, every image is counted, and with the flood the work ends too."""
    with running_node(tmp_path / "log.txt", "-r", "__ns:=/flood", steps=2, diagnostics_period=0.2) as node:
        client = Client(namespace="flood").connect()
        try:
            client.forecast(0.0)
            began = time.monotonic()
            for i in range(1, 6):
                client.send_frame(i / 100)
                client.until(lambda i=i: client.got["forecast"][-1].header.stamp == stamp(i / 100))
            alone = (time.monotonic() - began) / 5
            client.until(lambda: balanced(client.values()))
            before = client.values()
            flood = Flood(client, node)
            duration = max(5.0, 15 * alone)
            flood.run(alone / 10, duration)
            values = client.until(lambda: balanced(v := client.values()) and v)
        finally:
            client.destroy_node()
    received, dropped = (int(values[k]) - int(before[k]) for k in ("received frames", "dropped frames"))
    assert received > 0.8 * flood.sent and dropped > 0.7 * received
    assert (np.diff(flood.stamps) > 0).all()
    assert max(flood.ages) < duration / 2  # in a queue the last would have waited for nine tenths of the flood
    assert flood.memory[-1] < 1.05 * flood.memory[len(flood.memory) // 3]


class Flood:
    """Images in quick succession; when each was sent, and how old it was when its forecast came."""

    def __init__(self, client: Client, node: NodeProcess) -> None:
        self.sent = 0
        self.stamps: list[float] = []
        self.ages: list[float] = []
        self.memory: list[float] = []
        self._client, self._node = client, node

    def run(self, period: float, seconds: float) -> None:
        """Send an image each period, then nothing until the node is done."""
        pictures = [picture(seed) for seed in range(8)]
        times: dict[float, float] = {}
        self._client.clear()
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            at = round(10 + time.monotonic() - began, 6)
            times[at] = time.monotonic()
            self._client.send_frame(at, pictures[self.sent % 8])
            self.sent += 1
            self._client.spin_for(max(0.0, began + self.sent * period - time.monotonic()))
            self._take(times)
        self._client.spin_for(2.0)
        self._take(times)

    def _take(self, times: dict[float, float]) -> None:
        for message in self._client.got["forecast"]:
            at = round(message.header.stamp.sec - T0 + message.header.stamp.nanosec * 1e-9, 6)
            self.stamps.append(at)
            self.ages.append(time.monotonic() - times[at])
        self._client.clear()
        self.memory.append(self._node.resident_mib)


@dataclass
class Failing:
    """The real forecaster, until told to fail."""

    real: Forecaster
    error: Exception | None = None

    def __getattr__(self, name: str):
        return getattr(self.real, name)

    def forecast_scene(self, *arguments, **options):
        if self.error is not None:
            raise self.error
        return self.real.forecast_scene(*arguments, **options)

    def views(self, *arguments, **options):
        if self.error is not None:
            raise self.error
        return self.real.views(*arguments, **options)


@pytest.fixture(scope="module")
def in_process():
    """A node in this process whose forecaster can be made to fail, and its client."""
    failing = Failing(Forecaster.load(None, "cpu"))
    with node_in_process(lambda weights, device: failing, "inner"):
        client = Client(namespace="inner").connect()
        yield failing, client
        client.destroy_node()


def fails_once_in_the_log(failing: Failing, client: Client, capfd, words: str) -> str:
    """Send frames until the fault shows in diagnostics, and some more, then mend it; what was logged."""
    capfd.readouterr()
    for i in range(4):
        client.send_frame(1 + i / 10)
        client.spin_for(0.2)
    assert client.status_with(words).level == b"\x02"
    failing.error = None
    recovers(client, 3.0)  # and so all that was wrong before has been said
    log = capfd.readouterr().err
    assert log.count(f"forecast: {words}") == 1
    return log


def test_device_memory_that_runs_out_skips_frames_and_goes_on(tmp_path):
    """The node in a process of its own, whose GPU is full until it is not: one line, and no restart."""
    full = tmp_path / "full"
    program = (str(SUPPORT / "short_of_memory_node.py"), str(full))
    parameters = {"steps": 2, "diagnostics_period": 0.2}
    with running_node(tmp_path / "log.txt", "-r", "__ns:=/short", program=program, **parameters) as node:
        client = Client(namespace="short").connect()
        try:
            recovers(client, 1.0)
            client.until(lambda: balanced(client.values()))
            full.touch()
            sent = [2 + i / 10 for i in range(5)]
            for seconds in sent:
                client.send_frame(seconds)
                client.spin_for(0.2)
            words = "not enough memory on cpu: use smaller images, fewer steps or samples"
            assert client.status_with(words).level == b"\x02"
            assert not any(client.stamped("forecast", seconds) for seconds in sent)
            request = ForecastTrajectories.Request(trajectories=[path(2.0)])
            answer = call(client, ForecastTrajectories, "forecast_node/forecast_trajectories", request)
            assert not answer.success and words in answer.message
            full.unlink()
            recovers(client, 3.0)
            assert node.log.count(words) == 1 and "Traceback" not in node.log
        finally:
            client.destroy_node()


@pytest.mark.parametrize(
    ("error", "words"),
    [(DeviceError("not enough memory on cuda"), "not enough memory"), (RuntimeError("odd"), "RuntimeError: odd")],
)
def test_a_request_that_fails_is_answered_with_the_reason(in_process, error, words):
    failing, client = in_process
    recovers(client, 2.5)
    request = ForecastTrajectories.Request(trajectories=[path(2.5)])
    failing.error = error
    answer = call(client, ForecastTrajectories, "forecast_node/forecast_trajectories", request)
    assert not answer.success and words in answer.message
    failing.error = None
    assert call(client, ForecastTrajectories, "forecast_node/forecast_trajectories", request).success


def test_an_unexpected_error_is_logged_once_with_its_traceback(in_process, capfd):
    failing, client = in_process
    failing.error = RuntimeError("the unforeseen")
    log = fails_once_in_the_log(failing, client, capfd, "RuntimeError: the unforeseen")
    assert log.count("Traceback") == 1


def test_no_cuda_is_one_line(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    node = ForkedNodeProcess(tmp_path / "log.txt", device="cuda")
    assert node.process.wait(PATIENCE) == 1
    lines = node.log.strip().splitlines()
    assert len(lines) == 1 and "torch sees no CUDA GPU" in lines[0]


def test_images_that_are_dropped_where_time_jumps_back_are_counted(node, client):
    """They were neither dropped nor published."""
    client.settle()
    for clock in (300.0, 200.0, 100.0):
        for i in range(5):
            client.send_frame(clock + i / 10)
    client.until(lambda: (v := client.values())["received frames"] != "0" and balanced(v))
