# SPDX-License-Identifier: Apache-2.0
"""Labelled boxes with stamps, units or axes that are not those of the images: refused or named, never silently used."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import test_detection_topic as detections
from support.log_samples import START
from support.paths import shared_path

from pixel4d_ros.datasets.box_labels import is_complete, labelled
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.datasets.image_files import DatasetError

Labels = dict[str, Any]
NAME = "kitti_0002"


def scaled(factor: float, *names: str) -> Callable[[Labels], Labels]:
    return lambda box: {**box, **{name: (np.array(box[name]) * factor).tolist() for name in names}}


def clip_with(
    folder: Path, change: Callable[[Labels], Labels], frame: Callable[[int, Labels], Labels], name: str = NAME
) -> Clip:
    """The log's clip with the changed labels: change gets each box, frame each frame and its number."""
    log = shared_path(f"logs/val/{name}.mcap")
    labels = json.loads(log.with_name(f"{name}.boxes.json").read_text())
    labels["frames"] = [
        frame(i, {**f, "boxes": [change(box) for box in f["boxes"]]}) for i, f in enumerate(labels["frames"])
    ]
    (folder / f"{name}.boxes.json").write_text(json.dumps(labels))
    return labelled(read_clip(log), folder)


def as_it_is(box: Labels) -> Labels:
    return box


def same_frame(i: int, frame: Labels) -> Labels:
    return frame


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(scaled(100, "center", "size"), "length, width and height in metres", id="centimetres"),
        pytest.param(scaled(1000, "center"), "finite numbers in metres", id="millimetres"),
        pytest.param(scaled(-1, "size"), "length, width and height in metres", id="negative size"),
        pytest.param(scaled(np.nan, "center"), "finite numbers in metres", id="NaN"),
        pytest.param(scaled(57.3, "rotation"), "a 3x3 rotation matrix expected", id="degrees"),
        pytest.param(scaled(1000, "velocity"), "not in m/s", id="mm/s"),
        pytest.param(lambda box: {**box, "id": 1}, "the id 1 is there 2 times", id="one id"),
    ],
)
def test_boxes_that_cannot_be_are_refused(tmp_path: Path, change: Callable[[Labels], Labels], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        clip_with(tmp_path, change, same_frame)


def test_frames_of_one_stamp_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"the stamp 1\.0 is there 77 times"):
        clip_with(tmp_path, as_it_is, lambda i, frame: {**frame, "stamp": 1})


def numbered() -> Callable[[Labels], Labels]:
    """Each box with an id of its own."""
    ids = iter(range(1000))
    return lambda box: {**box, "id": next(ids)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(as_it_is, "", id="as it is"),
        pytest.param(scaled(3.6, "velocity"), "boxes move at .* velocities must be over ground", id="km/h"),
        pytest.param(scaled(-1, "velocity"), "boxes move elsewhere .* in the axes of the camera", id="backwards"),
        pytest.param(
            lambda box: {**box, "velocity": [box["velocity"][2], -box["velocity"][0], -box["velocity"][1]]},
            "boxes move elsewhere .* in the axes of the camera",
            id="velocity in axes of the body",
        ),
        pytest.param(scaled(1e-3, "velocity"), "boxes move at .* velocities must be over ground", id="km/s"),
        pytest.param(
            lambda box: {**box, "rotation": np.transpose(box["rotation"]).tolist()}, "lie on their side", id="columns"
        ),
        pytest.param(
            lambda box: {**box, "center": [box["center"][2], -box["center"][0], -box["center"][1]]},
            "0 of 55 boxes lie in the images",
            id="axes of the body",
        ),
        pytest.param(
            lambda box: {**box, "rotation": (np.array(box["rotation"])[:, [1, 0, 2]] * [1, -1, 1]).tolist()},
            "most moving boxes drive sideways: the x axis of a box must point forward",
            id="x to the side",
        ),
        pytest.param(numbered(), "no id of a box is in two images", id="ids of detections"),
    ],
)
def test_boxes_that_are_odd_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Labels], Labels], words: str
) -> None:
    with caplog.at_level(logging.WARNING):
        clip_with(tmp_path, change, same_frame)
    assert re.search(words, caplog.text) if words else caplog.text == ""


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)], ids=["as it is", "KITTI", "nuScenes"])
def test_sizes_in_the_order_of_another_data_set_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, order: tuple[int, ...]
) -> None:
    with caplog.at_level(logging.WARNING):
        clip_with(tmp_path, lambda box: {**box, "size": [box["size"][i] for i in order]}, same_frame, "kitti_0056")
    assert ("size must be length, width, height" in caplog.text) == (order != (0, 1, 2))


def test_labels_that_are_stamped_beside_their_images_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def late(i: int, frame: Labels) -> Labels:
        return {**frame, "stamp": frame["stamp"] + 0.05 * (i % 10 > 0)}

    with caplog.at_level(logging.WARNING):
        clip = clip_with(tmp_path, as_it_is, late)
    assert clip.boxes is not None and sum(map(len, clip.boxes)) == 6
    assert "27 of 30 labels of its time are left out, 0.05 s from the next image" in caplog.text


def test_images_without_labels_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Labels of every fifth image (nuScenes' key frames) would tell that nothing is in the others."""

    def key_frames(i: int, frame: Labels) -> Labels:
        return frame if i % 5 == 0 else {**frame, "stamp": i}

    with caplog.at_level(logging.WARNING):
        clip_with(tmp_path, as_it_is, key_frames)
    assert "61 of 77 images have no labels and count as images without objects" in caplog.text


def test_complete_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "a.boxes.json"
    file.write_text('{"frames": [], "complete": "false"}')
    with pytest.raises(DatasetError, match=r"complete must be true or false \(without quotes\), not 'false'"):
        is_complete(file)


def test_detections_that_are_stamped_late_are_no_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With empty boxes for all images, everything would count as standing."""
    monkeypatch.setattr(detections, "START", START + 40_000_000)
    path = detections.write_log(tmp_path / "a.mcap", "odom", [{"van": (15.0, -2.0, 0.5)}] * 4)
    with caplog.at_level(logging.WARNING):
        assert labelled(read_clip(path), path).boxes is None
    assert "4 of 4 labels of its time are left out, 0.04 s from the next image" in caplog.text


def test_detections_without_ids_are_no_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two parked cars of one id would be one that moves."""
    two = SimpleNamespace(items=lambda: [("", (20.0, 3.0, 0.5)), ("", (30.0, -3.0, 0.5))])
    path = detections.write_log(tmp_path / "a.mcap", "odom", [two] * 4)  # type: ignore[list-item]
    with caplog.at_level(logging.WARNING):
        assert labelled(read_clip(path), path).boxes is None
    assert "detections on /labels are ignored, as several of a message have one id" in caplog.text
