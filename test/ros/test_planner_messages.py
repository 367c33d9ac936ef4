# SPDX-License-Identifier: Apache-2.0
"""Messages for planners: predicted objects in three dialects, closest things, footprints of requests."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from geometry_msgs.msg import Point32, Polygon, Pose, PoseWithCovariance, TwistWithCovariance
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from pixel4d_ros.outputs.clearance import ClosestPoints, Footprint
from pixel4d_ros.outputs.tracking import TrackedObject
from pixel4d_ros.ros.messages.closest import closest_messages, requested_footprint
from pixel4d_ros.ros.messages.objects import autoware_objects, predicted_objects_message, vision_detections

pytestmark = pytest.mark.ros
TIMES = np.array([0.0, 0.5, 1.0])
COVARIANCE = np.diag([0.1, 0.2, 0.3, 1.0, 2.0, 3.0])
CAR = TrackedObject(
    7, 2, "Car", np.array([10.0, 2.0, 0.8]), np.array([4.5, 1.8, 1.5]), np.pi / 2, np.array([0.0, 6.0, 0.0]),
    COVARIANCE, 0.95, 0.9, 1.0, 2.0,
)  # fmt: skip


def message(*objects: TrackedObject) -> Any:
    return predicted_objects_message(objects or [CAR], TIMES, Header(frame_id="odom"))


def test_an_object_keeps_its_id_and_most_likely_its_velocity() -> None:
    (car,) = message().objects
    assert (car.id, car.label, car.detected) == (7, "Car", True) and car.size.x == 4.5
    assert car.existence_probability == pytest.approx(0.95) and car.moving_probability == pytest.approx(0.9)
    assert np.reshape(car.pose.covariance, (6, 6))[1, 1] == 0.2 and np.reshape(car.twist.covariance, (6, 6))[2, 2] == 3
    path = car.paths[0]
    assert path.maneuver == path.CONSTANT_VELOCITY and path.probability == pytest.approx(0.3)
    assert [p.position.y for p in path.poses] == pytest.approx([2.0, 5.0, 8.0])
    assert [t.sec + 1e-9 * t.nanosec for t in path.time_from_start] == [0.0, 0.5, 1.0]
    assert path.poses[0].orientation.z == pytest.approx(np.sin(np.pi / 4))


def test_an_object_may_stand_turn_brake_or_accelerate() -> None:
    (car,) = message().objects
    ends = {path.maneuver: path.poses[-1].position for path in car.paths}
    kind = type(car.paths[0])
    assert set(ends) == set(range(6)) and sum(path.probability for path in car.paths) == pytest.approx(1)
    assert ends[kind.STANDING].y == 2.0
    # It drives along y: its left is towards -x.
    assert ends[kind.LEFT].x < 10 < ends[kind.RIGHT].x
    assert ends[kind.STANDING].y < ends[kind.BRAKING].y < 8.0 < ends[kind.ACCELERATING].y


def test_a_class_guessed_from_the_size_is_labelled_as_a_guess() -> None:
    (known,) = message().objects
    assert (known.label_source, known.label_probability) == (known.LABEL_PREDICTED, 1.0)
    (guessed,) = message(replace(CAR, label="")).objects
    assert guessed.label == "Car" and guessed.label_source == guessed.LABEL_GUESSED_FROM_SIZE
    assert 0.5 < guessed.label_probability < 1
    (unknown,) = message(replace(CAR, label="", size=np.full(3, 0.3))).objects
    assert (unknown.label, unknown.label_probability, unknown.label_source) == ("", 0.0, unknown.LABEL_UNKNOWN)


class Stand:
    """A message class that takes any fields, with those of the real one that are set field by field."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


def stand_in(**made: Any) -> Any:
    """A message class whose fields `made` are there from the start."""
    return lambda **fields: Stand(**{name: make() for name, make in made.items()}, **fields)


AUTOWARE = SimpleNamespace(
    PredictedObject=stand_in(
        object_id=Stand, shape=Stand, kinematics=lambda: Stand(initial_twist_with_covariance=TwistWithCovariance())
    ),
    ObjectClassification=Stand, PredictedPath=Stand, PredictedObjects=Stand,
)  # fmt: skip
VISION = SimpleNamespace(
    Detection3D=stand_in(bbox=Stand), ObjectHypothesisWithPose=stand_in(hypothesis=Stand), Detection3DArray=Stand
)


def test_autoware_gets_the_same_object_with_its_twist_in_the_boxs_axes() -> None:
    out = autoware_objects(message(), AUTOWARE)
    (car,) = out.objects
    twist = car.kinematics.initial_twist_with_covariance
    assert (twist.twist.linear.x, twist.twist.linear.y) == pytest.approx((6.0, 0.0), abs=1e-9)
    assert np.diag(np.reshape(twist.covariance, (6, 6)))[:3] == pytest.approx([2.0, 1.0, 3.0])
    assert (
        [(c.label, c.probability) for c in car.classification] == [(1, 1.0)]
        and car.object_id.uuid[-1] == 7
        and len(car.object_id.uuid) == 16
    )
    assert car.shape.dimensions.x == 4.5 and out.header.frame_id == "odom"
    paths = car.kinematics.predicted_paths
    assert len(paths) == 6 and paths[0].time_step.nanosec == 500_000_000
    assert sum(path.confidence for path in paths) == pytest.approx(1)


def test_autoware_and_vision_msgs_get_the_doubt_about_a_guessed_class() -> None:
    guessed, unknown = replace(CAR, label=""), replace(CAR, label="", size=np.full(3, 0.3))
    first, second = autoware_objects(message(guessed, unknown), AUTOWARE).objects
    assert [c.label for c in first.classification] == [1, 0]
    assert sum(c.probability for c in first.classification) == pytest.approx(1)
    assert [(c.label, c.probability) for c in second.classification] == [(0, 1.0)]
    first, second = vision_detections(message(guessed, unknown), VISION).detections
    assert first.results[0].hypothesis.class_id == "Car" and first.results[0].hypothesis.score < 0.95
    assert second.results[0].hypothesis.class_id == "" and second.results[0].hypothesis.score == pytest.approx(0.95)


def test_vision_msgs_get_the_same_box() -> None:
    (car,) = vision_detections(message(), VISION).detections
    assert car.id == "7" and isinstance(car.bbox.center, Pose) and car.bbox.size.y == 1.8
    assert car.results[0].hypothesis.class_id == "Car" and isinstance(car.results[0].pose, PoseWithCovariance)


@pytest.mark.parametrize(("package", "convert"), [
    ("autoware_perception_msgs.msg", autoware_objects), ("vision_msgs.msg", vision_detections)])  # fmt: skip
def test_real_messages_take_it_too(package: str, convert: Any) -> None:
    pytest.importorskip(package, reason=f"needs {package.split('.')[0]}")
    out = convert(message(CAR, replace(CAR, id=8, label="")))
    objects = getattr(out, "objects", None) or out.detections
    # Over the wire and back: every field has its type and its range.
    wire = serialize_message(out)
    again = deserialize_message(wire, type(out))
    assert len(objects) == 2 and serialize_message(again) == wire and again.header.frame_id == "odom"


def test_closest_things_carry_track_ids() -> None:
    found = ClosestPoints(
        np.array([[1.5, np.inf]]), np.array([[[1, 2, 3], [np.nan] * 3]]), np.array([[2, 0]]),
        np.array([[True, False]]), np.array([np.inf]),
    )  # fmt: skip
    near, none = closest_messages(found, 0, {2: 7}, {7: "Car"})
    assert (near.distance, near.object_id, near.observed, near.point.z) == (1.5, 7, True, 3.0)
    assert (near.label, none.label) == ("Car", "")
    assert np.isinf(none.distance) and none.object_id == 0 and np.isnan(none.point.x)


def test_a_requests_footprint_comes_before_its_radius_before_the_nodes() -> None:
    corners = [Point32(x=1.0, y=0.5), Point32(x=1.0, y=-0.5), Point32(x=-1.0, y=0.0)]
    node = Footprint(radius=0.3)
    asked = requested_footprint(SimpleNamespace(footprint=Polygon(points=corners), radius=2.0), node)
    assert asked.corners is not None and asked.corners.shape == (3, 2)
    assert requested_footprint(SimpleNamespace(footprint=Polygon(), radius=2.0), node) == Footprint(radius=2.0)
    assert requested_footprint(SimpleNamespace(footprint=Polygon(), radius=0.0), node) is node
