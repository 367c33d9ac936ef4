# SPDX-License-Identifier: Apache-2.0
"""Waymo Open: segments in both distributed layouts against the street that they show."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import waymo_sample as sample
from support.dataset_samples import (
    FRAMES,
    SIZE,
    assert_same_boxes,
    assert_same_cameras,
    lazily_read,
    street,
    world_boxes,
)

from pixel4d_ros.camera import Camera
from pixel4d_ros.cli import main
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.datasets.image_files import DatasetError
from pixel4d_ros.datasets.open import open_clips, recognise
from pixel4d_ros.datasets.waymo import LaserCalibration, Scan, scan_points
from pixel4d_ros.datasets.waymo_v1 import masked_crc, read_waymo_v1
from pixel4d_ros.datasets.waymo_v2 import read_waymo_v2
from pixel4d_ros.geometry.camera_info import image_camera
from pixel4d_ros.geometry.rotations import rigid, rigid_inverse, rotation_matrix


def write(version: str, root: Path, **options: object) -> Path:
    if version == "v2":
        pytest.importorskip("pyarrow", reason="Waymo Open v2 needs pyarrow, the extra `waymo`")
    return {"v1": sample.write_v1, "v2": sample.write_v2}[version](root, **options)  # type: ignore[operator]


def read(path: Path, camera: str = "FRONT") -> Clip:
    return read_waymo_v1(path, camera) if path.suffix == ".tfrecord" else read_waymo_v2(path, camera)


@pytest.fixture(scope="module", params=["v1", "v2"])
def segment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(request.param, tmp_path_factory.mktemp("waymo") / "training")


def test_images_times_intrinsics_and_poses(segment: Path) -> None:
    clip, truth = read(segment), street()
    assert clip.name == sample.NAME and clip.metric and lazily_read(clip)
    assert np.abs(np.asarray(clip.images).astype(int) - truth.images).mean() < 4  # jpeg
    np.testing.assert_allclose(clip.K, truth.K)
    np.testing.assert_allclose(clip.times, [sample.image_time(i) for i in range(FRAMES)])
    assert_same_cameras(clip, truth, pixels=1e-3)
    np.testing.assert_allclose(clip.poses, truth.poses, atol=1e-9)  # the world is the data set's own


def test_depth_is_where_the_lasers_hit(segment: Path) -> None:
    clip, truth = read(segment), street()
    assert clip.depth is not None and truth.depth is not None
    for i in (1, 3):
        expected = np.zeros(SIZE[::-1], np.float32)
        for laser in (sample.TOP, sample.REAR):
            v, u = sample.scan(i, laser)[2].T
            expected[v, u] = truth.depth[i][v, u]
        assert (expected > 0).sum() > 50
        # Pixel poses are stored with four bytes; a ray that far off a pixel's middle may fall on the next.
        agree = np.isclose(clip.depth[i], expected, rtol=1e-3)
        assert agree.mean() > 0.999


def test_frames_in_any_order(segment: Path) -> None:
    clip, again = read(segment), read(segment)
    assert clip.depth is not None and again.depth is not None
    images, depths = np.asarray(clip.images), np.asarray(clip.depth)
    for i in (2, 0, 3, 1, 1):
        np.testing.assert_array_equal(again.depth[i], depths[i])
        np.testing.assert_array_equal(again.images[i], images[i])


def test_labels_are_boxes_and_know_what_moves(segment: Path) -> None:
    clip = read(segment)
    assert clip.boxes is not None
    world = world_boxes()
    # Labels hold for the frame's pose, the image's is SHIFT ahead.
    inside = rigid_inverse(street().poses)[:, None] @ world
    for t, boxes in enumerate(clip.boxes):
        assert_same_boxes(boxes, {m + 1: T for m, T in enumerate(inside[t]) if T[2, 3] > 3}, atol=0.02)
        assert all(b.label == "vehicle" for b in boxes)
    path = np.linalg.norm(np.ptp(world[:, :, :2, 3], axis=0), axis=-1)
    assert {b.track: b.moving for b in clip.boxes[0]} == {b.track: path[b.track - 1] > 1 for b in clip.boxes[0]}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_lens_distortion_is_taken_out(tmp_path: Path, version: str) -> None:
    distortion = (0.05, -0.02, 0.001, -0.001, 0.003)
    clip = read(write(version, tmp_path, distortion=distortion))
    lens = image_camera(Camera(street().K, *SIZE), distortion)
    np.testing.assert_allclose(clip.K, lens.camera.K)
    assert np.abs(clip.images[0].astype(int) - lens.image(np.asarray(street().images)[0])).mean() < 4


def test_without_lasers_and_labels(tmp_path: Path) -> None:
    root = write("v2", tmp_path)
    for component in ("lidar", "lidar_box"):
        (root / component / f"{sample.NAME}.parquet").unlink()
    clip = read(root)
    assert clip.depth is None and clip.boxes is None


def test_scans_without_pixel_poses() -> None:
    laser = LaserCalibration(rigid(rotation_matrix([0, 0, 0.7]), [1, 2, 3]), np.array([-0.1, 0.2]), 0, 0)
    ranges = np.zeros((2, 8))
    ranges[0, 4] = 10  # the upper beam, just right of the vehicle's front
    around, up = -np.pi / 8, 0.2
    ray = [np.cos(around) * np.cos(up), np.sin(around) * np.cos(up), np.sin(up)]
    np.testing.assert_allclose(scan_points(Scan(laser, ranges, None), np.eye(4)), [10 * np.array(ray) + [1, 2, 3]])


def test_crc_of_the_published_vector() -> None:
    # RFC 3720, B.4: 32 bytes of zeros have the CRC-32C 0x8A9136AA; TFRecord rotates it by 15 and adds its constant.
    rotated = (0x8A9136AA >> 15 | 0x8A9136AA << 17) & 0xFFFFFFFF
    assert masked_crc(bytes(32)) == (rotated + 0xA282EAD8) & 0xFFFFFFFF


def test_segments_are_recognised_and_converted(segment: Path, tmp_path: Path) -> None:
    inside = segment / "camera_image" / f"{sample.NAME}.parquet"
    for path in (segment, segment.parent, segment.parent.parent if segment.suffix else inside):
        assert recognise(path) == "waymo"
        assert len(list(open_clips(path))) == 1
    clips = list(open_clips(segment))
    assert [clip.name for clip in clips] == [sample.NAME]
    out = tmp_path / "a.mcap"
    assert main(["convert", "waymo", str(segment), str(out)]) == 0
    log = read_clip(out)
    np.testing.assert_allclose(
        rigid_inverse(log.poses[0]) @ log.poses, rigid_inverse(clips[0].poses[0]) @ clips[0].poses, atol=1e-6
    )
    assert log.depth is not None and clips[0].depth is not None
    np.testing.assert_allclose(log.depth[2], np.where(clips[0].depth[2] < 65.535, clips[0].depth[2], 0), atol=6e-4)


def test_cameras_that_are_not_there(segment: Path) -> None:
    with pytest.raises(DatasetError, match="Waymo Open has no camera REAR: choose FRONT, FRONT_LEFT"):
        read(segment, "REAR")
    with pytest.raises(DatasetError, match="no image"):
        read(segment, "SIDE_RIGHT")
    with pytest.raises(DatasetError, match=r"4 of 4 images .*image 0, is no whole image \(10 bytes, damaged"):
        next(open_clips(segment, camera="SIDE_LEFT"))


def part(name: str, edit: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda root: edit(root / name / f"{sample.NAME}.parquet")


def other(path: Path) -> None:
    path.write_bytes((path.parent.parent / "vehicle_pose" / path.name).read_bytes())


BAD_V2: dict[str, tuple[Callable[[Path], object], str]] = {
    "no poses": (part("vehicle_pose", Path.unlink), r"vehicle_pose/.*\.parquet is missing: download the comp"),
    "no calibration": (part("camera_calibration", Path.unlink), r"camera_calibration/.*\.parquet is missing"),
    "truncated": (
        part("camera_image", lambda p: p.write_bytes(p.read_bytes()[:500])),
        r"camera_image/.*\.parquet is truncated or no parquet file",
    ),
    "other component": (part("lidar_box", other), r"lidar_box/.*\.parquet has no column key\.laser_object_id"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_V2)
def test_bad_parquet_is_told_in_one_message(tmp_path: Path, what: str) -> None:
    root = write("v2", tmp_path)
    edit, message = BAD_V2[what]
    edit(root)
    with pytest.raises(DatasetError, match=message):
        read(root)


BAD_V1: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda data: data[:-2000], r"\.tfrecord is truncated in record 3: download it again"),
    "cut in a header": (lambda data: data + b"1234567", r"\.tfrecord is truncated in record 4"),
    "no tfrecord": (lambda data: b"a video, perhaps", r"\.tfrecord is no \.tfrecord, or damaged: the length at byte 0"),
    "empty": (lambda data: b"", r"\.tfrecord cannot be read .*: a \.tfrecord of Waymo Open was expected"),
    "no frame": (
        lambda data: struct.pack("<QI", 3, masked_crc(struct.pack("<Q", 3))) + b"\x0a\x01\x00" + bytes(4),
        r"\.tfrecord is damaged or no segment of Waymo Open \(",
    ),
}


@pytest.mark.parametrize("what", BAD_V1)
def test_bad_tfrecords_are_told_in_one_message(tmp_path: Path, what: str) -> None:
    path = write("v1", tmp_path)
    edit, message = BAD_V1[what]
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(DatasetError, match=message):
        read(path)


def test_folders_without_segments(tmp_path: Path) -> None:
    for kind, message in (
        ("camera_image", r"camera_image holds no segments"),
        ("x", r"holds no segments of Waymo Open"),
    ):
        (tmp_path / kind / kind).mkdir(parents=True)
        with pytest.raises(DatasetError, match=message):
            next(open_clips(tmp_path / kind, "waymo"))


def test_a_jump_of_the_vehicles_poses_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = read(write("v1", tmp_path / "plain"))
    images, frames = sample.image_poses(), sample.frame_poses()
    for poses in (images, frames):
        poses[-1, :3, 3] += (0, 40.0, 0)
    monkeypatch.setattr(sample, "image_poses", lambda: images)
    monkeypatch.setattr(sample, "frame_poses", lambda: frames)
    with pytest.warns(UserWarning, match="jumps 1 times"):
        clip = read(write("v1", tmp_path / "moved"))
    np.testing.assert_allclose(clip.poses[:, :3, 3], plain.poses[:, :3, 3], atol=0.2)
