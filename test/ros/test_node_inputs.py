# SPDX-License-Identifier: Apache-2.0
"""The node over DDS with inputs that robots really send: late, early, latched, unstamped, of another frame."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

import rclpy
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import Transition
from nav_msgs.msg import Odometry, Path
from pixel4d_ros.srv import ForecastTrajectories
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage
from support.harness import (
    T0,
    Client,
    NodeProcess,
    call,
    image,
    integer,
    path,
    picture,
    running_node,
    set_parameter,
    stamp,
    text,
    transition,
    values_of,
)
from support.node_process import ForkedNodeProcess
from support.waiting import PATIENCE, wait_until

from pixel4d_ros.ros.subscriptions import Input, RemappingError, check_remappings
from pixel4d_ros.ros.topics import INPUT_IMAGE

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context")]
PARAMETERS = {"steps": 4, "diagnostics_period": 0.2}
ARGUMENTS = ("--log-level", "forecast_node:=debug")
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@contextmanager
def world(log: FilePath, namespace: str, *arguments: str, **parameters: object) -> Iterator[tuple[NodeProcess, Client]]:
    """A node and its client in a namespace of their own."""
    with running_node(log, "-r", f"__ns:=/{namespace}", *arguments, **{**PARAMETERS, **parameters}) as node:
        client = Client(namespace=namespace)
        try:
            yield node, client
        finally:
            client.destroy_node()


def z_of(forecast: object) -> list[float]:
    """How far ahead the camera is, frame by frame."""
    return [p.position.z for p in forecast.camera_poses]


def test_odometry_from_the_future_does_not_switch_odometry_off(node, client):
    """One message an hour ahead is dropped with a console warning; what comes after is used."""
    now = time.time() - T0
    for s in (-0.2, -0.1):
        client.send_odometry(now + s)
    client.send_odometry(now + 3600.0)
    client.send_odometry(now)
    client.settle()
    assert z_of(client.forecast(now)) == pytest.approx([0, 0.5, 1.0, 1.5], abs=1e-3)
    assert client.values()["motion source"] == "constant velocity from odometry"
    assert node.log.count("odometry: odometry is stamped more than 2 s in the future and dropped") == 1


def test_a_plan_that_ends_early_is_followed_to_its_end_and_that_is_said_once(node, client):
    now = time.time() - T0
    client.send_odometry(now)
    client.send_path(now, count=3)
    client.settle()
    assert z_of(client.forecast(now)) == pytest.approx([0, 0.5, 1.0, 1.0], abs=1e-3)
    words = "trajectory ends before the forecast does: the camera stops at its end"
    status = client.status_with(words)
    assert status.level == b"\x01"
    assert status.message.count("following") == 1 and status.message.endswith("; following trajectory")


def test_odometry_of_a_frame_that_is_not_the_base_is_refused_where_tf_is_silent(node, client):
    now = time.time() - T0
    assert set_parameter(client, "base_frame", text("base_link")).successful
    try:
        for s in (-0.2, -0.1, 0.0):
            message = Odometry(child_frame_id="imu")
            message.header.frame_id, message.header.stamp = "/odom", stamp(now + s)
            message.pose.pose.position.x = 5.0 * s + 1.0
            message.twist.twist.linear.x = 5.0
            client.odometry.publish(message)
        client.trajectory.publish(Path())  # the plan of the test before is over
        client.settle()
        assert z_of(client.forecast(now)) == [0.0] * 4
        words = "odometry gives poses of 'imu', and tf does not connect it with base_frame 'base_link'"
        client.until(lambda: words in client.status().message)
        client.send_path(now)
        client.settle()
        assert z_of(client.forecast(now + 0.1)) == pytest.approx([0, 0.5, 1.0, 1.5], abs=1e-3)

        def follows_the_plan() -> bool:
            status = client.status()
            return words in status.message and values_of(status)["motion source"] == "trajectory"

        client.until(follows_the_plan)
    finally:
        assert set_parameter(client, "base_frame", text("")).successful


def test_latched_calibration_and_plan_are_received_late(tmp_path):
    """Published once, before the node is there, by publishers that keep it for whoever comes."""
    client = Client(namespace="late")
    for publisher in (client.info, client.trajectory):
        client.destroy_publisher(publisher)
    client.info = client.create_publisher(CameraInfo, "camera_info", LATCHED)
    client.trajectory = client.create_publisher(Path, "trajectory", LATCHED)
    client.send_info(1.0)
    client.send_path(1.0)
    try:
        with running_node(tmp_path / "log.txt", "-r", "__ns:=/late", **PARAMETERS) as node:
            client.connect()
            client.send_odometry(1.0)
            client.spin_for(1.0)  # two periods of diagnostics, at which publishers are looked for

            send, came = lambda: client.image.publish(image(1.0, picture())), lambda: client.got["forecast"]
            assert z_of(client.send_until(send, came)[0]) == pytest.approx([0, 0.5, 1.0, 1.5], abs=1e-3)
            client.until(lambda: client.values()["motion source"] == "trajectory")
            assert "incompatible QoS" not in node.log
    finally:
        client.destroy_node()


def test_inputs_that_do_not_come_are_named_with_what_could_be_meant(tmp_path):
    """A first user who has not remapped anything sees why nothing happens."""
    with world(tmp_path / "log.txt", "first", "-r", "image:=/first/camera/image") as (node, client):
        client.create_publisher(CompressedImage, "camera/image", 1)
        client.destroy_publisher(client.info)
        client.create_publisher(CameraInfo, "camera/camera_info", 1)
        node.wait_for("no image yet: /first/camera/image carries sensor_msgs/msg/CompressedImage")
        node.wait_for("nobody publishes /first/camera_info (sensor_msgs/msg/CameraInfo): remap camera_info to")
        assert "set image_transport to compressed" in node.log and "/first/camera/camera_info" in node.log


def test_durability_can_be_overridden_like_the_rest(tmp_path):
    name = "qos_overrides./quality/camera_info.subscription.durability"
    with world(tmp_path / "log.txt", "quality", "-p", f"{name}:=transient_local") as (_, client):
        info = client.until(lambda: client.get_subscriptions_info_by_topic("/quality/camera_info"))
        assert DurabilityPolicy.TRANSIENT_LOCAL in [i.qos_profile.durability for i in info]


def test_images_without_stamps_are_named(node, client):
    client.settle()

    def said() -> bool:
        client.send_info(0.0)
        message = image(0.0, picture())
        message.header.stamp = Time()
        client.image.publish(message)
        client.spin_for(0.3)
        return "image stamps: images have stamp 0: odometry, tf, plans and depth cannot" in client.status().message

    client.until(said)
    assert node.log.count("images have stamp 0") == 1


def test_a_fault_of_a_past_forecast_ends_with_the_last_subscriber(tmp_path):
    """Without odometry there is no occupancy grid: a fault while somebody subscribes to it, and none afterwards."""
    from nav_msgs.msg import OccupancyGrid

    with world(tmp_path / "log.txt", "past") as (_, client):
        client.connect()
        for subscription in list(client.subscriptions):
            if "forecast_node" in subscription.topic_name:
                client.destroy_subscription(subscription)
        grid = client.create_subscription(OccupancyGrid, "forecast_node/occupancy", lambda m: None, 1)

        def until_occupancy(there: bool) -> None:
            def holds() -> bool:
                client.send_frame(5.0)
                client.spin_for(0.3)
                return ("occupancy:" in client.status().message) == there

            client.until(holds)

        until_occupancy(True)
        client.destroy_subscription(grid)
        until_occupancy(False)


def test_deactivation_does_not_wait_for_a_whole_request(tmp_path):
    with world(tmp_path / "log.txt", "busy", steps=60) as (_, client):
        client.connect()
        client.send_odometry(1.0)
        client.settle()
        client.forecast(1.0)
        kind, name = ForecastTrajectories, "forecast_node/forecast_trajectories"
        began = time.monotonic()
        one = call(client, kind, name, kind.Request(trajectories=[path(1.0)] * 4, with_images=True))
        assert one.success, one.message
        four = time.monotonic() - began
        service = client.create_client(kind, name)
        client.until(service.service_is_ready)
        future = service.call_async(kind.Request(trajectories=[path(1.0)] * 64, with_images=True))
        client.spin_for(four)
        began = time.monotonic()
        assert transition(client, Transition.TRANSITION_DEACTIVATE) == "inactive"
        assert time.monotonic() - began < 8 * four
        client.until(future.done)
        assert not future.result().success and "not active" in future.result().message


def test_image_transport_takes_effect_at_configure_as_its_description_says(tmp_path):
    with world(tmp_path / "log.txt", "transport", autostart="false") as (_, client):
        assert transition(client, Transition.TRANSITION_CONFIGURE) == "inactive"
        assert set_parameter(client, "image_transport", text("compressed")).successful
        assert transition(client, Transition.TRANSITION_ACTIVATE) == "active"
        infos = client.until(lambda: client.get_subscriptions_info_by_topic("/transport/image"))
        assert [i.topic_type for i in infos] == ["sensor_msgs/msg/Image"]


def test_debug_lines_are_the_nodes_own(node, client):
    """They tell what comes in, what is used and how long it takes."""
    now = time.time() - T0
    client.send_odometry(now)
    client.forecast(now)
    for words in ("received", "motion: constant velocity from odometry", "s after reception"):
        node.wait_for(words)
    debug = [line for line in node.log.splitlines() if line.startswith("[DEBUG]")]
    assert debug and all("[forecast_node]" in line for line in debug)


def test_parameters_that_cannot_work_are_refused_at_once(node, client):
    for name, value, words in (
        ("device", "banana", "device must be auto, cpu, cuda or cuda:N, got 'banana'"),
        ("weights", "/nope", "weights: there is no file /nope"),
    ):
        answer = set_parameter(client, name, text(value))
        assert not answer.successful and words in answer.reason
    assert set_parameter(client, "steps", integer(4)).successful


def test_a_params_file_that_does_not_exist_ends_the_node_with_one_line(tmp_path):
    node = ForkedNodeProcess(tmp_path / "log.txt", "--params-file", "/nope/forecast.yaml")
    assert node.process.wait(PATIENCE) == 1
    lines = node.log.strip().splitlines()
    assert "/nope/forecast.yaml" in lines[-1] and "Traceback" not in node.log


@pytest.mark.parametrize(
    ("remapped", "words"),
    [
        (
            {"odometry": "/same", "trajectory": "/same"},
            "odometry (nav_msgs/msg/Odometry) is remapped to /same, which is used by trajectory (nav_msgs/msg/Path)",
        ),
        ({"image": "/same", "depth": "/same"}, "depth (sensor_msgs/msg/Image) is remapped to /same, which is used by"),
        (
            {"image": "/forecast_node/forecast/image"},
            "image (sensor_msgs/msg/Image) is remapped to /forecast_node/forecast/image, which is used by this node",
        ),
    ],
)
def test_inputs_that_are_remapped_to_one_topic_are_refused(tmp_path, remapped, words):
    """Two types on one topic ended the node with "invalid allocator"; one type was taken for both."""
    options = [word for name, topic in remapped.items() for word in ("-r", f"{name}:={topic}")]
    node = ForkedNodeProcess(tmp_path / "log.txt", *options, device="cpu")
    assert node.process.wait(PATIENCE) == 1
    (line,) = node.log.strip().splitlines()
    assert words in line and "remap each input to a topic of its own" in line


@contextmanager
def twin() -> Iterator[rclpy.node.Node]:
    """A node that is always called so, as far from others as one of another process."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("twin", context=context, enable_rosout=False)
    try:
        yield node
    finally:
        node.destroy_node()
        context.shutdown()


def test_topics_of_another_node_of_the_same_name_are_not_this_nodes():
    """DDS keeps a node that was killed for ten seconds, and its successor starts meanwhile.

    The graph's lists by name are those of one such node, here of the elder.
    """
    inputs = [Input("camera_info", CameraInfo, lambda message: None, INPUT_IMAGE)]
    with twin() as elder, twin() as own:
        elder.create_subscription(CameraInfo, "camera_info", lambda message: None, 1)
        wait_until(lambda: own.count_subscribers("camera_info") and own.get_node_names().count("twin") == 2)
        check_remappings(own, inputs)
        own.create_publisher(CameraInfo, "camera_info", 1)
        with pytest.raises(RemappingError, match="which is used by this node, for sensor_msgs/msg/CameraInfo"):
            check_remappings(own, inputs)


def test_a_deprecated_switch_that_switches_nothing_off_is_named(tmp_path):
    with world(tmp_path / "log.txt", "renamed", **{"motion.from_flow": "false"}) as (node, _):
        node.wait_for("motion.from_flow is deprecated: use reference.enabled")
