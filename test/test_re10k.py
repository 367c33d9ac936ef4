# SPDX-License-Identifier: Apache-2.0
"""RealEstate10K: camera files and frames in the distributed layout against the street that they show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.dataset_samples import FRAMES, SIZE, assert_same_cameras, lazily_read, street
from support.re10k_sample import FIRST_STAMP, NAME, UNIT, write_clip

from pixel4d_ros.datasets.image_files import DatasetError
from pixel4d_ros.datasets.re10k import camera_files, frame_folder, read_re10k, read_re10k_folder


def test_images_times_intrinsics_and_poses(tmp_path: Path) -> None:
    clip, truth = read_re10k(write_clip(tmp_path)), street()
    assert clip.name == NAME and not clip.metric and lazily_read(clip) and clip.depth is None
    np.testing.assert_array_equal(np.asarray(clip.images), truth.images)
    np.testing.assert_allclose(clip.K, truth.K, atol=1e-6)
    np.testing.assert_allclose(clip.times, FIRST_STAMP * 1e-6 + np.arange(FRAMES) * 0.1)
    assert_same_cameras(clip, truth, pixels=1e-3, scale=UNIT)


@pytest.mark.parametrize("frames", ["", "frames/test", "frames", "test_frames", "test/frames"])
def test_frames_are_found_where_they_usually_are(tmp_path: Path, frames: str) -> None:
    path = write_clip(tmp_path, frames=frames)
    assert frame_folder(path) == tmp_path / (frames or "test") / NAME
    assert len(read_re10k(path)) == FRAMES


def test_a_zoomed_frame_is_resampled_to_the_first_ones_camera(tmp_path: Path) -> None:
    path = write_clip(tmp_path)
    plain = read_re10k(path)
    K = plain.K.copy()
    K[:2, :2] *= 1.25
    lines = path.read_text().splitlines()
    stamp, fx, fy, *rest = lines[FRAMES].split()
    lines[FRAMES] = " ".join([stamp, f"{float(fx) * 1.25:.9f}", f"{float(fy) * 1.25:.9f}", *rest])
    path.write_text("\n".join(lines))
    near = cv2.warpPerspective(np.asarray(plain.images[FRAMES - 1]), K @ np.linalg.inv(plain.K), SIZE)
    cv2.imwrite(str(path.parent / NAME / f"{stamp}.png"), near[..., ::-1])
    clip = read_re10k(path)
    np.testing.assert_allclose(clip.K, plain.K)
    truth, inner = plain.images[FRAMES - 1].astype(float), np.s_[8:-8, 24:-24]  # what a zoomed image shows too
    wrong = np.abs(near - truth)[inner].mean()
    assert np.abs(clip.images[FRAMES - 1] - truth)[inner].mean() < 0.4 * wrong


def test_lines_without_a_frame_are_left_out(tmp_path: Path) -> None:
    path = write_clip(tmp_path, lines=FRAMES + 3)
    (path.parent / NAME / f"{FIRST_STAMP + 100_000}.png").unlink()
    clip = read_re10k(path)
    np.testing.assert_allclose(np.diff(clip.times), [0.2, 0.1])
    np.testing.assert_array_equal(clip.images[1], np.asarray(street().images)[2])


def test_a_folder_gives_the_clips_whose_frames_are_there(tmp_path: Path) -> None:
    one, two = write_clip(tmp_path, "train", "aa"), write_clip(tmp_path, "test", "bb")
    for path in (tmp_path / "train" / "aa").iterdir():
        path.unlink()
    (tmp_path / "train" / "aa").rmdir()
    (tmp_path / "notes.txt").write_text("downloaded on a Monday\n")
    assert camera_files(tmp_path) == [two, one]
    assert [c.name for c in read_re10k_folder(tmp_path)] == ["bb"]
    with pytest.raises(DatasetError, match="holds no camera files of RealEstate10K"):
        camera_files(tmp_path / "test" / "bb")


def edit(change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda path: path.write_text(change(path.read_text()))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (edit(lambda t: t[:-40]), r"\.txt, line 5 has 1[5-8] numbers, 19 were expected"),
    "no number": (edit(lambda t: t.replace("46313000", "now")), r"\.txt, line 2: invalid literal"),
    "no cameras": (edit(lambda t: t.splitlines()[0]), r"\.txt contains no cameras: a URL and then lines of 19 numbers"),
    "order": (edit(lambda t: t.replace("46513000", "46313000")), r"\.txt: the timestamps do not increase"),
    "calibration": (edit(lambda t: t.replace(" " + t.split()[2] + " ", " -0.5 ")), r"positive numbers were expected"),
    "pose": (edit(lambda t: t.replace(t.split()[8], "7.5")), r"\.txt: camera poses are not rigid"),
    "no frames": (
        lambda p: [f.unlink() for f in (p.parent / NAME).iterdir()],
        rf"{NAME} holds no frames of {NAME}\.txt: 46313000\.png or \.jpg",
    ),
    "no folder": (lambda p: (p.parent / NAME).rename(p.parent / "x"), rf"{NAME}\.txt has no frames: a folder {NAME}/"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_clips_are_told_in_one_message(tmp_path: Path, what: str) -> None:
    spoil, message = BAD[what]
    path = write_clip(tmp_path)
    spoil(path)
    with pytest.raises(DatasetError, match=message):
        read_re10k(path)


def test_frames_of_another_size_are_told_when_they_are_asked_for(tmp_path: Path) -> None:
    path = write_clip(tmp_path)
    odd = path.parent / NAME / f"{FIRST_STAMP + 200_000}.png"
    cv2.imwrite(str(odd), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(
        DatasetError, match=r"46513000\.png has 8x8 pixels, but the first frame 46313000\.png says 104x32"
    ):
        read_re10k(path).images[2]
