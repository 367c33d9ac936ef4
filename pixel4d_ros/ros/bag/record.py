# SPDX-License-Identifier: Apache-2.0
"""`pixel4d record OUT.mcap`: record published topics to an MCAP log."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node
    from rclpy.qos import QoSProfile
    from rclpy.subscription import Subscription

    from pixel4d_ros.logs.writer import LogWriter

logger = logging.getLogger(__name__)
NOT_BY_DEFAULT = ("/rosout", "/parameter_events", "/clock")
DISCOVERY_PERIOD_S = 0.1
TIME_BEGAN = "simulated time began\n"  # printed at the first /clock message
CLOCK_TIMEOUT_S = 60.0  # of simulated time, after which its absence is named: a replay may be started later
NO_CLOCK = (
    "--use-sim-time, but nobody publishes /clock: messages stay in memory until it comes, and get times of the wall"
    " clock if it does not; outside of simulations and replays omit --use-sim-time"
)
QUEUE = 100  # messages per topic that may wait for a slow disk


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `pixel4d record`."""
    parser.add_argument("out", type=Path, help="the .mcap file to write")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--topics", nargs="+", metavar="TOPIC", help="only these; * and ? match, e.g. '/forecast_node/*'")
    what.add_argument("--all", action="store_true", help=f"also {', '.join(NOT_BY_DEFAULT)}")
    parser.add_argument("--duration", type=float, metavar="S", help="stop after S seconds")
    parser.add_argument(
        "--use-sim-time", action="store_true", help="stamp messages with /clock, not with the wall clock"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def run(args: argparse.Namespace) -> int:
    """Record until interrupted. Raises ValueError with one line for the user."""
    if args.out.exists() and not args.overwrite:
        raise ValueError(f"{args.out} exists: choose another name or pass --overwrite")
    if args.duration is not None and not 0 < args.duration < float("inf"):
        raise ValueError(f"--duration must be positive seconds, got {args.duration:g}")
    from pixel4d_ros.logs.writer import LogWriter
    from pixel4d_ros.ros.session import ros_node

    with LogWriter(args.out, recording=True) as log, ros_node("pixel4d_record", args.use_sim_time) as (node, stop):
        recorder = Recorder(node, log, args.topics, everything=args.all)
        recorder.spin(stop, args.duration)
        counts = log.counts
    total = sum(counts.values())
    print(f"recorded {total} messages on {len(counts)} topics to {args.out}", file=sys.stderr)
    missing = [p for p in args.topics or ["*"] if not any(n for topic, n in counts.items() if fnmatchcase(topic, p))]
    if missing:
        topics = " ".join(missing) if args.topics else "any topic"
        logger.warning("nobody published %s; check ROS_DOMAIN_ID and the topics' names, which begin with /", topics)
    return 0


class Recorder:
    """Raw subscriptions to the requested topics, created as the topics appear."""

    def __init__(self, node: Node, log: LogWriter, patterns: list[str] | None, everything: bool) -> None:
        self.node, self.log, self.patterns, self.everything = node, log, patterns, everything
        self.subscriptions: dict[str, Subscription | None] = {}  # None: cannot be recorded
        self._early: list[tuple[str, int, bytes]] = []  # received before simulated time began, with the wall clock's

    def spin(self, stop: Event, duration: float | None) -> None:
        """Record until the event is set or the duration has passed."""
        from rclpy.executors import SingleThreadedExecutor

        executor = SingleThreadedExecutor()
        executor.add_node(self.node)
        end = None if duration is None else time.monotonic() + duration
        next_discovery, waits_for_time = 0.0, self._now() == 0
        complain_at = time.monotonic() + CLOCK_TIMEOUT_S
        while not stop.is_set() and (end is None or time.monotonic() < end):
            if waits_for_time and self._now() > 0:
                print(TIME_BEGAN, end="", flush=True)
                waits_for_time = False
            if self._early and time.monotonic() >= complain_at:
                logger.warning(NO_CLOCK)
                complain_at = float("inf")
            if time.monotonic() >= next_discovery:
                self.subscribe_to_new()
                next_discovery = time.monotonic() + DISCOVERY_PERIOD_S
            executor.spin_once(timeout_sec=DISCOVERY_PERIOD_S / 2)
            self.log.flush()
        # Write what has already arrived.
        last = time.monotonic() + 1
        while self._spin_some(executor) and time.monotonic() < last:
            pass
        executor.shutdown()
        if self._early and complain_at < float("inf"):
            logger.warning(NO_CLOCK)
        self._write_early()

    def _now(self) -> int:
        """Nanoseconds; 0 before simulated time began."""
        return int(self.node.get_clock().now().nanoseconds)

    def write(self, topic: str, data: bytes) -> None:
        """Write a message at the node's time; earlier ones get the first moment of simulated time."""
        now = self._now()
        if now == 0:
            self._early.append((topic, time.time_ns(), data))
            return
        self._write_early(now)
        self._store(topic, now, data)

    def _write_early(self, time_ns: int | None = None) -> None:
        """Write what came before simulated time began; None: it never did."""
        for topic, arrived_ns, data in self._early:
            self._store(topic, arrived_ns if time_ns is None else time_ns, data)
        self._early.clear()

    def _store(self, topic: str, time_ns: int, data: bytes) -> None:
        if not self.log.counts[topic]:
            print(f"first message on {topic}", flush=True)
        self.log.write(topic, time_ns, data)

    def _spin_some(self, executor: SingleThreadedExecutor) -> bool:
        before = sum(self.log.counts.values())
        executor.spin_once(timeout_sec=0.05)
        return sum(self.log.counts.values()) > before

    def _is_selected(self, name: str) -> bool:
        if self.patterns is not None:
            return any(fnmatchcase(name, pattern) for pattern in self.patterns)
        return self.everything or name not in NOT_BY_DEFAULT

    def subscribe_to_new(self) -> None:
        """Subscribe to the selected topics that have a publisher by now."""
        for name, _ in self.node.get_topic_names_and_types():
            if name in self.subscriptions or not self._is_selected(name):
                continue
            # The graph's types are those of subscriptions too: only a publisher's type can be recorded.
            publishers = self.node.get_publishers_info_by_topic(name)
            if publishers:  # without one, the quality of service is unknown
                kind = publishers[0].topic_type
                alike = [publisher for publisher in publishers if publisher.topic_type == kind]
                self.subscriptions[name] = self._subscribe(name, kind, matching_qos(alike))

    def _subscribe(self, name: str, type_name: str, qos: QoSProfile) -> Subscription | None:
        from pixel4d_ros.ros.bag.definitions import installed_definition
        from pixel4d_ros.ros.session import message_class

        kind = message_class(type_name)
        if kind is None:
            logger.warning("%s is not recorded: its type %s is not installed", name, type_name)
            return None
        try:
            self.log.add_topic(name, type_name, installed_definition(type_name), is_transient_local(qos))
        except ValueError as error:
            logger.warning("%s is not recorded: %s", name, error)
            return None
        subscription = self.node.create_subscription(kind, name, lambda data: self.write(name, data), qos, raw=True)
        print(f"recording {name}", flush=True)
        return subscription


def matching_qos(publishers: list[Any]) -> QoSProfile:
    """The most reliable quality of service that matches all publishers of a topic."""
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

    profiles = [p.qos_profile for p in publishers]
    reliable = all(q.reliability == ReliabilityPolicy.RELIABLE for q in profiles)
    keep = all(q.durability == DurabilityPolicy.TRANSIENT_LOCAL for q in profiles)
    return QoSProfile(
        depth=max(QUEUE, *(q.depth for q in profiles)),
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if keep else DurabilityPolicy.VOLATILE,
    )


def is_transient_local(qos: QoSProfile) -> bool:
    """Whether the durability is transient local."""
    from rclpy.qos import DurabilityPolicy

    return bool(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL)
