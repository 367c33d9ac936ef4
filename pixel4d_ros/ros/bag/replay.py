# SPDX-License-Identifier: Apache-2.0
"""`pixel4d replay LOG`: publish a log's messages over DDS in real time, with /clock."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Event
from typing import TYPE_CHECKING

from pixel4d_ros.logs.options import FASTEST_RATE
from pixel4d_ros.ros.bag.publishers import PLAN, chosen_topics, make_publishers, read_remaps
from pixel4d_ros.ros.bag.replay_clock import ReplayClock, space_bar
from pixel4d_ros.ros.bag.score import Scoring, add_score_arguments, report, scoring
from pixel4d_ros.ros.bag.services import pause_services

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.publisher import Publisher

    from pixel4d_ros.logs.reader import LogReader, RawMessage
    from pixel4d_ros.ros.bag.driven_path import DrivenPlan

logger = logging.getLogger(__name__)
CLOCK_PERIOD_S = 0.01
LONGEST_S = 1e9
BEHIND_S = 0.1  # larger lags are reported
LINGER_STEP_S = 0.2
SETTLE_S = 0.3  # subscribers discover the publisher later than the publisher discovers them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `pixel4d replay`."""
    parser.add_argument("log", help="an .mcap, .db3 or .bag file, or a rosbag2 folder")
    parser.add_argument("-r", "--rate", type=float, default=1.0, help="speed, 1 is real time (default %(default)s)")
    parser.add_argument("-l", "--loop", action="store_true", help="restart at the end, until interrupted")
    parser.add_argument(
        "--start", "--start-offset", type=float, default=0.0, metavar="S", help="skip the first S seconds"
    )
    parser.add_argument(
        "--duration", "--playback-duration", type=float, metavar="S", help="stop after S seconds of the log"
    )
    parser.add_argument(
        "--start-paused",
        action="store_true",
        help="begin when the space bar is pressed or the service ~/resume called, which pause and resume at any time",
    )
    parser.add_argument("--topics", nargs="+", metavar="TOPIC", help="publish only these topics")
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
        help="if the log has no nav_msgs/Path, publish the recorded poses of the next 3 s as /planned_path",
    )
    add_score_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Replay a log. Raises LogError or ValueError with one line."""
    from pixel4d_ros.logs.reader import LogReader
    from pixel4d_ros.logs.streams import pick_streams
    from pixel4d_ros.ros.session import ros_node

    _check_numbers(args)
    with LogReader(args.log) as log, ros_node("pixel4d_replay") as (node, stop), ExitStack() as stack:
        if args.camera is not None:
            pick_streams(log, args.camera)  # raises where it has none of that name
        replay = Replay(log, node, args, stop)
        stack.enter_context(pause_services(node, replay.paused))
        replay.has_keyboard = stack.enter_context(space_bar(replay.paused, stop))
        score = None
        if args.score is not None:
            replay.check_unscored(args.score_topic)
            score = stack.enter_context(scoring(args.score, log.path, args.score_topic, args.clock))
        replay.wait(args.wait_for_subscribers, score)
        if stop.is_set():
            return 0
        replay_clock = replay.play()
        while args.loop and not stop.is_set():
            print("the log has ended and starts again (--loop)", flush=True)
            replay_clock = replay.play()
        replay.flush()
        if not stop.is_set():
            replay.report_lag(replay_clock)
            replay.linger(replay_clock, args.linger)
        while score is not None and score.expects_more() and not stop.is_set():
            replay.linger(replay_clock, LINGER_STEP_S)
    if args.score is not None:
        report(log.path, args.camera, args.score, args.rectified)
    return 0


def _check_numbers(args: argparse.Namespace) -> None:
    """Raise ValueError for a rate or a number of seconds that cannot be meant."""
    if not 0 < args.rate <= FASTEST_RATE:
        raise ValueError(f"--rate must be positive and at most {FASTEST_RATE:g}, got {args.rate:g}")
    seconds = {"start": args.start, "duration": args.duration, "wait-timeout": args.wait_timeout, "linger": args.linger}
    for name, value in seconds.items():
        if value is not None and not 0 <= value < LONGEST_S:
            raise ValueError(f"--{name} must be a number of seconds, not negative, got {value:g}")


class Replay:
    """A log, its publishers, and those of /clock and of the plan, if requested."""

    def __init__(self, log: LogReader, node: Node, args: argparse.Namespace, stop: Event) -> None:
        self.log, self.node, self.args, self.stop = log, node, args, stop
        self.paused = Event()
        if args.start_paused:
            self.paused.set()
        self.has_keyboard = False
        self.remaps = read_remaps(args.remap)
        self.start_ns = log.start_ns + int(args.start * 1e9)
        self.end_ns = log.end_ns
        if args.duration is not None:
            self.end_ns = min(log.end_ns, self.start_ns + int(args.duration * 1e9))
        if self.start_ns >= log.end_ns:
            length = (log.end_ns - log.start_ns) * 1e-9
            raise ValueError(f"--start {args.start:g} is beyond the end of {log.path}, which is {length:.1f} s long")
        self.publishers = make_publishers(node, log, chosen_topics(log, args.topics), self.remaps)
        self.clock = self._clock_publisher() if args.clock else None
        self.plan = self._plan() if args.plan_from_odometry else None
        self.published = self.images = 0
        self.time_ns = self.start_ns  # log time replayed so far

    def _plan(self) -> DrivenPlan | None:
        from pixel4d_ros.logs.streams import pick_streams
        from pixel4d_ros.ros.bag.driven_path import DrivenPlan

        streams = pick_streams(self.log, self.args.camera)
        topic = self.remaps.get(PLAN, PLAN)
        return None if streams.path else DrivenPlan(self.log, streams, self.node, topic)

    def _clock_publisher(self) -> Publisher:
        from rosgraph_msgs.msg import Clock

        return self.node.create_publisher(Clock, "/clock", 10)

    def check_unscored(self, topic: str) -> None:
        """Raise ValueError if the log contains the scored topic itself."""
        if topic in [self.remaps.get(name, name) for name in self.publishers]:
            raise ValueError(f"{self.log.path} holds {topic} itself: choose what to replay with --topics, or remap it")

    def wait(self, subscribers: list[str] | None, score: Scoring | None) -> None:
        """Wait for subscribers and for the publisher of the scored topic. Raises ValueError after the timeout."""
        if score is not None:
            self._wait_until(
                "the publisher",
                lambda: [] if score.is_ready else [score.topic],
                "nobody publishes {} (waited {:g} s): start the node first, or name its topic with --score-topic",
            )
            subscribers = subscribers or []
        if subscribers is not None:
            awaited = self._awaited(subscribers)
            self._wait_until(
                "a subscriber",
                lambda: [name for name, publisher in awaited.items() if not publisher.get_subscription_count()],
                "nobody subscribed to {} within {:g} s: is the node active?",
            )

    def _awaited(self, names: list[str]) -> dict[str, Publisher]:
        from pixel4d_ros.logs.streams import pick_streams

        if not names:
            image = pick_streams(self.log, self.args.camera).image.name
            names = [self.remaps.get(image, image)]
        by_name = {self.remaps.get(name, name): publisher for name, publisher in self.publishers.items()}
        unknown = [name for name in names if name not in by_name]
        if unknown:
            raise ValueError(f"--wait-for-subscribers {', '.join(unknown)}: not published; {', '.join(by_name)} are")
        return {name: by_name[name] for name in names}

    def _wait_until(self, what: str, missing: Callable[[], list[str]], complaint: str) -> None:
        """Publish the start time on /clock until nothing is missing. After a second, print what is."""
        timeout: float = self.args.wait_timeout
        deadline = time.monotonic() + timeout
        report_at = time.monotonic() + 1
        while not self.stop.is_set():
            waiting = missing()
            if not waiting:
                self.stop.wait(SETTLE_S)
                return
            if time.monotonic() > deadline:
                raise ValueError(complaint.format(", ".join(waiting), timeout))
            if time.monotonic() > report_at:
                print(f"waiting up to {timeout:g} s for {what} of {', '.join(waiting)}", file=sys.stderr, flush=True)
                report_at = deadline
            self._publish_clock(self.start_ns)
            self.stop.wait(0.05)

    def play(self) -> ReplayClock:
        """Publish everything once."""
        from tqdm import tqdm

        from pixel4d_ros.logs.streams import is_picture

        pictures = {name for name, topic in self.log.topics.items() if is_picture(topic)}
        self._publish_latched_before_start()
        replay_clock = ReplayClock(self.start_ns, self.args.rate, self.stop)
        self.time_ns = self.start_ns
        seconds = (self.end_ns - self.start_ns) * 1e-9
        form = "{desc} {percentage:3.0f}% |{bar}| {n:.1f}/{total:.1f} s{postfix}"
        with tqdm(total=seconds, desc="replay", bar_format=form, mininterval=0.2) as bar:
            for raw in self._timed(replay_clock):
                self._publish_clock(raw.time_ns)
                if self.plan is not None:
                    self.plan.publish_with(raw)
                self.publishers[raw.topic].publish(raw.data)
                self.published += 1
                self.images += raw.topic in pictures
                bar.update((raw.time_ns - self.start_ns) * 1e-9 - bar.n)
            if not self.stop.is_set():
                bar.update(seconds - bar.n)
        return replay_clock

    def report_lag(self, replay_clock: ReplayClock) -> None:
        """Print that the log has ended, the numbers of messages and the largest lag; warn about a large one."""
        numbers = f"{self.published} messages, {self.images} of them images"
        lag = replay_clock.max_lag * 1e3
        print(f"the log has ended: replayed {numbers}, at most {lag:.0f} ms late", flush=True)
        if replay_clock.max_lag > BEHIND_S:
            logger.warning(
                "replay fell up to %.1f s behind real time: lower --rate, or publish less with --topics",
                replay_clock.max_lag,
            )

    def linger(self, replay_clock: ReplayClock, seconds: float) -> None:
        """Keep /clock running after the end, for subscribers that are still working."""
        self._run_clock(replay_clock, self.time_ns + int(seconds * self.args.rate * 1e9))

    def _timed(self, replay_clock: ReplayClock) -> Iterator[RawMessage]:
        """Messages, each at its time; /clock ticks in between."""
        for raw in self.log.raw(list(self.publishers), self.start_ns):
            if raw.time_ns > self.end_ns:
                break
            self._run_clock(replay_clock, raw.time_ns)
            if self.stop.is_set():
                return
            yield raw
        self._run_clock(replay_clock, self.end_ns)

    def _run_clock(self, replay_clock: ReplayClock, end_ns: int) -> None:
        """Wait until end_ns, publishing /clock; overdue ticks are skipped."""
        self._hold(replay_clock)
        period = int(CLOCK_PERIOD_S * 1e9 * self.args.rate)
        tick = self.time_ns + period
        while tick < end_ns and not self.stop.is_set():
            replay_clock.wait_until(tick)
            self._publish_clock(tick)
            self.time_ns = tick
            self._hold(replay_clock)
            tick = max(tick + period, min(replay_clock.now_ns(), end_ns))
        replay_clock.wait_until(end_ns)
        self.time_ns = end_ns

    def _hold(self, replay_clock: ReplayClock) -> None:
        """While paused, repeat the current time for new subscribers."""
        if not self.paused.is_set():
            return
        control = ("the space bar or " if self.has_keyboard else "") + f"{self.node.get_fully_qualified_name()}/resume"
        seconds = (self.time_ns - self.log.start_ns) * 1e-9
        print(f"\npaused at {seconds:.2f} s: {control} resumes", file=sys.stderr, flush=True)
        with replay_clock.paused():
            while self.paused.is_set() and not self.stop.is_set():
                self._publish_clock(self.time_ns)
                self.stop.wait(CLOCK_PERIOD_S)

    def _publish_latched_before_start(self) -> None:
        """After --start, publish the earlier latched messages, e.g. static transforms."""
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

            from pixel4d_ros.ros.messages.headers import time_message

            self.clock.publish(Clock(clock=time_message(time_ns)))

    def flush(self) -> None:
        """Wait until reliable subscribers have received the last messages."""
        from rclpy.duration import Duration

        for publisher in self.publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=1))
