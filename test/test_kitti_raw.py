# SPDX-License-Identifier: Apache-2.0
"""KITTI raw: drives in the distributed layout against the street that they show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.dataset_samples import (
    FRAMES,
    SIZE,
    assert_same_boxes,
    assert_same_cameras,
    lazily_read,
    street,
    world_boxes,
    world_points,
)
from support.kitti_sample import BASELINE, write_kitti
from support.paths import shared_path

from pixel4d_ros.datasets.boxes import box_mask
from pixel4d_ros.datasets.image_files import DatasetError
from pixel4d_ros.datasets.kitti_calibration import read_camera
from pixel4d_ros.datasets.kitti_raw import kitti_drives, read_kitti_raw
from pixel4d_ros.datasets.kitti_splits import split_drives
from pixel4d_ros.datasets.lidar import project_depth
from pixel4d_ros.geometry.rotations import rigid, rigid_inverse
from pixel4d_ros.logs.reader import LogReader


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kitti(tmp_path_factory.mktemp("kitti"))


def test_images_times_intrinsics_and_poses(drive: Path) -> None:
    clip, truth = read_kitti_raw(drive), street()
    assert clip.name == "2011_09_26_drive_0001_sync" and clip.metric and lazily_read(clip)
    np.testing.assert_array_equal(np.asarray(clip.images), truth.images)
    np.testing.assert_allclose(clip.K, truth.K, rtol=1e-9)
    np.testing.assert_allclose(clip.times, 1317042145.964389445 + truth.times, atol=1e-6)
    assert_same_cameras(clip, truth, pixels=0.01)
    # The world's z is up and its x east, as the street's are.
    np.testing.assert_allclose(clip.poses[:, :3, :3], truth.poses[:, :3, :3], atol=2e-5)


def test_depth_is_the_nearest_return(drive: Path) -> None:
    clip, truth = read_kitti_raw(drive), street()
    assert clip.depth is not None and clip.depth.dtype == np.float32
    for read, known in zip(clip.depth, np.asarray(truth.depth)):
        np.testing.assert_allclose(read, np.where(known > 0.5, known, 0), rtol=1e-4)


def test_stereo_partner(drive: Path) -> None:
    clip = read_kitti_raw(drive)
    assert clip.stereo is not None
    np.testing.assert_array_equal(clip.stereo.images[2], np.asarray(street().images)[2, ::-1])
    between = rigid_inverse(clip.poses) @ clip.stereo.poses
    np.testing.assert_allclose(between, np.tile(rigid(np.eye(3), [BASELINE, 0, 0]), (FRAMES, 1, 1)), atol=1e-6)


def test_tracklets_are_boxes_and_know_what_moves(drive: Path) -> None:
    clip, truth = read_kitti_raw(drive), street()
    assert clip.boxes is not None
    world = world_boxes()
    inside = rigid_inverse(truth.poses)[:, None] @ world
    for t, boxes in enumerate(clip.boxes):
        labelled = range(world.shape[1]) if t < FRAMES - 1 else range(0, world.shape[1], 2)
        assert_same_boxes(boxes, {m + 1: inside[t, m] for m in labelled if inside[t, m, 2, 3] > 3}, atol=0.02)
    for box in (b for frame in clip.boxes for b in frame):
        labelled = FRAMES - (box.track - 1) % 2
        path = world[:labelled, box.track - 1, :2, 3]
        assert box.moving == (np.linalg.norm(np.ptp(path, axis=0)) > 1.0)
    assert {b.moving for b in clip.boxes[0]} == {True, False}
    assert truth.object_ids is not None
    for box in clip.boxes[0]:  # the middle of each thing's pixels lies in its box
        v, u = np.nonzero(truth.object_ids[0] == box.track)
        if len(v) > 20:
            assert box_mask(box, clip.K, *SIZE)[round(v.mean()), round(u.mean())]


def test_the_road_lies_below_the_inertial_unit(drive: Path) -> None:
    points, _ = world_points(read_kitti_raw(drive), 1)
    assert len(points) > 100
    assert np.percentile(points[:, 2], 5) < -0.5


# The published calibration of 2011-09-26, as far as it is read.
REAL_CALIBRATION = {
    "calib_cam_to_cam.txt": """S_rect_02: 1.242000e+03 3.750000e+02
R_rect_00: 9.999239e-01 9.837760e-03 -7.445048e-03 -9.869795e-03 9.999421e-01 -4.278459e-03 7.402527e-03 4.351614e-03 \
9.999631e-01
P_rect_02: 7.215377e+02 0.000000e+00 6.095593e+02 4.485728e+01 0.000000e+00 7.215377e+02 1.728540e+02 2.163791e-01 \
0.000000e+00 0.000000e+00 1.000000e+00 2.745884e-03
""",
    "calib_velo_to_cam.txt": """calib_time: 15-Mar-2012 11:37:16
R: 7.533745e-03 -9.999714e-01 -6.166020e-04 1.480249e-02 7.280733e-04 -9.998902e-01 9.998621e-01 7.523790e-03 \
1.480755e-02
T: -4.069766e-03 -7.631618e-02 -2.717806e-01
""",
    "calib_imu_to_velo.txt": """calib_time: 25-May-2012 16:47:16
R: 9.999976e-01 7.553071e-04 -2.035826e-03 -7.854027e-04 9.998898e-01 -1.482298e-02 2.024406e-03 1.482454e-02 \
9.998881e-01
T: -8.086759e-01 3.195559e-01 -7.997231e-01
""",
}


def test_the_real_calibration_places_the_camera_as_a_real_log_does(tmp_path: Path) -> None:
    with LogReader(shared_path("logs/train/kitti_0005.mcap")) as log:
        mounts = next(log.messages(["/tf_static"])).message.transforms
    for name, text in REAL_CALIBRATION.items():
        (tmp_path / name).write_text(text)
    T = rigid_inverse(read_camera(tmp_path, 2).T_camera_imu)
    left = next(m.transform for m in mounts if m.child_frame_id == "camera_left_optical")
    t, q = left.translation, left.rotation
    np.testing.assert_allclose(T, rigid([q.w, q.x, q.y, q.z], [t.x, t.y, t.z]), atol=1e-5)


def test_images_may_be_jpeg_and_unused_values_of_the_packets_nan(tmp_path: Path) -> None:
    drive = write_kitti(tmp_path)
    expected = read_kitti_raw(drive).in_memory()
    for path in (drive / "image_02" / "data").glob("*.png"):
        cv2.imwrite(str(path.with_suffix(".jpg")), cv2.imread(str(path)), [cv2.IMWRITE_JPEG_QUALITY, 98])
        path.unlink()
    for path in (drive / "oxts" / "data").glob("*.txt"):
        values = path.read_text().split()
        path.write_text(" ".join(values[:6] + ["nan"] * 24))
    clip = read_kitti_raw(drive)
    np.testing.assert_array_equal(clip.poses, expected.poses)
    assert np.abs(clip.images[0].astype(float) - expected.images[0]).mean() < 4
    packet = drive / "oxts" / "data" / "0000000001.txt"
    packet.write_text(packet.read_text().replace(packet.read_text().split()[0], "nan"))
    with pytest.raises(DatasetError, match=r"0000000001\.txt: latitude .* must be finite numbers"):
        read_kitti_raw(drive)


def test_missing_scans_and_tracklets_leave_depth_and_boxes_unknown(tmp_path: Path) -> None:
    folder = write_kitti(tmp_path)
    (folder / "velodyne_points" / "data" / "0000000001.bin").unlink()
    (folder / "tracklet_labels.xml").unlink()
    clip = read_kitti_raw(folder)
    assert clip.boxes is None and clip.depth is not None
    assert not clip.depth[1].any() and clip.depth[2].any()


def test_drives_are_found_from_any_folder_above(tmp_path: Path) -> None:
    one = write_kitti(tmp_path)
    other = write_kitti(tmp_path, "2011_09_28", "0002")
    assert kitti_drives(tmp_path) == [one, other]
    assert kitti_drives(one.parent) == [one] == kitti_drives(one)
    assert kitti_drives(tmp_path, "tulsiani") == [one]
    assert kitti_drives(tmp_path, "tulsiani", "train") == [other] == kitti_drives(tmp_path, "eigen", "test")
    with pytest.raises(DatasetError, match="holds no drives of the split eigen, part test"):
        kitti_drives(one.parent, "eigen")
    with pytest.raises(ValueError, match="'zhou' is no split of KITTI raw: choose tulsiani or eigen"):
        kitti_drives(tmp_path, "zhou")
    with pytest.raises(DatasetError, match="holds no drives of KITTI raw: 2011_xx"):
        kitti_drives(one / "oxts")


def test_splits_do_not_overlap() -> None:
    parts = [split_drives("tulsiani", part) for part in ("train", "val", "test")]
    assert [len(p) for p in parts] == [20, 4, 4] and len(set().union(*parts)) == 28
    assert len(split_drives("eigen", "test")) == 28 and len(split_drives("eigen", "train")) == 33
    assert not set(split_drives("eigen", "test")) & set(split_drives("eigen", "train"))
    assert "2011_10_03_drive_0047_sync" in split_drives("eigen", "test")


def damage(name: str, edit: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: edit(folder / name)


def unlink_all(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no images": (damage("image_02/data", unlink_all), r"image_02/data holds no images: 0000000000\.png"),
    "no poses": (
        damage("oxts/data/0000000002.txt", Path.unlink),
        r"0000000002\.txt is missing: every image needs a pose",
    ),
    "short pose": (
        damage("oxts/data/0000000001.txt", lambda p: p.write_text("49.0 8.4 116")),
        r"0000000001\.txt holds 3 values, 30 numbers were expected",
    ),
    "no number": (damage("oxts/data/0000000001.txt", lambda p: p.write_text("x " * 30)), r"0000000001\.txt: could not"),
    "no calibration": (damage("../calib_velo_to_cam.txt", Path.unlink), r"calib_velo_to_cam\.txt is missing: unpack"),
    "short calibration": (
        damage("../calib_cam_to_cam.txt", lambda p: p.write_text(p.read_text()[:200])),
        r"calib_cam_to_cam\.txt: P_rect_02 holds 0 numbers, 12 were expected",
    ),
    "wrong calibration": (
        damage("../calib_imu_to_velo.txt", lambda p: p.write_text("R: 1 0 0 0 2 0 0 0 1\nT: 0 0 0\n")),
        r"calib_imu_to_velo\.txt: R is no rotation matrix",
    ),
    "few times": (
        damage("image_02/timestamps.txt", lambda p: p.write_text("2011-09-26 13:02:25.9\n")),
        r"timestamps\.txt has 1 lines, but image 0000000001 needs line 2",
    ),
    "odd time": (
        damage("image_02/timestamps.txt", lambda p: p.write_text("yesterday\n" * 4)),
        r"timestamps\.txt, line 1: 'yesterday' is no time",
    ),
    "short labels": (
        damage("tracklet_labels.xml", lambda p: p.write_text(p.read_text()[:900])),
        r"tracklet_labels\.xml is truncated or no XML",
    ),
    "odd labels": (
        damage("tracklet_labels.xml", lambda p: p.write_text(p.read_text().replace("first_frame", "frame"))),
        r"tracklet_labels\.xml: a tracklet has no <first_frame>; items with h",
    ),
    "labels in no encoding": (
        damage("tracklet_labels.xml", lambda p: p.write_text(p.read_text().replace("UTF-8", "UTF-9"))),
        r"tracklet_labels\.xml is truncated or no XML",
    ),
    "labels without end": (
        damage(
            "tracklet_labels.xml", lambda p: p.write_text(p.read_text().replace("<first_frame>", "<first_frame>1e999"))
        ),
        r"tracklet_labels\.xml: a tracklet's <first_frame> is inf",
    ),
    "labels in centimetres": (
        damage("tracklet_labels.xml", lambda p: p.write_text(p.read_text().replace("<l>", "<l>10"))),
        r"tracklet_labels\.xml: a box \(Car\) has the size .* in metres expected",
    ),
    "wrong size": (
        damage("image_02/data/0000000000.png", lambda p: cv2.imwrite(str(p), np.zeros((16, 52, 3), np.uint8))),
        r"0000000000\.png has 52x16 pixels, but S_rect_02 in .*calib_cam_to_cam\.txt says 104x32",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_drives_are_told_in_one_message(tmp_path: Path, what: str) -> None:
    folder = write_kitti(tmp_path)
    edit, message = BAD[what]
    edit(folder)
    with pytest.raises(DatasetError, match=message):
        read_kitti_raw(folder).images[0]


def test_damaged_frames_are_told_when_they_are_asked_for(tmp_path: Path) -> None:
    folder = write_kitti(tmp_path)
    image, scan = folder / "image_02/data/0000000003.png", folder / "velodyne_points/data/0000000003.bin"
    image.write_bytes(b"")
    scan.write_bytes(scan.read_bytes()[:-3])
    clip = read_kitti_raw(folder)
    assert clip.depth is not None
    with pytest.raises(DatasetError, match=r"0000000003\.png is no whole image \(0 bytes, damaged: empty\)"):
        clip.images[3]
    with pytest.raises(DatasetError, match=r"0000000003\.bin is truncated"):
        clip.depth[3]


def five_columns(scan: np.ndarray) -> np.ndarray:
    """With the ring of the laser, as nuScenes stores it."""
    scan = scan[: len(scan) // 4 * 4]
    return np.hstack([scan, np.full((len(scan), 1), 7, np.float32)])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda scan: scan.astype(np.float64), id="float64"),
        pytest.param(lambda scan: scan.astype(">f4"), id="big-endian"),
        pytest.param(five_columns, id="five columns"),
        pytest.param(lambda scan: scan * np.float32(1000), id="millimetres"),
    ],
)
def test_scans_in_another_form_are_refused(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    folder = write_kitti(tmp_path)
    path = folder / "velodyne_points/data/0000000001.bin"
    change(np.fromfile(path, np.float32).reshape(-1, 4)).tofile(path)
    clip = read_kitti_raw(folder)
    assert clip.depth is not None and clip.depth[0].any()
    with pytest.raises(DatasetError, match=r"0000000001\.bin: \d+% of its points are .* little-endian float32"):
        clip.depth[1]


def test_extracted_drives_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "2011_09_26" / "2011_09_26_drive_0001_extract"
    folder.mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"neither synced nor rectified: download the drive's _sync\.zip"):
        kitti_drives(folder)


def test_a_scan_keeps_the_nearest_point_in_view() -> None:
    K = np.array([[2.0, 0, 1.5], [0, 2, 1], [0, 0, 1]])
    points = np.array([[0.25, 0, 4], [0.5, 0, 8], [0.125, 0, 2], [0, 0, -3], [9, 0, 4], [0, 0, 0.3]])
    expected = np.zeros((3, 4))
    expected[1, 2] = 2
    np.testing.assert_array_equal(project_depth(points, np.eye(4), K, (4, 3)), expected)


def test_a_jump_of_the_inertial_units_poses_is_removed(drive: Path, tmp_path: Path) -> None:
    """A GNSS correction of 40 m within 0.1 s counted as 400 m/s."""
    moved = write_kitti(tmp_path)
    packet = moved / "oxts" / "data" / f"{FRAMES - 1:010d}.txt"
    latitude, *others = packet.read_text().split(" ")
    packet.write_text(" ".join([str(float(latitude) + 40 / 111_000), *others]))
    with pytest.warns(UserWarning, match=r"oxts: the vehicle jumps 1 times, first 0\.2 s after its start"):
        clip = read_kitti_raw(moved)
    np.testing.assert_allclose(clip.poses[:, :3, 3], read_kitti_raw(drive).poses[:, :3, 3], atol=0.2)
