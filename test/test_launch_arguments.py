# SPDX-License-Identifier: Apache-2.0
"""Launch arguments: what a bag alone gives, and what is refused; without launch and rclpy."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rosbags import rosbag2
from support.log_samples import entries, write_mcap, write_rosbag1, write_rosbag2
from support.paths import shared_path

from pixel4d_ros.logs.reader import LogError, LogReader
from pixel4d_ros.ros.launch_arguments import ARGUMENTS, completed, from_bag, misspelled, node_parameters
from pixel4d_ros.ros.parameters import Parameters, updated

DEFAULTS = {argument.name: argument.default for argument in ARGUMENTS}


def test_without_a_bag_topics_have_the_names_of_the_node():
    values, lines = completed(DEFAULTS)
    assert values["image_topic"] == "image"
    assert values["odometry_topic"] == "odometry"
    assert lines == []
    assert node_parameters(values) == {}


def test_a_bag_alone_gives_topics_types_and_mounting(tmp_path):
    log = write_mcap(tmp_path / "a.mcap", entries(compressed=True, path=True))
    values, lines = completed(DEFAULTS | {"bag": str(log)})
    assert values["image_topic"] == "/camera/left/image_raw/compressed"
    assert values["camera_info_topic"] == "/camera/left/camera_info"
    assert values["odometry_topic"] == "/odometry"
    assert values["trajectory_topic"] == "/planned_path"
    parameters = node_parameters(values)
    assert parameters["image_transport"] == "compressed"
    assert parameters["base_frame"] == "base_link"
    assert parameters["mounting.translation"] == pytest.approx([2.0, 0.5, 1.0])
    text = "\n".join(lines)
    assert (
        "image_topic:=/camera/left/image_raw/compressed (sensor_msgs/CompressedImage, 6 messages, frame camera)" in text
    )
    assert "base_frame:=base_link (its poses are in odom)" in text
    updated(Parameters(), parameters)  # the node takes them


@pytest.mark.parametrize("kind", ["rosbag2", "rosbag1"])
def test_other_bags_give_the_same_topics(tmp_path, kind):
    if kind == "rosbag1":
        log = write_rosbag1(tmp_path / "a.bag")
    else:
        log = write_rosbag2(tmp_path / "a", entries(), rosbag2.StoragePlugin.SQLITE3)
    found = from_bag(log).values
    assert found["image_topic"] == "/camera/left/image_raw"
    assert found["image_transport"] == "raw"
    assert found["odometry_topic"] == "/odometry"


def test_what_is_given_wins_over_the_bag(tmp_path):
    log = write_mcap(tmp_path / "a.mcap", entries(compressed=True))
    values, _ = completed(DEFAULTS | {"bag": str(log), "odometry_topic": "/odom", "base_frame": "base_footprint"})
    assert values["odometry_topic"] == "/odom"
    assert node_parameters(values)["base_frame"] == "base_footprint"


def test_a_bag_without_a_plan_says_what_the_camera_does_instead(tmp_path):
    log = write_mcap(tmp_path / "a.mcap", entries())
    _, lines = completed(DEFAULTS | {"bag": str(log)})
    assert "no plan: the camera moves on with the velocity of odometry" in lines[-1]


def test_a_bag_without_poses_says_whose_mounting_holds(tmp_path):
    poses = ("/tf", "/tf_static", "/odometry")
    log = write_mcap(tmp_path / "a.mcap", (e for e in entries() if e.topic not in poses))
    values, lines = completed(DEFAULTS | {"bag": str(log)})
    assert values["base_frame"] == ""
    assert any("mounting: the parameters' own, as the log does not give it" in line for line in lines)
    assert "no odometry: without a plan the camera stands" in lines[-1]


def test_a_mounting_that_is_assumed_is_named_so(tmp_path):
    log = write_mcap(tmp_path / "a.mcap", (e for e in entries() if e.topic != "/tf_static"))
    _, lines = completed(DEFAULTS | {"bag": str(log)})
    (line,) = (line for line in lines if "mounting_rotation:=" in line)
    assert "no tf_static from base_link to camera" in line


def test_a_bag_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(LogError, match="does not exist"):
        completed(DEFAULTS | {"bag": str(tmp_path / "none.mcap")})


def test_a_params_file_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"params_file:=.*there is no such file"):
        completed(DEFAULTS | {"params_file": str(tmp_path / "none.yaml")})


def test_a_list_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"mounting.translation must be a list of numbers"):
        node_parameters(DEFAULTS | {"mounting_translation": "[1, two]"})


def test_every_parameter_is_one_of_the_node():
    texts = {"mounting_translation": json.dumps([1, 2, 3]), "mounting_rotation": json.dumps([0, 0, 0, 1])}
    switches = {a.name: "true" for a in ARGUMENTS if a.choices[1:] == ("true", "false")}
    others = {"image_transport": "raw", "depth_transport": "raw", "device": "cpu", "base_frame": "base"}
    updated(Parameters(), node_parameters(DEFAULTS | texts | switches | others))


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_shared_log_is_understood(split):
    logs = sorted(Path(shared_path(f"logs/{split}")).glob("*.mcap"))
    assert logs
    for log in logs:
        found = from_bag(log).values
        assert {"image_topic", "camera_info_topic", "odometry_topic", "base_frame", "mounting_rotation"} <= set(found)


def test_a_launch_reads_the_mounting_from_the_start_of_a_long_bag(tmp_path, monkeypatch):
    log = write_mcap(tmp_path / "a.mcap", entries(700, path=True))
    decoded = []
    decode = LogReader.decode
    monkeypatch.setattr(LogReader, "decode", lambda self, raw: decoded.append(raw.topic) or decode(self, raw))
    values = from_bag(log).values
    assert values["mounting_translation"] == "[2.0, 0.5, 1.0]"
    assert decoded.count("/odometry") <= 20 * 60 + 2  # of 70 s at 20 Hz
    assert "/planned_path" not in decoded


def test_a_mounting_that_comes_late_in_a_bag_is_found(tmp_path):
    items = list(entries(700))
    mounting = replace(items[0], time_ns=items[-1].time_ns)
    log = write_mcap(tmp_path / "a.mcap", [*items[1:], mounting])
    assert from_bag(log).values["mounting_translation"] == "[2.0, 0.5, 1.0]"


def test_a_launch_reads_its_bag_without_what_takes_long_to_import(tmp_path):
    """Importing torch takes seconds and scipy most of one, in which nothing would be started."""
    log = write_mcap(tmp_path / "a.mcap", entries(compressed=True, path=True))
    code = (
        "import sys; from pixel4d_ros.ros.launch_arguments import from_bag; "
        f"assert from_bag({str(log)!r}).values['base_frame'] == 'base_link'; "
        "assert not {'torch', 'scipy', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_forecasts_need_no_scipy():
    """The node's first forecast would wait for its import."""
    code = "import sys, pixel4d_ros.forecaster, pixel4d_ros.outputs.tracked_scene; assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("rate", ["fast", "0", "-1", "nan", "inf", ""])
def test_a_rate_that_is_no_speed_is_refused(rate):
    with pytest.raises(ValueError, match=r"bag_rate:=.* must be a positive number"):
        completed(DEFAULTS | {"bag_rate": rate})


def test_arguments_that_are_misspelled_are_named_and_those_of_other_launch_files_are_not():
    (line,) = misspelled([*DEFAULTS, "image_topics", "world", "robot_model"])
    assert line == "image_topics:= is no argument and has no effect: is image_topic:= meant?"
