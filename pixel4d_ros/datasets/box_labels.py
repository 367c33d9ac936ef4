# SPDX-License-Identifier: Apache-2.0
"""Labelled 3D boxes in a file beside a log: NAME.boxes.json with NAME.mcap.

`frames` is a list with, per image, `stamp` (s) and `boxes`, each with id (of the track), class, center (m, optical
frame of the camera at that stamp), size [length, width, height] (m), rotation (3x3, box to camera; box axes x forward,
y left, z up), velocity (m/s over ground in the camera's axes, null where unknown) and occluded (0 visible, 1 partly, 2
largely, 3 or -1 unknown). `complete` (true or false): whether everything movable in view has a box.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pixel4d_ros.datasets.box_mistakes import boxes_doubt, gaps_doubt, in_view_doubt, unmatched_doubt
from pixel4d_ros.datasets.boxes import Box
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.detection_topic import read_detections
from pixel4d_ros.datasets.image_files import DatasetError
from pixel4d_ros.geometry.rotations import FloatArray, rigid

logger = logging.getLogger(__name__)
SUFFIX = ".boxes.json"
LOG_SUFFIXES = (".mcap", ".db3", ".bag")
MOVES = 0.5  # m/s over ground: labelled objects at this speed or more are moving
SAME_STAMP = 0.02  # s: largest time difference between labels and their image


def box_file(log: Path, name: str) -> Path | None:
    """The labels beside a log, or beside the log of that name in a folder; None if there is no file."""
    path = (log if log.is_dir() else log.parent) / f"{name}{SUFFIX}"
    return path if path.is_file() else None


def labelled(clip: Clip, path: Path) -> Clip:
    """A clip of the log, folder of logs or other data set at path, with boxes if there are any.

    Boxes of the clip, else of the file beside its log, else of the log's detections. A warning says what is odd about
    them. Raises DatasetError.
    """
    file = box_file(path, clip.name)
    if clip.boxes is None and file is not None:
        clip = with_box_labels(clip, file)
    elif clip.boxes is None:
        logs = (path, *(path / f"{clip.name}{suffix}" for suffix in LOG_SUFFIXES))
        log = next((p for p in logs if p.suffix in LOG_SUFFIXES and p.is_file()), None)
        boxes = None if log is None else read_detections(log, clip.times, clip.poses, SAME_STAMP)
        clip = clip if boxes is None else replace(clip, boxes=boxes)
    if doubt := boxes_doubt(clip):
        logger.warning("%s: %s", clip.name, doubt)
    return clip


def with_box_labels(clip: Clip, path: Path) -> Clip:
    """The clip with the boxes of a label file; images without labels have no boxes. Raises DatasetError."""
    frames = read_box_labels(path)
    if not frames:
        return clip
    stamps = np.array(sorted(frames))
    nearest = stamps[np.abs(stamps[:, None] - clip.times).argmin(0)]
    known = np.abs(nearest - clip.times) <= SAME_STAMP
    boxes = tuple(frames[stamp] if same else () for stamp, same in zip(nearest.tolist(), known.tolist()))
    if len(clip) and not known.any():
        raise DatasetError(f"{path}: no label has the stamp of an image of {clip.name}: are they of another log?")
    clip = replace(clip, boxes=boxes, boxes_complete=is_complete(path) and bool(known.all()))
    with_boxes = np.array([stamp for stamp in stamps.tolist() if frames[stamp]])
    for doubt in (unmatched_doubt(with_boxes, clip.times, SAME_STAMP), gaps_doubt(known), in_view_doubt(clip)):
        if doubt:
            logger.warning("%s: %s", path, doubt)
    return clip


def is_complete(path: Path) -> bool:
    """Whether everything movable in view has a box: `complete`, else true unless `source` contains "not official".

    Raises DatasetError.
    """
    about = json.loads(path.read_text())
    complete = about.get("complete", "not official" not in str(about.get("source", "")).lower())
    if not isinstance(complete, bool):
        raise DatasetError(f"{path}: complete must be true or false (without quotes), not {complete!r}")
    return complete


def read_box_labels(path: Path) -> dict[float, tuple[Box, ...]]:
    """Boxes by stamp in seconds; tracks are numbered 1.. in the order of their ids. Raises DatasetError."""
    try:
        frames = json.loads(path.read_text())["frames"]
        ids = sorted({str(box["id"]) for frame in frames for box in frame["boxes"]})
        numbers = {name: i for i, name in enumerate(ids, 1)}
        _check_unique("stamp", [float(frame["stamp"]) for frame in frames])
        for frame in frames:
            _check_unique("id", [str(box["id"]) for box in frame["boxes"]])
        return {float(f["stamp"]): tuple(_box(box, numbers[str(box["id"])]) for box in f["boxes"]) for f in frames}
    except (OSError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is no file of labelled boxes (frames with stamp and boxes): {error!r}") from error
    except ValueError as error:
        raise DatasetError(f"{path} is no file of labelled boxes (frames with stamp and boxes): {error}") from error


def _check_unique(what: str, values: Sequence[float | str]) -> None:
    """Raise ValueError where two frames have one stamp, or two boxes of a frame one id."""
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"the {what} {value} is there {count} times: each frame needs a stamp, each object an id")


def _box(given: Mapping[str, Any], track: int) -> Box:
    velocity: FloatArray | None = None
    if given["velocity"] is not None:
        velocity = np.asarray(given["velocity"], np.float64).reshape(3)
    moving = velocity is not None and float(np.linalg.norm(velocity)) >= MOVES
    pose = rigid(np.asarray(given["rotation"], np.float64), np.asarray(given["center"], np.float64))
    size = np.asarray(given["size"], np.float64).reshape(3)
    return Box(track, str(given["class"]), pose, size, moving, velocity, int(given.get("occluded", -1)))
