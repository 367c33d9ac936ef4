# SPDX-License-Identifier: Apache-2.0
"""Moving objects and the camera path as visualization_msgs markers, in the optical frame of the source image."""

from __future__ import annotations

import colorsys

import numpy as np
from geometry_msgs.msg import Point, Vector3
from numpy.typing import ArrayLike
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.outputs.moving_objects import MovingObject
from pixel4d_ros.ros.messages.conversions import pose_message
from pixel4d_ros.ros.messages.headers import duration_message

LIFETIME_S = 2.0  # markers vanish this long after the node has stopped
LINE_WIDTH = 0.1  # metres
CAMERA_COLOUR = ColorRGBA(r=0.1, g=1.0, b=0.2, a=0.9)


def motion_markers(objects: list[MovingObject], camera_path: FloatArray, header: Header) -> MarkerArray:
    """Per object a box, an arrow (motion in one second) and its path, by namespace; replaces all earlier markers.

    camera_path (T, 4, 4) T_source_camera is drawn too. Markers have the ids of their objects.
    """
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    markers.append(_line("camera_path", 0, camera_path[:, :3, 3], CAMERA_COLOUR, header))
    for o in objects:
        colour = _colour(o.object_id)
        box = _marker("boxes", o.object_id, Marker.CUBE, colour, header, 0.35)
        box.pose = pose_message(o.T_source_box)
        box.scale = Vector3(x=float(o.size[0]), y=float(o.size[1]), z=float(o.size[2]))
        arrow = _marker("velocities", o.object_id, Marker.ARROW, colour, header, 0.9)
        centre = o.T_source_box[:3, 3]
        arrow.points = [_point(centre), _point(centre + o.velocity)]
        arrow.scale = Vector3(x=2 * LINE_WIDTH, y=4 * LINE_WIDTH, z=0.0)  # shaft and head diameter
        markers += [box, arrow, _line("paths", o.object_id, o.path, colour, header)]
    return MarkerArray(markers=markers)


def _line(namespace: str, identifier: int, points: FloatArray, colour: ColorRGBA, header: Header) -> Marker:
    marker = _marker(namespace, identifier, Marker.LINE_STRIP, colour, header, 0.9)
    marker.scale.x = LINE_WIDTH
    # RViz rejects a line of one point.
    marker.points = [_point(p) for p in (points if len(points) > 1 else np.repeat(points, 2, 0))]
    return marker


def _marker(
    namespace: str, identifier: int, kind: int, colour: ColorRGBA, header: Header, transparency: float
) -> Marker:
    marker = Marker(header=header, ns=namespace, id=identifier, type=kind, action=Marker.ADD)
    marker.color = ColorRGBA(r=colour.r, g=colour.g, b=colour.b, a=transparency)
    marker.lifetime = duration_message(LIFETIME_S)
    return marker


def _point(xyz: ArrayLike) -> Point:
    x, y, z = (float(v) for v in np.asarray(xyz))
    return Point(x=x, y=y, z=z)


def _colour(object_id: int) -> ColorRGBA:
    """A distinct colour per object: hues a golden angle apart."""
    r, g, b = colorsys.hsv_to_rgb(0.618034 * object_id % 1, 0.8, 1.0)
    return ColorRGBA(r=r, g=g, b=b, a=1.0)
