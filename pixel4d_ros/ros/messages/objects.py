# SPDX-License-Identifier: Apache-2.0
"""Tracked objects as messages: the package's own, Autoware's and vision_msgs' where those are installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any
from uuid import UUID

import numpy as np
from geometry_msgs.msg import Vector3
from std_msgs.msg import Header

from pixel4d_ros.geometry.rotations import FloatArray, rigid, rotation_matrix
from pixel4d_ros.outputs.maneuvers import PredictedPath, predicted_paths
from pixel4d_ros.outputs.size_classes import guess_class
from pixel4d_ros.outputs.tracking import TrackedObject
from pixel4d_ros.ros.compat import euler_from_quaternion, interface
from pixel4d_ros.ros.messages.conversions import pose_message, pose_messages
from pixel4d_ros.ros.messages.headers import duration_message

YAW_DEVIATION = 0.2  # rad, of a box's heading
UNKNOWN_TURN = 1e3  # rad^2: the tracker has no roll and pitch, nor their rates
# Classes of labels (KITTI's names and the like, lower case) as autoware_perception_msgs/ObjectClassification has them.
AUTOWARE_CLASSES = {
    "car": 1,
    "van": 1,
    "truck": 2,
    "bus": 3,
    "tram": 3,
    "trailer": 4,
    "motorcycle": 5,
    "bicycle": 6,
    "cyclist": 6,
    "pedestrian": 7,
    "person": 7,
    "person_sitting": 7,
}


def label_of(o: TrackedObject) -> tuple[str, float, int]:
    """An object's class, its probability, and PredictedObject.label_source."""
    kind = interface("msg", "PredictedObject")
    if o.label:
        return o.label, 1.0, kind.LABEL_PREDICTED
    label, probability = guess_class(o.size)
    return label, probability, kind.LABEL_GUESSED_FROM_SIZE if label else kind.LABEL_UNKNOWN


def labels_by_id(tracked: Sequence[TrackedObject]) -> dict[int, str]:
    """The class of each object by its id, "" where it is unknown."""
    return {o.id: label_of(o)[0] for o in tracked}


def predicted_objects_message(tracked: Sequence[TrackedObject], times: FloatArray, header: Header) -> Any:
    """A PredictedObjects of objects in the header's frame (z up), with their paths at times (T,) seconds."""
    return interface("msg", "PredictedObjects")(header=header, objects=[_object_message(o, times) for o in tracked])


def _object_message(o: TrackedObject, times: FloatArray) -> Any:
    label, probability, origin = label_of(o)
    message = interface("msg", "PredictedObject")(
        id=o.id,
        label=label,
        label_probability=probability,
        label_source=origin,
        existence_probability=o.existence,
        moving_probability=o.moving,
        detected=o.scene_id > 0,
        size=_vector(o.size),
        paths=[_path_message(path, times) for path in predicted_paths(o, times)],
    )
    message.pose.pose = pose_message(rigid(rotation_matrix([0, 0, o.yaw]), o.center))
    message.pose.covariance = _covariance(o.covariance[:3, :3], YAW_DEVIATION**2)
    message.twist.twist.linear = _vector(o.velocity)
    message.twist.covariance = _covariance(o.covariance[3:, 3:], UNKNOWN_TURN)
    return message


def _path_message(path: PredictedPath, times: FloatArray) -> Any:
    return interface("msg", "PredictedPath")(
        maneuver=int(path.maneuver),
        time_from_start=[duration_message(t) for t in times],
        poses=pose_messages(path.poses),
        probability=path.probability,
    )


def autoware_objects(message: Any, package: ModuleType | None = None) -> Any:
    """The same as autoware_perception_msgs/PredictedObjects; package: that package's msg module, None: the installed.

    Its twist is in the box's axes, and its boxes are given by dimensions. The rest of an uncertain class's probability
    is UNKNOWN's. Raises ImportError where the package is not installed.
    """
    m = package or import_module("autoware_perception_msgs.msg")
    objects = []
    for o in message.objects:
        out = m.PredictedObject(existence_probability=float(o.existence_probability))
        out.object_id.uuid = np.frombuffer(UUID(int=o.id).bytes, np.uint8)
        out.classification = _autoware_classes(o, m)
        out.shape.type, out.shape.dimensions = 0, o.size  # BOUNDING_BOX
        out.kinematics.initial_pose_with_covariance = o.pose
        q, v = o.pose.pose.orientation, o.twist.twist.linear
        yaw = euler_from_quaternion((q.x, q.y, q.z, q.w))[2]
        ahead, left = np.cos(yaw) * v.x + np.sin(yaw) * v.y, np.cos(yaw) * v.y - np.sin(yaw) * v.x
        twist = out.kinematics.initial_twist_with_covariance
        twist.twist.linear = Vector3(x=float(ahead), y=float(left), z=v.z)
        turn = np.kron(np.eye(2), rotation_matrix([0, 0, -yaw]))
        twist.covariance = (turn @ np.reshape(o.twist.covariance, (6, 6)) @ turn.T).ravel()
        out.kinematics.predicted_paths = [_autoware_path(p, m) for p in o.paths]
        objects.append(out)
    return m.PredictedObjects(header=message.header, objects=objects)


def _autoware_classes(o: Any, m: ModuleType) -> list[Any]:
    """The most probable class first; together they are certain."""
    label, probability = AUTOWARE_CLASSES.get(o.label.lower(), 0), float(o.label_probability)
    classes = [(label, probability), (0, 1 - probability)] if label else [(0, 1.0)]
    return [m.ObjectClassification(label=number, probability=share) for number, share in classes if share > 0]


def _autoware_path(path: Any, m: ModuleType) -> Any:
    out = m.PredictedPath(path=path.poses, confidence=float(path.probability))
    if len(path.time_from_start) > 1:
        out.time_step = path.time_from_start[1]
    return out


def vision_detections(message: Any, package: ModuleType | None = None) -> Any:
    """The same as vision_msgs/Detection3DArray; package: that package's msg module, None: the installed.

    A hypothesis's score is the probability that the object exists and has its class; an unknown class is "". The
    message has no room for velocities and paths. Raises ImportError where the package is not installed.
    """
    m = package or import_module("vision_msgs.msg")
    detections = []
    for o in message.objects:
        out = m.Detection3D(header=message.header, id=str(o.id))
        out.bbox.center, out.bbox.size = o.pose.pose, o.size
        share = float(o.label_probability) if o.label else 1.0
        result = m.ObjectHypothesisWithPose(pose=o.pose)
        result.hypothesis.class_id, result.hypothesis.score = o.label, float(o.existence_probability) * share
        out.results = [result]
        detections.append(out)
    return m.Detection3DArray(header=message.header, detections=detections)


def _vector(values: FloatArray) -> Vector3:
    x, y, z = (float(v) for v in values)
    return Vector3(x=x, y=y, z=z)


def _covariance(upper: FloatArray, yaw: float) -> FloatArray:
    """Row by row (36,): of x y z from upper (3, 3), of the rotation about Z yaw, of the others unknown."""
    out = np.diag([0, 0, 0, UNKNOWN_TURN, UNKNOWN_TURN, yaw]).astype(float)
    out[:3, :3] = upper
    return out.ravel()
