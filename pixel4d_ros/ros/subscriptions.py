# SPDX-License-Identifier: Apache-2.0
"""The node's subscriptions: QoS by what publishers offer, and warnings about missing inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from pixel4d_ros.ros.input_watch import InputWatch, WatchedInput
from pixel4d_ros.ros.topics import LATCHED, offers_latched, subscribe


@dataclass(frozen=True)
class Input:
    """A topic to subscribe to."""

    topic: str
    kind: Any  # message class
    take: Callable[[Any], None]
    qos: QoSProfile
    often_latched: bool = False  # some publishers send it once, as transient local
    required: bool = False  # for a forecast


class RemappingError(ValueError):
    """An input is remapped to a topic that carries something else."""


def check_remappings(node: Node, inputs: Sequence[Input]) -> None:
    """Raise RemappingError where two inputs have one topic, or an input has a topic that this node uses already."""
    # Its own lists: those of the graph go by the node's name, and mix in another node of that name.
    users = {e.topic_name: f"this node, for {_type_name(e.msg_type)}" for e in (*node.publishers, *node.subscriptions)}
    for i in inputs:
        topic = node.resolve_topic_name(i.topic)
        if topic in users:
            raise RemappingError(
                f"{i.topic} ({_type_name(i.kind)}) is remapped to {topic}, which is used by {users[topic]}: remap each"
                " input to a topic of its own"
            )
        users[topic] = f"{i.topic} ({_type_name(i.kind)})"


class InputSubscriptions:
    """Subscriptions to all inputs of an active node. Call `check` periodically."""

    def __init__(self, node: Node, inputs: Sequence[Input]) -> None:
        self._node, self._inputs = node, inputs
        self._seen: set[str] = set()
        self._all = [subscribe(node, i.kind, i.topic, self._taker(i), i.qos) for i in inputs]
        self.topics = [subscription.topic_name for subscription in self._all]
        self._latched: dict[str, Subscription] = {}
        self._subscribe_latched()
        watched = [WatchedInput(i.topic, t, _type_name(i.kind), i.required) for i, t in zip(inputs, self.topics)]
        self._watch = InputWatch(node, watched, lambda: self._seen)

    def check(self) -> None:
        """Subscribe to new transient local publishers."""
        self._subscribe_latched()

    def destroy(self) -> None:
        """Destroy all subscriptions."""
        self._watch.stop()
        for subscription in (*self._all, *self._latched.values()):
            self._node.destroy_subscription(subscription)

    def _taker(self, i: Input) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            self._seen.add(i.topic)
            i.take(message)

        return take

    def _subscribe_latched(self) -> None:
        """Also get earlier messages of transient local publishers.

        A transient local subscription does not match volatile publishers, hence a second subscription.
        """
        for i in self._inputs:
            if i.often_latched and i.topic not in self._latched and offers_latched(self._node, i.topic):
                self._latched[i.topic] = self._node.create_subscription(i.kind, i.topic, self._taker(i), LATCHED)
                self._node.get_logger().debug(f"{i.topic}: subscribed to the transient local publisher's last message")


def _type_name(kind: Any) -> str:
    """The ROS name of a message class, pkg/msg/Name."""
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"
