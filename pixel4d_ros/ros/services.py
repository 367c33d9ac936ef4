# SPDX-License-Identifier: Apache-2.0
"""The service ~/forecast_trajectories: views and clearances along candidate paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nav_msgs.msg import Path
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.service import Service

from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse
from pixel4d_ros.outputs.clearance import Clearance, Footprint, clearance, find_scene_obstacles
from pixel4d_ros.outputs.moving_objects import ClosestObjects, closest_objects
from pixel4d_ros.outputs.tracked_scene import track_ids
from pixel4d_ros.ros.compat import interface
from pixel4d_ros.ros.inputs import Source
from pixel4d_ros.ros.messages.closest import closest_messages
from pixel4d_ros.ros.messages.objects import labels_by_id
from pixel4d_ros.ros.object_tracks import TrackedScene
from pixel4d_ros.ros.parameters import Parameters
from pixel4d_ros.ros.plans import PlanError, plan_from_path
from pixel4d_ros.ros.publishing import CameraViews, sequence_messages
from pixel4d_ros.ros.trajectory import camera_poses_along, planned_base_path
from pixel4d_ros.ros.transforms import EgoState
from pixel4d_ros.scene import DynamicGaussians

SERVICE = QoSProfile(depth=100)  # ROS's default of 10 drops requests of a burst, whose clients then wait forever
SMALL_WIDTH = 208  # pixels: width of the views for the unseen share if no images are requested


@dataclass(frozen=True)
class PendingRequest:
    """A request that waits for its response."""

    request: Any
    reply: Callable[[Any], None]
    response_type: type

    def respond(self, forecasts: list[Any], doubts: str) -> None:
        """Send one TrajectoryForecast per path, and what is doubtful about them."""
        self.reply(self.response_type(success=True, message=doubts, forecasts=forecasts))

    def reject(self, reason: str) -> None:
        """Send a failure with its reason."""
        self.reply(self.response_type(success=False, message=reason))


class CandidatesService:
    """The service of a node. The executor's thread calls `take` with each request and does not wait for it.

    Raises ImportError if the package's interfaces are not built.
    """

    def __init__(self, node: LifecycleNode, take: Callable[[PendingRequest], None]) -> None:
        kind = interface("srv", "ForecastTrajectories")
        self._node = node

        def postpone(pair: tuple[Any, Any], header: Any) -> None:
            take(
                PendingRequest(
                    pair[0], lambda response: Service.send_response(self._service, response, header), kind.Response
                )
            )

        self._service = node.create_service(kind, "~/forecast_trajectories", lambda *pair: pair, qos_profile=SERVICE)
        # rclpy sends the callback's result as soon as it returns. A coroutine that awaits the worker is no alternative:
        # Jazzy's executor polls unfinished coroutines without a pause.
        self._service.send_response = postpone

    def destroy(self) -> None:
        """Destroy the service."""
        self._node.destroy_service(self._service)


def candidate_paths(
    trajectories: list[Path], ego: EgoState, source: Source, received_ns: int, p: Parameters
) -> tuple[FloatArray, list[str]]:
    """Camera poses (P, T, 4, 4) along each path, and each doubt about them with the first path that it is about.

    Raises PlanError naming the path and its fault.
    """
    if not trajectories:
        raise PlanError("the request has no trajectories")
    if len(trajectories) > p.max_candidates:
        raise PlanError(f"the request has {len(trajectories)} trajectories, max_candidates is {p.max_candidates}")
    paths, camera, stamp_ns, times = [], source.header.frame_id, source.stamp_ns, p.times
    for number, message in enumerate(trajectories):
        try:
            paths.append(planned_base_path(plan_from_path(message, received_ns), ego, camera, stamp_ns, times))
        except PlanError as error:
            raise PlanError(f"trajectories[{number}]: {error}") from error
    doubts = {path.warning: f"trajectories[{i}]: {path.warning}" for i, path in reversed([*enumerate(paths)])}
    doubts.pop("", None)
    return camera_poses_along(paths, ego.camera_in_base(camera, stamp_ns), times), sorted(doubts.values())


@dataclass(frozen=True)
class PathDistances:
    """How close things come along the P paths of a request."""

    clear: Clearance  # object ids are the scene's
    closest: ClosestObjects  # to the base's origin
    ids: Mapping[int, int]  # track id by object id of the scene
    labels: Mapping[int, str]  # class by track id

    def fields(self, k: int) -> dict[str, Any]:
        """Fields of the TrajectoryForecast of path k."""
        static, moving = self.clear.static, self.clear.moving
        return {
            "closest_static": closest_messages(static, k),
            "closest_moving": closest_messages(moving, k, self.ids, self.labels),
            "static_contact": float(static.contact[k]),
            "moving_contact": float(moving.contact[k]),
            "closest_object": [self.ids.get(i, i) for i in self.closest.ids[k].tolist()],
            "closest_distance": self.closest.distances[k].tolist(),
        }


def path_distances(
    tracked: TrackedScene, poses: FloatArray, mounting: FloatArray, footprint: Footprint, p: Parameters
) -> PathDistances:
    """Distances along the camera paths (P, T, 4, 4), all at once; mounting is T_base_camera.

    Finding ground and obstacles takes most of the time, and is the same for all paths.
    """
    base = poses @ rigid_inverse(mounting)
    around = find_scene_obstacles(tracked.scene, mounting, p.map_extent.heights)
    return PathDistances(
        clearance(around, base, p.times, footprint),
        closest_objects(tracked.scene, base[..., :3, 3], p.times),
        track_ids(tracked.objects),
        labels_by_id(tracked.objects),
    )


def forecast_candidates(
    forecaster: Any, scene: DynamicGaussians, source: Source, poses: FloatArray, chosen: range,
    distances: PathDistances, p: Parameters, with_images: bool,
) -> list[Any]:  # fmt: skip
    """One TrajectoryForecast for each of the chosen camera paths of poses (P, T, 4, 4), given their distances."""
    size = p.size_of(source.size)
    drawn = size if with_images else _small(source.size)
    paths = poses[chosen.start : chosen.stop]
    views = forecaster.views(scene, paths, p.times, size=drawn, with_depth=False)
    camera = source.camera.resized(*size)
    shown = [
        CameraViews(camera, p.times, path, views.confidence[k], views.frames[k] if with_images else ())
        for k, path in enumerate(paths)
    ]
    kind = interface("msg", "TrajectoryForecast")
    return [
        kind(sequence=sequence, unseen=(1 - views.confidence[k - chosen.start]).tolist(), **distances.fields(k))
        for k, sequence in zip(chosen, sequence_messages(shown, source.header), strict=True)
    ]


def _small(size: tuple[int, int]) -> tuple[int, int]:
    """A size of the same proportions, at most SMALL_WIDTH wide."""
    scale = min(1.0, SMALL_WIDTH / size[0])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
