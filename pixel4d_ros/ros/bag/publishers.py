# SPDX-License-Identifier: Apache-2.0
"""Publishers of a replay: the log's topics, their remapped names and quality of service."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.publisher import Publisher

    from pixel4d_ros.logs.reader import LogReader

logger = logging.getLogger(__name__)
PLAN = "/planned_path"  # of --plan-from-odometry


def read_remaps(texts: Sequence[str]) -> dict[str, str]:
    """Remappings {topic: other name} from texts such as "/topic:=/other". Raises ValueError."""
    remaps = {}
    for text in texts:
        name, separator, other = text.partition(":=")
        if not separator or not name or not other:
            raise ValueError(f"--remap {text}: write it as /topic:=/other")
        remaps[name] = other
    return remaps


def chosen_topics(log: LogReader, requested: Sequence[str] | None) -> list[str]:
    """The requested topics (None: all) except /clock. Raises ValueError for topics that the log lacks."""
    names = [name for name, topic in log.topics.items() if topic.count and name != "/clock"]
    unknown = [name for name in requested or [] if name not in names]
    if unknown:
        raise ValueError(f"{log.path} has no topic {', '.join(unknown)}; it has {', '.join(names)}")
    return [name for name in names if requested is None or name in requested]


def make_publishers(node: Node, log: LogReader, names: Sequence[str], remaps: dict[str, str]) -> dict[str, Publisher]:
    """Publishers by the log's topic names; logs types that are not installed.

    Raises ValueError if none is left, for a remapping of a topic that the log lacks, or of two topics to one name.
    """
    from rclpy.qos import DurabilityPolicy, QoSProfile

    from pixel4d_ros.ros.session import message_class

    unknown = remaps.keys() - log.topics.keys() - {PLAN}
    if unknown:
        raise ValueError(f"--remap: {log.path} has no topic {', '.join(sorted(unknown))}; it has {', '.join(names)}")
    shared = [name for name, count in Counter(remaps.get(name, name) for name in names).items() if count > 1]
    if shared:
        raise ValueError(f"--remap: several topics would be published as {shared[0]}: choose another name")
    publishers, missing = {}, {}
    for name in names:
        topic = log.topics[name]
        kind = message_class(topic.type)
        if kind is None:
            missing[name] = topic.type
            continue
        # Reliable: matches reliable and best-effort subscribers.
        qos = QoSProfile(depth=10)
        if name in log.latched:
            qos = QoSProfile(depth=min(topic.count, 1000), durability=DurabilityPolicy.TRANSIENT_LOCAL)
        publishers[name] = node.create_publisher(kind, remaps.get(name, name), qos)
    if missing:
        listed = ", ".join(f"{name} ({kind})" for name, kind in missing.items())
        logger.warning("not replayed, their message types are not installed: %s", listed)
    if not publishers:
        raise ValueError(f"{log.path}: none of the topics can be replayed; install their message packages")
    return publishers
