"""The node's subscriptions: quality of service by what publishers offer, and warnings of inputs that do not arrive."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from pixel4d_ros.ros.topics import LATCHED, offers_latched, subscribe

MISSING_S = 5.0  # between warnings of required inputs that have not arrived
OTHER_TYPES = {  # what to do when an input's topic has a publisher of this type instead
    "sensor_msgs/msg/CompressedImage": "set image_transport to compressed",
    "sensor_msgs/msg/Image": "set image_transport to raw",
}
MOST_NAMED = 5


@dataclass(frozen=True)
class Input:
    """A topic to subscribe to."""

    topic: str
    kind: Any  # message class
    take: Callable[[Any], None]
    qos: QoSProfile
    often_latched: bool = False  # some publishers send it once and keep it for late subscribers
    required: bool = False  # there is no forecast without it


class InputSubscriptions:
    """Subscriptions to all inputs of an active node. `check` is to be called now and then."""

    def __init__(self, node: Node, inputs: Sequence[Input]) -> None:
        self._node, self._inputs = node, inputs
        self._seen: set[str] = set()
        self._warned_at = time.monotonic()
        self._all = [subscribe(node, i.kind, i.topic, self._taker(i), i.qos) for i in inputs]
        self.topics = [subscription.topic_name for subscription in self._all]
        self._latched: dict[str, Subscription] = {}
        self._subscribe_latched()

    def check(self) -> None:
        """Look for new publishers, and every MISSING_S warn of required inputs that have not arrived."""
        self._subscribe_latched()
        if time.monotonic() - self._warned_at > MISSING_S:
            self._warned_at = time.monotonic()
            for i in self._inputs:
                if i.required and i.topic not in self._seen:
                    text = describe_missing(self._node, i.topic, f"sensor_msgs/msg/{i.kind.__name__}")
                    self._node.get_logger().warning(f"{i.topic}: {text}")

    def destroy(self) -> None:
        """Take all subscriptions down."""
        for subscription in (*self._all, *self._latched.values()):
            self._node.destroy_subscription(subscription)

    def _taker(self, i: Input) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            self._seen.add(i.topic)
            i.take(message)

        return take

    def _subscribe_latched(self) -> None:
        """Also get what publishers sent before, where they offer that.

        A transient local subscription does not match volatile publishers, so it is a second one.
        """
        for i in self._inputs:
            if i.often_latched and i.topic not in self._latched and offers_latched(self._node, i.topic):
                self._latched[i.topic] = self._node.create_subscription(i.kind, i.topic, self._taker(i), LATCHED)
                self._node.get_logger().debug(f"{i.topic}: its publisher keeps the last message, which is requested")


def describe_missing(node: Node, topic: str, message_type: str) -> str:
    """One line about an input that has not arrived, for topics like "image" and types like "sensor_msgs/msg/Image"."""
    name = node.resolve_topic_name(topic)
    published = {info.topic_type for info in node.get_publishers_info_by_topic(name)}
    if message_type in published:
        return f"nothing received on {name} yet, although it is published: check its quality of service"
    for other in published:
        cure = OTHER_TYPES.get(other, f"remap {topic} to a topic of {message_type}")
        return f"{name} is published as {other}, not {message_type}: {cure}"
    own = f"{node.get_fully_qualified_name()}/"
    candidates = [
        found
        for found, types in node.get_topic_names_and_types()
        if message_type in types and found != name and not found.startswith(own) and node.count_publishers(found)
    ]
    if candidates:
        named = ", ".join(candidates[:MOST_NAMED]) + (", ..." if len(candidates) > MOST_NAMED else "")
        return f"nobody publishes {name}: remap {topic} to one of {named}"
    return f"nobody publishes {name}, and no other topic of {message_type} is there"
