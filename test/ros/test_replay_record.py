# SPDX-License-Identifier: Apache-2.0
"""Replay and record as two processes over real DDS."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.commands import arrivals, command, finish, hear, pace_error, run_here, start, stopped
from support.log_samples import START, TURN, base_pose, entries, write_mcap, write_rosbag1
from support.waiting import wait_until

pytest.importorskip("rclpy", reason="needs ROS 2: run `make test`")

from rosbags.rosbag2 import Reader

from pixel4d_ros.logs.reader import LogError, LoggedMessage, LogReader
from pixel4d_ros.logs.streams import pick_streams
from pixel4d_ros.logs.transforms import read_frames, stamp_ns
from pixel4d_ros.logs.types import jazzy_types
from pixel4d_ros.logs.writer import LogWriter
from pixel4d_ros.ros.bag.definitions import installed_definition
from pixel4d_ros.ros.bag.driven_path import driven_path
from pixel4d_ros.ros.bag.record import Recorder

pytestmark = pytest.mark.ros
TOPICS = ("/camera/left/camera_info", "/camera/left/image_raw", "/camera/left/depth", "/odometry")


def contents(log: LogReader, topic: str) -> list[bytes]:
    """A topic's messages, serialised anew: DDS pads them."""
    kind = log.topics[topic].type
    return [bytes(jazzy_types().serialize_cdr(m.message, kind)) for m in log.messages([topic])]


def stamps_of(messages: list[LoggedMessage]) -> list[int]:
    return [stamp_ns(m.message.header) for m in messages]


def record_a_replay(environment: dict[str, str], log: Path, out: Path) -> str:
    """Replay a log while it is recorded; what the two said."""
    recorder = start(environment, command("record", out, "--all"))
    try:
        replay = start(environment, command("replay", log, "--wait-for-subscribers", *TOPICS))
        assert recorder.stdout is not None
        seen: set[str] = set()
        while not {*TOPICS} <= seen:
            line = recorder.stdout.readline()
            assert line, "the recorder ended"
            seen.add(line.removeprefix("recording ").strip())
        code, said = stopped(replay)
        assert code == 0, said
    finally:
        code, recorded = stopped(recorder, signal.SIGINT)
    assert code == 0, recorded
    return said + recorded


@pytest.mark.parametrize("kind", ["mcap", "bag"])
def test_every_message_arrives_and_the_clock_runs(tmp_path: Path, environment: dict[str, str], kind: str) -> None:
    frames = 20
    log = tmp_path / f"drive.{kind}"
    if kind == "mcap":
        write_mcap(log, entries(frames))
    else:
        write_rosbag1(log, frames)
    said = record_a_replay(environment, log, tmp_path / "out.mcap")
    with LogReader(log) as a, LogReader(tmp_path / "out.mcap") as b:
        for topic in TOPICS:
            assert contents(a, topic) == contents(b, topic), topic
        stamps = [m.message.clock.sec * 10**9 + m.message.clock.nanosec for m in b.messages(["/clock"])]
        seconds = (a.end_ns - a.start_ns) * 1e-9
    assert seconds == pytest.approx(2.0, abs=0.1)
    # On the recorder's wall clock the images came in real time.
    assert abs(pace_error(arrivals(tmp_path / "out.mcap", TOPICS[1]), 0.1 * np.arange(frames))) < 0.2
    running = np.diff(sorted({s for s in stamps if s > stamps[0]}))
    assert stamps[-1] == pytest.approx(a.end_ns, abs=2e7)
    assert (np.diff(stamps) >= 0).all()
    assert np.median(running) < 1e9 / 40  # 100 Hz, were the machine idle
    assert "not replayed" not in said or "tf2_msgs" in said
    assert "the log has ended: replayed " in said and f" messages, {frames} of them images" in said


def test_rate_topics_remap_and_part(tmp_path: Path, environment: dict[str, str]) -> None:
    log = write_mcap(tmp_path / "drive.mcap", entries(20))
    out = tmp_path / "out.mcap"
    recorder = start(environment, command("record", out, "--topics", "/ego/*", "--use-sim-time"))
    try:
        options = (
            "--rate",
            4,
            "--start",
            0.5,
            "--duration",
            1.0,
            "--topics",
            "/odometry",
            "--remap",
            "/odometry:=/ego/odom",
        )
        code, said = stopped(
            start(environment, command("replay", log, *options, "--wait-for-subscribers", "/ego/odom"))
        )
        assert code == 0, said
    finally:
        code, recorded = stopped(recorder, signal.SIGTERM)
    assert code == 0, recorded
    with LogReader(out) as b:
        assert {name for name, topic in b.topics.items() if topic.count} == {"/ego/odom"}
        messages = list(b.messages())
    with LogReader(log) as a:
        expected = [m for m in a.messages(["/odometry"]) if 0.5 <= (m.time_ns - a.start_ns) * 1e-9 <= 1.5]
    assert stamps_of(messages) == stamps_of(expected)
    assert len(messages) == 21  # both ends
    # --use-sim-time: stamped with the replay's clock, not with today's.
    lag = np.array([m.time_ns for m in messages]) - stamps_of(messages)
    assert np.median(np.abs(lag)) < 0.1e9


def test_an_interrupted_loop_ends_cleanly(tmp_path: Path, environment: dict[str, str]) -> None:
    log = write_mcap(tmp_path / "drive.mcap", entries(3))
    words = ["replay", str(log), "--loop", "--rate", "2"]
    replay = start(environment, [sys.executable, "-c", NAMES_HEAVY_MODULES, *words])
    hear(replay.stderr, "100%", 3)
    assert replay.poll() is None
    code, said = stopped(replay, signal.SIGINT)
    assert code == 0, said
    assert "Traceback" not in said
    assert said.count("the log has ended and starts again (--loop)") >= 2
    assert "heavy modules: []" in said  # their import, at the first tick of the clock, made the replay a second late


NAMES_HEAVY_MODULES = """
import sys
from pixel4d_ros.cli import main
code = main()
print("heavy modules:", [name for name in ("scipy", "torch") if name in sys.modules])
raise SystemExit(code)
"""


def test_a_replay_that_waits_ends_cleanly_on_ctrl_c(tmp_path: Path, environment: dict[str, str]) -> None:
    log = write_mcap(tmp_path / "drive.mcap", entries(3))
    replay = start(environment, command("replay", log, "--wait-for-subscribers", "/odometry"))
    hear(replay.stderr, "waiting up to 60 s for a subscriber of /odometry")
    code, said = stopped(replay, signal.SIGINT)
    assert (code, said.strip()) == (0, "")


def test_a_recorder_that_is_killed_leaves_what_it_recorded(
    tmp_path: Path, environment: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    log, out = write_mcap(tmp_path / "drive.mcap", entries(20)), tmp_path / "out.mcap"
    recorder = start(environment, command("record", out, "--topics", "/odometry"))
    finish(start(environment, command("replay", log, "--topics", "/odometry", "--wait-for-subscribers", "/odometry")))
    with LogReader(log) as source:
        sent = contents(source, "/odometry")

    def left() -> list[bytes]:
        """What is on the disk; nothing before the first flush."""
        with suppress(LogError), LogReader(tmp_path / "out.partial") as partial:
            return contents(partial, "/odometry")
        return []

    wait_until(lambda: left() == sent)
    recorder.kill()
    stopped(recorder)
    assert left() == sent
    assert run_here(environment, "record", out, "--duration", 1) == 1
    assert "holds the recording of a recorder that was killed" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--rate", "0"), "--rate must be positive"),
        (("--topics", "/nothing"), "has no topic /nothing; it has "),
        (("--start", "100"), r"--start 100 is beyond the end"),
        (("--camera", "/nothing"), "has no camera /nothing: its image topics are"),
        (("--remap", "odometry"), "write it as /topic:=/other"),
        (("--remap", "/odometri:=/odom"), "has no topic /odometri; it has /tf_static, /odometry, "),
        (("--remap", "/odometry:=/camera/left/depth"), "several topics would be published as /camera/left/depth"),
        (
            ("--wait-for-subscribers", "--wait-timeout", "0.5"),
            "nobody subscribed to /camera/left/image_raw within 0.5 s",
        ),
    ],
)
def test_bad_options_end_with_one_line(
    tmp_path: Path, environment: dict[str, str], options: tuple, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    log = write_mcap(tmp_path / "drive.mcap", entries(3))
    assert run_here(environment, "replay", log, *options) == 1
    said = capfd.readouterr()
    assert reason in said.out + said.err
    assert "Traceback" not in said.out + said.err


def test_bad_logs_end_with_one_line(
    tmp_path: Path, environment: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    whole = write_mcap(tmp_path / "whole.mcap", entries()).read_bytes()
    (tmp_path / "cut.mcap").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mcap").write_bytes(b"")
    for name, reason in (("cut", "is truncated or damaged"), ("empty", "is empty"), ("none", "does not exist")):
        assert run_here(environment, "replay", tmp_path / f"{name}.mcap") == 1
        said = "".join(capfd.readouterr())
        assert reason in said
        assert len(said.strip().splitlines()) == 1, said


def test_record_keeps_an_existing_file(
    tmp_path: Path,
    environment: dict[str, str],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out.mcap"
    out.write_bytes(b"precious")
    assert run_here(environment, "record", out, "--duration", 1) == 1
    assert "exists: choose another name or pass --overwrite" in capfd.readouterr().err
    assert out.read_bytes() == b"precious"
    assert run_here(environment, "record", out, "--duration", 1, "--topics", "/nothing", "--overwrite") == 0
    assert "nobody published /nothing" in caplog.text
    assert run_here(environment, "record", out, "--duration", "nan", "--overwrite") == 1
    assert "--duration must be positive seconds, got nan" in capfd.readouterr().err
    with Reader(out) as reader:
        assert reader.message_count == 0


class Pages:
    """A log that keeps what is written to it."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.written: list[tuple[str, int, bytes]] = []

    def write(self, topic: str, time_ns: int, data: bytes) -> None:
        self.counts[topic] += 1
        self.written.append((topic, time_ns, data))


def test_what_came_before_the_clock_gets_its_first_moment_and_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    now = SimpleNamespace(nanoseconds=0)
    node: Any = SimpleNamespace(get_clock=lambda: SimpleNamespace(now=lambda: now))
    log: Any = Pages()
    recorder = Recorder(node, log, None, everything=True)
    recorder.write("/forecast", b"early")
    assert not log.written
    now.nanoseconds = START
    recorder.write("/odometry", b"later")
    recorder.write("/forecast", b"later")
    assert log.written == [
        ("/forecast", START, b"early"),
        ("/odometry", START, b"later"),
        ("/forecast", START, b"later"),
    ]
    assert capsys.readouterr().out == "first message on /forecast\nfirst message on /odometry\n"


def test_a_recording_without_a_clock_and_with_a_misspelled_topic_is_named(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """--use-sim-time on a robot gave all messages one time, a typing error lost a topic; both without a word."""
    log, out = write_mcap(tmp_path / "drive.mcap", entries(20)), tmp_path / "out.mcap"
    options = ("--topics", "/odometry", "/camera/left/image", "--use-sim-time")
    recorder = start(environment, command("record", out, *options))
    finish(start(environment, command("replay", log, "--no-clock", "--wait-for-subscribers", "/odometry")))
    said = finish(recorder, signal.SIGINT)
    assert "--use-sim-time, but nobody publishes /clock" in said
    assert "nobody published /camera/left/image; check" in said
    came = arrivals(out, "/odometry")
    assert len(came) > 10 and np.ptp(came) > 1 and abs(came[-1] - time.time()) < 60


def test_a_topic_is_recorded_with_its_publishers_type() -> None:
    """The graph lists types of subscriptions too, such as that of a viewer that expects another one."""
    from rclpy.qos import QoSProfile

    recorded: dict[str, str] = {}
    log: Any = SimpleNamespace(add_topic=lambda name, kind, *_: recorded.update({name: kind}))
    publisher = SimpleNamespace(topic_type="sensor_msgs/msg/CompressedImage", qos_profile=QoSProfile(depth=1))
    node: Any = SimpleNamespace(
        get_topic_names_and_types=lambda: [("/camera", ["sensor_msgs/msg/Image", publisher.topic_type])],
        get_publishers_info_by_topic=lambda name: [publisher],
        create_subscription=lambda *_, **__: None,
    )
    Recorder(node, log, None, everything=False).subscribe_to_new()
    assert recorded == {"/camera": "sensor_msgs/msg/CompressedImage"}


def test_driven_path_is_where_the_base_was(tmp_path: Path) -> None:
    with LogReader(write_mcap(tmp_path / "drive.mcap", entries(20))) as log:
        track, _ = read_frames(log, pick_streams(log)).camera_track("camera")
    path = driven_path(track, START + 300_000_000)
    assert path is not None
    assert path.header.frame_id == "odom"
    assert len(path.poses) == 17  # the log ends before 3 s are over
    for i in (0, 7):
        stamp = path.poses[i].header.stamp
        ns = stamp.sec * 10**9 + stamp.nanosec
        assert ns == START + 300_000_000 + i * 100_000_000
        position, yaw = base_pose(ns)
        got = path.poses[i].pose
        np.testing.assert_allclose([got.position.x, got.position.y], position[:2], atol=1e-6)
        assert 2 * np.arctan2(got.orientation.z, got.orientation.w) == pytest.approx(yaw, abs=TURN * 1e-6)
    assert driven_path(track, START + 1_990_000_000) is None


def test_definitions_of_installed_types_are_complete(tmp_path: Path) -> None:
    definition = installed_definition("sensor_msgs/msg/PointCloud2")
    assert definition is not None
    assert "MSG: sensor_msgs/PointField" in definition
    assert "MSG: builtin_interfaces/Time" in definition
    with LogWriter(tmp_path / "a.mcap") as log:
        log.add_topic("/cloud", "sensor_msgs/msg/PointCloud2", definition)
    assert installed_definition("no_such_msgs/msg/Thing") is None
