# SPDX-License-Identifier: Apache-2.0
"""Logs as they come: unfinished, split, mixed with other encodings, with stamps and log times that are odd."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin
from support.log_samples import START, Entry, entries, header, tf_message, write_mcap, write_rosbag2

from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.logs.reader import LogError, LogReader
from pixel4d_ros.logs.types import jazzy_types
from pixel4d_ros.logs.writer import LogWriter

T = jazzy_types().types
IMAGE = "/camera/left/image_raw"
MAGIC = b"\x89MCAP0\r\n"


def stamps(path: Path, topic: str = IMAGE) -> list[int]:
    with LogReader(path) as log:
        return [m.time_ns for m in log.messages([topic])]


def record(kind: int, data: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(data)) + data


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<I", len(data)) + data


def footer_start(data: bytes) -> int:
    """Where the data section of an MCAP file ends."""
    offset = len(MAGIC)
    while data[offset] != 0x0F:
        offset += 9 + struct.unpack_from("<Q", data, offset + 1)[0]
    return offset


def test_a_recording_that_was_killed_is_read_up_to_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = write_mcap(tmp_path / "whole.mcap", entries())
    data = whole.read_bytes()
    for name, kept in {
        "no_footer": data[: footer_start(data)],
        "torn": data[: footer_start(data)] + data[8:200],
    }.items():
        path = tmp_path / f"{name}.mcap"
        path.write_bytes(kept)
        with caplog.at_level(logging.WARNING):
            assert stamps(path) == stamps(whole)
        assert f"{name}.mcap was not closed" in caplog.text
        assert len(read_clip(path)) == 6


def test_channels_that_hold_no_ros_messages_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = write_mcap(tmp_path / "whole.mcap", entries())
    data = whole.read_bytes()
    start = len(MAGIC) + 9 + struct.unpack_from("<Q", data, len(MAGIC) + 1)[0]
    foreign = b""
    for number, encoding in ((900, "protobuf"), (901, "json")):
        schema = {"protobuf": "protobuf", "json": "jsonschema"}[encoding]
        foreign += record(3, struct.pack("<H", number) + text("foxglove.Grid") + text(schema) + text(b"\xff\xfe\x00"))
        foreign += record(4, struct.pack("<HH", number, number) + text(f"/{encoding}") + text(encoding) + text(b""))
        foreign += record(5, struct.pack("<HIQQ", number, 0, START, START) + b"{}")
    end = record(2, struct.pack("<QQI", 0, 0, 0)) + MAGIC
    mixed = tmp_path / "mixed.mcap"
    mixed.write_bytes(data[:start] + foreign + data[start : footer_start(data)] + end)
    with caplog.at_level(logging.WARNING):
        assert stamps(mixed) == stamps(whole)
    assert "/protobuf (protobuf)" in caplog.text and "/json (json)" in caplog.text
    with LogReader(mixed) as log:
        assert "/protobuf" not in log.topics
    alone = tmp_path / "alone.mcap"
    alone.write_bytes(data[:start] + foreign + end)
    with (
        pytest.raises(LogError, match=r"alone\.mcap holds no ROS 2 messages; its channels are .*protobuf"),
        LogReader(alone),
    ):
        pass


def test_an_empty_profile_is_no_obstacle_and_that_of_ros_1_is_named(tmp_path: Path) -> None:
    whole = write_mcap(tmp_path / "whole.mcap", entries())
    data = whole.read_bytes()
    (length,) = struct.unpack_from("<Q", data, 9)
    rest = data[17 + 8 : 17 + length]  # after the profile "ros2"
    for profile in ("", "ros1"):
        path = tmp_path / f"profile{profile}.mcap"
        header = record(1, text(profile) + rest)
        tail = record(2, struct.pack("<QQI", 0, 0, 0)) + MAGIC
        path.write_bytes(MAGIC + header + data[17 + length : footer_start(data)] + tail)
    assert stamps(tmp_path / "profile.mcap") == stamps(whole)
    with (
        pytest.raises(LogError, match="is an MCAP file of ROS 1: pass the"),
        LogReader(tmp_path / "profileros1.mcap"),
    ):
        pass


@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_an_empty_storage_identifier_is_that_of_the_file(tmp_path: Path, plugin: StoragePlugin) -> None:
    path = write_rosbag2(tmp_path / "bag", list(entries()), plugin)
    metadata = path / "metadata.yaml"
    name = "sqlite3" if plugin is StoragePlugin.SQLITE3 else "mcap"
    changed = metadata.read_text().replace(f"storage_identifier: {name}", "storage_identifier: ''")
    assert changed != metadata.read_text()
    metadata.write_text(changed)
    assert len(stamps(path)) == 6


@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_the_files_of_a_split_recording_are_in_any_order(tmp_path: Path, plugin: StoragePlugin) -> None:
    items = list(entries(frames=9))
    middle = START + 450_000_000
    whole = write_rosbag2(tmp_path / "whole", items, plugin)
    early = write_rosbag2(tmp_path / "early", [e for e in items if e.time_ns < middle], plugin)
    late = write_rosbag2(tmp_path / "late", [e for e in items if e.time_ns >= middle], plugin)
    suffix = ".db3" if plugin is StoragePlugin.SQLITE3 else ".mcap"
    for part in (early, late):
        (part / f"{part.name}{suffix}").rename(whole / f"{part.name}{suffix}")
    metadata = whole / "metadata.yaml"
    lines = metadata.read_text().replace(f"- whole{suffix}", f"- late{suffix}\n  - early{suffix}")
    metadata.write_text(lines)
    assert stamps(whole) == [START + i * 100_000_000 for i in range(9)]
    assert len(read_clip(whole)) == 9


def restamped(change: Callable[[Entry], int], *topics: str) -> list[Entry]:
    """The sample with other header stamps."""
    items = []
    for e in entries(frames=8):
        if e.topic in topics:
            ns = change(e)
            stamp = replace(e.message.header.stamp, sec=ns // 10**9, nanosec=ns % 10**9)
            e = replace(e, message=replace(e.message, header=replace(e.message.header, stamp=stamp)))
        items.append(e)
    return items


def test_images_out_of_order_are_sorted_counted_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two images arrive late: none is lost."""
    plain = read_clip(write_mcap(tmp_path / "plain.mcap", entries(frames=8)))
    items = list(entries(frames=8))
    late = {START + 200_000_000: START + 410_000_000, START + 300_000_000: START + 420_000_000}
    items = [replace(e, time_ns=late.get(e.time_ns, e.time_ns)) if e.topic == IMAGE else e for e in items]
    items.sort(key=lambda e: e.time_ns)
    with caplog.at_level(logging.WARNING):
        clip = read_clip(write_mcap(tmp_path / "late.mcap", items))
    np.testing.assert_array_equal(clip.times, plain.times)
    np.testing.assert_array_equal(clip.images, plain.images)
    assert "2 of 8 images on /camera/left/image_raw were logged out of the order of their stamps" in caplog.text


def test_runs_whose_stamps_mix_are_refused(tmp_path: Path) -> None:
    """A simulation was reset amid the log: images and poses of both runs were sorted into one."""
    again = 2_030_000_000

    def second(e: Entry) -> Entry:
        head = replace(e.message.header, stamp=header(T, e.time_ns - again, "").stamp)
        return replace(e, message=replace(e.message, header=head))

    items = [second(e) if e.time_ns >= START + again and "tf" not in e.topic else e for e in entries(frames=40)]
    with pytest.raises(LogError, match=r"the stamps of .* go back by 1.9 s, 2.1 s after its first image: several runs"):
        read_clip(write_mcap(tmp_path / "reset.mcap", items))


def test_images_of_one_stamp_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = restamped(lambda e: max(e.time_ns, START + 200_000_000), IMAGE)
    with caplog.at_level(logging.WARNING):
        clip = read_clip(write_mcap(tmp_path / "same.mcap", items))
    assert len(clip) == 6
    assert "2 of 8 images on /camera/left/image_raw repeat a stamp and are left out" in caplog.text


def test_images_that_share_whole_seconds_are_refused_and_those_recorded_twice_are_read(tmp_path: Path) -> None:
    items = restamped(lambda e: e.time_ns // 10**9 * 10**9, IMAGE)
    with pytest.raises(LogError, match="7 of 8 images on /camera/left/image_raw have the stamp of another one"):
        read_clip(write_mcap(tmp_path / "seconds.mcap", items))
    twice = [e for e in entries(frames=8) for _ in range(3)]
    assert len(read_clip(write_mcap(tmp_path / "twice.mcap", twice))) == 8


def test_images_of_another_camera_on_the_topic_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items: list[Entry] = []
    for e in entries(frames=8):
        items.append(e)
        if e.topic == IMAGE:
            header = replace(e.message.header, frame_id="right")
            items.append(replace(e, time_ns=e.time_ns + 1000, message=replace(e.message, header=header)))
    with caplog.at_level(logging.WARNING):
        assert len(read_clip(write_mcap(tmp_path / "two.mcap", items))) == 8
    assert "holds 8 images of the frame 'right', which are left out; most are of 'camera'" in caplog.text


def test_a_stamp_of_zero_is_a_time_unless_the_whole_topic_has_none(tmp_path: Path) -> None:
    simulated = restamped(lambda e: e.time_ns - START, IMAGE, "/odometry")
    clip = read_clip(write_mcap(tmp_path / "simulated.mcap", simulated))
    np.testing.assert_allclose(clip.times, np.arange(8) * 0.1, atol=1e-9)
    unstamped = restamped(lambda e: 0, IMAGE)
    clip = read_clip(write_mcap(tmp_path / "unstamped.mcap", unstamped))
    np.testing.assert_allclose(clip.times, START * 1e-9 + np.arange(8) * 0.1, atol=1e-6)


def test_messages_logged_at_time_zero_are_at_their_stamps(tmp_path: Path) -> None:
    """A recorder on simulated time whose clock had not begun: no 50 years lie between two messages."""
    items = list(entries(frames=8))
    early = [replace(e, time_ns=0) if i < 10 else e for i, e in enumerate(items)]
    path = write_mcap(tmp_path / "early.mcap", early)
    with LogReader(path) as log:
        assert (log.end_ns - log.start_ns) * 1e-9 < 2
        times = [raw.time_ns for raw in log.raw()]
        assert times == sorted(times) and times[0] >= START - 10**9
    assert len(read_clip(path)) == 8
    never = write_mcap(tmp_path / "never.mcap", [replace(e, time_ns=0) for e in items])
    assert stamps(never) == [START + i * 100_000_000 for i in range(8)]
    assert len(read_clip(never)) == 8
    unstamped = [
        replace(e, time_ns=0)
        for e in restamped(lambda e: 0, IMAGE, "/odometry")
        if "odom" in e.topic or e.topic == IMAGE
    ]
    with pytest.raises(LogError, match="all messages were logged at time 0 and have no stamps"):
        stamps(write_mcap(tmp_path / "nothing.mcap", unstamped))


MOUNTING = ("base_link", "camera", (2.0, 0.5, 1.0), (0.5, -0.5, 0.5, -0.5))  # as in log_samples


def test_a_mounting_that_is_repeated_on_tf_counts_as_static(tmp_path: Path) -> None:
    plain = read_clip(write_mcap(tmp_path / "plain.mcap", entries()))
    items = [e for e in entries() if e.topic != "/tf_static"]
    items += [
        Entry("/tf", START + i * 100_000_000, tf_message(T, [MOUNTING], START + i * 100_000_000)) for i in range(6)
    ]
    items.sort(key=lambda e: e.time_ns)
    clip = read_clip(write_mcap(tmp_path / "repeated.mcap", items))
    np.testing.assert_allclose(clip.poses, plain.poses, atol=1e-9)


def test_images_without_a_frame_have_that_of_their_camera_info(tmp_path: Path) -> None:
    plain = read_clip(write_mcap(tmp_path / "plain.mcap", entries()))
    items = []
    for e in entries():
        if e.topic == IMAGE:
            e = replace(e, message=replace(e.message, header=replace(e.message.header, frame_id="")))
        items.append(e)
    clip = read_clip(write_mcap(tmp_path / "unnamed.mcap", items))
    np.testing.assert_allclose(clip.poses, plain.poses, atol=1e-9)


def test_odometry_out_of_order_is_sorted(tmp_path: Path) -> None:
    plain = read_clip(write_mcap(tmp_path / "plain.mcap", entries()))
    items = list(entries())
    late = [i for i, e in enumerate(items) if e.topic == "/odometry"][2]
    items[late] = replace(items[late], time_ns=items[late].time_ns + 150_000_000)
    items.sort(key=lambda e: e.time_ns)
    clip = read_clip(write_mcap(tmp_path / "late.mcap", items))
    np.testing.assert_allclose(clip.poses, plain.poses, atol=1e-9)


def test_a_definition_that_lacks_a_field_is_named(tmp_path: Path) -> None:
    """Found by research/fuzz_readers.py: the field was "headep"."""
    whole = write_mcap(tmp_path / "whole.mcap", entries())
    with LogReader(whole) as log, LogWriter(tmp_path / "odd.mcap") as odd:
        for topic in log.topics.values():
            text = log.types.generate_msgdef(topic.type, ros_version=2)[0].replace(
                "std_msgs/Header header", "std_msgs/Header headep"
            )
            odd.add_topic(topic.name, topic.type, text if topic.name == IMAGE else None)
        for raw in log.raw():
            odd.write(raw.topic, raw.time_ns, raw.data)
    with pytest.raises(LogError, match="its definition of sensor_msgs/msg/Image lacks header"):
        read_clip(tmp_path / "odd.mcap")
