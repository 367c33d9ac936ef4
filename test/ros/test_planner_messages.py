# SPDX-License-Identifier: Apache-2.0
"""Messages for planners: predicted objects in three dialects, closest things, footprints of requests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from geometry_msgs.msg import Point32, Polygon, Pose, PoseWithCovariance, TwistWithCovariance
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


def message() -> Any:
    return predicted_objects_message([CAR], TIMES, Header(frame_id="odom"))


def test_an_object_keeps_its_id_and_is_predicted_along_its_velocity() -> None:
    (car,) = message().objects
    assert (car.id, car.label, car.detected) == (7, "Car", True) and car.size.x == 4.5
    assert car.existence_probability == pytest.approx(0.95) and car.moving_probability == pytest.approx(0.9)
    assert np.reshape(car.pose.covariance, (6, 6))[1, 1] == 0.2 and np.reshape(car.twist.covariance, (6, 6))[2, 2] == 3
    (path,) = car.paths
    assert [p.position.y for p in path.poses] == [2.0, 5.0, 8.0] and path.probability == 1
    assert [t.sec + 1e-9 * t.nanosec for t in path.time_from_start] == [0.0, 0.5, 1.0]
    assert path.poses[0].orientation.z == pytest.approx(np.sin(np.pi / 4))


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
    assert car.classification[0].label == 1 and car.object_id.uuid[-1] == 7 and len(car.object_id.uuid) == 16
    assert car.shape.dimensions.x == 4.5 and out.header.frame_id == "odom"
    assert car.kinematics.predicted_paths[0].time_step.nanosec == 500_000_000


def test_vision_msgs_get_the_same_box() -> None:
    (car,) = vision_detections(message(), VISION).detections
    assert car.id == "7" and isinstance(car.bbox.center, Pose) and car.bbox.size.y == 1.8
    assert car.results[0].hypothesis.class_id == "Car" and isinstance(car.results[0].pose, PoseWithCovariance)


@pytest.mark.parametrize(("package", "convert"), [
    ("autoware_perception_msgs.msg", autoware_objects), ("vision_msgs.msg", vision_detections)])  # fmt: skip
def test_real_messages_take_it_too(package: str, convert: Any) -> None:
    pytest.importorskip(package, reason=f"needs {package.split('.')[0]}")
    out = convert(message())
    assert len(getattr(out, "objects", None) or out.detections) == 1


def test_closest_things_carry_lasting_ids() -> None:
    found = ClosestPoints(
        np.array([[1.5, np.inf]]), np.array([[[1, 2, 3], [np.nan] * 3]]), np.array([[2, 0]]),
        np.array([[True, False]]), np.array([np.inf]),
    )  # fmt: skip
    near, none = closest_messages(found, 0, {2: 7})
    assert (near.distance, near.object_id, near.observed, near.point.z) == (1.5, 7, True, 3.0)
    assert np.isinf(none.distance) and none.object_id == 0 and np.isnan(none.point.x)


def test_a_requests_footprint_comes_before_its_radius_before_the_nodes() -> None:
    corners = [Point32(x=1.0, y=0.5), Point32(x=1.0, y=-0.5), Point32(x=-1.0, y=0.0)]
    node = Footprint(radius=0.3)
    asked = requested_footprint(SimpleNamespace(footprint=Polygon(points=corners), radius=2.0), node)
    assert asked.corners is not None and asked.corners.shape == (3, 2)
    assert requested_footprint(SimpleNamespace(footprint=Polygon(), radius=2.0), node) == Footprint(radius=2.0)
    assert requested_footprint(SimpleNamespace(footprint=Polygon(), radius=0.0), node) is node
