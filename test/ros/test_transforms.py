# SPDX-License-Identifier: Apache-2.0
"""Where frames are at a time: pose buffers, odometry, and tf2 or what stands in for it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from nav_msgs.msg import Odometry
from support.drive import T0, stamp

from pixel4d_ros.geometry.pose_buffer import MOST_FRAMES, MOST_POSES, PoseBuffer, TransformTree
from pixel4d_ros.geometry.rotations import rigid
from pixel4d_ros.ros.odometry import OdometryTrack
from pixel4d_ros.ros.transforms import NullTransforms

pytestmark = pytest.mark.ros


@pytest.mark.parametrize("place", ["pose", "twist"])
def test_odometry_that_is_not_finite_is_refused(place):
    message = Odometry(child_frame_id="base_link")
    if place == "pose":
        message.pose.pose.position.x = np.inf
    else:
        message.twist.twist.angular.z = np.nan
    with pytest.raises(ValueError, match="NaN or Inf"):
        OdometryTrack().add(message)


def test_pose_buffer_interpolates_extrapolates_a_little_and_forgets():
    buffer = PoseBuffer()
    assert buffer.at(0, 1.0) is None
    for s in range(0, 30, 1):
        buffer.add(s * 10**9, rigid(np.eye(3), [s, 0, 0]))
    assert buffer.at(25_500_000_000, 0.0)[0, 3] == pytest.approx(25.5)
    assert buffer.at(29_400_000_000, 0.5)[0, 3] == pytest.approx(29.4)
    assert buffer.at(29_600_000_000, 0.5) is None
    assert buffer.at(10 * 10**9, 0.5) is None
    buffer.add(5 * 10**9, np.eye(4))  # older than what is kept
    assert buffer.at(29 * 10**9, 0.5)[0, 3] == pytest.approx(29)


def test_what_happened_in_a_pause_of_the_poses_is_not_known():
    """Odometry pauses for 5 s: a line between its ends is not the way that was driven."""
    buffer = PoseBuffer()
    for s in (0.0, 0.1, 5.1, 5.2):
        buffer.add(round(s * 1e9), rigid(np.eye(3), [s, 0, 0]))
    assert buffer.at(4_900_000_000, 0.5) is None and buffer.at(2_000_000_000, 0.5) is None
    assert buffer.at(2_000_000_000, 3.0)[0, 3] == pytest.approx(2.0)  # an odometry_timeout as long as that
    assert buffer.at(5_150_000_000, 0.5)[0, 3] == pytest.approx(5.15)


def test_poses_whose_stamps_hardly_go_on_do_not_fill_the_memory():
    buffer = PoseBuffer()
    for ns in range(MOST_POSES + 5):
        buffer.add(ns, np.eye(4))
    assert len(buffer) == MOST_POSES and buffer.oldest[0] == 5


def test_frames_whose_names_are_made_up_do_not_fill_the_memory():
    tree = TransformTree()
    for number in range(MOST_FRAMES):
        tree.check_new("base", f"frame_{number}")
        tree.add_static("base", f"frame_{number}", np.eye(4))
    tree.check_new("odom", "frame_7")  # known frames still move on
    with pytest.raises(ValueError, match="tf has 10000 frames already"):
        tree.check_new("base", "another")


def test_a_single_pose_does_not_stand_for_later_times():
    """As when a log begins anew: an image 0.3 s after the only pose so far is not at that pose."""
    buffer = PoseBuffer()
    buffer.add(0, np.eye(4))
    assert buffer.at(50_000_000, 0.5) is not None
    assert buffer.at(300_000_000, 0.5) is None
    buffer.add(20_000_000, rigid(np.eye(3), [0.1, 0, 0]))  # too near the first to tell a speed
    assert buffer.at(300_000_000, 0.5) is None
    buffer.add(50_000_000, rigid(np.eye(3), [0.25, 0, 0]))
    assert buffer.at(300_000_000, 0.5)[0, 3] == pytest.approx(1.5)


def test_a_first_odometry_goes_on_by_its_twist_or_not_at_all():
    def message(speed: float) -> Odometry:
        made = Odometry(child_frame_id="base_link")
        made.header.frame_id, made.header.stamp, made.twist.twist.linear.x = "odom", stamp(0.0), speed
        return made

    driving, silent = OdometryTrack(), OdometryTrack()
    driving.add(message(20.0))
    silent.add(message(0.0))
    assert driving.pose(T0 + 300_000_000, 0.5)[0, 3] == pytest.approx(6.0)
    assert driving.pose(T0 - 100_000_000, 0.5)[0, 3] == pytest.approx(-2.0)
    assert driving.pose(T0 + 600_000_000, 0.5) is None
    assert silent.pose(T0 + 300_000_000, 0.5) is None


def test_frame_tree_knows_what_is_connected_at_that_time():
    tree = TransformTree()
    tree.add("odom", "base", 0, rigid(np.eye(3), [1, 0, 0]))
    tree.add_static("base", "camera", rigid(np.eye(3), [0, 2, 0]))
    tree.add_static("base", "lidar", rigid(np.eye(3), [0, 0, 3]))
    assert np.allclose(tree.lookup("odom", "camera", 0)[:3, 3], [1, 2, 0])
    assert np.allclose(tree.lookup("lidar", "camera", 10**12)[:3, 3], [0, 2, -3])
    assert tree.lookup("odom", "camera", 10**12) is None
    assert tree.lookup("odom", "moon", 0) is None
    tree.clear()
    assert tree.lookup("odom", "camera", 0) is None and tree.lookup("base", "camera", 0) is not None


def test_frames_in_a_loop_end():
    tree = TransformTree()
    tree.add_static("a", "b", np.eye(4))
    tree.add_static("b", "a", np.eye(4))
    assert tree.lookup("a", "c", 0) is None


def test_a_transform_that_closes_a_loop_is_refused():
    tree = TransformTree()
    tree.add_static("odom", "base", np.eye(4))
    tree.add_static("base", "camera", np.eye(4))
    tree.check_new("map", "odom")
    with pytest.raises(ValueError, match=r"closes a loop \(odom -> base -> camera -> odom\)"):
        tree.check_new("camera", "odom")
    with pytest.raises(ValueError, match=r"closes a loop \(moon -> moon\)"):
        tree.check_new("moon", "moon")


def test_a_listener_reads_tf_messages_where_their_type_is_installed(monkeypatch):
    """tf2_msgs is not on PyPI, so a stand-in for the message class."""
    import sys

    from geometry_msgs.msg import TransformStamped

    from pixel4d_ros.ros import transforms

    heard = {}
    warnings: list[str] = []
    node = SimpleNamespace(
        create_subscription=lambda kind, topic, callback, qos, **options: heard.setdefault(topic, callback),
        get_logger=lambda: SimpleNamespace(warning=lambda text, **options: warnings.append(text)),
    )
    monkeypatch.setitem(sys.modules, "tf2_msgs", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", SimpleNamespace(TFMessage=object))
    frames = transforms.transform_source(node)

    def transform(parent: str, child: str, x: float):
        message = TransformStamped(child_frame_id=child)
        message.header.frame_id, message.header.stamp = parent, stamp(0)
        message.transform.translation.x, message.transform.rotation.w = x, 1.0
        return SimpleNamespace(transforms=[message])

    heard["/tf_static"](transform("base", "camera", 2.0))
    heard["/tf"](transform("odom", "base", 3.0))
    assert frames.lookup("odom", "camera", T0)[0, 3] == 5.0
    heard["/tf"](transform("odom", "trailer", np.nan))
    assert warnings == ["tf odom -> trailer is ignored: pose contains NaN or Inf"]
    heard["/tf"](transform("camera", "odom", 1.0))
    assert "tf camera -> odom is ignored: it closes a loop (odom -> base -> camera -> odom)" in warnings[1]
    assert frames.lookup("odom", "camera", T0)[0, 3] == 5.0
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    monkeypatch.setitem(sys.modules, "tf2_msgs", None)
    assert isinstance(transforms.transform_source(node), NullTransforms)
