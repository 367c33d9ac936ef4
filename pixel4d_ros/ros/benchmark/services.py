# SPDX-License-Identifier: Apache-2.0
"""The node's service ~/forecast_trajectories, timed from the request to its response.

Requests are sequential, without images in between. The node has a prediction for the newest image, so the times cover
transport of the request, rendering, and transport and deserialisation of the response.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.client import Client
from rclpy.node import Node
from rclpy.serialization import serialize_message
from std_msgs.msg import Header
from tqdm import tqdm

from pixel4d_ros.benchmark.node_times import Feed, ServiceTimes
from pixel4d_ros.benchmark.source_image import candidate_poses, forecast_times
from pixel4d_ros.benchmark.statistics import Spread
from pixel4d_ros.geometry.rotations import FloatArray, rigid_from_xyzw, rigid_inverse
from pixel4d_ros.ros.compat import interface
from pixel4d_ros.ros.messages.conversions import pose_messages
from pixel4d_ros.ros.messages.headers import time_message
from pixel4d_ros.ros.parameters import Parameters
from pixel4d_ros.ros.processes import ProcessError, Watch

SERVICE = "/forecast_node/forecast_trajectories"
BASE = "base_link"
FOUND_S, ANSWER_S, POLL_S = 60.0, 300.0, 0.2  # timeouts of discovery and response, polling period


@dataclass(frozen=True)
class Planner:
    """The client, on a node that another thread spins, and the watched node process."""

    client: Client
    node: Watch

    def ask(self, request: Any) -> tuple[float, Any]:
        """Milliseconds from the call to the response, and the response. Raises ProcessError without one."""
        answered, ends = Event(), []

        def note(_: Any) -> None:
            ends.append(time.perf_counter())
            answered.set()

        self.node.check()
        began = time.perf_counter()
        future = self.client.call_async(request)
        future.add_done_callback(note)
        while not answered.wait(POLL_S):
            self.node.check()
            if time.perf_counter() - began > ANSWER_S:
                raise ProcessError(f"no answer from {SERVICE} within {ANSWER_S:g} s{self.node.child.last_words()}")
        answer = future.result()
        if not answer.success:
            raise ProcessError(f"{SERVICE} refused {len(request.trajectories)} candidates: {answer.message}")
        return 1e3 * (ends[0] - began), answer


def check_candidates(feed: Feed) -> None:
    """Raise ValueError for more candidates than the node accepts."""
    most = Parameters().max_candidates
    if max(feed.candidates, default=0) > most:
        raise ValueError(
            f"--candidates {max(feed.candidates)}: the node takes {most} in one request at most (max_candidates)"
        )


def measure_service(node: Node, feed: Feed, stamp_ns: int, watch: Watch) -> tuple[ServiceTimes, ...]:
    """Ask about each number of candidates, without images and with; stamp_ns is that of the node's newest image.

    Another thread spins the node. Raises ProcessError without a successful response, KeyboardInterrupt on a
    signal.
    """
    kind = interface("srv", "ForecastTrajectories")
    planner = Planner(node.create_client(kind, SERVICE), watch)
    watch.wait(planner.client.service_is_ready, FOUND_S, f"{SERVICE} was not found over DDS")
    found = []
    for count in feed.candidates:
        paths = candidate_messages(count, feed.frames, stamp_ns)
        found += [_measure(planner, kind.Request(trajectories=paths, with_images=w), feed) for w in (False, True)]
    return tuple(found)


def _measure(planner: Planner, request: Any, feed: Feed) -> ServiceTimes:
    count, size, times = len(request.trajectories), 0, []
    name = f"{count} candidates, {'with' if request.with_images else 'without'} images"
    for _ in tqdm(range(feed.effort.warm_up + feed.effort.runs), name, unit="answer", leave=False):
        milliseconds, answer = planner.ask(request)
        times.append(milliseconds)
        if len(answer.forecasts) != count:
            raise ProcessError(f"{SERVICE} answered {len(answer.forecasts)} forecasts to {count} candidates")
        size = size or len(serialize_message(answer))
    return ServiceTimes(count, request.with_images, size / 1e6, Spread.of(times[feed.effort.warm_up :]))


def candidate_messages(count: int, frames: int, stamp_ns: int) -> list[Path]:
    """Paths of the base from stamp_ns on, one step longer than the forecast, with different turns and speeds."""
    p, times = Parameters(), forecast_times(frames + 1)
    mounting = rigid_from_xyzw(p.mounting_rotation, p.mounting_translation)
    bases = mounting @ candidate_poses(count, times) @ rigid_inverse(mounting)
    return [path_message(poses, times, stamp_ns) for poses in bases]


def path_message(poses: FloatArray, times: FloatArray, stamp_ns: int) -> Path:
    """A Path through poses (T, 4, 4) of the base, relative to where it is at stamp_ns, at times (T,) s after that."""
    message = Path(header=Header(frame_id=BASE, stamp=time_message(stamp_ns)))
    for t, pose in zip(np.round(times * 1e9).astype(np.int64).tolist(), pose_messages(poses)):
        header = Header(frame_id=BASE, stamp=time_message(stamp_ns + t))
        message.poses.append(PoseStamped(header=header, pose=pose))
    return message
