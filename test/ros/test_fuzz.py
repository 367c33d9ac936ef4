# SPDX-License-Identifier: Apache-2.0
"""Any message that DDS can deliver is read, or refused with a ValueError. test_fuzz_node.py sends them to the node.

`PIXEL4D_FUZZ=2000 pytest test/ros/test_fuzz.py` tries that many examples per test in place of a few.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import TransformStamped
from support import fuzz
from support.any_message import any_message
from support.drive import T0, TIMES, ego_state, odometry_track
from support.harness import calibration, image, picture
from trajectory_msgs.msg import MultiDOFJointTrajectory

from pixel4d_ros.geometry.rectification import Rectifier
from pixel4d_ros.ros.inputs import (
    CalibrationSource,
    InputFault,
    Inputs,
    TrajectoryMessage,
    read_depth,
    read_plan,
    read_source,
)
from pixel4d_ros.ros.odometry import OdometryTrack
from pixel4d_ros.ros.plans import PLAN_READERS
from pixel4d_ros.ros.trajectory import ego_motion
from pixel4d_ros.ros.transforms import TransformListener

EXAMPLES = int(os.environ.get("PIXEL4D_FUZZ", "0"))
pytestmark = [pytest.mark.ros, pytest.mark.timeout(300 + 2 * EXAMPLES)]
many = settings(max_examples=EXAMPLES or 60, deadline=None, suppress_health_check=list(HealthCheck))
RECTIFIER = Rectifier()


def trajectories(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Like messages of packages that only ROS distributions have: a header, and points with these fields and a pose."""
    points = st.builds(SimpleNamespace, pose=fuzz.poses, **fields)
    return st.builds(SimpleNamespace, header=fuzz.headers, points=st.lists(points, max_size=6))


durations = any_message(Duration)
PLANS = {
    "nav_msgs/Path": fuzz.paths,
    "trajectory_msgs/MultiDOFJointTrajectory": any_message(MultiDOFJointTrajectory),
    "nav_msgs/Trajectory": trajectories(header=fuzz.headers),
    "nav2_msgs/Trajectory": trajectories(time_from_start=durations),
    "autoware_planning_msgs/Trajectory": trajectories(
        time_from_start=durations | st.just(Duration()), longitudinal_velocity_mps=fuzz.numbers
    ),
}


def result_or_fault(read: Callable[[], Any]) -> Any:
    """What read returns, or the InputFault that it raises; any other exception is a failure."""
    try:
        return read()
    except InputFault as fault:
        assert str(fault)  # noqa: PT017 (every fault says why)
        return fault


@many
@given(fuzz.images() | fuzz.compressed_images(), fuzz.camera_infos)
def test_any_image_with_any_calibration(message, info):
    for known in (info, calibration(1.0)):
        calibrations = CalibrationSource(known, "camera_info")
        source = result_or_fault(lambda c=calibrations: read_source(message, c, RECTIFIER, rectify=True))
        if isinstance(source, InputFault):
            assert source.place in ("image", "camera_info")
        else:
            assert source.rgb.shape == (source.size[1], source.size[0], 3) and np.isfinite(source.camera.K).all()


@many
@given(fuzz.camera_infos)
def test_any_calibration_of_a_good_image(info):
    source = result_or_fault(
        lambda: read_source(image(1.0, picture()), CalibrationSource(info, "camera_info"), RECTIFIER, rectify=True)
    )
    if isinstance(source, InputFault):
        assert source.place == "camera_info"
    else:
        assert source.size == (208, 64) and np.isfinite(source.camera.K).all()


@many
@given(fuzz.images() | fuzz.compressed_images())
def test_any_depth(message):
    source = read_source(image(1.0, picture()), CalibrationSource(calibration(1.0), ""), RECTIFIER, rectify=True)
    metres = result_or_fault(lambda: read_depth(message, source))
    if isinstance(metres, InputFault):
        assert metres.place == "depth"
    else:
        assert metres.shape == (64, 208) and np.isfinite(metres).all() and (metres >= 0).all()


@pytest.mark.parametrize("kind", PLANS)
@many
@given(st.data())
def test_any_plan(kind, data):
    inputs = Inputs(trajectory=TrajectoryMessage(data.draw(PLANS[kind]), T0, PLAN_READERS[kind]))
    for ego in (ego_state(), ego_state(odometry_track())):
        motion = ego_motion(read_plan(inputs), ego, "camera", T0, TIMES)
        assert motion.path.poses.shape == (len(TIMES), 4, 4) and np.isfinite(motion.path.poses).all()


@many
@given(fuzz.odometry, fuzz.odometry)
def test_any_odometry(first, second):
    track = OdometryTrack()
    for message in (first, second, first):
        with suppress(ValueError):
            track.add(message, T0)
    for stamp_ns in (T0, second.header.stamp.sec * 10**9):
        motion = ego_motion(None, ego_state(track), "camera", stamp_ns, TIMES)
        assert np.isfinite(motion.path.poses).all()


@many
@given(st.lists(any_message(TransformStamped), max_size=8))
def test_any_transforms(transforms):
    said: list[str] = []
    listener = TransformListener(lambda: T0, SimpleNamespace(warning=lambda text, **_: said.append(text)))
    for take in (listener.take, listener.take_static):
        take(SimpleNamespace(transforms=transforms))
    for frame in ("odom", "map", "camera", ""):
        pose = listener.tree.lookup(frame, "base_link", T0)
        assert pose is None or np.isfinite(pose).all()
