# SPDX-License-Identifier: Apache-2.0
"""Data sets as driving logs and back, and what `open_clips` takes a path for."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.dataset_samples import FRAMES, street
from support.dl3dv_sample import write_scene
from support.kitti_sample import BASELINE, write_kitti
from support.log_samples import entries, write_mcap
from support.re10k_sample import NAME, write_clip

from pixel4d_ros.cli import main
from pixel4d_ros.commands import convert as convert_command
from pixel4d_ros.datasets import clip_log
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.datasets.image_files import DatasetError
from pixel4d_ros.datasets.open import KINDS, open_clips, recognise
from pixel4d_ros.geometry.rotations import rigid_inverse
from pixel4d_ros.logs.reader import LogReader
from pixel4d_ros.logs.writer import LogWriter

TOPICS = {
    "/camera/left/image_raw/compressed",
    "/camera/left/camera_info",
    "/odometry",
    "/planned_path",
    "/tf",
    "/tf_static",
}


def relative(poses: np.ndarray) -> np.ndarray:
    return rigid_inverse(poses[0]) @ poses


def assert_same_clip(log: Clip, source: Clip) -> None:
    """Images up to jpeg, poses up to the world's frame, depth up to its 16 bits."""
    np.testing.assert_allclose(log.K, source.K)
    np.testing.assert_allclose(np.diff(log.times), np.diff(source.times), atol=1e-6)
    np.testing.assert_allclose(relative(log.poses), relative(source.poses), atol=1e-6)
    difference = np.asarray(log.images).astype(float) - np.asarray(source.images)
    assert np.abs(difference).mean() < 6
    assert (log.depth is None) == (source.depth is None)
    if source.depth is not None:
        known = np.asarray(source.depth)
        np.testing.assert_allclose(np.asarray(log.depth), np.where(known < 65.534, known, 0), atol=6e-4)


def test_kitti_round_trip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drive, out = write_kitti(tmp_path / "raw"), tmp_path / "out.mcap"
    assert main(["convert", "kitti", str(drive), str(out)]) == 0
    assert f"{out}: {FRAMES} frames of 104x32 pixels" in capsys.readouterr().out
    source, log = next(open_clips(drive)), read_clip(out)
    assert_same_clip(log, source)
    np.testing.assert_allclose(log.times, source.times, atol=1e-6)
    assert log.stereo is not None and source.stereo is not None
    assert_same_clip(log.stereo, source.stereo)
    np.testing.assert_allclose((rigid_inverse(log.poses) @ log.stereo.poses)[:, 0, 3], BASELINE, atol=1e-6)
    with LogReader(out) as reader:
        right = {"/camera/right/image_raw/compressed", "/camera/right/camera_info"}
        assert set(reader.topics) == TOPICS | right | {"/camera/left/depth/compressed"}
        assert reader.latched == {"/tf_static"}


@pytest.mark.parametrize(("kind", "write"), [("re10k", write_clip), ("dl3dv", write_scene)])
def test_clips_without_metric_scale(
    tmp_path: Path, kind: str, write: object, capsys: pytest.CaptureFixture[str]
) -> None:
    source_path, out = write(tmp_path / "data"), tmp_path / "out.mcap"  # type: ignore[operator]
    assert main(["convert", kind, str(source_path), str(out)]) == 0
    assert "1 unit is written as 1 m (set --scale)" in capsys.readouterr().out
    source, log = next(open_clips(source_path)), read_clip(out)
    assert not source.metric
    assert_same_clip(log, source)
    assert log.times[0] >= clip_log.EPOCH  # no stamp is near 0, which ROS takes for none
    assert main(["convert", kind, str(source_path), str(out), "--scale", "2.5", "--frames", "3", "--force"]) == 0
    assert "unit" not in capsys.readouterr().out
    scaled = read_clip(out)
    assert len(scaled) == 3
    np.testing.assert_allclose(relative(scaled.poses)[2, :3, 3], 2.5 * relative(source.poses)[2, :3, 3], atol=1e-6)


def test_the_documented_commands_exist() -> None:
    text = (Path(__file__).parent.parent / "docs" / "datasets.md").read_text()
    commands = re.findall(r"^ {4}pixel4d convert (.*?)(?:  +#.*)?$", text, re.MULTILINE)
    assert {line.split()[0] for line in commands} == set(KINDS) - {"log", "video", "depth"}
    parser = argparse.ArgumentParser()
    convert_command.add_arguments(parser)
    for line in commands:
        parser.parse_args(line.split())  # ends the test with an error for an unknown option


def test_odometry_and_plan_tell_what_is_driven(tmp_path: Path) -> None:
    source, out = street(), tmp_path / "out.mcap"
    with LogWriter(out) as log:
        clip_log.write_clip(log, source, progress=False)
    speed = np.linalg.norm(np.diff(source.poses[:, :3, 3], axis=0), axis=1) / 0.1
    with LogReader(out) as reader:
        twists = [m.message.twist.twist for m in reader.messages(["/odometry"])]
        plans = [m.message for m in reader.messages(["/planned_path"])]
    for i, twist in enumerate(twists):
        ahead = np.array([twist.linear.x, twist.linear.y, twist.linear.z])
        assert np.linalg.norm(ahead) == pytest.approx(speed[max(0, i - 1) : i + 1].mean(), rel=0.02)
        assert ahead[0] > 0.95 * np.linalg.norm(ahead)  # x is forward
    assert [len(plan.poses) for plan in plans] == [4, 3, 2, 1]
    last = plans[0].poses[-1].pose.position
    base = source.poses @ rigid_inverse(clip_log.FORWARD_OPTICAL)
    np.testing.assert_allclose([last.x, last.y, last.z], relative(base)[-1, :3, 3], atol=1e-9)


def test_depth_that_16_bits_cannot_hold_is_left_out(tmp_path: Path) -> None:
    depth = np.full((FRAMES, 32, 104), 65.534, np.float32)
    depth[:, 0] = 65.6
    with LogWriter(tmp_path / "a.mcap") as log:
        clip_log.write_clip(log, replace(street(), depth=depth), progress=False)
    read = read_clip(tmp_path / "a.mcap").depth
    assert read is not None and not read[0][0].any()
    np.testing.assert_allclose(read[0][1:], 65.534, rtol=1e-6)


def test_several_clips_go_into_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_kitti(tmp_path / "raw"), write_kitti(tmp_path / "raw", "2011_09_28", "0002")
    raw, out = str(tmp_path / "raw"), tmp_path / "logs"
    assert main(["convert", "kitti", raw, str(tmp_path / "a.mcap")]) == 1
    assert "holds several clips (2011_09_26_drive_0001_sync, 2011_09_28_drive_0002" in capsys.readouterr().err
    assert main(["convert", "kitti", raw, str(out)]) == 0
    assert len(list(out.iterdir())) == 2
    assert main(["convert", "kitti", raw, str(tmp_path / "b.mcap"), "--split", "tulsiani"]) == 0
    assert read_clip(tmp_path / "b.mcap").images.shape[0] == FRAMES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kitti", "{raw}", "a.mcap", "--scale", "2"], "is in metres already: omit --scale"),
        (["kitti", "{raw}", "a.mcap", "--scale", "-1"], "--scale must be a positive length in metres, got -1"),
        (["kitti", "{raw}", "a.mcap", "--frames", "0"], "--frames must be at least 1, got 0"),
        (["kitti", "{raw}", "a.mcap", "--camera", "FRONT"], "KITTI raw has no camera FRONT: choose 0, 1"),
        (["kitti", "{raw}/nowhere", "a.mcap"], "nowhere holds no drives of KITTI raw"),
        (["dl3dv", "{raw}", "a.mcap"], "holds no scene: a transforms.json was expected"),
        (["re10k", "{raw}", "a.mcap", "--split", "eigen"], "only KITTI raw has splits"),
        (["kitti", "{raw}", "a.mcap", "--part", "val"], "--part val is of no split: name it with --split"),
        (["re10k", "{raw}", "a.mcap", "--camera", "2"], "which has one camera: omit the camera"),
    ],
)
def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    write_kitti(tmp_path)
    arguments = [a.format(raw=tmp_path) if "{raw}" in a else a for a in arguments]
    arguments[2] = str(tmp_path / arguments[2])
    assert main(["convert", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "a.mcap").exists()


def test_every_kind_is_recognised(tmp_path: Path) -> None:
    drive = write_kitti(tmp_path / "kitti")
    for path in (drive, drive.parent, drive.parent.parent):
        assert recognise(path) == "kitti"
    scene = write_scene(tmp_path / "dl3dv" / "1K" / "abc")
    for path in (scene / "transforms.json", scene, scene.parent, scene.parent.parent):
        assert recognise(path) == "dl3dv"
    cameras = write_clip(tmp_path / "re10k")
    for path in (cameras, cameras.parent, cameras.parent.parent):
        assert recognise(path) == "re10k"
    log = write_mcap(tmp_path / "logs" / "a.mcap", list(entries()))
    for path in (log, log.with_suffix(""), log.parent):
        assert recognise(path) == "log"
        assert [len(clip) for clip in open_clips(path)] == [6]
    assert [clip.name for clip in open_clips(tmp_path / "re10k")] == [NAME]
    assert [clip.name for clip in open_clips(scene.parent)] == ["abc"]
    assert [len(clip) for clip in open_clips(drive.parent, "kitti", "3")] == [FRAMES]


def test_what_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("see https://example.org\nfor more\n")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(DatasetError, match=r"is no supported data set\. Expected one of:") as error:
            open_clips(path)
        assert all(text in str(error.value) for text in KINDS.values())
    with pytest.raises(DatasetError, match="nothing does not exist: check the path"):
        open_clips(tmp_path / "nothing")
    with pytest.raises(DatasetError, match="'film' is no kind of data set: choose log, kitti, waymo"):
        open_clips(tmp_path, "film")
