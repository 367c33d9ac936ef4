# SPDX-License-Identifier: Apache-2.0
"""The real node in its own process, over DDS: topics, lifecycle, parameters, and that it never queues."""

from __future__ import annotations

import signal
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import ParameterType, ParameterValue
from sensor_msgs.msg import CompressedImage
from support.harness import (
    HEIGHT,
    WIDTH,
    Client,
    K,
    NodeProcess,
    balanced,
    integer,
    picture,
    running_node,
    set_parameter,
    stamp,
    text,
    transition,
)
from support.node_process import ForkedNodeProcess
from support.paths import REPOSITORY
from support.waiting import PATIENCE

from pixel4d_ros.logs.images import decode_image
from pixel4d_ros.ros.messages.conversions import fill, read_pose
from pixel4d_ros.ros.messages.pointcloud import FIELD_NAMES

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context")]
ARGUMENTS = ("--params-file", str(REPOSITORY / "config/forecast.yaml"))
PARAMETERS = {"num_samples": 2, "selected_step": 3, "steps": 6, "diagnostics_period": 0.2}


@pytest.fixture
def client():
    """A new one for each test, not yet connected."""
    made = Client()
    yield made
    made.destroy_node()


def test_every_output_of_one_frame(node, client):
    client.connect()
    for t in (9.8, 9.9, 10.0):
        client.send_odometry(t)
    client.send_path(10.0)
    client.settle()
    client.forecast(10.0)
    others = ("forecast/image", "gaussians", "gaussians/forecast")  # topics arrive in any order
    client.until(lambda: len(client.got["forecast"]) >= 2 and all(client.got[name] for name in others))
    first, second = client.got["forecast"][:2]
    assert (first.sample_index, second.sample_index) == (0, 1) and first.sample_count == second.sample_count == 2
    outputs = [
        first,
        second,
        client.got["forecast/image"][0],
        client.got["gaussians"][0],
        client.got["gaussians/forecast"][0],
    ]
    outputs += [first.camera_info, *first.images]
    assert all(m.header.stamp == stamp(10.0) and m.header.frame_id == "camera" for m in outputs)

    assert [round(t.sec + t.nanosec * 1e-9, 9) for t in first.time_from_start] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert list(first.camera_info.k) == K and (first.camera_info.width, first.camera_info.height) == (WIDTH, HEIGHT)
    frames = np.stack([decode_image(m) for m in first.images])
    assert frames.shape == (6, HEIGHT, WIDTH, 3) and frames[0].std() > 1
    assert len(first.confidence) == 6 and all(0 <= c <= 1 for c in first.confidence)
    # 5 m/s along base_link's x is 5 m/s along the camera's z.
    poses = np.stack([read_pose(p) for p in first.camera_poses])
    assert np.allclose(poses[:, :3, 3], [[0, 0, 0.5 * i] for i in range(6)], atol=1e-6)
    assert np.array_equal(decode_image(client.got["forecast/image"][0]), frames[3])

    cloud, moved = client.got["gaussians"][0], client.got["gaussians/forecast"][0]
    assert tuple(f.name for f in cloud.fields) == FIELD_NAMES and cloud.width == moved.width > 100
    points = np.frombuffer(cloud.data, np.float32).reshape(cloud.width, -1)
    assert np.isfinite(points[:, :3]).all() and np.median(points[:, 2]) > 0


def test_diagnostics_tell_how_it_goes(node, client):
    client.connect()
    client.send_odometry(20.0)
    client.send_path(20.0)
    client.settle()
    client.forecast(20.0)
    stamp_s = 1_700_000_020
    client.until(lambda: abs(float(client.values()["age of the last published (s)"]) - (time.time() - stamp_s)) < 2)
    assert client.status().level == b"\x00"
    values = client.values()
    assert values["state"] == "active" and values["device"] in ("cpu", "cuda") and len(values["weights"]) == 64
    assert values["calibration"] == "208x64, f 120.0 120.0, c 103.5 31.5" and values["clock"] == "wall clock"
    assert "float" in values["computed by"]
    assert values["GPU memory"].endswith("MiB") if values["device"] == "cuda" else values["GPU memory"] == "no GPU"
    assert values["motion source"] == "trajectory" and values["motion warning"] == ""
    assert float(values["latency p50 (ms)"]) > 0 and float(values["latency p99 (ms)"]) >= float(
        values["latency p50 (ms)"]
    )
    assert int(values["received frames"]) >= int(values["published forecasts"]) > 0
    assert client.until(lambda: _median_period(client.got["/diagnostics"][-10:]) == pytest.approx(0.2, abs=0.1))


def _median_period(messages: list[DiagnosticArray]) -> float:
    """The median time between these messages by their stamps, in seconds."""
    times = [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for m in messages]
    return float(np.median(np.diff(times))) if len(times) > 9 else 0.0


def test_a_limit_that_is_exceeded_is_a_warning(node, client):
    client.connect()
    limit = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=0.001)
    assert set_parameter(client, "diagnostics_max_latency", limit).successful
    try:
        client.forecast(25.0)
        assert client.status_with("is above diagnostics_max_latency 0.001").level == b"\x01"
    finally:
        limit.double_value = 0.0
        assert set_parameter(client, "diagnostics_max_latency", limit).successful


def test_parameters_change_at_run_time_and_bad_ones_are_refused_with_the_reason(node, client):
    client.connect()
    assert set_parameter(client, "steps", integer(2)).successful
    try:
        assert len(client.forecast(40.0).images) == 2
        refused = set_parameter(client, "steps", integer(500))
        assert not refused.successful and "steps" in refused.reason
        refused = set_parameter(client, "image_transport", text("theora"))
        assert not refused.successful and "must be one of raw, compressed" in refused.reason
        assert not set_parameter(client, "autostart", ParameterValue(type=ParameterType.PARAMETER_BOOL)).successful
    finally:
        assert set_parameter(client, "steps", integer(6)).successful


def test_nothing_is_computed_while_nobody_listens(node):
    deaf = Client(listen=False).connect()
    try:
        before = deaf.until(lambda: balanced(v := deaf.values()) and v)
        for i in range(5):
            deaf.send_frame(50 + i / 10)
            deaf.spin_for(0.1)
        key = "frames without subscribers"
        after = deaf.until(lambda: int((v := deaf.values())[key]) > int(before[key]) and balanced(v) and v)
        assert after["published forecasts"] == before["published forecasts"]
    finally:
        deaf.destroy_node()


def test_only_the_selected_image_is_rendered_for_a_viewer(node):
    viewer = Client(listen=False)
    try:
        from sensor_msgs.msg import Image

        viewer.listen(Image, "forecast_node/forecast/image")
        viewer.connect()
        viewer.send_until(lambda: viewer.send_frame(60.0), lambda: viewer.got["forecast/image"])
        assert decode_image(viewer.got["forecast/image"][0]).shape == (HEIGHT, WIDTH, 3)
    finally:
        viewer.destroy_node()


def test_compressed_images_in_a_namespace_at_another_output_size(tmp_path):
    parameters = {"image_transport": "compressed", "output_size": "[104, 32]", "steps": 2}
    with running_node(tmp_path / "log.txt", "-r", "__ns:=/front", **parameters):
        client = Client(namespace="front", compressed=True)
        try:
            client.connect()
            message = CompressedImage(format="rgb8; jpeg compressed bgr8")
            message.header.frame_id, message.header.stamp = "front_camera", stamp(1.0)
            fill(message, cv2.imencode(".jpg", picture()[..., ::-1])[1])

            def send() -> None:
                client.send_info(1.0)
                client.settle()
                client.image.publish(message)

            sequence = client.send_until(send, lambda: client.got["forecast"])[0]
        finally:
            client.destroy_node()
    assert sequence.header.frame_id == "front_camera" and decode_image(sequence.images[1]).shape == (32, 104, 3)
    # Pixel centres at integers: the image's corner at (-0.5, -0.5) stays where it is.
    assert sequence.camera_info.k[0] == 60.0 and sequence.camera_info.k[2] == pytest.approx(51.5)


@pytest.fixture
def apart():
    """A client in a namespace of its own, for a second node beside the module's."""
    node = Client(namespace="apart")
    yield node
    node.destroy_node()


APART = ("-r", "__ns:=/apart")


def test_lifecycle_and_weights_that_are_corrected(tmp_path, apart):
    client = apart
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not weights")
    with running_node(tmp_path / "log.txt", *APART, autostart="false", weights=str(damaged), steps=2) as node:
        assert transition(client, Transition.TRANSITION_CONFIGURE) == "unconfigured"
        assert node.log.count("[ERROR]") == 1 and "damaged.safetensors" in node.log and "Traceback" not in node.log
        status = client.status()
        assert status.level == b"\x02" and "damaged.safetensors" in status.message
        assert set_parameter(client, "weights", text("")).successful
        assert transition(client, Transition.TRANSITION_CONFIGURE) == "inactive"
        assert client.count_publishers("forecast_node/forecast") == 1 and client.image.get_subscription_count() == 0
        for _ in range(2):
            assert transition(client, Transition.TRANSITION_ACTIVATE) == "active"
            client.connect()
            assert len(client.forecast(5.0).images) == 2
            assert transition(client, Transition.TRANSITION_DEACTIVATE) == "inactive"
            client.send_frame(6.0)
            client.spin_for(0.5)
            assert not client.stamped("forecast", 6.0)
        assert transition(client, Transition.TRANSITION_CLEANUP) == "unconfigured"
        assert client.values()["device"] == "none"
        assert transition(client, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN) == "finalized"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"weights": "/nowhere/weights.safetensors"}, "/nowhere/weights.safetensors does not exist"),
        ({"step": 1}, "expecting type 'DOUBLE'"),
        ({"output_size": "[100]"}, "output_size needs 2 numbers"),
    ],
)
def test_a_standalone_node_that_cannot_start_says_why_in_one_line_and_exits_with_1(tmp_path, parameters, words):
    node = ForkedNodeProcess(tmp_path / "log.txt", **parameters)
    assert node.process.wait(PATIENCE) == 1
    lines = node.log.strip().splitlines()
    assert len(lines) == 1 and words in lines[0]


def test_security_that_cannot_be_kept_is_one_line(tmp_path, monkeypatch):
    """No keystore; where there is one, rcl itself says what is missing, as that Fast DDS was built without security."""
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    monkeypatch.setenv("ROS_SECURITY_STRATEGY", "Enforce")
    monkeypatch.setenv("ROS_SECURITY_KEYSTORE", str(tmp_path / "nowhere"))
    node = NodeProcess(tmp_path / "log.txt")  # as a user starts it
    assert node.process.wait(PATIENCE) == 1
    lines = node.log.strip().splitlines()
    assert len(lines) == 1 and "security" in lines[0].lower() and "nowhere" in lines[0]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ends_cleanly_amid_a_forecast(tmp_path, apart, how):
    node = NodeProcess(tmp_path / "log.txt", *APART)  # as a user starts it: Python's own ending is part of it
    try:
        node.wait_for("active: ")
        apart.connect()
        apart.forecast(1.0)
        apart.send_frame(1.1)
        apart.spin_for(0.05)
    finally:
        code = node.stop(how)
    assert code == 0
    assert "Traceback" not in node.log and "[ERROR]" not in node.log
