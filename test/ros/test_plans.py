# SPDX-License-Identifier: Apache-2.0
"""Trajectories of every message type: read into the same plan, wherever their frame lies; refused with the reason."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import PoseStamped, Quaternion, Transform, Vector3
from nav_msgs.msg import Odometry, Path
from std_msgs.msg import Header
from support.harness import Client, running_node, stamp
from support.node_process import ForkedNodeProcess
from support.waiting import PATIENCE
from trajectory_msgs.msg import MultiDOFJointTrajectory, MultiDOFJointTrajectoryPoint

from pixel4d_ros.camera import CameraPath
from pixel4d_ros.geometry.rotations import FloatArray, rigid, rigid_from_xyzw, rotation_matrix
from pixel4d_ros.ros.messages.conversions import pose_message
from pixel4d_ros.ros.messages.headers import duration_message
from pixel4d_ros.ros.odometry import OdometryTrack
from pixel4d_ros.ros.parameters import TRAJECTORY_TYPES
from pixel4d_ros.ros.plans import MAX_POSES, PLAN_READERS, PlanError, plan_type
from pixel4d_ros.ros.trajectory import ENDS_EARLY, EgoMotion, ego_motion
from pixel4d_ros.ros.transforms import EgoState, NullTransforms

pytestmark = pytest.mark.ros
NOW = 1_700_000_000_000_000_000  # harness.T0, ns
TIMES = np.arange(14) * 0.1
PLANNED = np.arange(0, 2.01, 0.1)
MOUNTING = rigid_from_xyzw([-0.5, 0.5, -0.5, 0.5], [1.5, 0.0, 0.8])
ARC = CameraPath.constant_twist([8.0, 0, 0], [0, 0, 0.3], 5.0, step=0.01)


def header(frame: str = "odom", seconds: float = 0.0) -> Header:
    return Header(frame_id=frame, stamp=stamp(seconds))


def path_of(seconds, poses) -> Path:
    stamped = [PoseStamped(header=header(seconds=s), pose=pose_message(T)) for s, T in zip(seconds, poses)]
    return Path(header=header(), poses=stamped)


def multi_dof(seconds, poses) -> MultiDOFJointTrajectory:
    message = MultiDOFJointTrajectory(header=header(), joint_names=["base_link"])
    for s, T in zip(seconds, poses):
        p = pose_message(T)
        x, y, z = T[:3, 3]
        transform = Transform(translation=Vector3(x=x, y=y, z=z), rotation=p.orientation)
        message.points.append(MultiDOFJointTrajectoryPoint(transforms=[transform], time_from_start=duration_message(s)))
    return message


def nav_trajectory(seconds, poses) -> Any:
    """Like the message of newer distributions than Jazzy."""
    points = [SimpleNamespace(header=header(seconds=s), pose=pose_message(T)) for s, T in zip(seconds, poses)]
    return SimpleNamespace(header=header(), points=points)


def nav2_trajectory(seconds, poses) -> Any:
    """Like the message of nav2_msgs."""
    points = [
        SimpleNamespace(time_from_start=duration_message(s), pose=pose_message(T)) for s, T in zip(seconds, poses)
    ]
    return SimpleNamespace(header=header(), points=points)


def autoware(seconds, poses, timed: bool = True, speed: float = 8.0) -> Any:
    """Like the message of autoware_planning_msgs, which is in ROS distributions only."""
    message = nav2_trajectory(seconds if timed else np.zeros(len(seconds)), poses)
    for point in message.points:
        point.longitudinal_velocity_mps = speed
    return message


MAKERS = {
    "nav_msgs/Path": path_of,
    "trajectory_msgs/MultiDOFJointTrajectory": multi_dof,
    "nav_msgs/Trajectory": nav_trajectory,
    "nav2_msgs/Trajectory": nav2_trajectory,
    "autoware_planning_msgs/Trajectory": autoware,
    "autoware without times": lambda seconds, poses: autoware(seconds, poses, timed=False),
}


def read(name: str, message: Any):
    return PLAN_READERS[name if name in PLAN_READERS else "autoware_planning_msgs/Trajectory"](message, NOW)


def ego_state(T_odom: FloatArray) -> EgoState:
    track = OdometryTrack()
    for s in (-0.1, 0.0):
        message = Odometry(header=header(seconds=s), child_frame_id="base_link")
        message.pose.pose = pose_message(T_odom @ ARC.at([s])[0])
        track.add(message)
    return EgoState(track, NullTransforms(), MOUNTING)


def moved(name: str, T_odom: FloatArray, seconds=PLANNED) -> EgoMotion:
    plan = read(name, MAKERS[name](seconds, T_odom @ ARC.at(seconds)))
    return ego_motion(plan, ego_state(T_odom), "camera", NOW, TIMES)


def test_every_type_has_a_reader_and_a_parameter_value():
    assert tuple(PLAN_READERS) == TRAJECTORY_TYPES


@pytest.mark.parametrize("name", MAKERS)
def test_every_type_moves_the_camera_the_same_way(name):
    motion = moved(name, np.eye(4))
    assert motion.source == "trajectory" and motion.warning == ""
    truth = np.linalg.inv(MOUNTING) @ ARC.at(TIMES) @ MOUNTING
    assert np.abs(motion.path.poses - truth).max() < 5e-3


numbers = st.floats(-3, 3)
vectors = st.tuples(numbers, numbers, numbers)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=10, deadline=None)
@given(turn=vectors, shift=vectors)
def test_a_rigid_motion_of_trajectory_and_frame_leaves_the_camera_path_unchanged(name, turn, shift):
    T = rigid(rotation_matrix(turn), np.multiply(shift, 1000))
    assert np.abs(moved(name, T).path.poses - moved(name, np.eye(4)).path.poses).max() < 1e-3


@pytest.mark.parametrize("name", MAKERS)
def test_short_trajectories_end_where_they_end(name):
    short = moved(name, np.eye(4), np.arange(0, 0.31, 0.1))
    assert np.abs(short.path.poses - moved(name, np.eye(4)).path.poses[[0, 1, 2, *[3] * 11]]).max() < 2e-2
    assert short.warning == ENDS_EARLY


def test_a_planned_stop_is_a_stop():
    seconds = np.arange(0, 1.01, 0.1)
    poses = np.tile(np.eye(4), (11, 1, 1))
    poses[:, 0, 3] = 8 * seconds - 4 * seconds**2  # 8 m/s, braking at 8 m/s^2
    message = autoware(seconds, poses, timed=False)
    for point, s in zip(message.points, seconds):
        point.longitudinal_velocity_mps = float(8 - 8 * s)
    motion = ego_motion(read("autoware", message), ego_state(np.eye(4)), "camera", NOW, TIMES)
    assert motion.path.poses[5, 2, 3] == pytest.approx(8 * 0.5 - 4 * 0.25, abs=1e-3)
    assert motion.path.poses[10:, 2, 3] == pytest.approx(4.0, abs=1e-3)


def test_untimed_points_without_speeds_are_timed_by_odometry():
    plan = read("autoware", autoware(PLANNED, ARC.at(PLANNED), timed=False, speed=0.0))
    assert plan.times_ns is None


def broken(kind: str) -> tuple[str, Any]:
    message = multi_dof(PLANNED, ARC.at(PLANNED))
    if kind == "no transforms":
        message.points[3].transforms = []
    elif kind == "short quaternion":
        message.points[3].transforms[0].rotation = Quaternion(w=0.5)
    elif kind == "backwards":
        message.points[3].time_from_start = Duration()
    elif kind == "endless":
        message.points = message.points[:1] * (MAX_POSES + 1)
    elif kind == "NaN speeds":
        return "autoware", autoware(PLANNED, ARC.at(PLANNED), timed=False, speed=np.nan)
    elif kind == "empty":
        return "autoware", autoware([], [])
    return "trajectory_msgs/MultiDOFJointTrajectory", message


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no transforms", "points without transforms"),
        ("short quaternion", "unit quaternion"),
        ("backwards", "do not increase"),
        ("endless", "more than 10000 poses"),
        ("NaN speeds", "speeds that are NaN or Inf"),
        ("empty", "trajectory is empty"),
    ],
)
def test_broken_trajectories_are_refused_with_the_reason(kind, words):
    with pytest.raises(PlanError, match=words):
        read(*broken(kind))


def test_types_that_are_not_installed_say_what_to_install():
    assert plan_type("trajectory_msgs/MultiDOFJointTrajectory") is MultiDOFJointTrajectory
    with pytest.raises(ImportError, match="autoware_planning_msgs/Nothing is not installed here: install"):
        plan_type("autoware_planning_msgs/Nothing")


@pytest.fixture
def context():
    rclpy.init()
    yield
    rclpy.try_shutdown()


def test_a_multi_dof_trajectory_over_dds(tmp_path, context):
    parameters = {"steps": 3, "trajectory_type": "trajectory_msgs/MultiDOFJointTrajectory", "diagnostics_period": 0.2}
    with running_node(tmp_path / "log.txt", "-r", "__ns:=/dof", **parameters):
        client = Client(namespace="dof")
        try:
            client.destroy_publisher(client.trajectory)
            client.trajectory = client.create_publisher(MultiDOFJointTrajectory, "trajectory", 1)
            client.connect()
            for _ in range(3):
                client.send_odometry(0.0)
            straight = np.tile(np.eye(4), (21, 1, 1))
            straight[:, 0, 3] = 6 * PLANNED
            client.trajectory.publish(multi_dof(PLANNED, straight))
            client.settle()
            poses = client.forecast(0.0).camera_poses
            assert [p.position.z for p in poses] == pytest.approx([0, 0.6, 1.2], abs=1e-5)
            assert client.values()["motion source"] == "trajectory"
        finally:
            client.destroy_node()


def test_a_node_without_the_type_says_so_in_one_line(tmp_path):
    pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")
    try:
        import autoware_planning_msgs.msg  # noqa: F401
    except ImportError:
        node = ForkedNodeProcess(tmp_path / "log.txt", trajectory_type="autoware_planning_msgs/Trajectory")
        assert node.process.wait(PATIENCE) == 1
        lines = node.log.strip().splitlines()
        assert len(lines) == 1 and "autoware_planning_msgs/Trajectory is not installed here: install" in lines[0]
    else:
        pytest.skip("it is installed here")


def test_a_drive_of_centuries_at_the_planned_speeds_is_refused():
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[1:, 0, 3] = 9e8, 9.1e8  # metres
    with pytest.raises(PlanError, match=r"takes more than 1e\+06 s at its speeds"):
        read("autoware without times", autoware([0.0, 1.0, 2.0], poses, timed=False, speed=0.02))
