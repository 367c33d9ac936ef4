# SPDX-License-Identifier: Apache-2.0
"""One damaged image of a log or data set is left out, counted and named; the rest is used."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.dataset_samples import FRAMES
from support.dl3dv_sample import write_scene
from support.kitti_sample import write_kitti
from support.log_samples import START, entries, picture, write_mcap
from support.re10k_sample import write_clip

from pixel4d_ros.cli import main
from pixel4d_ros.commands.demo import read_job
from pixel4d_ros.datasets.depth_images import read_depth_folder
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.datasets.image_files import DatasetError
from pixel4d_ros.datasets.open import good_clips, open_clips
from pixel4d_ros.evaluation.recording import Truth
from pixel4d_ros.logs.reader import LogReader
from pixel4d_ros.training.config import TrainingSource
from pixel4d_ros.training.sources import read_clips

IMAGES = "/camera/left/image_raw/compressed"


def damaged_log(path: Path, *damaged: int, frames: int = 8) -> Path:
    """The sample with the bytes of some images cut off."""
    items = list(entries(frames, compressed=True))
    images = [e for e in items if e.topic == IMAGES]
    for i in damaged:
        images[i].message.data = images[i].message.data[:40]
    return write_mcap(path, items)


def first_picture(folder: Path) -> Path:
    return sorted(p for p in folder.rglob("*") if p.suffix in (".png", ".jpg"))[0]


def test_damaged_images_of_a_log_are_left_out_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = read_clip(write_mcap(tmp_path / "whole.mcap", entries(8, compressed=True)))
    (clip,) = open_clips(damaged_log(tmp_path / "a.mcap", 0, 3))
    kept = [1, 2, 4, 5, 6, 7]
    for name in ("times", "poses", "depth", "images"):
        np.testing.assert_array_equal(getattr(clip, name), np.asarray(getattr(whole, name))[kept])
    (said,) = [r.getMessage() for r in caplog.records if "cannot be read" in r.getMessage()]
    assert said.startswith("a: 2 of 8 images cannot be read and are left out")
    assert f"{IMAGES}, image 0: compressed image" in said and f"{IMAGES}, image 3: " in said


def test_a_part_beyond_the_end_is_refused(tmp_path: Path) -> None:
    """`pixel4d evaluate --start` beyond the images of a log with boxes ended with a traceback."""
    with pytest.raises(DatasetError, match="log has no image 10: it holds 6"):
        next(open_clips(write_mcap(tmp_path / "log.mcap", entries()), start=10))


def test_an_image_of_another_size_or_damaged_depth_is_left_out_as_well(tmp_path: Path) -> None:
    items = list(entries(8, compressed=True))
    images = [e for e in items if e.topic == IMAGES]
    depth = [e for e in items if e.topic.endswith("depth")]
    images[2].message.data = next(e for e in entries(1, compressed=True, scale=2) if e.topic == IMAGES).message.data
    depth[5].message.data = depth[5].message.data[:10]
    (clip,) = open_clips(write_mcap(tmp_path / "a.mcap", items))
    np.testing.assert_array_equal(clip.images[4], picture(6))
    assert len(clip) == 6


def test_a_log_of_mostly_damaged_images_is_refused_and_others_of_its_folder_are_read(tmp_path: Path) -> None:
    damaged_log(tmp_path / "bad.mcap", 1, 2, 3, 4, 5)
    damaged_log(tmp_path / "good.mcap")
    failures: list[str] = []
    assert [clip.name for clip in good_clips(open_clips(tmp_path), failures)] == ["good"]
    (failure,) = failures
    assert failure.startswith("bad: 5 of 8 images cannot be read, the first: ")


WRITERS: dict[str, Callable[[Path], Path]] = {
    "kitti": lambda folder: write_kitti(folder) / "image_02" / "data",
    "re10k": lambda folder: write_clip(folder).parent,
    "dl3dv": lambda folder: write_scene(folder),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_first_image_file_may_be_damaged(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = WRITERS[kind](tmp_path / "data")
    whole = next(open_clips(tmp_path / "data", kind)).in_memory()
    damaged = first_picture(folder)
    damaged.write_bytes(damaged.read_bytes()[:100])
    clip = next(open_clips(tmp_path / "data", kind))
    np.testing.assert_array_equal(clip.images, whole.images[1:])
    np.testing.assert_array_equal(clip.poses, whole.poses[1:])
    assert f"1 of {FRAMES} images cannot be read" in caplog.text and damaged.name in caplog.text


def test_convert_writes_the_other_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    drive = write_kitti(tmp_path / "raw")
    (drive / "image_02" / "data" / "0000000002.png").write_bytes(b"")
    out = tmp_path / "out.mcap"
    with caplog.at_level(logging.WARNING):
        assert main(["convert", "kitti", str(drive), str(out)]) == 0
    assert len(read_clip(out)) == FRAMES - 1
    assert "0000000002.png is no whole image" in caplog.text


def test_training_and_evaluation_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = damaged_log(tmp_path / "a.mcap", 4, frames=12)
    (clip,) = read_clips(TrainingSource(log))
    assert len(np.asarray(clip.images)) == 11
    caplog.clear()
    numbers = tmp_path / "numbers.json"
    options = ["--frames", "3", "--stride", "4", "--size", "64x48", "--device", "cpu"]
    assert main(["evaluate", str(log), "--json", str(numbers), *options]) == 0
    assert json.loads(numbers.read_text())["sources"] >= 1
    assert "1 of 12 images cannot be read and are left out" in caplog.text


def test_the_truth_of_a_report_has_no_damaged_image(tmp_path: Path) -> None:
    path = damaged_log(tmp_path / "a.mcap", 0, 3)
    assert read_job(path, None).streams.image.name == IMAGES
    with LogReader(path) as log:
        truth = Truth(log, IMAGES)
        found = [truth.at(START + i * 100_000_000) for i in range(8)]
    assert [i for i, image in enumerate(found) if image is None] == [0, 3]
    assert len(truth.faults) == 2 and all("truncated PNG" in fault for fault in truth.faults.values())


def test_a_single_image_with_damaged_depth_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.jpg"), picture(i))
        cv2.imwrite(str(tmp_path / f"{i}_depth.png"), np.full(picture(i).shape[:2], 900, np.uint16))
    K = [[30.0, 0, 15.5], [0, 30, 11.5], [0, 0, 1]]
    (tmp_path / "clip.json").write_text(json.dumps({"K": K, "kind": "indoor", "metric": True}))
    (tmp_path / "1_depth.png").write_bytes(b"")
    assert [clip.name[-1] for clip in read_depth_folder(tmp_path)] == ["0", "2"]
    assert "1 of 3 images cannot be read and are left out" in caplog.text and "1_depth.png" in caplog.text
    (tmp_path / "2_depth.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="2 of 3 images cannot be read"):
        read_depth_folder(tmp_path)
