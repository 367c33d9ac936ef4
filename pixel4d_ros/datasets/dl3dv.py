# SPDX-License-Identifier: Apache-2.0
"""DL3DV-10K scenes, and any other with a nerfstudio-style transforms.json, as clips."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from pixel4d_ros.camera import check_poses
from pixel4d_ros.datasets.clip import SHORTEST_STEP_S, Clip
from pixel4d_ros.datasets.image_files import DatasetError, FrameCameras, image_size, lazy_image_files, natural_key
from pixel4d_ros.geometry.rotations import FloatArray

logger = logging.getLogger(__name__)
TRANSFORMS = "transforms.json"
STEP = 0.1  # seconds: assumed where a scene has no times
TIME_KEYS = ("timestamp", "time")  # of a frame
LONGEST_STEP = 10.0  # seconds between frames, usually: larger values are of another unit
FOLDERS = ("images", "images_2", "images_4", "images_8")  # the same pictures at 1, 1/2, 1/4, 1/8 of the size
OPENGL_OPTICAL = np.diag([1.0, -1.0, -1.0, 1.0])  # x right, y up, z back -> x right, y down, z forward
LENS_KEYS = ("k1", "k2", "p1", "p2", "k3")
OTHER_LENS_KEYS = ("k4", "k5", "k6")  # of fisheye and rational models
MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL")


def dl3dv_scenes(path: Path) -> list[Path]:
    """The transforms.json files at path: itself, in the folder, its nerfstudio/, or those of the scenes below it."""
    if path.name == TRANSFORMS:
        return [path]
    for pattern in (TRANSFORMS, f"nerfstudio/{TRANSFORMS}", f"*/{TRANSFORMS}", f"*/*/{TRANSFORMS}"):
        if found := sorted(path.glob(pattern)):
            return found
    raise DatasetError(f"{path} holds no scene: a {TRANSFORMS} was expected in it")


def read_dl3dv(scene: str | Path) -> Clip:
    """A scene (its folder or its transforms.json) as a Clip, frames in the order of their names.

    Frames are 0.1 s apart, unless each has its own `time` or `timestamp` in seconds.

    Pictures are in the json's own folder, else the largest existing of images_2, _4, _8; K is scaled to their size.
    They are undistorted; those with other intrinsics than the first are resampled to the first's. Poses are structure
    from motion: no metric scale, any world axes. Raises DatasetError, also on access to a damaged picture.
    """
    path = dl3dv_scenes(Path(scene))[0]
    data = _read_json(path)
    frames = sorted(data["frames"], key=lambda frame: natural_key(frame.get("file_path")))
    files = _picture_files(path, frames)
    poses = _poses(path, frames)
    size = image_size(files)
    own = [{**data, **frame} for frame in frames]  # a frame's intrinsics override the scene's
    for given in own:
        _check_model(path, given)
    lenses = np.array([[_number(path, given, key, 0.0) for key in LENS_KEYS] for given in own])
    cameras = FrameCameras(np.stack([_intrinsics(path, given, size) for given in own]), lenses, size)
    return Clip(
        name=_scene_name(path),
        images=lazy_image_files(files, size, f"the first picture {files[0].name}", cameras),
        K=cameras.K,
        poses=poses,
        times=_times(path, frames),
        metric=False,
    )


def _scene_name(path: Path) -> str:
    folder = path.resolve().parent
    return folder.parent.name if folder.name == "nerfstudio" else folder.name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DatasetError(f"{path} is truncated or no JSON ({error}): download it again") from error
    if not isinstance(data, dict) or not isinstance(data.get("frames"), list) or not data["frames"]:
        raise DatasetError(f'{path} has no frames: "frames" with file_path and transform_matrix was expected')
    return data


def _check_model(path: Path, given: dict[str, Any]) -> None:
    """Raise DatasetError for a lens of another kind than k1, k2, p1, p2, k3 describe."""
    model = str(given.get("camera_model", "OPENCV"))
    if given.get("is_fisheye"):  # of instant-ngp
        model = "is_fisheye"
    if model.upper() not in MODELS:
        raise DatasetError(f"{path}: camera_model {model} is not supported: OPENCV or PINHOLE expected")
    for key in OTHER_LENS_KEYS:
        if value := _number(path, given, key, 0.0):
            raise DatasetError(f"{path}: {key} is {value:g}, only {', '.join(LENS_KEYS)} are supported: undistort")


def _number(path: Path, data: dict[str, Any], key: str, default: float | None = None) -> float:
    value = data.get(key, default)
    if not isinstance(value, (int, float)) or not np.isfinite(value):
        raise DatasetError(f"{path}: {key} is {value!r}, a number was expected")
    return float(value)


def _picture_files(path: Path, frames: list[dict[str, Any]]) -> list[Path]:
    """The pictures of the frames. A scaled folder contains the same names as the folder in the json."""
    named = [Path(str(frame.get("file_path"))) for frame in frames]
    for folder in (None, *FOLDERS):
        files = [path.parent / (name if folder is None else Path(folder) / name.name) for name in named]
        if any(f.is_file() for f in files):
            missing = [f for f in files if not f.is_file()]
            if missing:
                raise DatasetError(f"{missing[0]} is missing, with {len(missing) - 1} more that {path} names")
            return files
    expected = ", ".join(dict.fromkeys([str(named[0].parent), *FOLDERS]))
    raise DatasetError(f"{path.parent} holds no pictures: {named[0].name} was expected in {expected}")


def _poses(path: Path, frames: list[dict[str, Any]]) -> FloatArray:
    try:
        c2w = np.array([frame["transform_matrix"] for frame in frames], np.float64)
        if c2w.shape[1:] == (3, 4):
            c2w = np.concatenate([c2w, np.broadcast_to([[[0.0, 0, 0, 1]]], (len(c2w), 1, 4))], 1)
        return check_poses(c2w @ OPENGL_OPTICAL)
    except KeyError as error:
        raise DatasetError(f"{path}: a frame has no {error}: 4x4 camera-to-world matrices were expected") from error
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{path}: transform_matrix: {error}") from error


def _times(path: Path, frames: list[dict[str, Any]]) -> FloatArray:
    """Seconds of the frames: their own, else STEP apart, with a warning where they have some that cannot be meant."""
    assumed = np.arange(len(frames), dtype=np.float64) * STEP
    key = next((key for key in TIME_KEYS if any(key in frame for frame in frames)), None)
    if key is None or len(frames) < 2:
        return assumed
    times = np.array([_number(path, frame, key) if key in frame else np.nan for frame in frames])
    steps = np.diff(times)
    if not (steps > 0).all():  # NaN too
        doubt = "do not increase in the order of the names, or are missing in some"
    elif tuple(times[[0, -1]]) == (0.0, 1.0):
        doubt = "go from 0 to 1, a share of the scene's duration"
    elif not SHORTEST_STEP_S <= np.median(steps) <= LONGEST_STEP:
        doubt = f"are {np.median(steps):g} apart"
    else:
        return times
    logger.warning(
        "%s: the times of the frames (%s) %s: seconds were expected, %g s between frames are assumed",
        *(path, key, doubt, STEP),
    )
    return assumed


def _intrinsics(path: Path, data: dict[str, Any], size: tuple[int, int]) -> FloatArray:
    """K of pictures of this size; the json's is of w x h pixels with the corner of the first pixel at (0, 0)."""
    fx, fy, cx, cy, w, h = (_number(path, data, key) for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"))
    if min(fx, fy, w, h) <= 0:
        raise DatasetError(f"{path}: fl_x {fx:g}, fl_y {fy:g}, w {w:g}, h {h:g}: positive numbers were expected")
    sx, sy = size[0] / w, size[1] / h
    if abs(sx / sy - 1) > 0.02:
        raise DatasetError(
            f"{path} describes {w:g}x{h:g} pixels, but the pictures have {size[0]}x{size[1]}: another shape"
        )
    return np.array([[fx * sx, 0, cx * sx - 0.5], [0, fy * sy, cy * sy - 0.5], [0, 0, 1]])
