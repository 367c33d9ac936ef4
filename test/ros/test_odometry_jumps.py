# SPDX-License-Identifier: Apache-2.0
"""Odometry that jumps or lies on its side: no velocity comes of it, and the reason is said."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import numpy as np
import pytest

pytest.importorskip("rclpy")

from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image
from support.drive import ARC, T0, TIMES, drive, ego_state, odometry_track, path_message, stamp

from pixel4d_ros.geometry.rotations import rigid, rotation_matrix
from pixel4d_ros.ros.inputs import Inputs
from pixel4d_ros.ros.messages.conversions import pose_message
from pixel4d_ros.ros.odometry import JumpError, OdometryTrack, StampError
from pixel4d_ros.ros.plans import plan_from_path
from pixel4d_ros.ros.trajectory import JUMPS, ego_motion

pytestmark = pytest.mark.ros
MOVED = rigid(rotation_matrix([0, 0, 0.2]), [40.0, -10.0, 0.0])  # what a relocalisation does to all later poses


def odometry(seconds: float, moved: bool, twist: bool) -> Odometry:
    message = Odometry(child_frame_id="base_link")
    message.header.frame_id, message.header.stamp = "odom", stamp(seconds)
    pose = drive([seconds])[0]
    message.pose.pose = pose_message(MOVED @ pose if moved else pose)
    if twist:
        message.twist.twist.linear.x, message.twist.twist.angular.z = 8.0, 0.3
    return message


@pytest.mark.parametrize("twist", [True, False])
def test_a_jump_of_the_poses_is_no_velocity(twist: bool) -> None:
    """The difference of poses over a jump of 40 m made the camera fly at 200 m/s for 0.2 s."""
    track = OdometryTrack()
    for s in (-0.6, -0.5, -0.4, -0.3, -0.2, -0.1):
        track.add(odometry(s, False, twist))
    before = track.origin
    with pytest.raises(JumpError, match="odometry's poses jump"):
        track.add(odometry(0.0, True, twist))
    assert track.origin != before and track.origin[0] == "odom"
    motion = ego_motion(None, ego_state(track), "camera", T0, TIMES)
    moved = np.linalg.norm(motion.path.poses[:, :3, 3], axis=1)
    truth = np.linalg.norm(ARC.at(TIMES)[:, :3, 3], axis=1)
    assert (moved <= truth + 0.5).all()  # without a twist it stands, until there are two poses
    for s in (0.1, 0.2, 0.3):
        track.add(odometry(s, True, twist))
    later = ego_motion(None, ego_state(track), "camera", T0 + 300_000_000, TIMES)
    assert np.linalg.norm(later.path.poses[-1, :3, 3]) > 0.8 * truth[-1]


def test_a_vehicle_on_its_back_is_said_and_one_of_a_sensor_is_not() -> None:
    """Quaternions in the order w, x, y, z make the vehicle lie on its back or side."""
    track = OdometryTrack()
    message = odometry(0.0, False, True)
    track.add(message)
    assert track.fault == ""
    q = message.pose.pose.orientation
    q.x, q.y, q.z, q.w = 0.995, 0.0, 0.0, 0.0998
    message.header.stamp = stamp(0.1)
    track.add(message)
    assert "quaternions in the order x, y, z, w" in track.fault
    message.child_frame_id = "imu_link"
    track = OdometryTrack()
    track.add(message)
    assert track.fault == ""


def test_an_image_has_the_calibration_of_its_own_stamp() -> None:
    """A zoom between an image and its forecast: the newest calibration is that of a later image."""

    def calibration(seconds: float, focal: float) -> CameraInfo:
        info = CameraInfo(k=[focal, 0.0, 8.0, 0.0, focal, 8.0, 0.0, 0.0, 1.0])
        info.header.stamp = stamp(seconds)
        return info

    inputs, image = Inputs(), Image()
    image.header.stamp = stamp(1.0)
    assert inputs.info_of(image) is None
    inputs.infos.extend([calibration(1.0, 100.0), calibration(1.1, 200.0)])
    own = inputs.info_of(image)
    assert own is not None and own.k[0] == 100
    image.header.stamp = stamp(1.05)
    newest = inputs.info_of(image)
    assert newest is not None and newest.k[0] == 200


def test_a_plan_that_jumps_is_followed_with_a_warning() -> None:
    seconds = np.arange(0, 2.01, 0.1)
    poses = drive(seconds)
    poses[seconds > 0.65, :2, 3] += [4.0, 3.0]
    for plan, doubt in ((drive(seconds), ""), (poses, JUMPS)):
        track = odometry_track()
        motion = ego_motion(plan_from_path(path_message(seconds, plan), T0), ego_state(track), "camera", T0, TIMES)
        assert motion.source == "trajectory" and motion.warning == doubt


def test_a_jump_of_half_a_metre_is_found_and_noise_of_as_much_is_not() -> None:
    track, noise = OdometryTrack(), np.random.default_rng(1).normal(0, 0.2, (20, 2))
    for i in range(10):
        track.add(odometry(0.05 * i - 0.5, False, True))
    message = odometry(0.0, False, True)
    message.pose.pose.position.x += 0.8
    with pytest.raises(JumpError, match="odometry's poses jump"):
        track.add(message)
    noisy = OdometryTrack()
    for i, (x, y) in enumerate(noise):
        message = odometry(0.05 * i - 1.0, False, False)
        message.pose.pose.position.x += x
        message.pose.pose.position.y += y
        if i < 5:
            with suppress(JumpError):  # the noise is not known yet
                noisy.add(message)
        else:
            noisy.add(message)


def test_two_publishers_of_different_frames_are_named() -> None:
    """Each dropped the other's poses, and the camera stood without a word."""
    track = OdometryTrack()
    track.add(odometry(0.0, False, True))
    other = odometry(0.05, False, True)
    other.header.frame_id = "map"
    with pytest.raises(JumpError, match="frames change between 'odom' -> 'base_link' and 'map' -> 'base_link'"):
        track.add(other)
    assert track.frame == "map"


def test_odometry_without_a_stamp_is_named_unless_a_simulation_begins() -> None:
    message = odometry(0.0, False, True)
    message.header.stamp = stamp(-T0 * 1e-9)
    assert message.header.stamp.sec == 0
    OdometryTrack().add(message, 0)
    with pytest.raises(StampError, match="odometry has stamp 0"):
        OdometryTrack().add(message, T0)


def test_an_image_that_overtakes_its_calibration_waits_for_it() -> None:
    """A zoom: the older calibration was taken."""
    inputs, image = Inputs(), Image()

    def calibration(seconds: float, focal: float, frame: str = "") -> CameraInfo:
        info = CameraInfo(k=[focal, 0.0, 8.0, 0.0, focal, 8.0, 0.0, 0.0, 1.0])
        info.header.stamp, info.header.frame_id = stamp(seconds), frame
        return info

    inputs.infos.append(calibration(1.0, 100.0))
    image.header.stamp = stamp(1.0)
    assert inputs.info_of(image, 1.0) is not None
    image.header.stamp = stamp(1.1)
    late = threading.Timer(0.1, lambda: inputs.infos.append(calibration(1.1, 200.0)))
    late.start()
    own = inputs.info_of(image, 5.0)
    assert own is not None and own.k[0] == 200
    image.header.frame_id = "left"
    inputs.infos.extend([calibration(1.1, 300.0, "left"), calibration(1.1, 400.0, "right")])
    left = inputs.info_of(image)
    assert left is not None and left.k[0] == 300


def test_a_calibration_that_no_longer_comes_is_not_waited_for_for_ever() -> None:
    """A driver that was replaced by one that sends CameraInfo once: every image came 50 ms late."""
    inputs, image, seconds = Inputs(), Image(), 0.05
    inputs.infos.append(CameraInfo())
    assert inputs.info_of(image) is not None
    took = []
    for i in range(1, 8):
        image.header.stamp = stamp(i / 10)
        began = time.monotonic()
        assert inputs.info_of(image, seconds) is inputs.infos[0]
        took.append(time.monotonic() - began)
    assert min(took[:2]) >= seconds and max(took[4:]) < seconds


def test_images_of_two_cameras_on_one_topic_are_named() -> None:
    inputs = Inputs()
    assert inputs.frames_fault("left") == inputs.frames_fault("left") == ""
    assert "images of the frames 'left', 'right' share the topic" in inputs.frames_fault("right")
    assert [inputs.frames_fault("right") for _ in range(10)][-1] == ""  # the driver was started anew
