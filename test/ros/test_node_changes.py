# SPDX-License-Identifier: Apache-2.0
"""What changes while the node runs: parameters, the calibration, a camera that stops, a node that is killed."""

from __future__ import annotations

import signal

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from sensor_msgs.msg import PointCloud2
from support.harness import (
    HEIGHT,
    WIDTH,
    Client,
    K,
    image,
    integer,
    number,
    picture,
    set_parameter,
)
from support.node_process import ForkedNodeProcess

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context")]


PARAMETERS = {"steps": 2, "diagnostics_period": 0.2, "diagnostics_silence": 1.5}


@pytest.fixture
def changed(client):
    """Sets parameters, and sets them back at the end."""
    before = {"steps": integer(2), "step": number(0.1), "num_samples": integer(1), "selected_step": integer(10)}
    before |= {"max_cloud_points": integer(200_000), "min_opacity": number(0.05)}
    touched: set[str] = set()

    def set_to(**values) -> None:
        for name, value in values.items():
            touched.add(name)
            answer = set_parameter(client, name, integer(value) if isinstance(value, int) else number(value))
            assert answer.successful, answer.reason

    yield set_to
    for name in touched:
        assert set_parameter(client, name, before[name]).successful


def test_the_horizon_and_the_samples_change_with_the_next_image(client, changed):
    changed(steps=3, step=0.25, num_samples=2)
    first = client.forecast(1.0)
    assert [t.sec + t.nanosec * 1e-9 for t in first.time_from_start] == pytest.approx([0, 0.25, 0.5])
    client.until(lambda: {m.sample_index for m in client.got["forecast"]} == {0, 1})
    assert first.sample_count == 2


def test_the_selected_step_changes_what_is_shown(client, changed):
    changed(steps=3, selected_step=0)
    for _ in range(3):  # best effort: one may be lost
        client.send_odometry(11.0, speed=20.0)
        client.settle()
    assert client.forecast(11.0).images[0].data == shown(client, "forecast/image", 11.0).data
    changed(selected_step=2)
    frames = client.forecast(11.1).images
    assert shown(client, "forecast/image", 11.1).data == frames[2].data != frames[0].data


def shown(client: Client, topic: str, seconds: float):
    """The first message with this stamp."""
    return client.until(lambda: client.stamped(topic, seconds))[0]


def cloud(client: Client, seconds: float) -> PointCloud2:
    client.forecast(seconds)
    return shown(client, "gaussians", seconds)


def test_the_limits_of_clouds_change(client, changed):
    everything = cloud(client, 21.0).width
    changed(max_cloud_points=50)
    assert cloud(client, 21.1).width == 50 < everything
    changed(max_cloud_points=200_000, min_opacity=0.5)
    dense = cloud(client, 21.2)
    column = next(f.offset for f in dense.fields if f.name == "opacity") // 4
    opacities = np.frombuffer(dense.data, np.float32).reshape(dense.width, -1)[:, column]
    assert 0 < dense.width < everything and opacities.min() >= 0.5


def test_values_out_of_range_are_refused_with_the_reason_and_change_nothing(client):
    for name, value in (("step", number(0.0)), ("num_samples", integer(0)), ("min_opacity", number(np.nan))):
        answer = set_parameter(client, name, value)
        assert not answer.successful and name in answer.reason
    assert len(client.forecast(31.0).images) == 2


def test_another_calibration_holds_from_the_next_image_on(client):
    assert list(client.forecast(41.0).camera_info.k) == K
    other = [150.0, 0.0, 100.0, 0.0, 151.0, 30.0, 0.0, 0.0, 1.0]

    def send() -> None:
        client.send_info(41.5, k=other)
        client.settle()
        client.image.publish(image(41.5, picture()))

    client.send_until(send, lambda: any(list(m.camera_info.k) == other for m in client.got["forecast"]))
    client.until(lambda: client.values()["calibration"] == "208x64, f 150.0 151.0, c 100.0 30.0")


def test_a_camera_that_stops_makes_the_node_stale_until_it_sends_again(client):
    def alive(seconds: float) -> bool:
        """Whether the node is not stale just after a frame; a forecast may take longer than it waits for the next."""
        client.send_frame(seconds)
        return client.status().level != b"\x03"

    client.forecast(51.0)
    client.until(lambda: alive(51.1))
    stale = client.until(lambda: (status := client.status()).level == b"\x03" and status)
    assert stale.message == "no images are coming in"
    client.forecast(52.0)
    client.until(lambda: alive(52.1))


def test_a_node_that_is_killed_and_started_again_amid_a_stream_goes_on(tmp_path):
    client = Client(namespace="mortal")
    first = ForkedNodeProcess(tmp_path / "first.txt", "-r", "__ns:=/mortal", steps=1)
    second = None
    try:
        first.wait_for("active: ")
        client.connect()
        assert client.forecast(1.0).images
        first.stop(signal.SIGKILL)
        client.send_frame(2.0)
        second = ForkedNodeProcess(tmp_path / "second.txt", "-r", "__ns:=/mortal", steps=1)
        for i in range(20):  # the camera goes on
            client.send_frame(2.0 + i / 10)
            client.spin_for(0.1)
        second.wait_for("active: ")
        sequence = client.forecast(9.0)
        assert (sequence.images[0].width, sequence.images[0].height) == (WIDTH, HEIGHT)
        assert not second.errors
    finally:
        client.destroy_node()
        for process in (first, second):
            if process is not None:
                process.stop()
