# SPDX-License-Identifier: Apache-2.0
"""Bad input: one clear log line each, the node goes on, and the next good message is forecast."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from nav_msgs.msg import Odometry
from sensor_msgs.msg import CompressedImage
from support.harness import (
    HEIGHT,
    WIDTH,
    Client,
    NodeProcess,
    image,
    path,
    picture,
    recovers,
    running_node,
    stamp,
    values_of,
)

from pixel4d_ros.ros.diagnostics import REPEAT_S

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context")]
PARAMETERS = {"steps": 2, "diagnostics_period": 0.2}


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
    "fewer rows": (lambda t: image(t, picture()[:-9]), "image is 208x55 but CameraInfo is for 208x64"),
    "too little data": (lambda t: image(t, picture(), height=HEIGHT + 1), "needs 40560"),
    "empty": (lambda t: image(t, picture(), width=0), "sends no picture"),
    "other size": (lambda t: image(t, picture(width=100)), "image is 100x64 but CameraInfo is for 208x64"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images(node, client, clock, kind):
    make, words = BAD_IMAGES[kind]
    client.forecast(clock)  # the calibration has come
    before = len(node.errors)
    for i in range(3):
        client.image.publish(make(clock + i / 10))
        client.spin_for(0.2)
    assert client.status_with(words).level == b"\x02"
    recovers(client, clock + 5)  # and so all that was wrong before has been said
    assert all(words in line for line in node.errors[before:]) and is_said_once(node, words)


def is_said_once(node: NodeProcess, words: str) -> bool:
    """Whether the node logged these words, and again, as for two kinds with the same words, only after REPEAT_S."""
    times = [float(line.split("[")[2].split("]")[0]) for line in node.log.splitlines() if words in line]
    return len(times) > 0 and all(np.diff(times) > REPEAT_S - 1.0)


BAD_CALIBRATIONS = {
    "not calibrated": ({"k": [0.0] * 9}, "focal lengths 0, 0: the camera is not calibrated"),
    "NaN": ({"k": [np.nan] * 9}, "NaN or Inf in K, D or P"),
    "distortion Inf": ({"d": [np.inf] * 5}, "NaN or Inf in K, D or P"),
    "other size": ({"width": 400}, "image is 208x64 but CameraInfo is for 400x64"),
}


@pytest.mark.parametrize("kind", BAD_CALIBRATIONS)
def test_bad_calibrations(node, client, clock, kind):
    changes, words = BAD_CALIBRATIONS[kind]
    for i in range(3):  # best effort: one may be lost
        client.send_info(clock, **changes)
        client.settle()
        client.image.publish(image(clock + i / 10, picture()))
        client.spin_for(0.2)
    assert client.status_with(words).level == b"\x02"
    recovers(client, clock + 5)
    assert is_said_once(node, words)


def test_image_size_that_changes_with_its_calibration_is_followed(node, client, clock):
    recovers(client, clock)

    client.send_until(
        lambda: client.send_frame(clock + 1, picture(width=100)),
        lambda: any(m.images[0].width == 100 for m in client.got["forecast"]),
    )
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
    "past": (lambda t: path(t - 3), "trajectory is entirely in the past"),
    "NaN": (nan_path, "trajectory: pose contains NaN or Inf"),
    "unknown frame": (lambda t: path(t, frame="nowhere"), "trajectory frame 'nowhere' is unknown"),
}


@pytest.mark.parametrize("kind", BAD_PATHS)
def test_bad_trajectories_fall_back_to_odometry(node, client, clock, kind):
    make, words = BAD_PATHS[kind]
    follow_odometry(client, clock)
    message = make(clock)
    message.header.stamp = stamp(clock)

    def complains() -> bool:
        client.trajectory.publish(message)
        client.forecast(clock)
        return words in client.values()["motion warning"]

    client.until(complains)
    for _ in range(3):
        sequence = client.forecast(clock)
        assert sequence.camera_poses[1].position.z == pytest.approx(0.5)
    status = client.status()
    values = values_of(status)
    assert values["motion source"] == "constant velocity from odometry" and words in values["motion warning"]
    assert status.level == b"\x01"
    assert node.log.count(words) == 1

    def follows_the_next() -> bool:
        client.send_odometry(clock + 1)
        client.send_path(clock + 1)
        client.settle()
        client.forecast(clock + 1)
        status = client.status()
        return values_of(status)["motion source"] == "trajectory" and status.level == b"\x00"

    client.until(follows_the_next)


def follow_odometry(client: Client, seconds: float) -> None:
    """Until a forecast follows odometry. The frames of the test before, for which it is stale, are done with then."""

    def follows() -> bool:
        client.send_odometry(seconds)
        return client.forecast(seconds).camera_poses[1].position.z == pytest.approx(0.5)

    client.until(follows)


def test_odometry_with_nan_is_ignored(node, client, clock):
    follow_odometry(client, clock)
    message = Odometry(child_frame_id="base_link")
    message.header.frame_id, message.header.stamp = "odom", stamp(clock + 0.1)
    message.pose.pose.position.x = np.nan
    for _ in range(3):
        client.odometry.publish(message)
        client.spin_for(0.1)
    node.wait_for("odometry: pose contains NaN or Inf")
    assert client.forecast(clock).camera_poses[1].position.z == pytest.approx(0.5)
    assert node.log.count("odometry: pose contains NaN or Inf") == 1


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
            bad = CompressedImage(format="jpeg", data=good.data[:40])
            for _ in range(3):
                client.send_info(1.0)
                client.image.publish(bad)
                client.spin_for(0.2)
            node.wait_for("compressed image ('jpeg') cannot be decoded")
            client.send_until(lambda: client.image.publish(good), lambda: client.got["forecast"])
            assert node.log.count("[ERROR]") == 2
            # An image without a frame takes its calibration's.
            assert client.got["forecast"][0].header.frame_id == "camera"
        finally:
            client.destroy_node()
