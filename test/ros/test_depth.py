# SPDX-License-Identifier: Apache-2.0
"""Depth beside the image, and distorted cameras, over DDS: what the forecaster is given, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from time import sleep
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from pixel4d_ros.srv import ForecastTrajectories
from rcl_interfaces.msg import ParameterType, ParameterValue
from sensor_msgs.msg import CompressedImage, Image
from support.harness import (
    HEIGHT,
    RESEND_S,
    WIDTH,
    Client,
    calibration,
    call,
    image,
    path,
    picture,
    set_parameter,
    stamp,
)
from support.node_in_process import node_in_process

from pixel4d_ros.camera import Camera
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.geometry.rectification import Lens, undistortion
from pixel4d_ros.ros.inputs import SAME_STAMPS, ImageMessage, Inputs, Source, read_depth
from pixel4d_ros.ros.messages.conversions import fill
from pixel4d_ros.ros.messages.headers import nanoseconds
from pixel4d_ros.synthetic import street_clip

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context")]
DISTORTION = [-0.2, 0.05, 0.001, 0.0, 0.0]


@dataclass
class Recording:
    """The real forecaster, which notes what it is given."""

    real: Forecaster
    given: list[dict[str, Any]] = field(default_factory=list)
    reference_seconds: float = 0.0  # that a comparison with a reference image takes

    def __getattr__(self, name: str):
        return getattr(self.real, name)

    def predict(self, rgb, K, num_samples=None, seed=0, depth=None, speed=None, reference=None, measure_motion=True):
        if num_samples is not None:  # else the prediction that depth from motion starts with
            given = {"depth": depth, "reference": reference, "measure_motion": measure_motion}
            self.given.append({"rgb": rgb, "K": K, **given})
        if reference is not None and measure_motion:
            sleep(self.reference_seconds)
        return self.real.predict(rgb, K, num_samples or 1, seed)


@pytest.fixture(scope="module")
def world():
    """A node in this process with a forecaster that records, and its client, which looks at the forecast image only."""
    recording = Recording(Forecaster.load(None, "cpu"))
    parameters = {"steps": 1, "selected_step": 0, "depth.wait": 0.5}
    with node_in_process(lambda weights, device: recording, "deep", **parameters):
        client = Client(listen=False, namespace="deep")
        client.depth = client.create_publisher(Image, "depth", 10)
        client.listen(Image, "forecast_node/forecast/image")
        client.connect()
        client.until(client.depth.get_subscription_count)
        yield client, recording
        client.destroy_node()


@pytest.fixture
def moment():
    """Image stamps that go on from test to test."""
    moment.now += 10.0
    return moment.now


moment.now = 0.0


def depth_image(seconds: float, metres: np.ndarray, encoding: str = "16UC1", frame: str = "camera") -> Image:
    stored = np.round(metres * 1000).astype("<u2") if encoding == "16UC1" else metres.astype("<f4")
    message = Image(height=len(metres), width=metres.shape[1], encoding=encoding, step=stored.strides[0])
    message.header.frame_id, message.header.stamp = frame, stamp(seconds)
    fill(message, stored)
    return message


def sparse(value: float = 12.5, width: int = WIDTH) -> np.ndarray:
    metres = np.zeros((HEIGHT, width), np.float32)
    metres[::4, ::3] = value
    return metres


def given(world, seconds: float, depth: Image | None, rgb: np.ndarray | None = None, **info: Any) -> dict[str, Any]:
    """What the forecaster is given for an image with this depth, which comes before it."""
    client, recording = world
    rgb = picture() if rgb is None else rgb
    client.clear()
    client.info.publish(calibration(seconds, **info))
    client.settle()
    recording.given.clear()

    def send() -> None:
        if depth is not None:
            client.depth.publish(depth)
            client.settle()
        client.image.publish(image(seconds, rgb))

    client.send_until(send, lambda: client.stamped("forecast/image", seconds))
    return recording.given[-1]


def test_without_depth_nothing_is_passed(world, moment):
    assert given(world, moment, None)["depth"] is None
    assert world[0].values()["depth"] == "none"


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_of_the_same_stamp_is_given_in_metres(world, moment, encoding):
    metres = sparse()
    if encoding == "32FC1":
        metres[1, 1], metres[2, 2] = np.nan, np.inf  # REP 118: unknown, too far
    got = given(world, moment, depth_image(moment, metres, encoding))["depth"]
    assert got.dtype == np.float32 and np.allclose(got, sparse())
    world[0].until(lambda: world[0].values()["depth"] == "known of 8% of the pixels")


def test_depth_of_another_time_is_not_used_and_a_late_one_is_waited_for(world, moment):
    assert given(world, moment, depth_image(moment - 0.05, sparse()))["depth"] is None
    assert given(world, moment + 1, depth_image(moment + 1.01, sparse()))["depth"] is not None
    client, recording = world
    times = count(moment + 2)

    def late_depths() -> list[np.ndarray]:
        """The depth that an image is given, sent after it; none on a machine that takes too long in between."""
        seconds = next(times)
        recording.given.clear()
        client.image.publish(image(seconds, picture()))
        client.round_trip()
        client.depth.publish(depth_image(seconds, sparse(3.0)))
        client.wait(lambda: client.stamped("forecast/image", seconds), 2 * RESEND_S)
        depths = [given["depth"] for given in recording.given if given["depth"] is not None]
        return [depth for depth in depths if not np.allclose(depth, sparse())]  # that of an image sent before

    assert client.until(late_depths)[-1].max() == pytest.approx(3.0)


def test_an_earlier_image_is_given_with_the_way_since_unless_it_is_switched_off(world, moment):
    client, wanted = world[0], ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=False)
    clip = street_clip(900_003, 3, size=(WIDTH, HEIGHT))
    for seconds in (moment, moment + 0.2):
        client.send_odometry(seconds, 5.0)
    assert given(world, moment, None, rgb=clip.images[0])["reference"] is None  # nothing to compare with yet
    client.until(lambda: client.values()["moving objects"] == "by the image alone: no earlier image of the right age")
    found = given(world, moment + 0.2, None, rgb=clip.images[2])
    earlier = found["reference"]
    assert found["depth"] is None and np.array_equal(earlier.image, clip.images[0])
    assert earlier.seconds == pytest.approx(0.2, abs=1e-6)
    assert earlier.T_source_reference[2, 3] == pytest.approx(-5.0 * 0.2, abs=1e-3)
    client.until(lambda: "found with a reference image of 0.20 s and 1.00 m, in" in client.values()["moving objects"])
    assert set_parameter(client, "reference.enabled", wanted).successful
    try:
        assert given(world, moment + 0.4, None, rgb=clip.images[2])["reference"] is None
        client.until(lambda: client.values()["moving objects"] == "by the image alone: reference.enabled is false")
    finally:
        wanted.bool_value = True
        assert set_parameter(client, "reference.enabled", wanted).successful


def test_a_request_reports_its_reference_image_and_how_long_the_comparison_took(world):
    """Without subscribers, requests alone predict."""
    recording, clip = world[1], street_clip(900_003, 7, size=(WIDTH, HEIGHT))
    client = Client(listen=False, namespace="asked")

    def ask(seconds: float, rgb: np.ndarray) -> str:
        """Request a forecast from an image; what diagnostics say of the reference image."""
        request = ForecastTrajectories.Request(trajectories=[path(seconds)])
        client.send_odometry(seconds)
        client.send_info(seconds)
        client.settle()

        def send() -> Any:
            client.image.publish(image(seconds, rgb))
            client.settle()
            return call(client, ForecastTrajectories, "forecast_node/forecast_trajectories", request)

        client.until(lambda: [f for f in send().forecasts if f.sequence.header.stamp == stamp(seconds)])
        return client.values()["moving objects"]

    with node_in_process(lambda weights, device: recording, "asked", steps=1, selected_step=0):
        client.connect()
        assert ask(0.0, clip.images[0]) == "by the image alone: no earlier image of the right age"
        recording.reference_seconds = 0.5
        for i in (2, 4):  # the first comparison is cold and does not count
            assert "found with a reference image of 0.20 s and 1.00 m, in 500 ms" in ask(i / 10, clip.images[i])
        assert "a reference image takes 500 ms" in ask(0.6, clip.images[6])
    client.destroy_node()
    recording.reference_seconds = 0.0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda t: depth_image(t, sparse(width=100)), "depth is 100x64, the image 208x64: register it to the image"),
        (lambda t: depth_image(t, sparse(), frame="lidar"), "depth is in frame 'lidar', the image in 'camera'"),
        (lambda t: image(t, picture()), "depth encoding 'rgb8' is not supported"),
    ],
)
def test_depth_that_cannot_be_used_is_said_and_the_forecast_goes_on(world, moment, make, words):
    client = world[0]
    assert given(world, moment, make(moment))["depth"] is None
    assert client.status_with(words).level == b"\x01"
    assert given(world, moment + 1, depth_image(moment + 1, sparse()))["depth"] is not None
    client.until(lambda: words not in client.status().message)


def test_a_distorted_image_and_its_depth_are_undistorted(world, moment):
    info = {"d": DISTORTION, "distortion_model": "plumb_bob"}
    got = given(world, moment, depth_image(moment, sparse()), **info)
    lens = Lens(Camera(np.reshape(calibration(0).k, (3, 3)), WIDTH, HEIGHT), "plumb_bob", tuple(DISTORTION))
    expected = undistortion(lens)
    assert np.array_equal(got["rgb"], expected.image(picture())) and np.allclose(got["K"], expected.camera.K)
    assert np.allclose(got["depth"], expected.depth(sparse())) and not np.array_equal(got["rgb"], picture())


def test_depth_of_a_rectified_topic_is_not_undistorted_again():
    """As of logs: depth_registered/image_rect beside the camera's raw images."""
    lens = Lens(Camera(np.reshape(calibration(0).k, (3, 3)), WIDTH, HEIGHT), "plumb_bob", tuple(DISTORTION))
    made = undistortion(lens)
    source = Source(picture(), made.camera, image(1.0, picture()).header, made)
    assert np.allclose(read_depth(depth_image(1.0, sparse()), source), made.depth(sparse()))
    assert np.allclose(read_depth(depth_image(1.0, sparse()), source, is_rectified=True), sparse())


def test_rectified_images_follow_p_when_the_parameter_says_so(world, moment):
    P = [100.0, 0.0, 90.0, 0.0, 0.0, 101.0, 30.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info = {"d": DISTORTION, "distortion_model": "plumb_bob", "p": P}

    off = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=False)
    assert set_parameter(world[0], "rectify", off).successful
    try:
        got = given(world, moment, None, **info)
    finally:
        off.bool_value = True
        assert set_parameter(world[0], "rectify", off).successful
    assert np.array_equal(got["rgb"], picture()) and np.allclose(got["K"], np.reshape(P, (3, 4))[:, :3])


def test_an_unknown_distortion_is_refused_with_the_reason(world, moment):
    client = world[0]
    for _ in range(3):  # best effort: one may be lost
        client.info.publish(calibration(moment, d=[0.1] * 4, distortion_model="kannala"))
        client.settle()
        client.image.publish(image(moment, picture()))
        client.settle()
    assert client.status_with("distortion model 'kannala' is not supported").level == b"\x02"
    given(world, moment + 1, None)


def test_depth_as_png_and_as_compressed_depth():
    source = Source(picture(), Camera(np.eye(3), WIDTH, HEIGHT), image(1.0, picture()).header)
    png = cv2.imencode(".png", np.round(sparse() * 1000).astype(np.uint16))[1].tobytes()
    for form, data in (("16UC1; png compressed ", png), ("16UC1; compressedDepth png", bytes(12) + png)):
        message = CompressedImage(format=form)
        message.header = source.header
        message.data.frombytes(data)
        assert np.allclose(read_depth(message, source), sparse())


def test_depth_that_is_of_no_images_time_is_named():
    """50 ms off, with a tolerance of 20 ms, it would never be used; at a third of the images' rate it is."""
    for offset, every, told in ((0.05, 1, True), (0.0, 3, False), (0.0, 1, False)):
        inputs, faults = Inputs(), []
        for i in range(30):
            if i % every == 0:
                inputs.depths.add(depth_image(i / 10 + offset, sparse()))
            faults.append(inputs.depth_of(nanoseconds(stamp(i / 10)), 0.02, 0.0)[1])
        assert bool(faults[-1]) == told and not faults[5]
    assert not any(Inputs().depth_of(0, 0.02, 0.0)[1] for _ in range(30))


def test_images_that_differ_and_have_one_stamp_are_named():
    """Stamps in whole seconds: odometry, tf and depth of other times would be taken for theirs."""
    faults = {}
    for what in ("whole seconds", "fractions", "sent twice"):
        inputs = Inputs()
        for i in range(40):
            j = i // 2 if what == "sent twice" else i
            message = image(j // 10 + 1.0 if what == "whole seconds" else j / 10 + 1.0, picture(j))
            faults[what] = inputs.stamps_fault(message, is_simulated=False)
            inputs.image = ImageMessage(message, 0.0, inputs)
    assert faults == {"whole seconds": SAME_STAMPS, "fractions": "", "sent twice": ""}
