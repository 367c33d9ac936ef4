# SPDX-License-Identifier: Apache-2.0
"""Trajectories, odometry and tf become the camera's path; what cannot be followed falls back and says why."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")

from geometry_msgs.msg import Quaternion
from nav_msgs.msg import Odometry, Path
from support.drive import AHEAD, T0, TIMES, drive, ego_state, odometry_track, path_message, stamp

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.geometry.pose_buffer import TransformTree
from pixel4d_ros.geometry.rotations import rigid, rigid_inverse, rotation_matrix
from pixel4d_ros.ros.messages.conversions import pose_message
from pixel4d_ros.ros.odometry import OdometryTrack
from pixel4d_ros.ros.plans import PlanError, plan_from_path
from pixel4d_ros.ros.trajectory import (
    BACK,
    ENDS_EARLY,
    FAR_OFF,
    OTHER_DIRECTION,
    EgoMotion,
    camera_poses_along,
    ego_motion,
    planned_base_path,
)
from pixel4d_ros.ros.transforms import EgoState
from pixel4d_ros.scene import DynamicGaussians

pytestmark = pytest.mark.ros


def move(message: Path | None, ego: EgoState, times=TIMES) -> EgoMotion:
    plan = None if message is None else plan_from_path(message, T0)
    return ego_motion(plan, ego, "camera", T0, times)


def camera_truth(times=TIMES, mounting=AHEAD) -> np.ndarray:
    """T_source_camera (T, 4, 4) of the arc, written out."""
    start = drive([0.0])[0]
    return rigid_inverse(start @ mounting) @ drive(times) @ mounting


def close(path: CameraPath, truth: np.ndarray, metres: float = 1e-3) -> bool:
    return bool(np.abs(path.at(TIMES) - truth).max() < metres)


PLANNED = np.arange(0, 2.01, 0.1)


def test_path_in_the_odometry_frame_moves_the_camera():
    motion = move(path_message(PLANNED, drive(PLANNED)), ego_state(odometry_track()))
    assert motion.source == "trajectory" and motion.warning == ""
    assert close(motion.path, camera_truth())
    # A camera that looks ahead goes along its z, and a left turn swings it to negative x.
    end = motion.path.poses[-1][:3, 3]
    assert end[2] > 9 and end[0] < -1 and abs(end[1]) < 1e-6


def test_a_lone_pose_of_before_does_not_hold_the_camera_back():
    """As when a log begins anew: of odometry only one pose, 0.3 s old, is there. The plan tells where the camera is."""
    plan = path_message(PLANNED, drive(PLANNED))
    for twist in (False, True):
        motion = move(plan, ego_state(odometry_track([-0.3], twist=twist)))
        assert motion.source == "trajectory"
        assert close(motion.path, camera_truth(), metres=0.05), twist


def test_path_through_the_past_and_between_odometry_stamps():
    seconds = np.arange(-1, 2.01, 0.1)
    motion = move(path_message(seconds, drive(seconds), at=-1), ego_state(odometry_track((-0.25, -0.15, 0.05))))
    assert close(motion.path, camera_truth(), 1e-2)


def test_path_without_odometry_is_its_own_reference():
    motion = move(path_message(PLANNED, drive(PLANNED), frame="map"), ego_state())
    assert motion.source == "trajectory" and close(motion.path, camera_truth())


def test_path_that_begins_later_starts_at_the_vehicle():
    seconds = np.arange(0.5, 2.01, 0.1)
    motion = move(path_message(seconds, drive(seconds)), ego_state(odometry_track()))
    assert (
        np.allclose(motion.path.poses[0], np.eye(4)) and np.abs(motion.path.poses[5:] - camera_truth()[5:]).max() < 1e-3
    )


def test_path_in_base_link_of_an_older_stamp():
    then = rigid_inverse(drive([-0.1])[0])
    message = path_message(PLANNED, then @ drive(PLANNED), frame="base_link", at=-0.1)
    assert close(move(message, ego_state(odometry_track())).path, camera_truth())


def test_path_in_the_camera_frame():
    in_camera = rigid_inverse(drive([0.0])[0] @ AHEAD) @ drive(PLANNED)
    message = path_message(PLANNED, in_camera, frame="camera")
    assert close(move(message, ego_state(odometry_track())).path, camera_truth())


def test_path_in_map_through_tf():
    map_odom = rigid(rotation_matrix([0, 0, -2.0]), [5, 6, 7])
    tree = TransformTree()
    tree.add_static("map", "odom", map_odom)
    for s in (-0.1, 0.0, 0.1):
        tree.add("odom", "base_link", T0 + round(s * 1e9), drive([s])[0])
    tree.add_static("base_link", "camera", AHEAD)
    ego = ego_state(odometry_track(), tree, mounting=np.eye(4))
    motion = move(path_message(PLANNED[5:], map_odom @ drive(PLANNED[5:]), frame="map"), ego)
    assert motion.warning == "" and np.abs(motion.path.poses[5:] - camera_truth()[5:]).max() < 1e-3


def test_odometry_of_the_camera_itself_needs_no_mounting():
    track = odometry_track(child="camera")
    motion = move(None, ego_state(track))
    assert close(motion.path, camera_truth(mounting=np.eye(4)))


@pytest.mark.parametrize("equal_stamps", [False, True])
def test_path_without_times_is_timed_by_odometry_speed(equal_stamps):
    seconds = np.arange(-0.5, 3, 0.05)
    message = path_message(seconds, drive(seconds), stamped=False)
    for pose in message.poses if equal_stamps else ():
        pose.header.stamp = stamp(-0.2)
    motion = move(message, ego_state(odometry_track()))
    assert motion.source == "trajectory, timed by odometry speed"
    assert close(motion.path, camera_truth(), 2e-2)


def test_path_without_times_or_headings_looks_along_the_way():
    seconds = np.arange(-0.5, 3, 0.05)
    poses = drive(seconds)
    poses[:, :3, :3] = np.eye(3)
    motion = move(path_message(seconds, poses, stamped=False), ego_state(odometry_track()))
    assert close(motion.path, camera_truth(), 5e-2)


def test_path_without_times_in_reverse_order_is_named():
    seconds = np.arange(3, -0.5, -0.05)
    poses = drive(seconds)
    poses[:, :3, :3] = np.eye(3)
    motion = move(path_message(seconds, poses, stamped=False), ego_state(odometry_track()))
    assert motion.source == "trajectory, timed by odometry speed" and BACK in motion.warning


@pytest.mark.parametrize("count", [1, 5])
def test_path_of_one_place_for_a_driving_vehicle_is_named(count):
    """A goal alone: the camera was forecast to stand while the vehicle drives at 8 m/s, without a word."""
    goal = np.tile(drive([0.5]), (count, 1, 1))
    motion = move(path_message(np.zeros(count), goal, stamped=False), ego_state(odometry_track()))
    assert np.allclose(motion.path.poses, np.eye(4)) and ENDS_EARLY in motion.warning and FAR_OFF in motion.warning


def test_path_without_times_whose_quaternions_are_in_another_order_is_named():
    message = path_message(PLANNED, drive(PLANNED), stamped=False)
    for pose in message.poses:
        q = pose.pose.orientation
        q.x, q.y, q.z, q.w = q.w, q.x, q.y, q.z
    assert FAR_OFF in move(message, ego_state(odometry_track())).warning


@pytest.mark.parametrize("stamped", [True, False])
def test_path_in_axes_of_the_camera_under_the_name_of_the_base_is_named(stamped):
    poses = rigid_inverse(AHEAD) @ rigid_inverse(drive([0.0])[0]) @ drive(PLANNED) @ AHEAD
    motion = move(path_message(PLANNED, poses, frame="base_link", stamped=stamped), ego_state(odometry_track()))
    assert motion.source.startswith("trajectory") and OTHER_DIRECTION in motion.warning


def test_path_without_times_for_a_standing_vehicle_stands():
    track = OdometryTrack()
    for s in (-0.2, -0.1, 0.0):
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id, message.header.stamp = "odom", stamp(s)
        track.add(message)
    motion = move(path_message(PLANNED, drive(PLANNED), stamped=False), ego_state(track))
    assert np.allclose(motion.path.poses, np.eye(4))


@pytest.mark.parametrize("twist", [True, False])
def test_without_trajectory_the_velocity_stays_constant(twist):
    motion = move(None, ego_state(odometry_track(twist=twist)))
    assert motion.source == "constant velocity from odometry" and motion.warning == ""
    assert close(motion.path, camera_truth(), 2e-2)


def test_without_anything_the_camera_stands_and_says_so():
    motion = move(None, ego_state())
    assert (motion.source, motion.warning) == ("standing camera", "no trajectory, no odometry")
    assert np.array_equal(motion.path.poses, np.tile(np.eye(4), (14, 1, 1)))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (path_message(PLANNED - 3, drive(PLANNED - 3)), "trajectory is entirely in the past"),
        (path_message(PLANNED, drive(PLANNED), frame="nowhere"), "trajectory frame 'nowhere' is unknown"),
        (path_message(PLANNED, drive(PLANNED), at=-2.5), "trajectory is stale: older"),
        (path_message(PLANNED, drive(PLANNED), at=60), "trajectory is stale: newer"),
    ],
)
def test_paths_that_cannot_be_followed_fall_back_to_odometry(message, words):
    motion = move(message, ego_state(odometry_track()))
    assert motion.source == "constant velocity from odometry" and words in motion.warning
    assert close(motion.path, camera_truth(), 2e-2)


def test_late_path_in_an_unknown_place_stands_without_odometry():
    motion = move(path_message(PLANNED + 1, drive(PLANNED + 1)), ego_state())
    assert motion.source == "standing camera" and "where the vehicle is in 'odom' is unknown" in motion.warning


def test_stale_odometry_is_not_used():
    motion = move(None, ego_state(odometry_track((-3.2, -3.1, -3.0))))
    assert (motion.source, motion.warning) == ("standing camera", "no trajectory, odometry is stale")


def broken(kind: str) -> Path:
    message = path_message(PLANNED, drive(PLANNED))
    if kind == "empty":
        message.poses = []
    elif kind == "frameless":
        message.header.frame_id = ""
    elif kind == "nan":
        message.poses[4].pose.position.y = np.nan
    elif kind == "short quaternion":
        message.poses[4].pose.orientation = Quaternion(w=0.5)
    elif kind == "backwards":
        message.poses.reverse()
    return message


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("empty", "trajectory is empty"),
        ("frameless", "no frame_id"),
        ("nan", "NaN or Inf"),
        ("short quaternion", "unit quaternion"),
        ("backwards", "do not increase"),
    ],
)
def test_broken_paths_are_refused_with_the_reason(kind, words):
    with pytest.raises(PlanError, match=words) as caught:
        plan_from_path(broken(kind), T0)
    motion = ego_motion(caught.value, ego_state(odometry_track()), "camera", T0, TIMES)
    assert motion.source == "constant velocity from odometry" and words in motion.warning


def test_many_plans_are_followed_as_each_alone():
    """Of different lengths, kinds, frames and times, some of which end before the forecast does."""
    ego = ego_state(odometry_track())
    short, late, past = np.arange(0, 0.31, 0.1), np.arange(0.5, 2.01, 0.1), np.arange(-1, 2.01, 0.25)
    messages = [
        path_message(PLANNED, drive(PLANNED)),
        path_message(short, drive(short)),
        path_message(late, drive(late)),
        path_message(past, drive(past), at=-1),
        path_message(PLANNED, drive(PLANNED), stamped=False),
        path_message([0.0, 0.0], drive([0.0, 0.0]), stamped=False),
        path_message(PLANNED, rigid_inverse(drive([-0.1])[0]) @ drive(PLANNED), frame="base_link", at=-0.1),
    ]
    ways = [planned_base_path(plan_from_path(m, T0), ego, "camera", T0, TIMES) for m in messages]
    together = camera_poses_along(ways, AHEAD, TIMES)
    assert together.shape == (7, len(TIMES), 4, 4)
    for message, poses in zip(messages, together):
        np.testing.assert_allclose(poses, move(message, ego_state(odometry_track())).path.poses, atol=1e-12)
    whole = [0, 2, 3, 4, 6]
    assert (np.abs(together[whole, -1, 2, 3] - 10) < 1).all() and np.allclose(together[5], np.eye(4))
    assert together[1, -1, 2, 3] == pytest.approx(8 * 0.3, abs=0.1)  # it stops at its end


@pytest.mark.parametrize(("frame", "stamped"), [("odom", True), ("base_link", True), ("odom", False)])
def test_odometry_is_asked_once_however_many_plans_there_are(monkeypatch, frame, stamped):
    ego, asked = ego_state(odometry_track()), []
    pose, motion = OdometryTrack.pose, OdometryTrack.motion
    monkeypatch.setattr(OdometryTrack, "pose", lambda *a: asked.append("pose") or pose(*a))
    monkeypatch.setattr(OdometryTrack, "motion", lambda *a: asked.append("motion") or motion(*a))
    plan = plan_from_path(path_message(PLANNED, drive(PLANNED), frame=frame, stamped=stamped, at=-0.1), T0)
    planned_base_path(plan, ego, "camera", T0, TIMES)
    first = tuple(asked)
    planned_base_path(plan, ego, "camera", T0, TIMES)
    assert first and tuple(asked) == first


numbers = st.floats(-3, 3)


@settings(max_examples=25, deadline=None)
@given(st.tuples(numbers, numbers, numbers), st.tuples(numbers, numbers, numbers))
def test_where_the_odometry_frame_lies_does_not_matter(turn, shift):
    T = rigid(rotation_matrix(turn), np.multiply(shift, 1000))
    track = OdometryTrack()
    for s in (-0.1, 0.0):
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id, message.header.stamp = "odom", stamp(s)
        message.pose.pose = pose_message(T @ drive([s])[0])
        track.add(message)
    motion = move(path_message(PLANNED, T @ drive(PLANNED)), ego_state(track))
    assert close(motion.path, camera_truth())


@pytest.fixture(scope="module")
def predicted() -> tuple[Forecaster, DynamicGaussians]:
    """A forecaster, and what it makes of a colourful picture."""
    forecaster = Forecaster.load(None, "cpu")
    noise = np.random.default_rng(1).integers(0, 256, (4, 8, 3), np.uint8)
    picture = cv2.resize(noise, (128, 64), interpolation=cv2.INTER_CUBIC)
    return forecaster, forecaster.predict(picture, np.array([[90.0, 0, 63.5], [0, 90.0, 31.5], [0, 0, 1]]))


vectors = st.tuples(numbers, numbers, numbers)


@settings(max_examples=8, deadline=None)
@given(vectors, vectors, vectors, vectors)
def test_where_world_and_map_lie_leaves_the_forecast_unchanged(predicted, turn, shift, map_turn, map_shift):
    """The plan is in map, which tf connects with odom; the drive itself is somewhere else in odom each time."""
    forecaster, scene = predicted
    world, map_odom = (
        rigid(rotation_matrix(r), np.multiply(t, 1000)) for r, t in ((turn, shift), (map_turn, map_shift))
    )
    tree, track = TransformTree(), OdometryTrack()
    tree.add_static("map", "odom", map_odom)
    for s in (-0.1, 0.0):
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id, message.header.stamp = "odom", stamp(s)
        message.pose.pose = pose_message(world @ drive([s])[0])
        track.add(message)
        tree.add("odom", "base_link", T0 + round(s * 1e9), world @ drive([s])[0])
    plan = path_message(PLANNED, map_odom @ world @ drive(PLANNED), frame="map")
    some = np.array([0, 5, 10])
    motion = move(plan, ego_state(track, tree))
    assert (motion.source, motion.warning) == ("trajectory", "")
    frames = forecaster.render(scene, motion.path.at(TIMES[some]), TIMES[some])
    expected = forecaster.render(scene, camera_truth()[some], TIMES[some])
    difference = np.abs(frames.astype(int) - expected)
    assert difference.mean() < 0.1 and difference.max() < 16
