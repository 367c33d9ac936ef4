# SPDX-License-Identifier: Apache-2.0
"""Tracked objects: persistent ids, and velocities smoothed over several images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.outputs.tracked_scene import detections_of, with_tracked_velocities
from pixel4d_ros.outputs.tracking import TrackedObject, Tracker
from pixel4d_ros.ros.inputs import Inputs, Source
from pixel4d_ros.ros.transforms import EgoState
from pixel4d_ros.scene import DynamicGaussians


@dataclass(frozen=True)
class TrackedScene:
    """A scene whose objects have tracked velocities."""

    scene: DynamicGaussians
    objects: Sequence[TrackedObject] = ()  # in odometry's frame; empty: not tracked


class ObjectTracks:
    """A tracker in odometry's frame. Without odometry there is no tracking, and scenes stay unchanged."""

    def __init__(self) -> None:
        self._tracker = Tracker()
        self._origin = ("", 0)
        self._inputs: Inputs | None = None

    def update(self, scene: DynamicGaussians, source: Source, ego: EgoState, inputs: Inputs) -> TrackedScene:
        """Update the tracks with the objects of a new image's scene."""
        T_odometry_camera = camera_in_odometry(source, ego)
        if T_odometry_camera is None:
            self._tracker.clear()
            return TrackedScene(scene)
        if inputs is not self._inputs or ego.odometry.origin != self._origin:  # time jumped back, or poses did
            self._tracker.clear()
        self._inputs, self._origin = inputs, ego.odometry.origin
        tracked = self._tracker.update(source.stamp_ns * 1e-9, detections_of(scene, T_odometry_camera))
        if not tracked:
            return TrackedScene(scene)
        return TrackedScene(with_tracked_velocities(scene, tracked, T_odometry_camera), tracked)


def camera_in_odometry(source: Source, ego: EgoState) -> FloatArray | None:
    """T_odometry_camera (4, 4) when the image was taken; None without odometry."""
    base = ego.base_in(ego.odometry.frame, source.stamp_ns) if ego.odometry.frame else None
    return None if base is None else base @ ego.camera_in_base(source.header.frame_id, source.stamp_ns)
