# SPDX-License-Identifier: Apache-2.0
"""Posed videos and single images with depth, in the layouts of docs/datasets.md."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pixel4d_ros.datasets.depth_images import read_depth_folder
from pixel4d_ros.datasets.image_files import DatasetError
from pixel4d_ros.datasets.open import open_clips, recognise
from pixel4d_ros.datasets.posed_video import read_posed_video

COUNT, WIDTH, HEIGHT = 5, 64, 48
K = [[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]]


def grey_level(frame: int) -> int:
    return 30 + 40 * frame


def write_video(path: Path, shift: int = 0) -> None:
    """Frames of one grey each."""
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (WIDTH, HEIGHT))
    for i in range(COUNT):
        video.write(np.full((HEIGHT, WIDTH, 3), grey_level(i) + shift, np.uint8))
    video.release()


def write_posed_video(folder: Path, **changes: object) -> Path:
    """A posed video with depth, points and another camera."""
    (folder / "depth").mkdir(parents=True)
    write_video(folder / "frames.mp4")
    write_video(folder / "right.mp4", 10)
    for i in range(COUNT - 1):  # the last has none
        cv2.imwrite(str(folder / "depth" / f"{i:04d}.png"), np.full((HEIGHT, WIDTH), 1000 * (i + 1), np.uint16))
    poses = np.tile(np.eye(4), (COUNT, 1, 1))
    poses[:, 0, 3] = np.arange(COUNT)
    beside = np.eye(4)
    beside[0, 3] = 0.5
    about = {
        "name": "alley", "kind": "street", "width": WIDTH, "height": HEIGHT, "K": K, "metric": True,
        "times": [0.1 * i for i in range(COUNT)], "T_world_camera": poses.tolist(), "depth": "depth",
        "stereo": {"video": "right.mp4", "T_left_right": beside.tolist()},
    }  # fmt: skip
    (folder / "clip.json").write_text(json.dumps({**about, **changes}))
    return folder


def test_a_posed_video_becomes_a_clip(tmp_path: Path) -> None:
    folder = write_posed_video(tmp_path / "alley")
    (clip,) = open_clips(folder)
    assert clip.name == "street_alley" and len(clip) == COUNT and clip.metric
    for i in (3, 1, 4):  # also backwards
        assert abs(int(clip.images[i].mean()) - grey_level(i)) < 5
    assert clip.depth is not None and clip.depth[1].max() == 2 and clip.depth[COUNT - 1].max() == 0
    assert clip.stereo is not None
    assert clip.stereo.poses[2, 0, 3] == 2.5 and abs(int(clip.stereo.images[2].mean()) - grey_level(2) - 10) < 5


def test_a_folder_of_posed_videos_opens_in_order_of_names(tmp_path: Path) -> None:
    write_posed_video(tmp_path / "b", name="indoor_b", kind="indoor", metric=False)
    write_posed_video(tmp_path / "a", name="a", kind="indoor")
    assert recognise(tmp_path) == "video"
    clips = list(open_clips(tmp_path))
    assert [clip.name for clip in clips] == ["indoor_a", "indoor_b"] and [clip.metric for clip in clips] == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"times": [0.0]}, "times should have the shape"),
        ({"times": [100.0 * i for i in range(COUNT)]}, r"1e\+02 s lie between its images"),
        ({"metric": "false"}, "metric is 'false', true or false was expected"),
        ({"K": None}, "K should have the shape"),
        ({"K": {"fx": 60.0}}, "K should have the shape"),
        ({"width": None}, "width should be a number"),
        ({"stereo": True}, 'stereo should be {"video": "right.mp4"'),
        ({"stereo": {"video": "right.mp4"}}, "has no T_left_right"),
        ({"T_world_camera": np.zeros((COUNT, 4, 4)).tolist()}, "clip.json"),
        ({"stereo": {"video": "other.mp4", "T_left_right": np.eye(4).tolist()}}, "other.mp4 is missing"),
    ],
)
def test_what_is_wrong_in_a_description_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_posed_video(write_posed_video(tmp_path / "alley", **changes))


def test_a_video_with_fewer_frames_than_poses_is_named(tmp_path: Path) -> None:
    poses = np.tile(np.eye(4), (COUNT + 1, 1, 1)).tolist()
    clip = read_posed_video(write_posed_video(tmp_path / "a", T_world_camera=poses, times=list(range(COUNT + 1))))
    with pytest.raises(DatasetError, match=f"ends before frame {COUNT}, but clip.json has {COUNT + 1} poses"):
        clip.images[COUNT]


def test_a_video_with_more_frames_than_poses_is_named(tmp_path: Path) -> None:
    """Poses of every second frame, say: which ones is not known."""
    poses = np.tile(np.eye(4), (COUNT - 1, 1, 1)).tolist()
    clip = read_posed_video(write_posed_video(tmp_path / "a", T_world_camera=poses, times=list(range(COUNT - 1))))
    with pytest.raises(DatasetError, match=f"has {COUNT} frames, but clip.json {COUNT - 1} poses"):
        clip.images[0]


@pytest.mark.parametrize("name", ["{:05d}.png", "frame_{}.png", None])
def test_depth_under_other_names_is_not_passed_over(tmp_path: Path, name: str | None) -> None:
    folder = write_posed_video(tmp_path / "a")
    for i, path in enumerate(sorted((folder / "depth").iterdir())):
        path.unlink() if name is None else path.rename(path.with_name(name.format(i)))
    with pytest.raises(DatasetError, match=r"depth (holds .* no frame.s|is empty): 0000\.png to 0004\.png"):
        read_posed_video(folder)


def write_depth_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        cv2.imwrite(str(folder / f"{name}.jpg"), np.full((HEIGHT, WIDTH, 3), 100, np.uint8))
        cv2.imwrite(str(folder / f"{name}_depth.png"), np.full((HEIGHT, WIDTH), 500 * (i + 1), np.uint16))
    (folder / "clip.json").write_text(json.dumps({"K": K, "kind": "indoor", "metric": True}))


def test_single_images_with_depth_are_split_into_those_to_train_on_and_those_held_out(tmp_path: Path) -> None:
    write_depth_images(tmp_path / "pairs" / "rooms", [f"{i:04d}" for i in range(12)])
    assert recognise(tmp_path / "pairs") == "depth"
    everything = list(open_clips(tmp_path / "pairs"))
    held_out, train = (read_depth_folder(tmp_path / "pairs", part) for part in ("held_out", "train"))
    assert [clip.name for clip in held_out] == ["indoor_rooms_0000", "indoor_rooms_0010"]
    assert sorted(c.name for c in held_out + train) == [c.name for c in everything]
    assert everything[3].depth is not None and everything[3].depth[0].max() == 2.0


def test_an_image_without_its_depth_in_pixels_is_named(tmp_path: Path) -> None:
    write_depth_images(tmp_path / "x", ["a"])
    cv2.imwrite(str(tmp_path / "x" / "a_depth.png"), np.zeros((4, 4), np.uint16))
    with pytest.raises(DatasetError, match=r"a_depth\.png is no 16-bit png of .* the size of its image"):
        read_depth_folder(tmp_path / "x")


def test_a_right_image_without_its_pose_is_named(tmp_path: Path) -> None:
    write_depth_images(tmp_path / "x", ["left"])
    (tmp_path / "x" / "right.jpg").write_bytes((tmp_path / "x" / "left.jpg").read_bytes())
    with pytest.raises(DatasetError, match="has no T_left_right"):
        read_depth_folder(tmp_path / "x")
