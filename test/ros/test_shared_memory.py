# SPDX-License-Identifier: Apache-2.0
"""Images from one process to another on the same machine: all of them arrive, however the camera sends them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from support.waiting import wait_until

from pixel4d_ros.ros import shared_memory
from pixel4d_ros.ros.shared_memory import OWN_SETTINGS, PROFILES, set_fastdds_profile

IMAGES = 90
CAMERA = f"""
import time
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from pixel4d_ros.ros.session import ros_node

with ros_node("camera") as (node, stop):
    camera = node.create_publisher(Image, "image", qos_profile_sensor_data)
    while camera.get_subscription_count() == 0:
        time.sleep(0.01)
    time.sleep(0.5)
    image = Image(height=256, width=832, step=3 * 832, encoding="rgb8", data=bytes(3 * 832 * 256))
    for i in range({IMAGES}):
        camera.publish(image)
        time.sleep(1 / 30)
    time.sleep(0.5)
"""


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in OWN_SETTINGS:
        monkeypatch.setenv(name, "")  # so that what the test sets is taken back
        monkeypatch.delenv(name)
    return monkeypatch


def test_the_profile_is_the_packages_own(no_settings: pytest.MonkeyPatch) -> None:
    set_fastdds_profile()
    assert Path(os.environ[PROFILES]).read_text().count("<segment_size>") == 1


@pytest.mark.parametrize("name", OWN_SETTINGS)
def test_what_the_user_has_set_stays(name: str, no_settings: pytest.MonkeyPatch) -> None:
    no_settings.setenv(name, "mine")
    set_fastdds_profile()
    assert {n: os.environ[n] for n in OWN_SETTINGS if n in os.environ} == {name: "mine"}


def test_a_container_with_little_shared_memory_is_left_alone(no_settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_settings.setattr(shared_memory, "ROOM", 2**80)
    set_fastdds_profile()
    no_settings.setattr(shared_memory, "ROOM", 0)
    no_settings.setattr(shared_memory, "PLACE", tmp_path / "none")
    set_fastdds_profile()
    assert PROFILES not in os.environ


@pytest.fixture
def listener(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.setenv(name, environment[name])
    rclpy.init()
    node = rclpy.create_node("listener")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def test_images_sent_best_effort_arrive(
    listener: Node, environment: dict[str, str], processes: list[subprocess.Popen[str]]
) -> None:
    set_fastdds_profile()
    if PROFILES not in os.environ:
        pytest.skip("needs 128 MB of shared memory in /dev/shm, and Fast DDS without settings of one's own")
    arrived: list[Image] = []
    # It holds all of them, however seldom a busy machine lets the listener look.
    patient = QoSProfile(depth=IMAGES, reliability=ReliabilityPolicy.BEST_EFFORT)
    listener.create_subscription(Image, "image", arrived.append, patient)
    camera = subprocess.Popen([sys.executable, "-c", CAMERA], env=environment, text=True)
    processes.append(camera)

    def spin() -> None:
        rclpy.spin_once(listener, timeout_sec=0.1)

    wait_until(lambda: camera.poll() is not None, meanwhile=spin)
    assert camera.returncode == 0
    # Without shared memory that holds an image it is 10 to 20 of these 90 on two cores.
    wait_until(lambda: len(arrived) > 0.9 * IMAGES, lambda: f"{len(arrived)} of {IMAGES} came", spin, patience=10)
