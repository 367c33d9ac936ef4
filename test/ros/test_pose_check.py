# SPDX-License-Identifier: Apache-2.0
"""The node's images against odometry: what contradicts is named, real drives are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from nav_msgs.msg import Odometry
from sensor_msgs.msg import Image
from support.drive import T0, stamp
from support.harness import Client, image
from support.node_in_process import node_in_process
from support.paths import shared_path

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.datasets.pose_agreement import Predict
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.geometry.optical import FORWARD_OPTICAL
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.ros.inputs import Inputs, Source
from pixel4d_ros.ros.messages.conversions import fill, pose_message
from pixel4d_ros.ros.messages.images import rgb_pixels
from pixel4d_ros.ros.odometry import OdometryTrack
from pixel4d_ros.ros.pose_check import FROZEN, PoseCheck
from pixel4d_ros.ros.transforms import EgoState, NullTransforms
from pixel4d_ros.scene import DynamicGaussians

pytestmark = pytest.mark.ros
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def drive() -> Clip:
    clip = read_clip(shared_path("logs/val/kitti_0002.mcap"))
    base = clip.poses @ rigid_inverse(FORWARD_OPTICAL)
    return replace(clip, poses=rigid_inverse(base[0]) @ base, times=clip.times - clip.times[0]).in_memory()


def doubts(
    drive: Clip,
    change: Callable[[Pixels], Pixels] = lambda x: x,
    base: FloatArray | None = None,
    depth: float = 0.0,
    every: int = 1,
    predict: Predict | None = None,
) -> list[str]:
    """What the node would say about the drive's images with odometry of base (T, 4, 4).

    depth: factor, 0 for none; every: of so many images, one is forecast from; predict: None for one that sees nothing.
    """
    height, width = drive.images.shape[1:3]
    nothing = Mock(seen_depth=lambda *_: np.zeros((height, width), np.float32))
    check, inputs, track, said = PoseCheck(predict or (lambda *_: nothing)), Inputs(), OdometryTrack(), []
    for i, seconds in enumerate(drive.times.tolist()):
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id, message.header.stamp = "odom", stamp(seconds)
        message.pose.pose = pose_message((drive.poses if base is None else base)[i])
        track.add(message)
        made = image(0.0, np.ascontiguousarray(change(np.asarray(drive.images[i]))))
        made.header.stamp = stamp(seconds)
        inputs.keep_recent(made)
        if depth and drive.depth is not None:
            metres = np.asarray(drive.depth[i]) * np.float32(depth)
            sensed = Image(height=height, width=width, encoding="32FC1", step=4 * width, header=made.header)
            fill(sensed, metres)
            inputs.depths.add(sensed)
        if i % every == 0:
            source = Source(rgb_pixels(made), Camera(drive.K, width, height), made.header)
            said.append(check.doubt(inputs, source, EgoState(track, NullTransforms(), FORWARD_OPTICAL), 0.02))
    assert track.pose(T0 + round(drive.times[-1] * 1e9), 0.1) is not None
    return [text for text in said if text]


def test_a_real_drive_is_not_doubted(drive: Clip) -> None:
    assert doubts(drive, depth=1.0) == []


def test_odometry_in_feet_is_named_without_depth(drive: Clip) -> None:
    """Distances by two images are compared with those that the network predicts from one."""
    forecaster = Forecaster.load(None, "cpu")
    scenes: dict[bytes, DynamicGaussians] = {}

    def predict(image: Pixels, K: FloatArray) -> DynamicGaussians:
        key = image.tobytes()  # both drives show the same images
        if key not in scenes:
            scenes[key] = forecaster.predict(image, K)
        return scenes[key]

    feet = drive.poses.copy()
    assert doubts(drive, predict=predict) == []
    feet[:, :3, 3] *= 3.28
    *_, said = doubts(drive, base=feet, predict=predict)
    assert "times as far as one image alone lets expect: are positions in metres (not feet)" in said


@pytest.mark.parametrize(("lag", "words"), [(4, "0.4 s later"), (-3, "0.3 s earlier")])
def test_odometry_that_is_late_or_early_is_named(drive: Clip, lag: int, words: str) -> None:
    """Stamped when it was received, say: turns show it."""
    first, last = max(0, lag), len(drive) + min(0, lag)
    said = doubts(drive.part(first, last), base=drive.poses[first - lag : last - lag])
    assert any(f"the images seem to show what was in view {words}" in text for text in said), set(said)


@pytest.mark.parametrize("every", [1, 14])
def test_a_slow_node_sees_it_too(drive: Clip, every: int) -> None:
    """A CPU forecasts from one image in 1.4 s; pairs are of received images."""
    *_, said = doubts(drive, base=reversed_x(drive.poses), every=every)
    assert "check which frame and axes" in said


def reversed_x(base: FloatArray) -> FloatArray:
    base = base.copy()
    base[:, 0, 3] *= -1
    return base


def aircraft(base: FloatArray) -> FloatArray:
    down = np.diag([1.0, -1, -1, 1])
    return np.asarray(down @ base @ down)


def without_orientation(base: FloatArray) -> FloatArray:
    base = base.copy()
    base[:, :3, :3] = np.eye(3)
    return base


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(reversed_x, "check which frame and axes the poses are of", id="sign"),
        pytest.param(aircraft, "y right and z down", id="aircraft"),
        pytest.param(without_orientation, "the poses keep one orientation", id="no orientation"),
    ],
)
def test_odometry_that_contradicts_the_images_is_named(
    drive: Clip, change: Callable[[FloatArray], FloatArray], words: str
) -> None:
    *_, said = doubts(drive, base=change(drive.poses))
    assert words in said


@pytest.mark.parametrize(
    ("change", "words"),
    [(lambda rgb: rgb[:, ::-1], "mirrored left to right"), (lambda rgb: rgb[::-1, ::-1], "upside down")],
)
def test_images_that_are_mirrored_or_turned_are_named(
    drive: Clip, change: Callable[[Pixels], Pixels], words: str
) -> None:
    *_, said = doubts(drive, change)
    assert words in said


def test_depth_in_another_unit_is_named(drive: Clip) -> None:
    *_, said = doubts(drive, depth=5.0)
    assert "times as far as the depth says" in said


def test_frozen_images_are_named(drive: Clip) -> None:
    frozen = np.asarray(drive.images[0])
    assert set(doubts(drive.part(0, 20), lambda rgb: frozen)) == {FROZEN}


def test_the_camera_that_stands_amid_traffic_is_not_doubted(drive: Clip) -> None:
    """A lorry passes through a third of the image; the world stands, and so does the vehicle."""
    background, lorry = np.asarray(drive.images[0]), np.asarray(drive.images[40])[:, :130]
    at = iter(range(0, 2000, 9))

    def passing(rgb: Pixels) -> Pixels:
        left = next(at) % (background.shape[1] - lorry.shape[1])
        seen = background.copy()
        seen[:, left : left + lorry.shape[1]] = lorry
        return seen

    assert doubts(drive, passing, base=np.repeat(drive.poses[:1], len(drive), 0)) == []


@pytest.mark.usefixtures("ros_context")
def test_a_frozen_camera_makes_the_node_warn() -> None:
    with node_in_process(Forecaster.load, "frozen"):
        client = Client(namespace="frozen").connect()
        for i in range(8):
            client.send_odometry(0.1 * i)
            client.settle()
            client.forecast(0.1 * i)
        status = client.status_with(FROZEN)
        assert status.level == b"\x01"
        client.destroy_node()
