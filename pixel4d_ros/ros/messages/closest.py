# SPDX-License-Identifier: Apache-2.0
"""Closest objects along a path as pixel4d_ros/ClosestThing messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geometry_msgs.msg import Point

from pixel4d_ros.outputs.clearance import ClosestPoints, Footprint, footprint_of_corners
from pixel4d_ros.ros.compat import interface


def closest_messages(
    found: ClosestPoints,
    path: int,
    track_ids: Mapping[int, int] | None = None,
    labels: Mapping[int, str] | None = None,
) -> list[Any]:
    """A ClosestThing for each time of one of the paths.

    track_ids: the ids to write in place of the scene's own; labels: classes by track id.
    """
    kind, ids, names = interface("msg", "ClosestThing"), track_ids or {}, labels or {}
    rows = zip(found.distances[path], found.object_ids[path], found.points[path], found.observed[path], strict=True)
    return [
        kind(
            distance=float(distance),
            object_id=ids.get(int(number), int(number)),
            label=names.get(ids.get(int(number), 0), ""),
            point=Point(x=float(place[0]), y=float(place[1]), z=float(place[2])),
            observed=bool(observed),
        )
        for distance, number, place, observed in rows
    ]


def requested_footprint(request: Any, otherwise: Footprint) -> Footprint:
    """The footprint of a ForecastTrajectories request, else the node's. Raises ValueError for one that is none."""
    corners = [(float(point.x), float(point.y)) for point in request.footprint.points]
    return footprint_of_corners(corners, float(request.radius), otherwise)
