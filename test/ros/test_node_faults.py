"""Bad input and failing parts: one clear log line each, the node goes on, and the next good message is forecast."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Thread

import cv2
import numpy as np
import pytest
import rclpy

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from harness import HEIGHT, WIDTH, Client, NodeProcess, call, image, path, picture, running_node, stamp
from nav_msgs.msg import Odometry
from pixel4d_ros.srv import ForecastTrajectories
from rclpy.executors import SingleThreadedExecutor
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage

from pixel4d_ros.forecaster import DeviceError, Forecaster
from pixel4d_ros.ros.diagnostics import Condition, Faults, Measured, Statistics, exceeded, simulated_time, status
from pixel4d_ros.ros.forecast_node import ForecastNode
from pixel4d_ros.ros.parameters import Limits
from pixel4d_ros.ros.worker import LatestWorker

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context")]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    log = tmp_path_factory.mktemp("node") / "log.txt"
    with running_node(log, steps=2, diagnostics_period=0.2) as process:
        yield process


@pytest.fixture(scope="module")
def client(node):
    node = Client()
    yield node.connect()
    node.destroy_node()


@pytest.fixture
def clock():
    """Image stamps that go on from test to test: seconds after T0."""
    clock.now += 10.0
    return clock.now


clock.now = 0.0


def float_image(t: float, value: float):
    pixels = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    pixels[3, 4] = value
    return image(t, pixels.view(np.uint8).reshape(HEIGHT, WIDTH, 4), width=WIDTH, encoding="32FC1", step=4 * WIDTH)


BAD_IMAGES = {
    "unknown encoding": (lambda t: image(t, picture(), encoding="rainbow9"), "'rainbow9' is not supported"),
    "NaN": (lambda t: float_image(t, np.nan), "32FC1 image contains NaN or Inf"),
    "Inf": (lambda t: float_image(t, np.inf), "32FC1 image contains NaN or Inf"),
    "fewer rows": (lambda t: image(t, picture()[:-9]), "image is 208x55 but CameraInfo says 208x64"),
    "too little data": (lambda t: image(t, picture(), height=HEIGHT + 1), "needs 40560"),
    "empty": (lambda t: image(t, picture(), width=0), "sends no picture"),
    "other size": (lambda t: image(t, picture(width=100)), "image is 100x64 but CameraInfo says 208x64"),
}


def recovers(client: Client, t: float) -> None:
    """The next good message is forecast, and diagnostics no longer complain."""
    assert len(client.forecast(t).images) == 2
    client.until(lambda: client.status().level in (b"\x00", b"\x01"))


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images(node, client, clock, kind):
    make, words = BAD_IMAGES[kind]
    before = node.log.count("[ERROR]")
    client.send_info(clock)
    client.settle()
    for i in range(3):
        client.image.publish(make(clock + i / 10))
        client.spin_for(0.2)
    client.until(lambda: client.status().level == b"\x02")
    assert words in client.status().message
    # Inf after NaN is the same sentence within ten seconds: said already.
    assert node.log.count("[ERROR]") - before == (0 if kind == "Inf" else 1) and words in node.log
    recovers(client, clock + 5)


BAD_CALIBRATIONS = {
    "not calibrated": ({"k": [0.0] * 9}, "focal lengths 0, 0: the camera is not calibrated"),
    "NaN": ({"k": [np.nan] * 9}, "NaN or Inf in K, D or P"),
    "distortion Inf": ({"d": [np.inf] * 5}, "NaN or Inf in K, D or P"),
    "other size": ({"width": 400}, "image is 208x64 but CameraInfo says 400x64"),
}


@pytest.mark.parametrize("kind", BAD_CALIBRATIONS)
def test_bad_calibrations(node, client, clock, kind):
    changes, words = BAD_CALIBRATIONS[kind]
    client.send_info(clock, **changes)
    client.settle()
    for i in range(3):
        client.image.publish(image(clock + i / 10, picture()))
        client.spin_for(0.2)
    client.until(lambda: client.status().level == b"\x02" and words in client.status().message)
    assert node.log.count(words) == 1
    recovers(client, clock + 5)


def test_image_size_that_changes_with_its_calibration_is_followed(node, client, clock):
    recovers(client, clock)

    def small_forecast() -> bool:
        client.send_frame(clock + 1, picture(width=100))
        client.spin_for(0.5)
        return any(m.images[0].width == 100 for m in client.got["forecast"])

    client.until(small_forecast)
    node.wait_for("image size changed from (208, 64) to (100, 64)")
    recovers(client, clock + 5)


def no_path(t: float):
    return path(t, count=0)


def nan_path(t: float):
    message = path(t)
    message.poses[3].pose.position.x = np.nan
    return message


BAD_PATHS = {
    "empty": (no_path, "trajectory is empty"),
    "past": (lambda t: path(t - 3), "trajectory lies wholly in the past"),
    "NaN": (nan_path, "trajectory: pose contains NaN or Inf"),
    "unknown frame": (lambda t: path(t, frame="nowhere"), "trajectory frame 'nowhere' is unknown"),
}


@pytest.mark.parametrize("kind", BAD_PATHS)
def test_bad_trajectories_fall_back_to_odometry(node, client, clock, kind):
    make, words = BAD_PATHS[kind]
    message = make(clock)
    message.header.stamp = stamp(clock)
    client.trajectory.publish(message)
    for _ in range(3):  # best effort: one may be lost
        client.send_odometry(clock)
        client.settle()
    for _ in range(3):
        sequence = client.forecast(clock)
        assert sequence.camera_poses[1].position.z == pytest.approx(0.5)
    values = client.until(lambda: (v := client.values())["motion warning"] and v)
    assert values["motion source"] == "constant velocity from odometry" and words in values["motion warning"]
    assert client.status().level == b"\x01"
    assert node.log.count(words) == 1
    client.send_odometry(clock + 1)
    client.send_path(clock + 1)
    client.settle()
    client.forecast(clock + 1)
    client.until(lambda: client.values()["motion source"] == "trajectory" and client.status().level == b"\x00")


def test_odometry_with_nan_is_ignored(node, client, clock):
    client.send_odometry(clock)
    message = Odometry(child_frame_id="base_link")
    message.header.frame_id, message.header.stamp = "odom", stamp(clock + 0.1)
    message.pose.pose.position.x = np.nan
    for _ in range(3):
        client.odometry.publish(message)
        client.spin_for(0.1)
    assert client.forecast(clock).camera_poses[1].position.z == pytest.approx(0.5)
    assert node.log.count("odometry: pose contains NaN or Inf") == 1


def test_images_of_a_log_that_begins_anew(node, client, clock):
    client.send_odometry(clock)
    client.send_path(clock)
    client.settle()
    client.forecast(clock)
    # Without simulated time only the images tell; trajectory and odometry of the old round are forgotten.
    assert client.forecast(clock - 5).camera_poses[1].position.z == 0
    assert node.log.count("the images' stamps jumped back: all state is dropped") == 1
    assert "no trajectory, no odometry" in client.until(lambda: client.values()["motion warning"])


def test_no_calibration_at_all_and_undecodable_jpeg(tmp_path):
    parameters = {"steps": 1, "image_transport": "compressed", "diagnostics_period": 0.2}
    with running_node(tmp_path / "log.txt", "-r", "__ns:=/jpeg", **parameters) as node:
        client = Client(namespace="jpeg", compressed=True).connect()
        try:
            good = CompressedImage(format="jpeg")
            good.header.stamp = stamp(1.0)
            good.data.frombytes(cv2.imencode(".jpg", picture())[1].tobytes())
            for _ in range(3):
                client.image.publish(good)
                client.spin_for(0.2)
            node.wait_for("camera_info: nothing received on /jpeg/camera_info yet")
            client.send_info(1.0)
            bad = CompressedImage(format="jpeg", data=good.data[:40])
            for _ in range(3):
                client.image.publish(bad)
                client.spin_for(0.2)
            node.wait_for("compressed image ('jpeg') cannot be decoded")
            client.until(lambda: client.got["forecast"] or client.image.publish(good) or client.spin_for(0.5))
            assert node.log.count("[ERROR]") == 2
            # An image without a frame takes its calibration's.
            assert client.got["forecast"][0].header.frame_id == "camera"
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


def test_faults_are_logged_when_they_change_and_not_when_they_flicker():
    lines: list[str] = []
    faults = Faults(lines.append, lines.append)
    assert faults.report("image", "dark") and not faults.report("image", "dark")
    faults.clear("image")
    assert faults.active == {}
    assert not faults.report("image", "dark")  # again within ten seconds
    assert faults.report("image", "torn")
    assert lines == ["image: dark", "image: torn"] and faults.active == {"image": "torn"}
    assert (faults.last, faults.count) == ("torn", 4)


def test_status_levels():
    faults, statistics = Faults(print, print), Statistics()

    def level(state: str = "active", wanted: bool = True, **limits: float) -> bytes:
        condition = Condition(state, statistics, faults, Limits(**limits), 0, wanted)
        return status("name", "cpu", condition, {}).level

    assert level("inactive") == b"\x00" and level() == b"\x03"
    statistics.frame_received(dropped_one=False)
    assert level() == b"\x00"
    statistics.moved_by("standing camera", "no trajectory, no odometry")
    assert level() == b"\x01"
    statistics.moved_by("trajectory", "")
    faults.report("motion", "trajectory is empty")
    assert level() == b"\x01"
    faults.report("image", "torn")
    assert level() == b"\x02"
    faults.clear()
    assert level() == b"\x00"
    time.sleep(0.05)
    assert level(silence=0.01) == b"\x03"


def test_limits_that_are_exceeded_are_named():
    measured = Measured(rate=4.0, latencies=(0.1, 0.4, 0.5), age=0.7, drops=0.25)
    assert exceeded(measured, Limits(), wanted=True) == []
    limits = Limits(min_rate=5.0, max_latency=0.3, max_age=0.6, max_drops=0.2)
    said = exceeded(measured, limits, wanted=True)
    names = ("min_rate is 5", "max_latency 0.3", "max_age is 0.6", "max_drops is 20%")
    assert len(said) == 4 and all(f"diagnostics_{name}" in text for name, text in zip(names, said))
    assert len(exceeded(measured, limits, wanted=False)) == 2
    unknown = Measured(rate=9.0, latencies=(np.nan,) * 3, age=np.nan, drops=0.0)
    assert exceeded(unknown, limits, wanted=True) == []


def test_state_of_simulated_time():
    assert simulated_time(False, 5, 5) == "wall clock"
    assert simulated_time(True, 0, 0) == "simulated, waiting for /clock"
    assert simulated_time(True, 5, 4) == "simulated, running" and simulated_time(True, 5, 5) == "simulated, standing"


def test_worker_takes_the_newest_and_ends():
    seen: list[int] = []
    worker: LatestWorker[int, None] = LatestWorker(lambda item: (time.sleep(0.2), seen.append(item))[0])
    assert not worker.offer(1)
    time.sleep(0.1)
    assert [worker.offer(2), worker.offer(3), worker.offer(4)] == [False, True, True]
    time.sleep(0.4)
    worker.offer(5)
    time.sleep(0.05)
    worker.offer(6)
    worker.stop()
    assert seen == [1, 4, 5]  # what was in work is finished, what waited is not begun
