# SPDX-License-Identifier: Apache-2.0
"""Labelled boxes from vision_msgs/Detection3DArray messages of a log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore
from support.log_samples import START, entries, header

from pixel4d_ros.datasets.box_labels import labelled
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.logs.reader import LogError
from pixel4d_ros.logs.types import jazzy_types
from pixel4d_ros.logs.writer import LogWriter

ARRAY = "vision_msgs/msg/Detection3DArray"
DEFINITIONS = {
    "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score",
    "vision_msgs/msg/ObjectHypothesisWithPose": (
        "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose"
    ),
    "vision_msgs/msg/BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size",
    "vision_msgs/msg/Detection3D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
        "vision_msgs/BoundingBox3D bbox\nstring id"
    ),
    ARRAY: "std_msgs/Header header\nvision_msgs/Detection3D[] detections",
}


def vision_types() -> Typestore:
    store = get_typestore(Stores.EMPTY)
    own = {k: v for name, text in DEFINITIONS.items() for k, v in get_types_from_msg(text, name).items()}
    store.register({**jazzy_types().fielddefs, **own})
    return store


def write_log(path: Path, frame: str, places: list[dict[str, tuple[float, float, float]]]) -> Path:
    """The sample log with detections: per image, the place of each track in a frame."""
    store = vision_types()
    t = store.types
    with LogWriter(path) as log:
        log.add_topic("/labels", ARRAY, store.generate_msgdef(ARRAY, ros_version=2)[0])
        for entry in entries():
            log.write(entry.topic, entry.time_ns, entry.message)
        for i, tracks in enumerate(places):
            stamp = START + i * 100_000_000
            found = []
            for name, place in tracks.items():
                pose = t["geometry_msgs/msg/Pose"](
                    t["geometry_msgs/msg/Point"](*place), t["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
                )
                anywhere = t["geometry_msgs/msg/PoseWithCovariance"](pose, np.zeros(36))
                hypothesis = t["vision_msgs/msg/ObjectHypothesis"]("car", 1.0)
                result = t["vision_msgs/msg/ObjectHypothesisWithPose"](hypothesis, anywhere)
                size = t["geometry_msgs/msg/Vector3"](4.5, 1.8, 1.5)
                box = t["vision_msgs/msg/BoundingBox3D"](pose, size)
                found.append(t["vision_msgs/msg/Detection3D"](header(t, stamp, frame), [result], box, name))
            log.write("/labels", stamp, t[ARRAY](header(t, stamp, frame), found))
    return path


def test_detections_in_the_odometrys_frame_become_boxes_in_the_camera(tmp_path: Path) -> None:
    places = [{"parked": (20.0, 3.0, 0.5), "van": (15.0 + 0.8 * i, -2.0, 0.5)} for i in range(4)]
    path = write_log(tmp_path / "a.mcap", "odom", places)
    clip = labelled(read_clip(path), path)
    assert clip.boxes is not None
    assert [len(boxes) for boxes in clip.boxes] == [2, 2, 2, 2, 0, 0]
    for i in range(4):
        parked, van = clip.boxes[i]
        assert (parked.track, parked.label, parked.moving) == (1, "car", False) and (van.track, van.moving) == (2, True)
        world = clip.poses[i] @ van.T_camera_box
        np.testing.assert_allclose(world[:3, 3], places[i]["van"], atol=1e-3)
        np.testing.assert_allclose(van.size, (4.5, 1.8, 1.5))


def test_detections_in_the_frame_of_the_base_move_with_it(tmp_path: Path) -> None:
    path = write_log(tmp_path / "a.mcap", "base_link", [{"ahead": (12.0, 0.0, 1.0)}] * 6)
    boxes = labelled(read_clip(path), path).boxes
    assert boxes is not None
    for (box,) in boxes:  # the camera is 2 m ahead of the base and half a metre to its left
        np.testing.assert_allclose(box.T_camera_box[:3, 3], (0.5, 0.0, 10.0), atol=1e-2)
        assert box.moving


def test_a_log_without_detections_has_no_boxes(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with LogWriter(path) as log:
        for entry in entries():
            log.write(entry.topic, entry.time_ns, entry.message)
    assert labelled(read_clip(path), path).boxes is None


def test_two_topics_of_detections_are_named(tmp_path: Path) -> None:
    store = vision_types()
    t = store.types
    path = tmp_path / "a.mcap"
    with LogWriter(path) as log:
        for entry in entries():
            log.write(entry.topic, entry.time_ns, entry.message)
        for topic in ("/one", "/two"):
            log.add_topic(topic, ARRAY, store.generate_msgdef(ARRAY, ros_version=2)[0])
            log.write(topic, START, t[ARRAY](header(t, START, "odom"), []))
    with pytest.raises(LogError, match="detections on /one and /two"):
        labelled(read_clip(path), path)
