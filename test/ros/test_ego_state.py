# SPDX-License-Identifier: Apache-2.0
"""Odometry, tf and plans that contradict each other or leave something out: the right camera path, or the reason."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from nav_msgs.msg import Odometry
from support.drive import AHEAD, ARC, T0, TIMES, drive, ego_state, odometry_track, path_message, stamp

from pixel4d_ros.geometry.pose_buffer import TransformTree
from pixel4d_ros.geometry.rotations import FloatArray, rigid, rigid_inverse, rotation_matrix
from pixel4d_ros.ros.messages.conversions import pose_message
from pixel4d_ros.ros.odometry import DISAGREEMENT, FUTURE_S, OdometryTrack, StampError
from pixel4d_ros.ros.plans import PlanError, plan_from_path
from pixel4d_ros.ros.trajectory import ENDS_EARLY, FAR_OFF, OTHER_SPEED, EgoMotion, ego_motion
from pixel4d_ros.ros.transforms import EgoState, TransformListener

pytestmark = pytest.mark.ros
SECOND = 10**9
PLANNED = np.arange(0, 2.01, 0.1)
SEEN = (-0.3, -0.2, -0.1, 0.0)
CHILDREN = {  # T_base_imu
    "same": np.eye(4),
    "ahead": rigid(np.eye(3), [1.0, 0.0, 0.2]),
    "backward": rigid(rotation_matrix([0, 0, np.pi]), [-0.5, 0.3, 0.0]),
    "upside down": rigid(rotation_matrix([np.pi, 0, 0.4]), [0.2, 0.0, 1.0]),
}


def camera_truth() -> FloatArray:
    """T_source_camera (T, 4, 4) of the arc."""
    start = drive([0.0])[0]
    return rigid_inverse(start @ AHEAD) @ drive(TIMES) @ AHEAD


def imu_odometry(T_base_imu: FloatArray, twist: bool) -> OdometryTrack:
    """Odometry of an IMU on the vehicle; its twist is that of the IMU, in the IMU's axes."""
    track = OdometryTrack()
    for s in SEEN:
        message = Odometry(child_frame_id="imu")
        message.header.frame_id, message.header.stamp = "odom", stamp(s)
        message.pose.pose = pose_message(drive([s])[0] @ T_base_imu)
        if twist:
            turn = np.array([0, 0, 0.3])
            linear = np.array([8.0, 0, 0]) + np.cross(turn, T_base_imu[:3, 3])
            to_imu = T_base_imu[:3, :3].T
            message.twist.twist.linear = Vector3(**dict(zip("xyz", to_imu @ linear)))
            message.twist.twist.angular = Vector3(**dict(zip("xyz", to_imu @ turn)))
        track.add(message)
    return track


def with_imu(T_base_imu: FloatArray, twist: bool = True, connected: bool = True) -> EgoState:
    """base_frame is base_link, odometry that of the IMU."""
    tree = TransformTree()
    if connected:
        tree.add_static("base_link", "imu", T_base_imu)
    return ego_state(imu_odometry(T_base_imu, twist), tree, base_frame="base_link")


def move(ego: EgoState, message=None) -> EgoMotion:
    return ego_motion(None if message is None else plan_from_path(message, T0), ego, "camera", T0, TIMES)


@pytest.mark.parametrize(
    ("mounting", "words", "turned"),
    [
        (np.eye(4), "has its z axis up, so it is taken for the camera's body frame", True),
        (rigid(AHEAD[:3, :3], [1500.0, 0, 800]), "is 1700 m away from 'base_link': tf must be in metres", False),
        (AHEAD @ np.diag([-1.0, -1, 1, 1]), "is mounted upside down in 'base_link', whose z is up", False),
        (AHEAD @ rigid(rotation_matrix([0, 0, np.pi / 2]), [0, 0, 0]), "is mounted on its side in 'base_link'", False),
        (AHEAD @ rigid(rotation_matrix([0.2, 0.1, 0.3]), [1, 0, 1]), "", False),
        (AHEAD, "", False),
    ],
)
def test_a_mounting_of_the_body_frame_in_millimetres_or_not_upright_is_named(mounting, words, turned):
    """By parameters, as by tf: 0 0 0 1 looks at the sky, and driving ahead would move the camera sideways."""
    ego = ego_state(odometry_track(SEEN), mounting=mounting)
    assert words in ego.mounting_fault("camera", T0) and bool(words) == bool(ego.mounting_fault("camera", T0))
    assert ("mounting.rotation must be its pose" in ego.mounting_fault("camera", T0)) == bool(words)
    looks = ego.camera_in_base("camera", T0)[:3, 2]
    np.testing.assert_allclose(looks, mounting[:3, 0 if turned else 2], atol=1e-9)
    sky = ego_state(odometry_track(SEEN), mounting=np.eye(4))
    assert "looks at the sky" in sky.mounting_fault("camera_optical_frame", T0)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_poses_in_millimetres_are_refused(scale):
    """A slow robot, whose twist is in m/s; a single jump is none of it."""
    track, refused = OdometryTrack(), 0
    for i in range(20):
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id, message.header.stamp = "odom", stamp(i / 20)
        message.pose.pose.position.x = scale * 0.5 * i / 20
        message.twist.twist.linear.x = 0.5
        try:
            track.add(message)
        except ValueError as error:
            refused += "positions must be in metres" in str(error)
    assert refused == (0 if scale == 1 else 15)


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("twist", [True, False])
def test_odometry_of_another_frame_than_the_base_is_carried_to_it(child, twist):
    motion = move(with_imu(CHILDREN[child], twist))
    assert (motion.source, motion.warning) == ("constant velocity from odometry", "")
    np.testing.assert_allclose(motion.path.poses, camera_truth(), atol=2e-2)


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("frame", ["odom", "base_link"])
@pytest.mark.parametrize("begin", [0.0, 0.3])
def test_a_plan_of_the_base_is_followed_from_where_the_base_is(child, frame, begin):
    """As in the issue: with the child's pose taken for the base's, an IMU 1 m ahead makes the plan begin behind."""
    seconds = PLANNED + begin
    poses = drive(seconds) if frame == "odom" else rigid_inverse(drive([0.0])[0]) @ drive(seconds)
    motion = move(with_imu(CHILDREN[child]), path_message(seconds, poses, frame=frame))
    assert (motion.source, motion.warning) == ("trajectory", "")
    np.testing.assert_allclose(motion.path.poses[3:], camera_truth()[3:], atol=1e-3)


@pytest.mark.parametrize("child", CHILDREN)
def test_a_plan_without_times_begins_at_the_base(child):
    seconds = np.arange(-0.5, 3, 0.05)
    motion = move(with_imu(CHILDREN[child]), path_message(seconds, drive(seconds), stamped=False))
    assert (motion.source, motion.warning) == ("trajectory, timed by odometry speed", "")
    np.testing.assert_allclose(motion.path.poses, camera_truth(), atol=2e-2)


UNCONNECTED = "odometry gives poses of 'imu', and tf does not connect it with base_frame 'base_link'"


@pytest.mark.parametrize("plan", ["none", "later", "without times"])
def test_odometry_of_an_unconnected_frame_is_refused_with_the_reason(plan):
    later = PLANNED + 0.3
    message = {
        "none": None,
        "later": path_message(later, drive(later)),
        "without times": path_message(PLANNED, drive(PLANNED), stamped=False),
    }[plan]
    motion = move(with_imu(CHILDREN["ahead"], connected=False), message)
    assert motion.source == "standing camera" and motion.warning.count(UNCONNECTED) == 1
    assert "publish a static transform between the two, or leave base_frame empty" in motion.warning


def test_a_plan_that_holds_the_present_needs_no_odometry_but_what_is_refused_is_said():
    motion = move(with_imu(CHILDREN["ahead"], connected=False), path_message(PLANNED, drive(PLANNED)))
    assert motion.source == "trajectory" and UNCONNECTED in motion.warning
    np.testing.assert_allclose(motion.path.poses, camera_truth(), atol=1e-3)


def odometry_with(linear, angular, heading: float = 0.0, speed: float = 8.0, turn: float = 0.3) -> OdometryTrack:
    """A drive on an arc that begins at a heading, whose messages have this twist."""
    track = OdometryTrack()
    for s in SEEN:
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id, message.header.stamp = "odom", stamp(s)
        pose = rigid(rotation_matrix([0, 0, heading + turn * s]), [0, 0, 0])
        radius = speed / turn if turn else np.inf
        if turn:
            center = radius * np.array([-np.sin(heading), np.cos(heading), 0])
            pose[:3, 3] = center + radius * np.array([np.sin(heading + turn * s), -np.cos(heading + turn * s), 0])
        else:
            pose[:3, 3] = speed * s * np.array([np.cos(heading), np.sin(heading), 0])
        message.pose.pose = pose_message(pose)
        message.twist.twist.linear, message.twist.twist.angular = Vector3(**linear), Vector3(**angular)
        track.add(message)
    return track


CONTRADICTIONS = {
    "in the world frame at heading 90 degrees": ({"y": 5.0}, {}, {"heading": np.pi / 2, "speed": 5.0, "turn": 0.0}),
    "angular part only": ({}, {"z": 0.3}, {}),
    "linear part only": ({"x": 8.0}, {}, {}),
    "in km/h": ({"x": 28.8}, {"z": 0.3}, {}),
    "in degrees": ({"x": 8.0}, {"z": 17.2}, {}),
    "of the wrong sign": ({"x": -8.0}, {"z": 0.3}, {}),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_a_twist_that_contradicts_the_poses_gives_way_to_them_with_a_warning(kind):
    linear, angular, drives = CONTRADICTIONS[kind]
    motion = move(ego_state(odometry_with(linear, angular, **drives)))
    assert (motion.source, motion.warning) == ("constant velocity from odometry", DISAGREEMENT)
    speed, turn = drives.get("speed", 8.0), drives.get("turn", 0.3)
    end, seconds = motion.path.poses[-1], TIMES[-1]
    ahead = speed * seconds if not turn else speed / turn * np.sin(turn * seconds)
    left = 0.0 if not turn else speed / turn * (1 - np.cos(turn * seconds))
    base = AHEAD @ end @ rigid_inverse(AHEAD)
    np.testing.assert_allclose(base[:2, 3], [ahead, left], atol=0.1)


@pytest.mark.parametrize(("noise", "rate"), [(0.0, 100), (0.01, 50), (0.02, 10)])
def test_a_right_twist_is_not_doubted_for_noise_of_the_poses(noise, rate):
    rng, track = np.random.default_rng(3), OdometryTrack()
    for s in np.arange(-1.0, 0.001, 1 / rate):
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id, message.header.stamp = "odom", stamp(s)
        pose = drive([s])[0]
        pose[:3, 3] += rng.normal(0, noise, 3)
        message.pose.pose = pose_message(pose)
        message.twist.twist.linear.x, message.twist.twist.angular.z = 8.0, 0.3
        track.add(message)
    assert move(ego_state(track)).warning == ""


def test_a_standing_robot_that_reports_zero_twist_stands_without_a_warning():
    track = odometry_with({}, {}, speed=1e-9, turn=0.0)
    motion = move(ego_state(track))
    assert motion.warning == "" and np.allclose(motion.path.poses, np.eye(4), atol=1e-6)


def odometry_message(seconds: float) -> Odometry:
    message = Odometry(child_frame_id="base_link")
    message.header.frame_id, message.header.stamp = "odom", stamp(seconds)
    message.pose.pose = pose_message(drive([seconds])[0])
    return message


def test_odometry_from_the_future_is_dropped_with_the_reason():
    track = odometry_track()
    with pytest.raises(StampError, match=r"odometry is stamped more than 2 s in the future and dropped: synchronise"):
        track.add(odometry_message(3600.0), now_ns=T0)
    assert track.pose(T0, 0.5) is not None
    track.add(odometry_message(FUTURE_S - 0.1), now_ns=T0)  # localisation stamps ahead a little
    track.add(odometry_message(3600.0))  # no clock to compare with: the next message tells
    with pytest.raises(StampError, match=r"stamps went back by 0.5 s or more: earlier poses are dropped"):
        track.add(odometry_message(0.1))
    assert np.allclose(track.pose(T0 + SECOND // 10, 0.5), drive([0.1])[0])


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("linear", 8e3, r"twist \(linear .* is faster than any robot: it must be in m/s and rad/s"),
        ("angular", 1.3e155, r"twist \(linear .* is faster than any robot"),
        ("position", 1e12, r"pose is 1e\+12 m from its frame's origin: positions must be in metres"),
    ],
)
def test_odometry_in_other_units_is_refused_and_the_next_message_taken(field, value, says):
    message, track = odometry_message(0.0), OdometryTrack()
    holder = message.pose.pose.position if field == "position" else getattr(message.twist.twist, field)
    holder.x = value
    with pytest.raises(ValueError, match=says):
        track.add(message, T0)
    track.add(odometry_message(0.1), T0)
    assert np.allclose(track.pose(T0 + SECOND // 10, 0.5), drive([0.1])[0])


def test_a_message_of_the_round_before_does_not_switch_odometry_off():
    """A log played again: the last message of a round arrives after the first of the next."""
    track = OdometryTrack()
    for s in (0.0, 9.9):
        try:
            track.add(odometry_message(s))
        except StampError:
            pytest.fail("forward jumps are gaps")
    for s in (0.1, 0.2, 0.3, 0.4):
        if s == 0.1:
            with pytest.raises(StampError):
                track.add(odometry_message(s))
        else:
            track.add(odometry_message(s))
    assert np.allclose(track.pose(T0 + round(0.35 * SECOND), 0.5), drive([0.35])[0], atol=0.01)


def test_messages_a_little_out_of_order_are_put_in_order():
    track = OdometryTrack()
    for s in (0.0, 0.2, 0.1, 0.3):
        track.add(odometry_message(s))
    assert np.allclose(track.pose(T0 + SECOND // 10, 0.0), drive([0.1])[0])


def transform(parent: str, child: str, x: float, seconds: float) -> SimpleNamespace:
    made = TransformStamped(child_frame_id=child)
    made.header.frame_id, made.header.stamp = parent, stamp(seconds)
    made.transform.translation.x, made.transform.rotation.w = x, 1.0
    return SimpleNamespace(transforms=[made])


@pytest.fixture
def listener() -> tuple[TransformListener, list[str]]:
    said: list[str] = []
    logger = SimpleNamespace(warning=lambda text, **options: said.append(text))
    return TransformListener(lambda: T0 + 10 * SECOND, logger), said


def test_tf_from_the_future_is_dropped_and_tf_that_goes_back_begins_anew(listener):
    tf, said = listener
    tf.take(transform("odom", "base_link", 1.0, 9.9))
    tf.take(transform("odom", "base_link", 2.0, 10.0))
    tf.take(transform("odom", "base_link", 99.0, 3600.0))
    assert len(said) == 1
    assert said[0].startswith(
        "tf odom -> base_link: it is stamped more than 2 s in the future and dropped: synchronise"
    )
    assert tf.tree.lookup("odom", "base_link", T0 + round(9.95 * SECOND))[0, 3] == pytest.approx(1.5)
    tf.take(transform("odom", "base_link", 5.0, 0.0))
    assert said[1:] == ["tf odom -> base_link: its stamps went back by 0.5 s or more: older transforms are dropped"]
    assert tf.tree.lookup("odom", "base_link", T0)[0, 3] == pytest.approx(5.0)
    assert tf.tree.lookup("odom", "base_link", T0 + 10 * SECOND) is None


def test_a_lookup_a_moment_after_the_newest_transform_goes_on_as_it_went(listener):
    tf, _ = listener
    tf.take_static(transform("/base_link", "/camera", 2.0, 0.0))
    for s in (9.8, 9.9, 10.0):
        tf.take(transform("/odom", "base_link", 10 * s, s))
    found = tf.tree.lookup("odom", "camera", T0 + round(10.04 * SECOND))
    assert found[0, 3] == pytest.approx(102.4)
    assert tf.tree.lookup("odom", "camera", T0 + round(10.6 * SECOND)) is None


def test_frames_with_a_leading_slash_are_the_same_frames():
    track = odometry_track(frame="/odom", child="/base_link")
    motion = move(ego_state(track, base_frame="/base_link"), path_message(PLANNED + 0.5, drive(PLANNED + 0.5)))
    assert (motion.source, motion.warning) == ("trajectory", "")
    np.testing.assert_allclose(motion.path.poses[5:], camera_truth()[5:], atol=1e-3)


@pytest.mark.parametrize("stamped", [True, False])
def test_a_plan_that_ends_before_the_forecast_stops_there_and_says_so(stamped):
    seconds = np.arange(0, 0.51, 0.05)
    motion = move(ego_state(odometry_track()), path_message(seconds, drive(seconds), stamped=stamped))
    assert motion.source.startswith("trajectory") and motion.warning == ENDS_EARLY
    np.testing.assert_allclose(motion.path.poses[:5], camera_truth()[:5], atol=2e-2)
    np.testing.assert_allclose(motion.path.poses[6:], np.tile(camera_truth()[5], (8, 1, 1)), atol=2e-2)


def test_a_plan_that_ends_at_standstill_ends_as_planned():
    seconds = np.append(np.arange(0, 0.51, 0.1), 0.6)
    motion = move(ego_state(odometry_track()), path_message(seconds, drive(np.minimum(seconds, 0.5))))
    assert motion.warning == ""
    np.testing.assert_allclose(motion.path.poses[6:], np.tile(camera_truth()[5], (8, 1, 1)), atol=1e-3)


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("some", [False, True])
def test_poses_with_zero_quaternions_head_along_the_path(stamped, some):
    """Planners that give positions only leave all four numbers at zero."""
    seconds = np.arange(-0.5, 3, 0.05)
    message = path_message(seconds, drive(seconds), stamped=stamped)
    for pose in message.poses[::2] if some else message.poses:
        pose.pose.orientation = Quaternion(w=0.0)
    motion = move(ego_state(odometry_track()), message)
    assert motion.source.startswith("trajectory") and motion.warning == ""
    np.testing.assert_allclose(motion.path.poses, camera_truth(), atol=5e-2)


def test_a_standing_path_of_zero_quaternions_has_no_heading():
    message = path_message(PLANNED, np.tile(np.eye(4), (21, 1, 1)))
    for pose in message.poses:
        pose.pose.orientation = Quaternion(w=0.0)
    with pytest.raises(PlanError, match="zero quaternion, and its positions define no heading"):
        plan_from_path(message, T0)


def test_the_arc_of_these_tests_is_driven_at_eight_metres_a_second():
    assert np.linalg.norm(ARC.at([0.1])[0, :3, 3] - ARC.at([0.0])[0, :3, 3]) == pytest.approx(0.8, abs=1e-3)


def test_a_body_frame_in_the_images_header_looks_ahead_with_a_warning():
    tree = TransformTree()
    tree.add_static("base_link", "camera", rigid(np.eye(3), [1.5, 0.0, 0.8]))
    ego = ego_state(odometry_track(), tree)
    np.testing.assert_allclose(move(ego).path.poses, move(ego_state(odometry_track())).path.poses, atol=1e-9)
    assert "is taken for the camera's body frame" in ego.mounting_fault("camera", T0)
    tree.add_static("base_link", "camera", AHEAD)
    assert ego_state(odometry_track(), tree).mounting_fault("camera", T0) == ""


def test_a_tf_that_does_not_know_the_camera_is_said():
    tree = TransformTree()
    assert ego_state(odometry_track(), tree).mounting_fault("camera", T0) == ""  # no tf at all: parameters are meant
    tree.add_static("base_link", "lidar", np.eye(4))
    fault = ego_state(odometry_track(), tree).mounting_fault("camera", T0)
    assert fault.startswith("tf does not connect the images' frame 'camera' with 'base_link': the parameters mounting")


def test_two_parents_of_a_frame_are_named():
    warnings: list[str] = []
    listener = TransformListener(lambda: None, SimpleNamespace(warning=lambda text, **_: warnings.append(text)))
    for parent in ("odom", "map"):
        transform = TransformStamped(child_frame_id="base_link")
        transform.header.frame_id, transform.header.stamp = parent, stamp(0.0)
        listener.take(SimpleNamespace(transforms=[transform]))
    assert warnings == ["tf gives 'base_link' the parents 'odom' and 'map', which take turns: only one can be right"]


def test_static_transforms_that_contradict_are_named():
    warnings: list[str] = []
    listener = TransformListener(lambda: None, SimpleNamespace(warning=lambda text, **_: warnings.append(text)))

    def transform(parent: str, z: float) -> SimpleNamespace:
        made = TransformStamped(child_frame_id="camera")
        made.header.frame_id, made.header.stamp, made.transform.translation.z = parent, stamp(0.0), z
        return SimpleNamespace(transforms=[made])

    for z in (1.0, 1.0):
        listener.take_static(transform("base_link", z))
    assert warnings == []
    listener.take_static(transform("base_link", 1.5))
    listener.take_static(transform("mast", 1.5))
    listener.take(transform("mast", 1.5))  # the same, repeated
    listener.take(transform("mast", 0.0))
    assert [text.partition(":")[0] for text in warnings[:2]] == ["tf_static", "tf_static"]
    assert "'camera' has another pose in an earlier static transform" in warnings[0]
    assert "'camera' has another parent in an earlier static transform" in warnings[1]
    (both,) = warnings[2:]
    assert "both tf and tf_static give 'camera'; tf_static is used" in both


def test_a_plan_whose_poses_are_in_another_frame_than_its_header_is_refused():
    message = path_message(PLANNED, drive(PLANNED))
    message.poses[3].header.frame_id = "map"
    with pytest.raises(PlanError, match="poses whose frame_id is not that of its header"):
        plan_from_path(message, T0)
    message.poses[3].header.frame_id = "/odom"
    assert len(plan_from_path(message, T0).poses) == len(PLANNED)


@pytest.mark.parametrize(
    "moved",
    [
        rigid(np.eye(3), [0.0, 5.0, 0.0]),  # another frame of the same name
        rigid(rotation_matrix([0, 0, 2.0]), [0.0, 0.0, 0.0]),  # orientations that are not filled
    ],
)
def test_a_plan_that_is_not_where_the_vehicle_is_gets_a_warning(moved):
    far = path_message(PLANNED, drive(PLANNED) @ moved)
    assert FAR_OFF in move(ego_state(odometry_track()), far).warning
    assert move(ego_state(odometry_track()), path_message(PLANNED, drive(PLANNED))).warning == ""


@pytest.mark.parametrize(
    ("pace", "stretch", "doubted"),
    [(1.0, 1.0, False), (0.8, 1.0, False), (2.5, 1.0, True), (0.25, 1.0, True), (1.0, 3.28, True), (1.0, 0.3, True)],
)
def test_a_plan_at_another_speed_than_the_vehicles_gets_a_warning(pace: float, stretch: float, doubted: bool) -> None:
    """Times in another unit, or positions in feet: the forecast flew along at 26 m/s for 8, without a word."""
    poses = drive(np.arange(0, 2.01, 0.1))
    start = drive([0.0])[0, :3, 3]
    poses[:, :3, 3] = start + stretch * (poses[:, :3, 3] - start)
    message = path_message(np.arange(0, 2.01, 0.1) / pace, poses)
    assert (OTHER_SPEED in move(ego_state(odometry_track()), message).warning) == doubted


def test_the_last_moment_of_a_plan_tells_no_speed() -> None:
    seconds = np.arange(-1, 0.11, 0.1)
    motion = move(ego_state(odometry_track()), path_message(seconds, drive(seconds)))
    assert motion.warning == ENDS_EARLY


def test_a_plan_in_other_units_or_on_another_clock_is_refused():
    millimetres = drive(PLANNED)
    millimetres[:, :3, 3] *= 1000
    with pytest.raises(PlanError, match="faster than 200 m/s: positions must be in metres"):
        plan_from_path(path_message(PLANNED, millimetres), T0)
    motion = move(ego_state(odometry_track()), path_message(PLANNED + 1e6, drive(PLANNED)))
    assert motion.source == "constant velocity from odometry"
    assert "begins long after the forecast ends: are its times on the images' clock?" in motion.warning
