"""Failing parts and time that jumps back: said once, the node goes on, and what comes next is forecast."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Thread

import pytest
import rclpy

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from harness import Client, NodeProcess, call, path, recovers, running_node, stamp
from pixel4d_ros.srv import ForecastTrajectories
from rclpy.executors import SingleThreadedExecutor
from rosgraph_msgs.msg import Clock

from pixel4d_ros.forecaster import DeviceError, Forecaster
from pixel4d_ros.ros.forecast_node import ForecastNode

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
    assert node.log.count("the images' stamps jumped back: all state is dropped") == 1
    assert "no trajectory, no odometry" in client.until(lambda: client.values()["motion warning"])


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


@dataclass
class Failing:
    """The real forecaster, until told to fail."""

    real: Forecaster
    error: Exception | None = None

    def __getattr__(self, name: str):
        return getattr(self.real, name)

    def forecast(self, *arguments, **options):
        if self.error is not None:
            raise self.error
        return self.real.forecast(*arguments, **options)

    def views(self, *arguments, **options):
        if self.error is not None:
            raise self.error
        return self.real.views(*arguments, **options)


@pytest.fixture(scope="module")
def in_process():
    """A node in this process whose forecaster can be made to fail, and its client."""
    failing = Failing(Forecaster.load(None, "cpu"))
    overrides = [rclpy.Parameter("steps", value=2), rclpy.Parameter("diagnostics_period", value=0.2)]
    node = ForecastNode(lambda weights, device: failing, namespace="inner", parameter_overrides=overrides)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    node.trigger_configure()
    node.trigger_activate()
    Thread(target=executor.spin, daemon=True).start()
    client = Client(namespace="inner").connect()
    yield failing, client
    client.destroy_node()
    executor.shutdown()
    node.destroy_node()


def fails_once_in_the_log(client: Client, capfd, words: str) -> str:
    """Send frames until the fault shows in diagnostics, and some more; what was logged."""
    capfd.readouterr()
    for i in range(4):
        client.send_frame(1 + i / 10)
        client.spin_for(0.2)
    client.until(lambda: words in client.status().message)
    assert client.status().level == b"\x02"
    log = capfd.readouterr().err
    assert log.count(f"forecast: {words}") == 1
    return log


def test_device_memory_that_runs_out_skips_frames_and_goes_on(in_process, capfd):
    failing, client = in_process
    failing.error = DeviceError("not enough memory on cuda: use smaller images")
    log = fails_once_in_the_log(client, capfd, "not enough memory on cuda")
    assert "Traceback" not in log
    failing.error = None
    recovers(client, 2.0)


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
    log = fails_once_in_the_log(client, capfd, "RuntimeError: the unforeseen")
    assert log.count("Traceback") == 1
    failing.error = None
    recovers(client, 3.0)


def test_no_cuda_is_one_line(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    node = NodeProcess(tmp_path / "log.txt", device="cuda")
    assert node.process.wait(60) == 1
    lines = node.log.strip().splitlines()
    assert len(lines) == 1 and "torch sees no CUDA GPU" in lines[0]
