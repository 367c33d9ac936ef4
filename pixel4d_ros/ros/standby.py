# SPDX-License-Identifier: Apache-2.0
"""What the node does between images: forecast the newest for a late subscriber, and report that images have stopped.

DDS discovers subscribers asynchronously: a short log may pass before the node sees a subscriber that was there first.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from pixel4d_ros.ros.diagnostics import Statistics
from pixel4d_ros.ros.inputs import ImageMessage

SETTLE_S = 0.3  # a subscriber discovers the publisher later than the publisher discovers it
FRESH_S = 1.0  # age of a kept image that is forecast although the next one is due
LONGEST_NS = 60_000_000_000  # age of a kept image, on the node's clock, after which it is of no use
NOBODY_S = 1.0  # without subscribers, after which that is said


class Standby:
    """Of one activation. Used by the worker's thread only."""

    def __init__(self, node: Any, statistics: Statistics) -> None:
        self._node, self._statistics = node, statistics
        self._kept: ImageMessage | None = None  # the newest image, if it was skipped
        self._kept_ns = 0  # the node's time then
        self._unheard_at: float | None = None  # time.monotonic() of the first skipped image; inf once that is said
        self._subscribed_at: float | None = None  # when a subscriber was first seen since the kept image
        self._counted = 0  # images received when their end was last said

    def skip(self, image: ImageMessage) -> None:
        """Keep an image that is not forecast, as nobody subscribes."""
        self._statistics.frame_skipped()
        self._kept, self._kept_ns, self._subscribed_at = image, self._now_ns(), None
        if self._unheard_at is None:
            self._unheard_at = time.monotonic()
        self._name_a_topic()

    def forget(self) -> None:
        """Drop the kept image: a newer one is forecast."""
        self._kept = None

    def due(self, has_subscribers: bool) -> ImageMessage | None:
        """The kept image, if it is to be forecast now, as received now. Call it a few times a second while idle."""
        if self._kept is not None and (self._kept.inputs.outdated or self._now_ns() - self._kept_ns > LONGEST_NS):
            self._kept = None
        if self._kept is None or not has_subscribers:
            self._subscribed_at = None
            self._name_a_topic()
            self._count()
            return None
        now = time.monotonic()
        self._subscribed_at = self._subscribed_at or now
        is_usable = now - self._kept.received_at < FRESH_S or self._statistics.ended
        if now - self._subscribed_at < SETTLE_S or not is_usable:
            return None
        self._statistics.frame_resumed()
        image, self._kept = self._kept, None
        return replace(image, received_at=now)

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _name_a_topic(self) -> None:
        """Say once that images come and nobody subscribes."""
        if self._kept is not None and self._unheard_at is not None and time.monotonic() - self._unheard_at > NOBODY_S:
            self._unheard_at = float("inf")
            name = self._node.resolve_topic_name("~/forecast/image")
            self._node.get_logger().info(
                f"images come in; nothing is computed until somebody subscribes, e.g. to {name}"
            )

    def _count(self) -> None:
        """Say once that images have stopped, and what became of them."""
        received = self._statistics.received
        if received == self._counted or not self._statistics.ended:
            return
        self._counted = received
        then = "the last forecast stays" if self._statistics.published else "there is no forecast"
        if self._kept is not None:
            then = "the newest is forecast as soon as somebody subscribes"
        self._node.get_logger().info(f"images have stopped: {self._statistics.summary()}; {then}")
