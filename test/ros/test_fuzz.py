# SPDX-License-Identifier: Apache-2.0
"""Any message that DDS can deliver is read, or refused with a ValueError; the node lives on and forecasts the next one.

`PIXEL4D_FUZZ=2000 pytest test/ros/test_fuzz.py` tries that many examples per test in place of a few.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from support import fuzz
from support.drive import T0, TIMES, ego_state, odometry_track
from support.harness import calibration, image, picture, recovers

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
from pixel4d_ros.ros.plans import plan_from_path
from pixel4d_ros.ros.trajectory import ego_motion

PARAMETERS = {"steps": 2, "diagnostics_period": 0.2}
EXAMPLES = int(os.environ.get("PIXEL4D_FUZZ", "0"))
pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context"), pytest.mark.timeout(300 + 2 * EXAMPLES)]
many = settings(max_examples=EXAMPLES or 60, deadline=None, suppress_health_check=list(HealthCheck))
few = settings(max_examples=EXAMPLES or 20, deadline=None, suppress_health_check=list(HealthCheck))
RECTIFIER = Rectifier()


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


@many
@given(fuzz.paths)
def test_any_plan(message):
    inputs = Inputs(trajectory=TrajectoryMessage(message, T0, plan_from_path))
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


@few
@given(fuzz.images(), fuzz.camera_infos, fuzz.paths, fuzz.odometry)
def test_any_messages_over_dds(node, client, message, info, path, odometry):
    client.info.publish(info)
    client.trajectory.publish(path)
    client.odometry.publish(odometry)
    client.image.publish(message)
    client.info.publish(calibration(1.0))
    client.image.publish(image(1.0, picture()))
    client.spin_for(0.05)
    assert node.process.poll() is None


def test_after_all_that_the_node_forecasts(node, client):
    recovers(client, 1e6)
    assert "Traceback" not in node.log, node.log[-3000:]
