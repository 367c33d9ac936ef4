# SPDX-License-Identifier: Apache-2.0
"""What the node says when inputs are missing."""

from __future__ import annotations

from pixel4d_ros.logs.streams import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, ODOMETRY
from pixel4d_ros.ros.input_watch import WatchedInput, missing_inputs

INPUTS = (
    WatchedInput("image", "/image", IMAGE, required=True),
    WatchedInput("camera_info", "/camera_info", CAMERA_INFO, required=True),
    WatchedInput("odometry", "/odometry", ODOMETRY),
)
CAMERA = {"/front/image_raw": [IMAGE], "/front/camera_info": [CAMERA_INFO], "/front/depth/image": [IMAGE]}


def test_an_empty_graph_names_what_is_required_and_the_domain():
    image, info = missing_inputs(INPUTS, set(), {})
    assert image.startswith("no image yet: nobody publishes /image (sensor_msgs/msg/Image)")
    assert "ROS_DOMAIN_ID" in image
    assert info.startswith("no camera_info yet")


def test_candidates_of_the_graph_are_named_and_depth_is_no_picture():
    image, info = missing_inputs(INPUTS, set(), CAMERA)
    assert image.endswith("remap image to /front/image_raw")
    assert info.endswith("remap camera_info to /front/camera_info")


def test_optional_inputs_are_named_where_the_graph_offers_them():
    (odometry,) = missing_inputs(INPUTS, {"image", "camera_info"}, {"/odom": [ODOMETRY]})
    assert odometry.endswith("remap odometry to /odom")
    assert missing_inputs(INPUTS, {"image", "camera_info"}, {}) == []


def test_another_transport_is_told_with_its_parameter():
    (line,) = missing_inputs(INPUTS[:1], set(), {"/image": [COMPRESSED_IMAGE]})
    assert line.endswith("set image_transport to compressed")
    (line,) = missing_inputs(INPUTS[:1], set(), {"/cam/image_raw/compressed": [COMPRESSED_IMAGE]})
    assert line.endswith("remap image to /cam/image_raw/compressed and set image_transport to compressed")


def test_a_publisher_that_sends_nothing_is_told():
    (line,) = missing_inputs(INPUTS[:1], set(), {"/image": [IMAGE]})
    assert "has a publisher, but no message arrived" in line


def test_what_was_seen_is_not_named():
    assert missing_inputs(INPUTS, {"image", "camera_info", "odometry"}, CAMERA) == []


def test_many_candidates_are_counted():
    graph = {f"/camera{i}/image_raw": [IMAGE] for i in range(9)}
    (line,) = missing_inputs(INPUTS[:1], set(), graph)
    assert line.count("/image_raw") == 5
    assert line.endswith("and 4 more")
