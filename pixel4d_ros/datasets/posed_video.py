# SPDX-License-Identifier: Apache-2.0
"""Posed videos: a folder with frames.mp4 and clip.json, as docs/datasets.md describes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.image_files import DatasetError, read_16_bits
from pixel4d_ros.datasets.lazy_frames import LazyFrames
from pixel4d_ros.files import printable
from pixel4d_ros.geometry.rotations import FloatArray

VIDEO, DESCRIPTION = "frames.mp4", "clip.json"
KINDS = ("street", "indoor", "outdoor")


def is_posed_video(path: Path) -> bool:
    """Whether a folder is a posed video."""
    return (path / DESCRIPTION).is_file() and (path / VIDEO).is_file()


def posed_videos(path: Path) -> list[Path]:
    """The folder itself, or the posed videos in it. Raises DatasetError when there are none."""
    found = [path] if is_posed_video(path) else sorted(p for p in path.glob("*") if is_posed_video(p))
    if not found:
        raise DatasetError(f"{path} holds no posed video: a folder with {VIDEO} and {DESCRIPTION} was expected")
    return found


def read_posed_video(folder: Path) -> Clip:
    """A posed video as a Clip whose frames are decoded on access; its name starts with `kind`, as in indoor_fern.

    Depth is in the folder depth/ if `depth` is set, the other camera in `stereo`. Raises DatasetError for missing or
    damaged files, also on access to a frame.
    """
    about = read_description(folder)
    poses = read_array(folder, about, "T_world_camera", (-1, 4, 4))
    times = read_array(folder, about, "times", (len(poses),))
    size = int(read_array(folder, about, "width")), int(read_array(folder, about, "height"))
    K = read_array(folder, about, "K", (3, 3))
    name = str(about.get("name", folder.name))
    try:
        return Clip(
            name=clip_name(name, about),
            images=video_frames(folder / VIDEO, size, len(poses)),
            K=K,
            poses=poses,
            times=times,
            depth=_depth(folder, size, len(poses)) if about.get("depth") else None,
            stereo=_stereo(folder, about, name, K, poses, times) if about.get("stereo") else None,
            metric=bool(about.get("metric", False)),
        )
    except ValueError as error:
        raise DatasetError(f"{folder / DESCRIPTION}: {error}") from error


def _stereo(
    folder: Path, about: dict[str, Any], name: str, K: FloatArray, poses: FloatArray, times: FloatArray
) -> Clip:
    """The other camera, which has the same K and size."""
    stereo = about["stereo"]
    if not isinstance(stereo, dict) or not isinstance(stereo.get("video"), str):
        raise ValueError('stereo should be {"video": "right.mp4", "T_left_right": [...]}: see docs/datasets.md')
    T_left_right = read_array(folder, stereo, "T_left_right", (4, 4))
    images = video_frames(folder / stereo["video"], (int(about["width"]), int(about["height"])), len(poses))
    return Clip(f"{name}_right", images, K, poses @ T_left_right, times)


def read_description(folder: Path) -> dict[str, Any]:
    """The content of clip.json, with K. Raises DatasetError."""
    path = folder / DESCRIPTION
    try:
        about = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read ({error}): JSON was expected") from error
    if not isinstance(about, dict) or "K" not in about:
        raise DatasetError(f"{path} has no K: see docs/datasets.md for the fields of a posed video")
    if not isinstance(about.get("metric", False), bool):
        raise DatasetError(f"{path}: metric is {about['metric']!r}, true or false was expected")
    return about


def clip_name(name: str, about: dict[str, Any]) -> str:
    """A clip's name with its kind as prefix, which training uses to separate rooms from streets."""
    kind = about.get("kind", "")
    return name if kind in name.split("_") or kind not in KINDS else f"{kind}_{name}"


def read_array(folder: Path, about: dict[str, Any], key: str, shape: tuple[int, ...] = ()) -> FloatArray:
    """Numbers of clip.json in a shape. Raises DatasetError."""
    try:
        numbers = np.array(about[key], np.float64).reshape(shape)
        return numbers if shape else np.array(int(numbers))
    except KeyError:
        raise DatasetError(f"{folder / DESCRIPTION} has no {key}: see docs/datasets.md") from None
    except (TypeError, ValueError) as error:
        what = f"have the shape {shape}" if shape else "be a number"
        raise DatasetError(f"{folder / DESCRIPTION}: {key} should {what} ({error})") from error


def _depth(folder: Path, size: tuple[int, int], count: int) -> LazyFrames[np.float32]:
    """depth/0000.png ...: 16 bits, millimetres; zero for a frame without a file. Raises DatasetError without any."""
    names = {path.name for path in (folder / "depth").glob("*.png")}
    stray = sorted(names - {f"{i:04d}.png" for i in range(count)})
    if stray or not names:
        found = f"holds {stray[0]}, which is no frame's" if stray else "is empty"
        raise DatasetError(f"{folder / 'depth'} {found}: 0000.png to {count - 1:04d}.png were expected")

    def load(i: int) -> NDArray[np.float32]:
        path = folder / "depth" / f"{i:04d}.png"
        if not path.is_file():
            return np.zeros(size[::-1], np.float32)
        return read_16_bits(path, size, 1000)

    return LazyFrames(load, count, size[::-1], np.float32)


def video_frames(path: Path, size: tuple[int, int], count: int) -> LazyFrames[np.uint8]:
    """The first count frames of a video of size (width, height), RGB. Raises DatasetError if there are fewer."""
    video = _Video(path, size, count)
    return LazyFrames(video.frame, count, (size[1], size[0], 3), np.uint8)


class _Video:
    """Frames of a video by number. Sequential access is fast; going back restarts at the first frame."""

    def __init__(self, path: Path, size: tuple[int, int], count: int) -> None:
        if not path.is_file():
            raise DatasetError(f"{path} is missing")
        if printable(str(path)) != str(path):  # OpenCV crashes
            raise DatasetError(f"{printable(str(path))} cannot be opened: its name is not UTF-8; rename it")
        self.path, self.size, self.count = path, size, count
        self._lock = Lock()
        self._capture: cv2.VideoCapture | None = None
        self._next = 0

    def frame(self, number: int) -> NDArray[np.uint8]:
        """RGB (H, W, 3)."""
        with self._lock:
            if self._capture is None or number < self._next:
                self._capture, self._next = cv2.VideoCapture(str(self.path)), 0
                self._check_length(self._capture)
            while self._next < number and self._capture.grab():
                self._next += 1
            found, image = self._capture.read()
            self._next += 1
        if not found or image is None:
            raise DatasetError(f"{self.path} ends before frame {number}, but clip.json has {self.count} poses")
        if image.shape[1::-1] != self.size:
            width, height = image.shape[1::-1]
            raise DatasetError(f"{self.path} is {width}x{height}, but clip.json says {self.size[0]}x{self.size[1]}")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    def _check_length(self, capture: cv2.VideoCapture) -> None:
        """Raise DatasetError for a video with more frames than poses: which frame a pose is of is not known."""
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))  # as the file's header says
        if frames > self.count:
            raise DatasetError(
                f"{self.path} has {frames} frames, but clip.json {self.count} poses: one for each frame was expected"
            )


def read_posed_videos(path: Path) -> Iterator[Clip]:
    """All posed videos at a path, see read_posed_video."""
    return (read_posed_video(folder) for folder in posed_videos(path))
