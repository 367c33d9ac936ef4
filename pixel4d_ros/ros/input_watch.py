# SPDX-License-Identifier: Apache-2.0
"""A console warning within five seconds when inputs are missing: which, why, and what the graph offers instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixel4d_ros.logs.streams import COMPRESSED_IMAGE, IMAGE, NOT_PICTURES, base_name

PERIOD_S = 4.0  # so that the first warning comes within five seconds
REPEATED_S = 20.0  # from one warning to the next
SHOWN = 5  # candidates that a line names at most

Graph = Mapping[str, Sequence[str]]  # topic: its message types, as pkg/msg/Name


@dataclass(frozen=True)
class WatchedInput:
    """An input of the node: its name, the topic after remapping, the message type, and whether it must be there."""

    name: str
    topic: str
    type: str
    required: bool = False


def missing_inputs(inputs: Sequence[WatchedInput], seen: set[str], graph: Graph) -> list[str]:
    """A line for each required input that was not seen, and for optional ones where the graph offers some.

    graph: topics that somebody publishes. Each line names the cause and what to set.
    """
    lines = []
    for watched in inputs:
        if watched.name in seen:
            continue
        types = graph.get(watched.topic, ())
        if watched.type in types:
            line = f"{watched.topic} has a publisher, but no message arrived: is it paused, or its QoS incompatible?"
        elif types:
            line = f"{watched.topic} carries {', '.join(types)}, not {watched.type}{_cure(watched, types)}"
        else:
            offered = candidates(watched, graph)
            if not (watched.required or offered):
                continue
            line = f"nobody publishes {watched.topic} ({watched.type}){_offer(watched, offered)}"
        lines.append(f"no {watched.name} yet: {line}")
    return lines


def candidates(watched: WatchedInput, graph: Graph) -> list[str]:
    """Topics of the graph that this input could be remapped to, the likeliest first."""
    kinds = {IMAGE, COMPRESSED_IMAGE} if watched.type in (IMAGE, COMPRESSED_IMAGE) else {watched.type}

    def fits(topic: str) -> bool:
        if not kinds & set(graph[topic]):
            return False
        if watched.name == "depth":
            return "depth" in topic.lower()
        return watched.name != "image" or not any(word in topic.lower() for word in NOT_PICTURES)

    return sorted(filter(fits, graph), key=lambda topic: (watched.type not in graph[topic], topic))


def _offer(watched: WatchedInput, offered: list[str]) -> str:
    if not offered:
        return f"; no topic has that type (is ROS_DOMAIN_ID right?): remap {watched.name} when there is one"
    more = f" and {len(offered) - SHOWN} more" if len(offered) > SHOWN else ""
    compressed = any(base_name(topic) != topic for topic in offered[:1])
    transport = " and set image_transport to compressed" if compressed and watched.name == "image" else ""
    return f": remap {watched.name} to {', '.join(offered[:SHOWN])}{more}{transport}"


def _cure(watched: WatchedInput, types: Sequence[str]) -> str:
    parameter = {"image": "image_transport", "depth": "depth.transport", "trajectory": "trajectory_type"}.get(
        watched.name
    )
    if parameter is None:
        return ": remap it to another topic"
    value = types[0].replace("/msg/", "/")
    if parameter != "trajectory_type":
        value = "compressed" if COMPRESSED_IMAGE in types else "raw"
    return f": set {parameter} to {value}"


class InputWatch:
    """Looks at the graph some seconds after activation, and warns until every required input was seen."""

    def __init__(self, node: Any, inputs: Sequence[WatchedInput], seen: Callable[[], set[str]]) -> None:
        """seen: names of the inputs that have received messages."""
        from rclpy.clock import Clock, ClockType

        self._node, self._inputs, self._seen = node, inputs, seen
        self._warned: list[str] = []
        self._ticks = 0
        # Steady: simulated time stands until a log is played.
        self._timer: Any = node.create_timer(PERIOD_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _look(self) -> None:
        seen = self._seen()
        if all(watched.name in seen for watched in self._inputs if watched.required):
            self.stop()
        lines = missing_inputs(self._inputs, seen, published(self._node))
        self._ticks += 1
        if lines and (lines != self._warned or self._ticks * PERIOD_S % REPEATED_S < PERIOD_S):
            self._node.get_logger().warning("\n  ".join(["inputs are missing:", *lines]))
        self._warned = lines

    def stop(self) -> None:
        """No more warnings."""
        if self._timer is not None:
            self._timer.cancel()
            self._node.destroy_timer(self._timer)
            self._timer = None


def published(node: Any) -> dict[str, list[str]]:
    """Topics that somebody else than this node publishes, with the types of their publishers.

    rclpy's get_topic_names_and_types names the types of subscriptions as well, this node's own among them.
    """
    own = node.get_fully_qualified_name() + "/"
    topics = [name for name, _ in node.get_topic_names_and_types() if not name.startswith(own)]
    types = {name: sorted({p.topic_type for p in node.get_publishers_info_by_topic(name)}) for name in topics}
    return {name: kinds for name, kinds in types.items() if kinds}
