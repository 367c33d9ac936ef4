# SPDX-License-Identifier: Apache-2.0
"""DL3DV-10K: scenes in the distributed layout against the street that they show, and a real scene."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.dataset_samples import FRAMES, SIZE, assert_same_cameras, lazily_read, project, street, world_points
from support.dl3dv_sample import UNIT, write_scene
from support.paths import shared_path

from pixel4d_ros.camera import Camera
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.dl3dv import dl3dv_scenes, read_dl3dv
from pixel4d_ros.datasets.image_files import DatasetError
from pixel4d_ros.geometry.camera_info import image_camera

K1 = -0.12


@pytest.mark.parametrize(("folder", "shrink"), [("images_4", 4), ("images", 1), ("images_8", 8)])
def test_cameras_follow_the_size_of_the_pictures(tmp_path: Path, folder: str, shrink: int) -> None:
    clip, truth = read_dl3dv(write_scene(tmp_path / "scene", folder, shrink)), street()
    assert clip.name == "scene" and not clip.metric and lazily_read(clip) and clip.depth is None
    np.testing.assert_array_equal(np.asarray(clip.images), truth.images)
    np.testing.assert_allclose(clip.K, truth.K, rtol=1e-9)
    assert_same_cameras(clip, truth, pixels=1e-3, scale=UNIT)
    np.testing.assert_allclose(np.diff(clip.times), 0.1)


@pytest.mark.parametrize(
    ("key", "time", "words"),
    [
        ("time", lambda i: 5 + 0.25 * i, ""),
        ("timestamp", lambda i: 1.7e9 + 0.25 * i, ""),
        ("time", lambda i: i / (FRAMES - 1), "go from 0 to 1"),
        ("time", lambda i: 0.25 * (FRAMES - i), "do not increase in the order of the names"),
        ("timestamp", lambda i: 2.5e8 * i, "are 2.5e+08 apart: seconds were expected"),
    ],
)
def test_times_of_frames_count(
    tmp_path: Path, key: str, time: Callable[[int], float], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They were passed over: forecasts were compared with images of another time."""
    path = write_scene(tmp_path)
    data = json.loads((path / "transforms.json").read_text())
    frames = sorted(data["frames"], key=lambda frame: str(frame["file_path"]))
    for i, frame in enumerate(frames):
        frame[key] = time(i)
    (path / "transforms.json").write_text(json.dumps(data))
    np.testing.assert_allclose(np.diff(read_dl3dv(path).times), 0.1 if words else 0.25, atol=1e-6)
    assert words in caplog.text and bool(words) == bool(caplog.text)


def test_lens_distortion_is_taken_out(tmp_path: Path) -> None:
    clip, truth = read_dl3dv(write_scene(tmp_path, lens=K1)), street()
    # A point's colour is where the clip's pinhole camera says, in the middle of the picture, where nothing is blurred.
    for frame in (0, FRAMES - 1):
        points, colours = world_points(truth, frame, 1)
        pixels = project(Clip("k", truth.images, clip.K, truth.poses, truth.times), frame, points)
        u, v = np.rint(pixels).astype(int).T
        near = np.abs(pixels - np.rint(pixels)).max(1) < 0.15
        near &= (u >= 0) & (v >= 0) & (u < SIZE[0]) & (v < SIZE[1])
        assert near.sum() > 20
        error = np.abs(clip.images[frame][v[near], u[near]].astype(float) - colours[near]).mean()
        wrong = np.abs(clip.images[frame][v[near], u[near] - 2].astype(float) - colours[near]).mean()
        assert error < 8 and error < 0.5 * wrong


def test_undistorted_pixels_match_opencv() -> None:
    K = np.array([[50.0, 0, 51.5], [0, 50, 15.5], [0, 0, 1]])
    coefficients = np.array([K1, 0.02, 0.001, -0.002, 0])
    lens = image_camera(Camera(K, *SIZE), coefficients)
    pixel = np.array([[[70.0, 20.0]]])  # of the undistorted picture
    ray = np.linalg.inv(lens.camera.K) @ [*pixel[0, 0], 1]
    there, _ = cv2.projectPoints(ray[None], np.zeros(3), np.zeros(3), K, coefficients)
    gradient = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    gradient[:] = 2 * np.arange(SIZE[0])[None, :, None]
    assert lens.image(gradient)[20, 70, 0] == pytest.approx(2 * there[0, 0, 0], abs=1)


def test_frames_are_in_the_order_of_their_numbers_and_may_have_their_own_intrinsics(tmp_path: Path) -> None:
    """frame_2 comes before frame_10; a frame that was zoomed in is resampled to the first frame's camera."""
    path = write_scene(tmp_path) / "transforms.json"
    data = json.loads(path.read_text())
    plain, zoom, last = read_dl3dv(path).in_memory(), 1.25, FRAMES - 1
    near = np.zeros(0)
    K = plain.K.copy()
    K[:2, :2] *= zoom
    for i, frame in enumerate(sorted(data["frames"], key=lambda frame: frame["file_path"])):
        picture = path.parent / "images_4" / Path(frame["file_path"]).name
        frame["file_path"] = f"images/frame_{i + 8}{picture.suffix}"
        if i == last:
            frame.update(fl_x=data["fl_x"] * zoom, fl_y=data["fl_y"] * zoom)
            size = plain.images.shape[2], plain.images.shape[1]
            near = cv2.warpPerspective(np.asarray(plain.images[i]), K @ np.linalg.inv(plain.K), size)
            cv2.imwrite(str(picture), near[..., ::-1])
        picture.rename(picture.with_name(f"frame_{i + 8}{picture.suffix}"))
    path.write_text(json.dumps(data))
    clip = read_dl3dv(path)
    np.testing.assert_array_equal(clip.poses, plain.poses)
    np.testing.assert_allclose(clip.K, plain.K)
    truth, inner = plain.images[last].astype(float), np.s_[8:-8, 24:-24]  # what a zoomed image shows too
    wrong = np.abs(near - truth)[inner].mean()
    assert np.abs(clip.images[last] - truth)[inner].mean() < 0.4 * wrong


def test_scenes_are_found_from_the_folder_above(tmp_path: Path) -> None:
    one, two = write_scene(tmp_path / "1K" / "a"), write_scene(tmp_path / "1K" / "b" / "nerfstudio")
    assert dl3dv_scenes(one) == [one / "transforms.json"]
    assert dl3dv_scenes(two.parent) == [two / "transforms.json"]
    assert read_dl3dv(two.parent).name == "b"
    assert dl3dv_scenes(tmp_path) == [one / "transforms.json"]
    with pytest.raises(DatasetError, match=r"holds no scene: a transforms\.json was expected"):
        dl3dv_scenes(one / "images_4")


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(scene: Path) -> None:
        path = scene / "transforms.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return apply


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (
        lambda s: (s / "transforms.json").write_text((s / "transforms.json").read_text()[:300]),
        r"transforms\.json is truncated or no JSON",
    ),
    "no frames": (edit(lambda d: d.update(frames=[])), r'transforms\.json has no frames: "frames" with file_path'),
    "no poses": (edit(lambda d: d["frames"][0].pop("transform_matrix")), r"a frame has no 'transform_matrix': 4x4"),
    "bad pose": (
        edit(lambda d: d["frames"][0].update(transform_matrix=(2 * np.eye(4)).tolist())),
        r"transforms\.json: transform_matrix: camera poses must end in the row 0 0 0 1",
    ),
    "no focal length": (edit(lambda d: d.pop("fl_x")), r"transforms\.json: fl_x is None, a number was expected"),
    "fisheye": (
        edit(lambda d: d.update(camera_model="OPENCV_FISHEYE")),
        r"camera_model OPENCV_FISHEYE is not supported",
    ),
    "fisheye of instant-ngp": (edit(lambda d: d.update(is_fisheye=True)), r"camera_model is_fisheye is not supported"),
    "one frame is fisheye": (
        edit(lambda d: d["frames"][1].update(camera_model="OPENCV_FISHEYE")),
        r"camera_model OPENCV_FISHEYE is not supported",
    ),
    "a fourth coefficient": (edit(lambda d: d.update(k4=0.3)), r"k4 is 0\.3, only k1, k2, p1, p2, k3 are supported"),
    "another shape": (edit(lambda d: d.update(h=1000)), r"describes 416x1000 pixels, but the pictures have 104x32"),
    "zero": (edit(lambda d: d.update(fl_y=0)), r"fl_y 0, .*positive numbers were expected"),
    "no pictures": (
        lambda s: [p.unlink() for p in (s / "images_4").iterdir()],
        r"holds no pictures: frame_00001\.png was expected in images, images_2, images_4",
    ),
    "a picture less": (
        lambda s: (s / "images_4" / "frame_00003.png").unlink(),
        r"images_4/frame_00003\.png is missing, with 0 more that .*transforms\.json names",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_scenes_are_told_in_one_message(tmp_path: Path, what: str) -> None:
    spoil, message = BAD[what]
    scene = write_scene(tmp_path)
    spoil(scene)
    with pytest.raises(DatasetError, match=message):
        read_dl3dv(scene)


def test_pictures_of_another_size_are_told_when_they_are_asked_for(tmp_path: Path) -> None:
    scene = write_scene(tmp_path)
    cv2.imwrite(str(scene / "images_4" / "frame_00002.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"frame_00002\.png has 8x8 pixels, but the first picture frame_00001\.png"):
        read_dl3dv(scene).images[1]


def test_a_real_scene() -> None:
    clip = read_dl3dv(shared_path("scenes/fox"))
    assert clip.images.shape == (50, 960, 540, 3) and not clip.metric
    # Neighbouring photographs agree with the epipolar geometry of the poses: matched corners lie on their lines.
    errors = []
    for i in (0, 20):
        orb = cv2.ORB_create(3000)
        (a, da), (b, db) = (
            orb.detectAndCompute(cv2.cvtColor(clip.images[j], cv2.COLOR_RGB2GRAY), None) for j in (i, i + 1)
        )
        matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(da, db)
        left = np.array([[*a[m.queryIdx].pt, 1] for m in matches if m.distance < 30])
        right = np.array([[*b[m.trainIdx].pt, 1] for m in matches if m.distance < 30])
        T = np.linalg.inv(clip.poses[i + 1]) @ clip.poses[i]
        x, y, z = T[:3, 3]
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        inverse = np.linalg.inv(clip.K)
        lines = left @ (inverse.T @ cross @ T[:3, :3] @ inverse).T
        assert len(left) > 50
        errors.append(np.median(np.abs((lines * right).sum(1)) / np.linalg.norm(lines[:, :2], axis=1)))
    assert max(errors) < 1.5  # pixels
