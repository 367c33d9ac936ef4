"""`pixel4d replay LOG`: publish a log's messages over DDS in real time, with /clock."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.publisher import Publisher

    from pixel4d_ros.logs.reader import LogReader, RawMessage
    from pixel4d_ros.ros.driven_path import DrivenPlan

CLOCK_PERIOD_S = 0.01
BEHIND_S = 0.1  # a lag that is worth a word
SETTLE_S = 0.3  # a subscriber needs a moment more to know the publisher than the other way round


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `pixel4d replay`."""
    parser.add_argument("log", help="an .mcap, .db3 or .bag file, or a rosbag2 folder")
    parser.add_argument("--rate", type=float, default=1.0, help="speed, 1 is real time (default %(default)s)")
    parser.add_argument("--loop", action="store_true", help="begin anew at the end, until interrupted")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="skip the first S seconds")
    parser.add_argument("--duration", type=float, metavar="S", help="stop after S seconds of the log")
    parser.add_argument("--topics", nargs="+", metavar="TOPIC", help="publish only these")
    parser.add_argument("--remap", nargs="+", default=[], metavar="A:=B", help="publish topic A under the name B")
    parser.add_argument("--clock", action=argparse.BooleanOptionalAction, default=True, help="publish /clock at 100 Hz")
    parser.add_argument("--camera", metavar="TOPIC", help="the image topic or its namespace (default: most plausible)")
    parser.add_argument(
        "--wait-for-subscribers",
        nargs="*",
        metavar="TOPIC",
        help="begin when these (default: the image topic) have a subscriber; their names as published",
    )
    parser.add_argument("--wait-timeout", type=float, default=60.0, metavar="S", help="wait at most S seconds for that")
    parser.add_argument("--linger", type=float, default=0.0, metavar="S", help="keep /clock running for S s at the end")
    parser.add_argument(
        "--plan-from-odometry",
        action="store_true",
        help="where the log has no nav_msgs/Path, publish the poses really driven over the next 3 s as /planned_path",
    )


def run(args: argparse.Namespace) -> int:
    """Replay a log. Raises LogError or ValueError with one line for the user."""
    from pixel4d_ros.logs.reader import LogReader
    from pixel4d_ros.ros.session import ros_node

    if args.rate <= 0:
        raise ValueError(f"--rate must be positive, got {args.rate:g}")
    with LogReader(args.log) as log, ros_node("pixel4d_replay") as (node, stop):
        replay = Replay(log, node, args)
        if args.wait_for_subscribers is not None:
            replay.wait_for_subscribers(args.wait_for_subscribers, args.wait_timeout, stop)
        pacer = replay.play(stop)
        while args.loop and not stop.is_set():
            pacer = replay.play(stop)
        replay.flush()
        if not stop.is_set():
            print(f"replayed {replay.published} messages, at most {pacer.max_lag * 1e3:.0f} ms late", flush=True)
            if pacer.max_lag > BEHIND_S:
                print(
                    f"warning: replay fell up to {pacer.max_lag:.1f} s behind real time: lower --rate, or publish less"
                    " with --topics",
                    file=sys.stderr,
                )
            replay.linger(pacer, args.linger)
    return 0


@dataclass
class Pacer:
    """Keeps the log's time in step with the wall's, and measures how late it gets."""

    start_ns: int
    rate: float
    stop: Event
    began: float = field(default_factory=time.monotonic)
    max_lag: float = 0.0  # s of wall time

    def wait_until(self, log_ns: int) -> None:
        """Sleep until the log's time has come; returns at once when late or stopped."""
        remaining = self.began + (log_ns - self.start_ns) * 1e-9 / self.rate - time.monotonic()
        if remaining > 0:
            self.stop.wait(remaining)
        else:
            self.max_lag = max(self.max_lag, -remaining)

    def now_ns(self) -> int:
        """The log's time now, were it in step."""
        return self.start_ns + int((time.monotonic() - self.began) * self.rate * 1e9)


class Replay:
    """A log, its publishers, and what to publish besides: /clock and, where asked for, the plan."""

    def __init__(self, log: LogReader, node: Node, args: argparse.Namespace) -> None:
        self.log, self.node, self.args = log, node, args
        self.remaps = dict(_remap(text) for text in args.remap)
        self.start_ns = log.start_ns + int(args.start * 1e9)
        self.end_ns = log.end_ns
        if args.duration is not None:
            self.end_ns = min(log.end_ns, self.start_ns + int(args.duration * 1e9))
        if self.start_ns >= log.end_ns:
            length = (log.end_ns - log.start_ns) * 1e-9
            raise ValueError(f"--start {args.start:g} is beyond the end of {log.path}, which is {length:.1f} s long")
        self.publishers = self._make_publishers()
        self.clock = self._clock_publisher() if args.clock else None
        self.plan = self._plan() if args.plan_from_odometry else None
        self.published = 0

    def _chosen(self) -> list[str]:
        names = [name for name, topic in self.log.topics.items() if topic.count and name != "/clock"]
        unknown = [name for name in self.args.topics or [] if name not in names]
        if unknown:
            raise ValueError(f"{self.log.path} has no topic {', '.join(unknown)}; it has {', '.join(names)}")
        return [name for name in names if self.args.topics is None or name in self.args.topics]

    def _make_publishers(self) -> dict[str, Publisher]:
        from rclpy.qos import DurabilityPolicy, QoSProfile

        from pixel4d_ros.ros.session import message_class

        publishers, missing = {}, {}
        for name in self._chosen():
            topic = self.log.topics[name]
            kind = message_class(topic.type)
            if kind is None:
                missing[name] = topic.type
                continue
            # Reliable, so that both reliable and best-effort subscribers match.
            qos = QoSProfile(depth=10)
            if name in self.log.latched:
                qos = QoSProfile(depth=min(topic.count, 1000), durability=DurabilityPolicy.TRANSIENT_LOCAL)
            publishers[name] = self.node.create_publisher(kind, self.remaps.get(name, name), qos)
        if missing:
            listed = ", ".join(f"{name} ({kind})" for name, kind in missing.items())
            print(f"warning: not replayed, their message types are not installed: {listed}", file=sys.stderr)
        if not publishers:
            raise ValueError(f"{self.log.path}: none of the topics can be replayed; install their message packages")
        return publishers

    def _plan(self) -> DrivenPlan | None:
        from pixel4d_ros.logs.streams import pick_streams
        from pixel4d_ros.ros.driven_path import DrivenPlan

        streams = pick_streams(self.log, self.args.camera)
        topic = self.remaps.get("/planned_path", "/planned_path")
        return None if streams.path else DrivenPlan(self.log, streams, self.node, topic)

    def _clock_publisher(self) -> Publisher:
        from rosgraph_msgs.msg import Clock

        return self.node.create_publisher(Clock, "/clock", 10)

    def wait_for_subscribers(self, names: list[str], timeout: float, stop: Event) -> None:
        """Publish the start time on /clock until the topics have subscribers. Raises ValueError when time is up."""
        from pixel4d_ros.logs.streams import pick_streams

        if not names:
            image = pick_streams(self.log, self.args.camera).image.name
            names = [self.remaps.get(image, image)]
        by_name = {self.remaps.get(name, name): publisher for name, publisher in self.publishers.items()}
        unknown = [name for name in names if name not in by_name]
        if unknown:
            raise ValueError(f"--wait-for-subscribers {', '.join(unknown)}: not published; {', '.join(by_name)} are")
        deadline = time.monotonic() + timeout
        while not stop.is_set():
            waiting = [name for name in names if not by_name[name].get_subscription_count()]
            if not waiting:
                stop.wait(SETTLE_S)
                return
            if time.monotonic() > deadline:
                raise ValueError(f"nobody subscribed to {', '.join(waiting)} within {timeout:g} s: is the node active?")
            self._publish_clock(self.start_ns)
            stop.wait(0.05)

    def play(self, stop: Event) -> Pacer:
        """Publish everything once."""
        from tqdm import tqdm

        self._publish_latched_before_start()
        pacer = Pacer(self.start_ns, self.args.rate, stop)
        seconds = (self.end_ns - self.start_ns) * 1e-9
        form = "{desc} {percentage:3.0f}% |{bar}| {n:.1f}/{total:.1f} s{postfix}"
        with tqdm(total=seconds, desc="replay", bar_format=form, mininterval=0.2) as bar:
            for raw in self._timed(pacer):
                self._publish_clock(raw.time_ns)
                if self.plan is not None:
                    self.plan.publish_with(raw)
                self.publishers[raw.topic].publish(raw.data)
                self.published += 1
                bar.update((raw.time_ns - self.start_ns) * 1e-9 - bar.n)
            if not stop.is_set():
                bar.update(seconds - bar.n)
        return pacer

    def linger(self, pacer: Pacer, seconds: float) -> None:
        """Keep /clock running after the end, so that subscribers that are not done yet still know the time."""
        self._run_clock(pacer, self.end_ns, self.end_ns + int(seconds * self.args.rate * 1e9))

    def _timed(self, pacer: Pacer) -> Iterator[RawMessage]:
        """Messages, each when its time has come; /clock ticks in between."""
        last = self.start_ns
        for raw in self.log.raw(list(self.publishers), self.start_ns):
            if raw.time_ns > self.end_ns:
                return
            self._run_clock(pacer, last, raw.time_ns)
            if pacer.stop.is_set():
                return
            last = raw.time_ns
            yield raw

    def _run_clock(self, pacer: Pacer, start_ns: int, end_ns: int) -> None:
        """Let the time from start_ns to end_ns pass, with /clock ticking; ticks that are overdue are left out."""
        period = int(CLOCK_PERIOD_S * 1e9 * self.args.rate)
        tick = start_ns + period
        while tick < end_ns and not pacer.stop.is_set():
            pacer.wait_until(tick)
            self._publish_clock(tick)
            tick = max(tick + period, min(pacer.now_ns(), end_ns))
        pacer.wait_until(end_ns)

    def _publish_latched_before_start(self) -> None:
        """Whoever skips the beginning still needs the static transforms that were sent there."""
        latched = [name for name in self.publishers if name in self.log.latched]
        if self.args.start <= 0 or not latched:
            return
        for raw in self.log.raw(latched):
            if raw.time_ns >= self.start_ns:
                return
            self.publishers[raw.topic].publish(raw.data)

    def _publish_clock(self, time_ns: int) -> None:
        if self.clock is not None:
            from rosgraph_msgs.msg import Clock

            from pixel4d_ros.ros.conversions import time_message

            self.clock.publish(Clock(clock=time_message(time_ns)))

    def flush(self) -> None:
        """Give reliable subscribers a moment to get the last messages."""
        from rclpy.duration import Duration

        for publisher in self.publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=1))


def _remap(text: str) -> tuple[str, str]:
    name, separator, other = text.partition(":=")
    if not separator or not name or not other:
        raise ValueError(f"--remap {text}: write it as /topic:=/other")
    return name, other
