# SPDX-License-Identifier: Apache-2.0
"""Logs as clips: poses, depth and stereo as they were written, and real drives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.log_samples import (
    SPEED,
    START,
    TURN,
    Entry,
    base_pose,
    camera_info,
    compressed_message,
    entries,
    header,
    image_message,
    picture,
    tf_message,
    write_mcap,
    write_rosbag1,
)
from support.paths import shared_path

from pixel4d_ros.datasets import driving_log
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.datasets.lazy_frames import LazyFrames
from pixel4d_ros.geometry.optical import optical_mounting
from pixel4d_ros.geometry.rotations import rigid, rigid_inverse
from pixel4d_ros.logs.reader import LogError
from pixel4d_ros.logs.types import jazzy_types

T = jazzy_types().types
MOUNT = rigid([0.5, -0.5, 0.5, -0.5], [2.0, 0.5, 1.0])  # as in log_samples: looks ahead


def expected_poses(frames: int) -> np.ndarray:
    poses = []
    for i in range(frames):
        position, yaw = base_pose(START + i * 100_000_000)
        poses.append(rigid([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)], position) @ MOUNT)
    return np.stack(poses)


@pytest.mark.parametrize("compressed", [False, True])
def test_poses_are_interpolated_to_the_images(tmp_path: Path, compressed: bool) -> None:
    clip = read_clip(write_mcap(tmp_path / "a.mcap", entries(compressed=compressed)))
    assert clip.name == "a"
    np.testing.assert_allclose(clip.times, START * 1e-9 + np.arange(6) * 0.1, atol=1e-6)
    np.testing.assert_allclose(clip.poses, expected_poses(6), atol=1e-4)
    np.testing.assert_array_equal(clip.images, np.stack([picture(i) for i in range(6)]))
    np.testing.assert_array_equal(clip.K, [[30, 0, 15.5], [0, 30, 11.5], [0, 0, 1]])
    assert clip.stereo is None


def test_rosbag1_gives_the_same_clip(tmp_path: Path) -> None:
    a, b = read_clip(write_mcap(tmp_path / "a.mcap", entries())), read_clip(write_rosbag1(tmp_path / "b.bag"))
    for name in ("images", "K", "poses", "times", "depth"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_depth_is_that_of_the_nearest_stamp(tmp_path: Path) -> None:
    clip = read_clip(write_mcap(tmp_path / "a.mcap", entries()))
    assert clip.depth is not None
    np.testing.assert_array_equal(clip.depth[:, 0], 0)
    np.testing.assert_allclose(clip.depth[:, 5, 5], 1 + np.arange(6) * 0.001, rtol=1e-6)
    sparse = [e for e in entries() if "depth" not in e.topic or e.time_ns < START + 150_000_000]
    gaps = read_clip(write_mcap(tmp_path / "gaps.mcap", sparse)).depth
    assert gaps is not None
    assert (gaps[:2, 1:] > 0).all()
    assert not np.asarray(gaps[2:]).any()


@pytest.mark.parametrize("write", [write_mcap, lambda path, items: write_rosbag1(path.with_suffix(".bag"))])
def test_frames_in_any_order(tmp_path: Path, write: Callable[[Path, list[Entry]], Path]) -> None:
    clip = read_clip(write(tmp_path / "a.mcap", list(entries())))
    assert isinstance(clip.images, LazyFrames) and isinstance(clip.depth, LazyFrames)
    order = [4, 1, 5, 0, 2, 2, 3]
    for images in (clip.images, read_clip(tmp_path / "a").images):  # the second has nothing in its cache
        np.testing.assert_array_equal(np.stack([images[i] for i in order]), np.stack([picture(i) for i in order]))


def test_opening_decodes_one_frame_per_topic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(name: str) -> None:
        decode = getattr(driving_log, name)
        monkeypatch.setattr(driving_log, name, lambda message: (calls.append(name), decode(message))[1])

    counted("decode_image")
    counted("decode_depth")
    clip = read_clip(write_mcap(tmp_path / "a.mcap", entries()))
    assert sorted(calls) == ["decode_depth", "decode_image"]
    clip.part(2, 4).images[0]
    assert calls.count("decode_image") == 2


def test_a_damaged_or_odd_image_is_named_when_it_is_asked_for(tmp_path: Path) -> None:
    items = list(entries(compressed=True))
    images = [e for e in items if e.topic.endswith("compressed")]
    images[3].message.data = images[3].message.data[:40]
    images[4].message.data = compressed_message(T, 0, picture(4, scale=2)).data
    clip = read_clip(write_mcap(tmp_path / "a.mcap", items))
    np.testing.assert_array_equal(clip.images[5], picture(5))
    with pytest.raises(LogError, match=r"a\.mcap: /camera/left/image_raw/compressed, image 3: .* damaged"):
        clip.images[3]
    with pytest.raises(LogError, match=r"image 4 has 64x48 pixels, the first 32x24: a clip needs one size"):
        clip.images[4]


def test_poses_from_tf_alone(tmp_path: Path) -> None:
    items = [e for e in entries() if e.topic != "/odometry"]
    for i in range(-1, 7):
        stamp = START + i * 100_000_000
        (x, y, z), yaw = base_pose(stamp)
        edge = ("map", "base_link", (x, y, z), (float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))))
        items.append(Entry("/tf", stamp, tf_message(T, [edge], stamp)))
    clip = read_clip(write_mcap(tmp_path / "tf.mcap", sorted(items, key=lambda e: e.time_ns)))
    np.testing.assert_allclose(clip.poses, expected_poses(6), atol=1e-6)


def test_poses_from_a_path_alone(tmp_path: Path) -> None:
    items = [e for e in entries(path=True, odometry=False) if e.topic != "/odometry"]
    clip = read_clip(write_mcap(tmp_path / "path.mcap", items))
    np.testing.assert_allclose(clip.poses, expected_poses(6), atol=1e-6)


def test_frames_outside_the_odometry_are_left_out(tmp_path: Path) -> None:
    items = [e for e in entries(12) if e.topic != "/odometry" or e.time_ns < START + 500_000_000]
    clip = read_clip(write_mcap(tmp_path / "a.mcap", items))
    assert 6 <= len(clip) <= 8  # up to 0.2 s beyond the last pose
    np.testing.assert_allclose(clip.poses[-1, 0, 3], expected_poses(len(clip))[-1, 0, 3], atol=SPEED * 0.01)


def test_stereo_from_the_right_camera(tmp_path: Path) -> None:
    items = []
    for e in entries():
        items.append(e)
        if e.topic == "/tf_static":
            right = tf_message(T, [("base_link", "right_camera", (2.0, 0.0, 1.0), (0.5, -0.5, 0.5, -0.5))])
            items.append(replace(e, message=right))
        if e.topic == "/camera/left/image_raw":
            late = e.time_ns + 3_000_000
            image = image_message(T, late, picture(20))
            image.header = header(T, late, "right_camera")
            items.append(Entry("/camera/right/image_raw", late, image))
            items.append(Entry("/camera/right/camera_info", late, camera_info(T, late, focal=31.0)))
    clip = read_clip(write_mcap(tmp_path / "stereo.mcap", sorted(items, key=lambda e: e.time_ns)))
    assert clip.stereo is not None
    assert clip.stereo.K[0, 0] == 31
    between = rigid_inverse(clip.poses[0]) @ clip.stereo.poses[0]
    # 0.5 m to the right, and 3 ms later, in which the car goes on and turns a little.
    np.testing.assert_allclose(between[:3, 3], [0.5, 0, SPEED * 0.003], atol=TURN * 0.003 + 1e-3)
    del items[-3:]
    incomplete = read_clip(write_mcap(tmp_path / "mono.mcap", [e for e in items if e.time_ns < START + 502_000_000]))
    assert incomplete.stereo is None


def test_logs_without_what_a_clip_needs(tmp_path: Path) -> None:
    def without(name: str, *topics: str) -> Path:
        return write_mcap(tmp_path / name, [e for e in entries() if e.topic not in topics])

    with pytest.raises(LogError, match=r"no CameraInfo for /camera/left/image_raw: record"):
        read_clip(without("a.mcap", "/camera/left/camera_info"))
    with pytest.raises(LogError, match=r"b\.mcap: the log has no odometry, no tf of the camera and no Path"):
        read_clip(without("b.mcap", "/odometry"))
    with pytest.warns(UserWarning, match="no tf_static from base_link to camera"):
        ahead = read_clip(without("c.mcap", "/tf_static"))
    np.testing.assert_allclose(ahead.poses[0, :3, 2], [1, 0, 0], atol=1e-2)  # the optical axis is the base's x
    uncalibrated = [
        replace(e, message=camera_info(T, e.time_ns, focal=0.0)) if e.topic.endswith("camera_info") else e
        for e in entries()
    ]
    with pytest.raises(
        LogError, match=r"/camera/left/camera_info: CameraInfo has focal lengths 0, 0: .* not calibrated"
    ):
        read_clip(write_mcap(tmp_path / "d.mcap", uncalibrated))


def test_base_and_camera_that_hang_on_a_third_frame(tmp_path: Path) -> None:
    items = list(entries())
    for e in items:
        if e.topic == "/odometry":
            e.message.child_frame_id = "footprint"
    below = tf_message(T, [("base_link", "footprint", (0.3, 0.0, -0.5), (1.0, 0.0, 0.0, 0.0))])
    items.insert(1, Entry("/tf_static", START, below))
    clip = read_clip(write_mcap(tmp_path / "a.mcap", items))
    # The camera at (2, 0.5, 1) of base_link is at (1.7, 0.5, 1.5) of the footprint, whose pose odometry tells.
    np.testing.assert_allclose(clip.poses[0, :3, 3], [1.7, 0.5, 1.5], atol=1e-4)


def test_frame_names_with_a_slash_and_a_broken_tree(tmp_path: Path) -> None:
    items = list(entries())
    for e in items:
        if e.topic == "/odometry":
            e.message.child_frame_id = "/base_link"  # as old ROS 1 drivers have it
    circle = tf_message(T, [("camera", "base_link", (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))])
    items.insert(1, Entry("/tf_static", START, circle))
    clip = read_clip(write_mcap(tmp_path / "a.mcap", items))
    np.testing.assert_allclose(clip.poses, expected_poses(6), atol=1e-4)


def test_invalid_poses_are_left_out_and_counted(tmp_path: Path) -> None:
    items = list(entries())
    for e in items[6:9]:
        if e.topic == "/odometry":
            e.message.pose.pose.position.x = float("nan")
    with pytest.warns(UserWarning, match=r"messages left out, /odometry: pose contains NaN or Inf"):
        clip = read_clip(write_mcap(tmp_path / "nan.mcap", items))
    assert np.isfinite(clip.poses).all()


REAL = {  # images (T, H, W), path in m, share of pixels with depth, stereo
    "train/kitti_0005": (154, 120, 400, 69, True, True),
    "train/kitti_0095": (268, 256, 832, 258, False, False),
    "train/indoor_corridor": (63, 312, 416, 14, True, False),
    "val/kitti_0002": (77, 120, 400, 82, True, True),
}


@pytest.mark.parametrize("name", REAL)
def test_real_logs(name: str) -> None:
    clip = read_clip(shared_path(f"logs/{name}.mcap"))
    frames, height, width, metres, depth, stereo = REAL[name]
    assert clip.images.shape == (frames, height, width, 3)
    assert np.linalg.norm(np.diff(clip.poses[:, :3, 3], axis=0), axis=1).sum() == pytest.approx(metres, abs=1)
    assert (clip.depth is not None) == depth
    assert (clip.stereo is not None) == stereo
    if clip.stereo is not None:
        baseline = (rigid_inverse(clip.poses) @ clip.stereo.poses)[:, :3, 3]
        np.testing.assert_allclose(baseline, np.tile([0.533, 0, 0], (frames, 1)), atol=0.01)
    if clip.depth is not None:
        moved, still = colour_errors(clip)
        assert moved < 0.6 * still


def colour_errors(clip: Clip) -> tuple[float, float]:
    """Mean colour error of frames carried into the next but one by depth and poses, and of leaving them in place."""
    moved, still = [], []
    assert clip.depth is not None
    for i in range(0, len(clip) - 2, len(clip) // 4):
        v, u = np.nonzero(clip.depth[i])
        points = np.linalg.inv(clip.K) @ np.stack([u, v, np.ones_like(u)]) * clip.depth[i][v, u]
        to = rigid_inverse(clip.poses[i + 2]) @ clip.poses[i]
        x, y, z = clip.K @ (to[:3, :3] @ points + to[:3, 3:])
        x, y = np.rint(x / z).astype(int), np.rint(y / z).astype(int)
        height, width = clip.depth.shape[1:]
        seen = (z > 0) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
        here = clip.images[i][v, u][seen].astype(float)
        moved.append(np.abs(here - clip.images[i + 2][y[seen], x[seen]]).mean())
        still.append(np.abs(here - clip.images[i + 2][v[seen], u[seen]]).mean())
    return float(np.mean(moved)), float(np.mean(still))


def test_reading_logs_needs_no_ros() -> None:
    code = "import sys; sys.modules['rclpy'] = None; import pixel4d_ros.datasets.driving_log, pixel4d_ros.logs.writer"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


def test_images_that_name_the_camera_s_body_frame_look_ahead_with_a_warning(tmp_path: Path) -> None:
    """Gazebo's turtlebot3 and others write camera_rgb_frame, x forward, where camera_rgb_optical_frame is meant."""
    body = tf_message(T, [("base_link", "camera", (2.0, 0.5, 1.0), (1.0, 0, 0, 0))])
    items = [Entry(e.topic, e.time_ns, body if e.topic == "/tf_static" else e.message) for e in entries(3)]
    with pytest.warns(UserWarning, match="'camera' has its z axis up, so it is taken for the camera's body frame"):
        clip = read_clip(write_mcap(tmp_path / "a.mcap", items))
    np.testing.assert_allclose(clip.poses, expected_poses(3), atol=1e-4)


def test_a_camera_that_looks_up_is_believed_where_its_frame_is_named_optical() -> None:
    up = np.eye(4)
    for camera, base in (("zenith_optical", "base_link"), ("cam1", "cam0"), ("camera", "camera")):
        mounting, warning = optical_mounting(up, base, camera)
        assert not warning and np.array_equal(mounting, up)


def test_a_camera_far_from_its_base_is_named() -> None:
    """Millimetres in tf."""
    mounting = MOUNT.copy()
    mounting[:3, 3] *= 1000
    assert "is 2291 m away from 'base_link': tf must be in metres" in optical_mounting(mounting, "base_link", "cam")[1]


def test_depth_of_another_frame_is_no_depth_of_the_images(tmp_path: Path) -> None:
    items = []
    for e in entries(3):
        message = e.message
        if e.topic.endswith("depth"):
            message = replace(message, header=replace(message.header, frame_id="depth_optical"))
        items.append(Entry(e.topic, e.time_ns, message))
    with pytest.warns(UserWarning, match=r"depth on /camera/left/depth is in frame 'depth_optical', the images in"):
        assert read_clip(write_mcap(tmp_path / "a.mcap", items)).depth is None


def with_right_camera(baseline: float) -> list[Entry]:
    """A right camera in the frame of the left one, as stereo drivers publish it: P says how far apart they are."""
    items = list(entries(3))
    for e in list(items):
        if "left/depth" in e.topic or not e.topic.startswith("/camera/left"):
            continue
        message = e.message
        if e.topic.endswith("camera_info"):
            p = np.array(message.p)
            p[3] = -p[0] * baseline
            message = replace(message, p=p)
        items.append(Entry(e.topic.replace("left", "right"), e.time_ns, message))
    return sorted(items, key=lambda e: e.time_ns)


def test_the_right_camera_of_a_pair_in_one_frame_is_where_p_says(tmp_path: Path) -> None:
    clip = read_clip(write_mcap(tmp_path / "a.mcap", with_right_camera(0.12)))
    assert clip.stereo is not None
    beside = rigid_inverse(clip.poses[0]) @ clip.stereo.poses[0]
    np.testing.assert_allclose(beside[:3, 3], [0.12, 0, 0], atol=1e-6)
    with pytest.warns(UserWarning, match="both cameras are in frame 'camera'; the right one is ignored"):
        assert read_clip(write_mcap(tmp_path / "b.mcap", with_right_camera(0.0))).stereo is None


def test_absurd_poses_are_left_out_and_two_parents_are_named(tmp_path: Path) -> None:
    def edge(parent: str, i: int, x: float) -> Entry:
        stamp = START + i * 100_000_000
        return Entry("/tf", stamp, tf_message(T, [(parent, "base_link", (x, 0, 0), (1.0, 0, 0, 0))], stamp))

    still = [e for e in entries(3) if "odometry" not in e.topic]
    good = [edge("odom", i, 0.5 * i) for i in range(3)]
    with pytest.warns(UserWarning, match=r"2 messages left out, /tf: pose is 1e\+155 m from its frame's origin"):
        clip = read_clip(
            write_mcap(tmp_path / "a.mcap", [*still, *good, edge("odom", 1, 1e155), edge("odom", 2, -1e155)])
        )
    np.testing.assert_allclose(clip.poses[:, 0, 3] - clip.poses[0, 0, 3], [0, 0.5, 1.0], atol=1e-6)
    with pytest.warns(UserWarning, match=r"/tf gives 'base_link' the parents 'map' and 'odom'; only one can be right"):
        read_clip(write_mcap(tmp_path / "b.mcap", [*still, *good, *(edge("map", i, 0.5 * i) for i in range(3))]))
    loop = Entry("/tf", START, tf_message(T, [("camera", "odom", (0, 0, 0), (1.0, 0, 0, 0))], START))
    with pytest.warns(
        UserWarning, match=r"/tf: camera -> odom is ignored: it closes a loop \(odom -> base_link -> camera"
    ):
        np.testing.assert_allclose(
            read_clip(write_mcap(tmp_path / "c.mcap", [*still, *good, loop])).poses, clip.poses, atol=1e-6
        )
