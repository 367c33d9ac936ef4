# SPDX-License-Identifier: Apache-2.0
"""Logs whose parts do not fit together: cameras, clocks and poses that change, files that are missing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin
from support.log_samples import START, Entry, camera_info, entries, tf_message, write_mcap, write_rosbag2

from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.evaluation.recording import Truth
from pixel4d_ros.logs.calibration import calibration_change
from pixel4d_ros.logs.reader import LogError, LogReader
from pixel4d_ros.logs.types import jazzy_types

T = jazzy_types().types
IMAGE = "/camera/left/image_raw"
INFO = "/camera/left/camera_info"


def changed(topic: str, change: Callable[[Entry], object], **options: object) -> list[Entry]:
    """The sample with other messages on a topic."""
    return [replace(e, message=change(e)) if e.topic == topic else e for e in entries(**options)]


def test_images_of_another_calibration_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A zoom lens at 0.3 s: the old focal length would apply to all images. A refined calibration is the same one."""
    zoom = START + 300_000_000
    zoomed = changed(INFO, lambda e: camera_info(T, e.time_ns, 30.0 if e.time_ns < zoom else 60.0))
    with caplog.at_level(logging.WARNING):
        clip = read_clip(write_mcap(tmp_path / "zoom.mcap", zoomed))
    assert len(clip) == 3 and clip.K[0, 0] == 30
    with LogReader(tmp_path / "zoom.mcap") as log:
        truth = Truth(log, IMAGE, change=calibration_change(log, log.topics[INFO], "camera"))
        assert truth.at(zoom - 100_000_000) is not None and truth.at(zoom) is None
    assert f"{INFO} changes after 0.3 s (zoom, or another resolution)" in caplog.text
    refined = changed(INFO, lambda e: camera_info(T, e.time_ns, 30.0 + (e.time_ns - START) * 1e-9))
    caplog.clear()
    assert len(read_clip(write_mcap(tmp_path / "refined.mcap", refined))) == 6
    assert "changes" not in caplog.text


def test_camera_infos_of_two_cameras_on_one_topic(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each camera's driver publishes to the same topic, the other one's first: that of the images' frame counts."""

    def twice(*names: str) -> list[Entry]:
        items = []
        for e in entries():
            if e.topic == INFO:
                for name, focal in zip(names, (60.0, 30.0)):
                    info = camera_info(T, e.time_ns, focal)
                    items.append(replace(e, message=replace(info, header=replace(info.header, frame_id=name))))
            else:
                items.append(e)
        return items

    clip = read_clip(write_mcap(tmp_path / "shared.mcap", twice("other", "camera")))
    assert len(clip) == 6 and clip.K[0, 0] == 30
    assert f"CameraInfo of the frames 'camera', 'other' share the topic {INFO}; those of 'camera'" in caplog.text
    assert "changes after" not in caplog.text
    message = rf"'left', 'right' share the topic {INFO}, and the images of {IMAGE} are of 'camera': .*--camera"
    with pytest.raises(LogError, match=message):
        read_clip(write_mcap(tmp_path / "foreign.mcap", twice("left", "right")))


def test_images_after_a_change_of_the_resolution_are_left_out(tmp_path: Path) -> None:
    later = START + 300_000_000
    items = [
        large if small.time_ns >= later and small.topic in (IMAGE, INFO) else small
        for small, large in zip(entries(), entries(scale=2), strict=True)
    ]
    clip = read_clip(write_mcap(tmp_path / "larger.mcap", items))
    assert np.asarray(clip.images).shape == (3, 24, 32, 3)


def restamped(message: Any, ns: int) -> Any:
    stamp = replace(message.header.stamp, sec=ns // 10**9, nanosec=ns % 10**9)
    return replace(message, header=replace(message.header, stamp=stamp))


def with_pose(message: Any, ahead: float = 0.0, **orientation: float) -> Any:
    """Odometry moved along x, or of another orientation."""
    pose = message.pose.pose
    position = replace(pose.position, x=pose.position.x + ahead)
    pose = replace(pose, position=position, orientation=replace(pose.orientation, **orientation))
    return replace(message, pose=replace(message.pose, pose=pose))


def test_a_relocalisation_within_a_log_is_removed(tmp_path: Path) -> None:
    plain = read_clip(write_mcap(tmp_path / "plain.mcap", entries()))
    items = changed("/odometry", lambda e: with_pose(e.message, ahead=50.0 * (e.time_ns > START + 250_000_000)))
    with pytest.warns(UserWarning, match="base_link in 'odom' jumps 1 times, first 0.2 s after its start"):
        clip = read_clip(write_mcap(tmp_path / "jump.mcap", items))
    np.testing.assert_allclose(clip.poses, plain.poses, atol=0.01)


def moved(factor: float = 1.0, zigzag: float = 0.0, twist: float = 0.0) -> list[Entry]:
    """The sample at 20 Hz for 1.5 s, 5 m/s along x, with scaled positions, moved back and forth, and a twist."""

    def change(e: Entry) -> Any:
        number = (e.time_ns - START) // 50_000_000
        position = e.message.pose.pose.position
        message = with_pose(e.message, (factor - 1) * position.x + zigzag * (number % 2))
        linear = replace(message.twist.twist.linear, x=twist)
        return replace(message, twist=replace(message.twist, twist=replace(message.twist.twist, linear=linear)))

    return changed("/odometry", change, frames=15)


@pytest.mark.parametrize("factor", [1000.0, 100.0])
def test_odometry_in_millimetres_or_centimetres_is_refused(tmp_path: Path, factor: float) -> None:
    """Its steps were taken for jumps: the camera stood still."""
    with pytest.raises(LogError, match=r"base_link in 'odom' moves at .* m/s: positions must be in metres"):
        read_clip(write_mcap(tmp_path / "units.mcap", moved(factor)))


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (moved(3.28, twist=5.0), "moves at 16.* m/s by its poses, at 5 m/s by its twists"),  # feet
        (moved(0.0, twist=5.0), r"moves at 0\.1 m/s by its poses, at 5 m/s by its twists"),  # frozen
        (moved(zigzag=0.5), "base_link in 'odom' does not move evenly .*Do several publishers"),
        (
            [
                *(e for e in entries(15) if e.topic != "/odometry"),
                *(replace(e, message=restamped(e.message, e.time_ns // 10**9 * 10**9)) for e in moved()
                  if e.topic == "/odometry"),
            ],
            "28 of 31 poses of base_link in 'odom' repeat the stamp",
        ),
    ],
)  # fmt: skip
def test_odd_odometry_is_named(tmp_path: Path, items: list[Entry], words: str) -> None:
    with pytest.warns(UserWarning, match=words):
        assert len(read_clip(write_mcap(tmp_path / "odd.mcap", sorted(items, key=lambda e: e.time_ns))))


def test_speeds_that_agree_or_are_not_filled_are_not_doubted(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for twist in (0.0, 5.0, 4.2):
        read_clip(write_mcap(tmp_path / "plain.mcap", moved(twist=twist)))
    assert not [w for w in recwarn if "odom" in str(w.message)]


def test_odometry_of_two_frames_on_a_topic_is_named_and_the_one_with_most_messages_used(tmp_path: Path) -> None:
    items: list[Entry] = []
    for e in entries():
        if e.topic == "/odometry" and len(items) % 2:
            header = replace(e.message.header, frame_id="map")
            items.append(replace(e, time_ns=e.time_ns - 1, message=replace(with_pose(e.message, 9.0), header=header)))
        items.append(e)
    with pytest.warns(UserWarning, match=r"holds poses of several frames \(base_link in 'map', base_link in 'odom'\)"):
        clip = read_clip(write_mcap(tmp_path / "two.mcap", items))
    assert abs(clip.poses[0, 0, 3] - 2.0) < 0.1


def test_a_paused_simulation_is_no_clock_that_scatters(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Stamps and messages stand for 20 s; the recorder logs by the wall clock. A clock that goes back is named."""
    items, pause = list(entries(40)), START + 2_000_000_000
    paused = [replace(e, time_ns=e.time_ns + 20_000_000_000 * (e.time_ns > pause)) for e in items]
    assert len(read_clip(write_mcap(tmp_path / "paused.mcap", paused))) == 40
    assert not [w for w in recwarn if "off the times" in str(w.message)]
    back = [replace(e, message=restamped(e.message, e.time_ns - 1_500_000_000 * (e.time_ns > pause)))
            if e.topic in (IMAGE, "/odometry") else e for e in items]  # fmt: skip
    with pytest.warns(UserWarning, match="stamps are up to .* s off the times at which the messages were logged"):
        read_clip(write_mcap(tmp_path / "back.mcap", back))


def test_quaternions_in_the_order_w_x_y_z_are_refused(tmp_path: Path) -> None:
    def swapped(e: Entry) -> Any:
        q = e.message.pose.pose.orientation
        return with_pose(e.message, x=q.w, y=q.x, z=q.y, w=q.z)

    with pytest.raises(LogError, match="the vehicle lies on its side or back: give quaternions"):
        read_clip(write_mcap(tmp_path / "order.mcap", changed("/odometry", swapped)))


def test_quaternions_of_almost_unit_length_are_read_and_others_named(tmp_path: Path) -> None:
    def scaled(e: Entry, factor: float) -> Any:
        q = e.message.pose.pose.orientation
        return with_pose(e.message, **{axis: getattr(q, axis) * factor for axis in "xyzw"})

    plain = read_clip(write_mcap(tmp_path / "plain.mcap", entries()))
    clip = read_clip(write_mcap(tmp_path / "near.mcap", changed("/odometry", lambda e: scaled(e, 1.01))))
    np.testing.assert_allclose(clip.poses, plain.poses, atol=1e-6)
    path = write_mcap(tmp_path / "far.mcap", changed("/odometry", lambda e: scaled(e, 2.0)))
    with pytest.warns(UserWarning, match="quaternion of length 2"), pytest.raises(LogError, match="no odometry"):
        read_clip(path)


def test_odometry_without_a_child_frame_is_of_the_base(tmp_path: Path) -> None:
    plain = read_clip(write_mcap(tmp_path / "plain.mcap", entries()))
    items = changed("/odometry", lambda e: replace(e.message, child_frame_id=""))
    clip = read_clip(write_mcap(tmp_path / "unnamed.mcap", items))
    np.testing.assert_allclose(clip.poses, plain.poses, atol=1e-9)


def test_clocks_that_differ_are_named(tmp_path: Path) -> None:
    """Far apart: refused, with both times. Near: the poses would be those of other images."""
    booted = changed(IMAGE, lambda e: restamped(e.message, e.time_ns - START + 10**9))
    with pytest.raises(LogError, match=r"images are stamped 1\.0 to 1\.5 s, poses 1700000000\.0 to .*one clock"):
        read_clip(write_mcap(tmp_path / "booted.mcap", booted))
    items = changed("/odometry", lambda e: restamped(e.message, e.time_ns + 700_000_000), frames=20)
    with pytest.warns(UserWarning, match=r"images and poses of the same moment are stamped 0\.7 s apart"):
        read_clip(write_mcap(tmp_path / "late.mcap", items))


@pytest.mark.parametrize(("late_ms", "paired"), [(40, 6), (60, 5), (5000, 0)])
def test_depth_of_other_stamps_is_counted(tmp_path: Path, late_ms: int, paired: int) -> None:
    items = changed("/camera/left/depth", lambda e: restamped(e.message, e.time_ns - 10_000_000 + late_ms * 10**6))
    path = write_mcap(tmp_path / "late.mcap", items)
    if paired == 6:
        assert read_clip(path).depth is not None
        return
    with pytest.warns(UserWarning, match=f"{paired} of 6 images have depth on /camera/left/depth"):
        clip = read_clip(path)
    assert (clip.depth is not None) == (paired > 0)


def test_encodings_may_change_within_a_topic_and_the_format_may_lie(tmp_path: Path) -> None:
    plain = np.asarray(read_clip(write_mcap(tmp_path / "plain.mcap", entries())).images)

    def every_other(e: Entry) -> Any:
        if (e.time_ns - START) // 100_000_000 % 2:
            return e.message
        data = e.message.data.reshape(24, 32, 3)[..., ::-1].reshape(-1)
        return replace(e.message, encoding="bgr8", data=np.ascontiguousarray(data))

    mixed = read_clip(write_mcap(tmp_path / "mixed.mcap", changed(IMAGE, every_other)))
    np.testing.assert_array_equal(mixed.images, plain)
    for form in ("jpeg", "rgb8; jpeg compressed bgr8"):  # each holds a PNG
        topic = IMAGE + "/compressed"
        items = changed(topic, lambda e, form=form: replace(e.message, format=form), compressed=True)
        np.testing.assert_array_equal(read_clip(write_mcap(tmp_path / "lie.mcap", items)).images, plain)


def test_cameras_that_share_a_frame_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = []
    for e in entries():
        items.append(e)
        if e.topic in (IMAGE, INFO):
            items.append(replace(e, topic=e.topic.replace("left", "rear")))
    with caplog.at_level(logging.WARNING):
        assert len(read_clip(write_mcap(tmp_path / "two.mcap", items))) == 6
    assert "/camera/left/image_raw and /camera/rear/image_raw name the same frame 'camera'" in caplog.text


def split_recording(folder: Path, plugin: StoragePlugin, *others: str) -> tuple[Path, Path]:
    """A rosbag2 folder and its one file; its metadata lists other files too, which are not there."""
    whole = write_rosbag2(folder / "whole", list(entries()), plugin)
    file = next(path for path in whole.iterdir() if path.suffix in (".db3", ".mcap"))
    metadata, names = whole / "metadata.yaml", [file.name, *(f"{other}{file.suffix}" for other in others)]
    metadata.write_text(metadata.read_text().replace(f"- {file.name}", "\n  ".join(f"- {name}" for name in names)))
    return whole, file


@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_missing_files_of_a_split_recording_are_named_and_the_others_read(
    tmp_path: Path, plugin: StoragePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    whole, file = split_recording(tmp_path, plugin, "whole_1")
    with caplog.at_level(logging.WARNING):
        assert len(read_clip(whole)) == 6
    assert caplog.text.count(f"whole_1{file.suffix} are missing") == 1
    file.unlink()
    with pytest.raises(LogError, match=r"metadata.yaml lists .*there are no \.mcap or \.db3 files"), LogReader(whole):
        pass


@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_a_damaged_file_of_a_split_recording_is_named_by_the_users_path(
    tmp_path: Path, plugin: StoragePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    whole, file = split_recording(tmp_path, plugin, "torn", "gone")
    (whole / f"torn{file.suffix}").write_bytes(file.read_bytes()[:-100][: file.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        assert len(read_clip(whole)) == 6
    assert f"{whole}: a file is truncated or damaged and left out, torn{file.suffix}: " in caplog.text
    assert f"gone{file.suffix} are missing" in caplog.text
    file.unlink()
    with pytest.raises(LogError) as refused, LogReader(whole):
        pass
    assert str(refused.value).startswith(f"{whole} is truncated or damaged (")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("message_count: 6", "message_count: 0"),  # of the images
        ("type: sensor_msgs/msg/Image", "type: sensor_msgs/msg/CompressedImage"),
        ("storage_identifier: sqlite3", "storage_identifier: mcap"),
        ("starting_time:", "begin:"),
        ("version: 9", "version: 99"),
        ("compression_mode: ''", "compression_mode: FILE"),
        ("relative_file_paths:\n  - bag.db3", "relative_file_paths:\n  - other.db3"),
        ("rosbag2_bagfile_information:", "]]]"),
    ],
)
def test_files_count_for_more_than_their_metadata(tmp_path: Path, old: str, new: str) -> None:
    bag = write_rosbag2(tmp_path / "bag", list(entries()), StoragePlugin.SQLITE3)
    text = (bag / "metadata.yaml").read_text()
    assert old in text
    (bag / "metadata.yaml").write_text(text.replace(old, new))
    assert len(read_clip(bag)) == 6


def test_images_amid_a_pause_of_the_poses_are_left_out(tmp_path: Path) -> None:
    """For 3 s no odometry, as in a tunnel: the poses on a straight line between its ends would be wrong."""
    pause = START + 1_000_000_000, START + 4_000_000_000
    driving = [e for e in entries(frames=60) if e.topic != "/odometry" or not pause[0] < e.time_ns < pause[1]]
    with pytest.warns(UserWarning, match="27 images are left out, the first at .* did odometry pause"):
        clip = read_clip(write_mcap(tmp_path / "driving.mcap", driving))
    assert len(clip) == 33 and np.diff(clip.times).max() > 2.7
    first = next(e.message.pose for e in driving if e.topic == "/odometry")
    standing = [replace(e, message=replace(e.message, pose=first)) if e.topic == "/odometry" else e for e in driving]
    assert len(read_clip(write_mcap(tmp_path / "standing.mcap", standing))) == 60


def test_odometry_is_of_the_robot_whose_camera_it_is(tmp_path: Path) -> None:
    """Two robots in one log; the other one stands."""
    items = []
    for e in entries():
        if e.topic.startswith("/tf"):
            items.append(e)
            continue
        items.append(replace(e, topic=f"/r2{e.topic}"))
        if e.topic == "/odometry":
            at_rest = replace(e.message.pose.pose.position, x=0.0, y=0.0)
            pose = replace(e.message.pose, pose=replace(e.message.pose.pose, position=at_rest))
            items.append(replace(e, topic="/r1/odometry", message=replace(e.message, pose=pose)))
    clip = read_clip(write_mcap(tmp_path / "two.mcap", items))
    assert np.linalg.norm(clip.poses[-1, :3, 3] - clip.poses[0, :3, 3]) > 2


def test_static_transforms_that_contradict_are_named(tmp_path: Path) -> None:
    """A robot description and a publisher by hand; a static transform of a vehicle that moves by tf."""
    mounting, fixed = ((2.0, 0.5, 1.0), (0.5, -0.5, 0.5, -0.5)), ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))
    other = Entry("/tf_static", START, tf_message(T, [("base_link", "camera", (2.0, 0.5, 1.5), mounting[1])]))
    with pytest.warns(UserWarning, match="'camera' has another pose in an earlier static transform"):
        read_clip(write_mcap(tmp_path / "two.mcap", [other, *entries()]))
    moving = [
        Entry("/tf", e.time_ns, tf_message(T, [("odom", "base_link", (i / 9, 0.0, 0.0), fixed[1])], e.time_ns))
        for i, e in enumerate(entries())
        if e.topic == "/odometry"
    ]
    left_over = Entry("/tf_static", START, tf_message(T, [("odom", "base_link", *fixed)]))
    with pytest.warns(UserWarning, match="'base_link' moves by tf, but tf_static gives it a fixed pose"):
        read_clip(write_mcap(tmp_path / "moving.mcap", [left_over, *entries(), *moving]))


def test_images_without_poses_are_counted(tmp_path: Path) -> None:
    """Odometry that ends after a second: 48 of 60 images were left out without a word."""
    short = [e for e in entries(frames=60) if e.topic != "/odometry" or e.time_ns <= START + 1_000_000_000]
    with pytest.warns(UserWarning, match=r"48 of 60 images are left out, as poses were logged from .* s only"):
        read_clip(write_mcap(tmp_path / "short.mcap", short))
