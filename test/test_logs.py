# SPDX-License-Identifier: Apache-2.0
"""Reading and writing logs in every format, and what is said of logs that cannot be used."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin
from support.log_samples import (
    START,
    compressed_message,
    entries,
    image_message,
    picture,
    write_mcap,
    write_rosbag1,
    write_rosbag2,
)
from support.paths import shared_path

from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.logs.images import decode_depth, decode_image, picture_doubt
from pixel4d_ros.logs.reader import LogError, LogReader
from pixel4d_ros.logs.streams import pick_streams
from pixel4d_ros.logs.types import jazzy_types
from pixel4d_ros.logs.writer import LogWriter

FORMATS = ("mcap", "rosbag2_sqlite3", "rosbag2_mcap", "db3", "rosbag1")
IMAGE = "/camera/left/image_raw"


def sample(folder: Path, kind: str) -> Path:
    if kind == "mcap":
        return write_mcap(folder / "drive.mcap", entries())
    if kind == "rosbag1":
        return write_rosbag1(folder / "drive.bag")
    if kind == "rosbag2_mcap":
        return write_rosbag2(folder / "drive", list(entries()), StoragePlugin.MCAP)
    bag = write_rosbag2(folder / "drive", list(entries()), StoragePlugin.SQLITE3)
    return bag / "drive.db3" if kind == "db3" else bag


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_reads_the_same(tmp_path: Path, kind: str) -> None:
    expected = list(entries())
    with LogReader(sample(tmp_path, kind)) as log:
        assert {name: t.count for name, t in log.topics.items()} == {
            name: sum(e.topic == name for e in expected) for name in {e.topic for e in expected}
        }
        assert log.latched == {"/tf_static"}
        assert log.start_ns == min(e.time_ns for e in expected)
        messages = list(log.messages())
        raw = list(log.raw([IMAGE]))
        info = next(log.messages(["/camera/left/camera_info"])).message
        late = [m.time_ns for m in log.messages([IMAGE], start_ns=START + 300_000_000)]
    assert [m.time_ns for m in messages] == sorted(e.time_ns for e in expected)
    assert info.k[0] == 30.0
    assert info.width == 32
    assert late == [START + i * 100_000_000 for i in (3, 4, 5)]
    types = jazzy_types()
    for i, (m, r) in enumerate(zip((m for m in messages if m.topic == IMAGE), raw, strict=True)):
        np.testing.assert_array_equal(decode_image(m.message), picture(i))
        assert r.type == "sensor_msgs/msg/Image"
        assert types.deserialize_cdr(r.data, r.type).header.frame_id == "camera"


def test_writer_round_trip_of_bytes_is_exact(tmp_path: Path) -> None:
    with LogReader(sample(tmp_path, "mcap")) as log:
        before = list(log.raw())
        with LogWriter(tmp_path / "copy.mcap") as copy:
            for topic in log.topics.values():
                copy.add_topic(topic.name, topic.type, log.types.generate_msgdef(topic.type, ros_version=2)[0])
            for m in before:
                copy.write(m.topic, m.time_ns, m.data)
    with LogReader(tmp_path / "copy.mcap") as log:
        assert list(log.raw()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.mcap", "drive.mcap"]  # nothing else is left behind


def test_an_interrupted_recording_is_complete_and_any_other_interrupted_log_leaves_the_old_one(tmp_path: Path) -> None:
    def interrupt(path: Path, recording: bool) -> None:
        with LogWriter(path, recording) as log:
            first = next(iter(entries()))
            log.write(first.topic, first.time_ns, first.message)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt(tmp_path / "recorded.mcap", recording=True)
    assert len(read_all(tmp_path / "recorded.mcap")) == 1
    (tmp_path / "converted.mcap").write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt):
        interrupt(tmp_path / "converted.mcap", recording=False)
    assert (tmp_path / "converted.mcap").read_bytes() == b"older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["converted.mcap", "recorded.mcap"]


def test_a_recorder_that_is_killed_leaves_a_log_in_a_named_place(tmp_path: Path) -> None:
    """No exception handler runs at kill -9: what was flushed a second ago is there, and a new recording keeps it."""
    script = f"""
import os, signal, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from support.log_samples import entries
from pixel4d_ros.logs import writer
writer.FLUSH_S = 0.0
with writer.LogWriter({str(tmp_path / "drive.mcap")!r}, recording=True) as log:
    for e in entries():
        log.write(e.topic, e.time_ns, e.message)
        log.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    assert ended.returncode == -signal.SIGKILL
    place = tmp_path / "drive.partial"
    assert len(read_all(place)) == len(list(entries()))
    with pytest.raises(
        LogError, match=r"does not exist, but a recorder that was killed left .*drive\.partial: pass that"
    ):
        LogReader(tmp_path / "drive.mcap")
    with pytest.raises(
        LogError, match=r"drive\.partial holds the recording of a recorder that was killed: .* move its"
    ):
        LogWriter(tmp_path / "drive.mcap", recording=True)
    (place / "drive" / "drive.mcap").rename(tmp_path / "drive.mcap")
    assert len(read_all(tmp_path / "drive.mcap")) == len(list(entries()))


def test_writer_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"written as MCAP, name it .*out\.mcap"):
        LogWriter(tmp_path / "out.db3")
    with LogWriter(tmp_path / "out.mcap") as log:
        with pytest.raises(LogError, match="some_msgs/msg/Thing is unknown"):
            log.add_topic("/thing", "some_msgs/msg/Thing")
        with pytest.raises(LogError, match="call add_topic first"):
            log.write("/thing", 0, b"\0\1\0\0")


def test_own_message_types_come_with_their_definition(tmp_path: Path) -> None:
    path = tmp_path / "own.mcap"
    with LogWriter(path) as log:
        log.add_topic("/own", "my_msgs/msg/Speed", "float64 speed\nstring unit\n")
        log.write("/own", START, bytes.fromhex("00010000") + np.float64(3.5).tobytes() + b"\4\0\0\0m/s\0")
    with LogReader(path) as log:
        message = next(log.messages()).message
    assert (message.speed, message.unit) == (3.5, "m/s")


def read_all(path: Path) -> list:
    with LogReader(path) as log:
        return list(log.messages())


def damaged(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "share"),
    # An MCAP file that lacks no more than its index is read, see test_strange_logs.py.
    [("mcap", 0.02), ("mcap", 0.5), *((kind, share) for kind in ("db3", "rosbag1") for share in (0.02, 0.5, 0.97))],
)
def test_truncated_logs_say_so(tmp_path: Path, kind: str, share: float) -> None:
    whole = sample(tmp_path, kind)
    content = whole.read_bytes()
    cut = damaged(tmp_path / f"cut{whole.suffix}", content[: int(len(content) * share)])
    with pytest.raises(LogError, match=rf"cut\{whole.suffix} is (truncated or damaged|not a log)") as caught:
        read_all(cut)
    assert "\n" not in str(caught.value)


def test_damage_in_the_middle_is_found_while_reading(tmp_path: Path) -> None:
    whole = sample(tmp_path, "mcap").read_bytes()
    zstd_frame = whole.index(bytes.fromhex("28b52ffd"))
    broken = damaged(tmp_path / "broken.mcap", whole[:zstd_frame] + bytes(50) + whole[zstd_frame + 50 :])
    with LogReader(broken) as log:  # the index is whole
        assert IMAGE in log.topics
        with pytest.raises(LogError, match=r"broken\.mcap is truncated or damaged"):
            list(log.messages())


@pytest.mark.parametrize("suffix", [".mcap", ".db3", ".bag"])
def test_empty_and_foreign_files(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(LogError, match="is empty"), LogReader(damaged(tmp_path / f"a{suffix}", b"")):
        pass
    text = b"This is a letter to a friend, not a log. " * 50
    with pytest.raises(LogError, match=rf"b\{suffix} is (not a log|truncated or damaged)"):
        read_all(damaged(tmp_path / f"b{suffix}", text))


def test_paths_that_are_no_logs(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="does not exist: check the path"):
        LogReader(tmp_path / "nothing.mcap")
    with pytest.raises(LogError, match=r"no metadata\.yaml: pass the folder"):
        LogReader(tmp_path)
    with pytest.raises(LogError, match="is not a driving log"):
        LogReader(damaged(tmp_path / "picture.png", b"png"))
    sample(tmp_path, "mcap")
    with pytest.raises(LogError, match=r"pass a file in it, e\.g\. .*drive\.mcap"):
        LogReader(tmp_path)
    with LogReader(tmp_path / "drive") as log:  # the suffix may be left out
        assert log.path.name == "drive.mcap"


def test_a_log_without_messages(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "none.mcap") as log:
        log.add_topic("/odometry", "nav_msgs/msg/Odometry")
    with pytest.raises(LogError, match="holds no messages"), LogReader(tmp_path / "none.mcap"):
        pass


def test_streams_of_the_sample(tmp_path: Path) -> None:
    with LogReader(write_mcap(tmp_path / "a.mcap", entries(compressed=True, path=True))) as log:
        streams = pick_streams(log)
    assert streams.image.name == "/camera/left/image_raw/compressed"
    assert streams.compressed
    assert streams.camera_info
    assert streams.camera_info.name == "/camera/left/camera_info"
    assert streams.depth
    assert streams.depth.name == "/camera/left/depth"
    assert streams.odometry
    assert streams.path
    assert streams.tf_static
    assert streams.tf is None
    assert streams.right_image is None


def test_the_left_or_front_camera_is_chosen_and_can_be_overruled(tmp_path: Path) -> None:
    t = jazzy_types().types
    with LogWriter(tmp_path / "cameras.mcap") as out:
        for i, name in enumerate(("/rear/image_raw", "/a/image_raw", "/front/image_raw", "/front/depth/image_raw")):
            out.write(name, START + i, image_message(t, START + i, picture(i)))
        out.write("/front/image_raw/compressed", START + 9, compressed_message(t, START + 9, picture(1)))
    with LogReader(tmp_path / "cameras.mcap") as log:
        assert pick_streams(log).image.name == "/front/image_raw"
        assert pick_streams(log, "/rear").image.name == "/rear/image_raw"
        assert pick_streams(log, "a/image_raw").image.name == "/a/image_raw"
        assert pick_streams(log, "/front/image_raw/compressed").compressed
        with pytest.raises(LogError, match=r"no camera /left: its image topics are /rear/image_raw, .*"):
            pick_streams(log, "/left")


def test_a_log_without_images(tmp_path: Path) -> None:
    items = [e for e in entries() if "image" not in e.topic]
    said = r"blind\.mcap holds no camera images .*/odometry \(nav_msgs/msg/Odometry\)"
    with LogReader(write_mcap(tmp_path / "blind.mcap", items)) as log, pytest.raises(LogError, match=said):
        pick_streams(log)


def test_unknown_types_are_skipped_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "strange"
    write_rosbag2(path, list(entries()), StoragePlugin.SQLITE3)
    import sqlite3

    # A recorder of before Iron stores no definitions: only types that Jazzy has can be read.
    with sqlite3.connect(path / "strange.db3") as db:
        db.execute("UPDATE topics SET type = 'vendor_msgs/msg/Frame' WHERE name = '/camera/left/depth'")
        db.execute("DELETE FROM message_definitions")
    with LogReader(path / "strange.db3") as log:
        assert {m.topic for m in log.messages()} == set(log.topics) - {"/camera/left/depth"}
        assert pick_streams(log).image.name == IMAGE
        with pytest.raises(LogError, match=r"/camera/left/depth has the unknown type vendor_msgs/msg/Frame"):
            next(log.messages(["/camera/left/depth"]))
        with pytest.raises(
            LogError, match=r"vendor_msgs/msg/Frame, which is no image type: choose one of /camera/left/im"
        ):
            pick_streams(log, "/camera/left/depth")


def test_image_encodings() -> None:
    t = jazzy_types().types
    rgb = picture(3)
    h, w = rgb.shape[:2]

    def message(encoding: str, pixels: np.ndarray, pad: int = 0, big: int = 0) -> object:
        rows = pixels.reshape(h, -1).view(np.uint8)
        rows = np.pad(rows, ((0, 0), (0, pad)), constant_values=77)
        head = image_message(t, START, rgb).header
        return t["sensor_msgs/msg/Image"](head, h, w, encoding, big, rows.shape[1], rows.reshape(-1))

    for encoding, code in (("bgr8", cv2.COLOR_RGB2BGR), ("rgba8", cv2.COLOR_RGB2RGBA), ("bgra8", cv2.COLOR_RGB2BGRA)):
        for pad in (0, 5):
            np.testing.assert_array_equal(decode_image(message(encoding, cv2.cvtColor(rgb, code), pad)), rgb)
    grey = rgb[..., 0]
    np.testing.assert_array_equal(decode_image(message("mono8", grey))[..., 2], grey)
    np.testing.assert_array_equal(decode_image(message("mono16", grey.astype(np.uint16) * 257))[..., 1], grey)
    np.testing.assert_array_equal(
        decode_image(message("mono16", (grey.astype(np.uint16) * 257).astype(">u2"), big=1))[..., 1], grey
    )
    mosaic = np.where(np.add.outer(np.arange(h) % 2, np.arange(w) % 2) == 1, 120, 0).astype(np.uint8)
    mosaic[::2, ::2] = 240  # red first: rggb, with blue 0
    centre = decode_image(message("bayer_rggb8", mosaic))[h // 2, w // 2]
    np.testing.assert_array_equal(centre, [240, 120, 0])
    with pytest.raises(ValueError, match="encoding 'mystery' is not supported"):
        decode_image(message("mystery", rgb))
    short = message("rgb8", rgb)
    short.data = short.data[:-1]
    with pytest.raises(ValueError, match=r"image data holds \d+ bytes, but height \d+ x step \d+ needs \d+"):
        decode_image(short)
    torn = compressed_message(t, START, rgb)
    torn.data = torn.data[:10]
    with pytest.raises(ValueError, match="cannot be decoded: damaged"):
        decode_image(torn)
    torn.data = torn.data[:0]
    with pytest.raises(ValueError, match="cannot be decoded: damaged"):
        decode_image(torn)


def test_depth_encodings() -> None:
    t = jazzy_types().types
    head = image_message(t, START, picture(0)).header
    metres = np.array([[1.5, np.nan], [0.0, 2.25]], np.float32)
    float_image = t["sensor_msgs/msg/Image"](head, 2, 2, "32FC1", 0, 8, metres.view(np.uint8).reshape(-1))
    np.testing.assert_array_equal(decode_depth(float_image), [[1.5, 0], [0, 2.25]])
    png = cv2.imencode(".png", np.array([[1500, 0], [65000, 2250]], np.uint16))[1].reshape(-1)
    compressed = t["sensor_msgs/msg/CompressedImage"](head, "16UC1; png compressed", png)
    np.testing.assert_allclose(decode_depth(compressed), [[1.5, 0], [65, 2.25]], rtol=1e-6)
    prefix = np.concatenate([np.zeros(4, np.uint8), np.array([1000.0, 10.0], "<f4").view(np.uint8)])
    inverse = t["sensor_msgs/msg/CompressedImage"](head, "32FC1; compressedDepth png", np.concatenate([prefix, png]))
    np.testing.assert_allclose(decode_depth(inverse)[1, 1], 1000 / (2250 - 10), rtol=1e-6)


def test_opening_a_long_log_reads_only_its_index() -> None:
    path = shared_path("logs/train/kitti_odom03.mcap")
    start = time.process_time()
    with LogReader(path) as log:
        first = next(log.messages([pick_streams(log).image.name]))
    assert time.process_time() - start < 2
    assert decode_image(first.message).shape == (256, 832, 3)
    assert log.topics["/odometry"].count == log.topics[pick_streams(log).image.name].count >= 600


def test_an_image_that_is_almost_black_is_doubted_and_one_of_the_night_is_not() -> None:
    """12 bits that are stored in 16 unscaled make a forecast of nothing."""
    rgb = picture(3)
    assert not picture_doubt(rgb) and picture_doubt(np.zeros_like(rgb)) and picture_doubt(rgb // 16)
    night = np.full_like(rgb, 2)
    night[4, 5] = 90
    assert not picture_doubt(night)


def test_pixels_in_another_order_of_bytes_are_doubted() -> None:
    """A street at a glance, read as what it is not."""
    clip = read_clip(shared_path("logs/val/kitti_0002.mcap"))
    rgb = np.asarray(clip.images[0])
    assert picture_doubt(rgb) == "" and picture_doubt(np.asarray(clip.images[40])[:, ::-1]) == ""
    height, width = rgb.shape[:2]
    fields = {"is_bigendian": 0, "height": height, "width": width, "step": 2 * width}
    yuv = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV)
    chroma = np.where(np.arange(width) % 2, np.roll(yuv[..., 2], 1, 1), yuv[..., 1])
    yuyv = SimpleNamespace(encoding="yuv422_yuy2", data=np.stack([yuv[..., 0], chroma], -1).tobytes(), **fields)
    grey = yuv[..., 0].astype(np.uint16) * 16  # 12 bits
    swapped = SimpleNamespace(encoding="mono16", data=grey.byteswap().tobytes(), **fields)
    assert picture_doubt(decode_image(yuyv)) == ""
    yuyv.encoding = "yuv422"
    assert "is it YUYV declared as UYVY" in picture_doubt(decode_image(yuyv))
    assert "differ as noise does" in picture_doubt(decode_image(swapped))


def test_depth_in_another_order_of_bytes_is_refused() -> None:
    clip = read_clip(shared_path("logs/val/kitti_0002.mcap"))
    depth = (np.asarray(clip.depth[0]) * 1000).astype(np.uint16)
    fields = {"is_bigendian": 0, "height": depth.shape[0], "width": depth.shape[1], "step": 2 * depth.shape[1]}
    sensed = SimpleNamespace(encoding="16UC1", data=depth.tobytes(), **fields)
    np.testing.assert_allclose(decode_depth(sensed), depth / 1000, atol=1e-3)
    sensed.data = depth.byteswap().tobytes()
    with pytest.raises(ValueError, match="depth changes from pixel to pixel as noise does"):
        decode_depth(sensed)


@pytest.mark.parametrize("colour", [(128, 128, 128), (0, 135, 0), (255, 255, 255)])
def test_an_image_of_one_colour_is_doubted(colour: tuple[int, int, int]) -> None:
    """Grey, or green, is what decoders give for packets that were lost."""
    rgb = np.full((48, 64, 3), colour, np.uint8)
    assert "the image has one colour" in picture_doubt(rgb)
    rgb[20:23, 30] ^= 16
    assert not picture_doubt(rgb)


@pytest.mark.parametrize(("stored", "told"), [(12, "ends at 0.012 m: probably 16UC1 holds metres"), (2000, "")])
def test_16_bits_of_depth_are_millimetres(stored: int, told: str) -> None:
    depth = np.full((8, 10), stored, "<u2")
    depth[0] = 65535  # simulators write it for the sky
    message = SimpleNamespace(encoding="16UC1", is_bigendian=0, height=8, width=10, step=20, data=depth.tobytes())
    if told:
        with pytest.raises(ValueError, match=re.escape(told)):
            decode_depth(message)
    else:
        assert set(np.unique(decode_depth(message)).tolist()) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("encoding", "pixel", "data"), [("rgb8", 3, 4), ("mono8", 1, 3), ("bgr8", 3, 6), ("mono16", 2, 4)]
)
def test_pixels_of_another_type_than_the_encoding_are_refused(encoding: str, pixel: int, data: int) -> None:
    """RGBA that is labelled rgb8 gave stripes; some bytes at the end of a buffer are nothing odd."""
    fields = {"encoding": encoding, "is_bigendian": 0, "height": 8, "width": 10, "step": 10 * pixel}
    with pytest.raises(ValueError, match="do the pixels have another type than"):
        decode_image(SimpleNamespace(**fields, data=bytes(80 * data)))
    assert decode_image(SimpleNamespace(**fields, data=bytes(80 * pixel + 16))).shape == (8, 10, 3)


def test_floats_that_are_labelled_16_bits_are_no_depth() -> None:
    fields = {"encoding": "16UC1", "is_bigendian": 0, "height": 8, "width": 10, "step": 20}
    with pytest.raises(ValueError, match="2 times height 8 x step 20: do the pixels have another type than 16UC1"):
        decode_depth(SimpleNamespace(**fields, data=np.full((8, 10), 2.0, np.float32).tobytes()))
