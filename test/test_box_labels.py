# SPDX-License-Identifier: Apache-2.0
"""Labelled boxes beside a log."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pixel4d_ros.datasets.box_labels import box_file, with_box_labels
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.image_files import DatasetError

K = [[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]]


def labels(stamp: float = 1.0) -> dict[str, object]:
    box = {
        "id": "van",
        "class": "Van",
        "center": [0, 1, 10],
        "size": [4.5, 1.8, 2.0],
        "rotation": [[0, -1, 0], [0, 0, -1], [1, 0, 0]],
        "velocity": [0, 0, 8.0],
        "occluded": 0,
    }
    parked = box | {"id": "car", "velocity": [0, 0, 0.1]}
    return {"frames": [{"stamp": stamp, "boxes": [box, parked]}]}


def clip_of(times: list[float]) -> Clip:
    n = len(times)
    return Clip("log", np.zeros((n, 48, 64, 3), np.uint8), np.array(K), np.tile(np.eye(4), (n, 1, 1)), np.array(times))


def test_boxes_beside_a_log_go_to_the_images_of_their_stamps(tmp_path: Path) -> None:
    (tmp_path / "log.boxes.json").write_text(json.dumps(labels()))
    path = box_file(tmp_path / "log.mcap", "log")
    assert path == box_file(tmp_path, "log")
    assert path is not None
    clip = with_box_labels(clip_of([0.9, 1.0, 1.1]), path)
    assert clip.boxes is not None
    assert [len(boxes) for boxes in clip.boxes] == [0, 2, 0]
    van, car = sorted(clip.boxes[1], key=lambda box: -box.track)
    assert (van.label, van.moving, car.moving) == ("Van", True, False)
    np.testing.assert_allclose(van.T_camera_box @ [1, 0, 0, 0], [0, 0, 1, 0])  # x forward is the camera's z
    mask = clip.moving_mask(1)
    assert mask is not None
    assert mask[28, 31]
    assert not clip.moving_mask(0).any()  # type: ignore[union-attr]


def test_images_that_show_no_object_are_no_other_log(tmp_path: Path) -> None:
    """As in a part of a log, with --start and --count."""
    path = tmp_path / "log.boxes.json"
    path.write_text(json.dumps({"frames": [*labels(stamp=500.0)["frames"], {"stamp": 1.0, "boxes": []}]}))
    assert with_box_labels(clip_of([0.9, 1.0]), path).boxes == ((), ())


def test_boxes_of_another_log_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.boxes.json"
    path.write_text(json.dumps(labels(stamp=500.0)))
    with pytest.raises(DatasetError, match="another log"):
        with_box_labels(clip_of([0.9, 1.0]), path)
    path.write_text('{"frames": [{"stamp": 1}]}')
    with pytest.raises(DatasetError, match="labelled boxes"):
        with_box_labels(clip_of([0.9, 1.0]), path)
