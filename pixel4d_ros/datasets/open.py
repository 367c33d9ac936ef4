# SPDX-License-Identifier: Apache-2.0
"""Clips of any data set at a path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.damaged_images import without_damaged_images
from pixel4d_ros.datasets.depth_images import is_depth_folder, read_depth_folder
from pixel4d_ros.datasets.dl3dv import dl3dv_scenes, read_dl3dv
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.datasets.image_files import DatasetError, natural_key
from pixel4d_ros.datasets.kitti_raw import kitti_drives, read_kitti_raw
from pixel4d_ros.datasets.posed_video import is_posed_video, read_posed_videos
from pixel4d_ros.datasets.re10k import is_camera_file, read_re10k_folder
from pixel4d_ros.datasets.waymo_v1 import read_waymo_v1_folder
from pixel4d_ros.datasets.waymo_v2 import read_waymo_v2_folder

LOG_SUFFIXES = (".mcap", ".bag", ".db3")
WAYMO_V2 = ("camera_image", "*/camera_image")
WAYMO = (*WAYMO_V2, "*.tfrecord", "*/*.tfrecord")
KINDS = {
    "log": "a driving log (.mcap, .bag, .db3), a rosbag2 folder, or a folder of logs",
    "kitti": "KITTI raw: 2011_xx_xx/2011_xx_xx_drive_xxxx_sync, or a folder above it",
    "waymo": "Waymo Open: a folder with camera_image/*.parquet (v2) or .tfrecord files (v1), or the folder above it",
    "re10k": "RealEstate10K: camera files <id>.txt with the folders of their frames",
    "dl3dv": "DL3DV-10K: a scene with transforms.json, or a folder of scenes",
    "video": "a posed video: a folder with frames.mp4 and clip.json, or a folder of them",
    "depth": "single images with depth: a folder with ID.jpg, ID_depth.png and clip.json, or a folder of them",
}
ONE_CAMERA = ("re10k", "dl3dv", "video", "depth")


def open_clips(
    path: str | Path,
    kind: str | None = None,
    camera: str | None = None,
    split: str | None = None,
    part: str = "test",
    rectified: bool | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Clip]:
    """The clips at a path, one after another, without their damaged images; frames are read on access.

    kind: one of KINDS (None: see recognise). camera: an image topic of logs, 0..3 of KITTI, FRONT, SIDE_LEFT ... of
    Waymo. split and part choose drives of KITTI, see kitti_splits.py. rectified: of logs, see read_clip. start, stop:
    only these images of each clip; each is read once to find the damaged ones, see without_damaged_images.
    Raises DatasetError or LogError, both ValueError: at once if there is no data set, later for a damaged clip, after
    which iteration may continue (good_clips).
    """
    clips = _clips(Path(path), kind, camera, split, part, rectified)

    def opened(clip: Clip) -> Clip:
        part = clip.part(start, stop)
        if not len(part):
            raise DatasetError(f"{clip.name} has no image {start}: it holds {len(clip)}")
        return without_damaged_images(part)

    return map(opened, clips)


def _clips(
    path: Path, kind: str | None, camera: str | None, split: str | None, part: str, rectified: bool | None
) -> Iterator[Clip]:
    kind = kind or recognise(path)
    if kind not in KINDS:
        raise DatasetError(f"{kind!r} is no kind of data set: choose {', '.join(KINDS)}")
    if split is not None and kind != "kitti":
        raise DatasetError(f"only KITTI raw has splits, {path} is {KINDS[kind].partition(':')[0]}")
    if camera is not None and kind in ONE_CAMERA:
        raise DatasetError(f"{path} is {KINDS[kind].partition(':')[0]}, which has one camera: omit the camera")
    if kind == "log":
        return _logs(path, camera, rectified)
    if kind == "kitti":
        return _kitti(path, camera, split, part)
    if kind == "waymo":
        return _waymo(path, camera)
    if kind == "video":
        return read_posed_videos(path)
    if kind == "depth":
        return iter(read_depth_folder(path))
    return read_re10k_folder(path) if kind == "re10k" else map(read_dl3dv, dl3dv_scenes(path))


def good_clips(clips: Iterator[Clip], failures: list[str]) -> Iterator[Clip]:
    """The readable clips; the errors of the others are appended to failures."""
    while True:
        try:
            clip = next(clips)
        except StopIteration:
            return
        except ValueError as error:
            failures.append(str(error))
            continue
        yield clip


def recognise(path: Path) -> str:
    """The kind of data set at a path, by file names. Raises DatasetError if it is none."""
    tests: dict[str, Callable[[], bool]] = {
        "video": lambda: is_posed_video(path) or any(is_posed_video(p) for p in path.glob("*")),
        "depth": lambda: is_depth_folder(path),
        "log": lambda: path.suffix in LOG_SUFFIXES or (path / "metadata.yaml").is_file() or bool(_log_files(path)),
        "waymo": lambda: path.suffix in (".tfrecord", ".parquet") or any(_has(path, p) for p in WAYMO),
        "dl3dv": lambda: (
            path.name == "transforms.json" or any(_has(path, f"{above}transforms.json") for above in ("", "*/", "*/*/"))
        ),
        "kitti": lambda: "_drive_" in path.resolve().name or any(_has(path, p) for p in ("*_drive_*", "*/*_drive_*")),
        "re10k": lambda: (
            is_camera_file(path) or any(is_camera_file(f) for p in ("*.txt", "*/*.txt") for f in path.glob(p))
        ),
    }
    if not path.exists():
        if any(path.with_name(path.name + suffix).is_file() for suffix in LOG_SUFFIXES):
            return "log"
        raise DatasetError(f"{path} does not exist: check the path of the data set or log")
    for kind, fits in tests.items():
        if fits():
            return kind
    raise DatasetError(f"{path} is no supported data set. Expected one of:\n  " + "\n  ".join(KINDS.values()))


def _has(path: Path, pattern: str) -> bool:
    return next(path.glob(pattern), None) is not None


def _log_files(path: Path) -> list[Path]:
    """The logs in a folder."""
    return sorted(
        (p for p in path.glob("*") if p.suffix in LOG_SUFFIXES or (p / "metadata.yaml").is_file()), key=natural_key
    )


def _logs(path: Path, camera: str | None, rectified: bool | None) -> Iterator[Clip]:
    folder = path.is_dir() and not (path / "metadata.yaml").is_file()
    logs = _log_files(path) if folder else [path]
    return map(partial(read_clip, camera=camera, rectified=rectified), logs or [path])


def _kitti(path: Path, camera: str | None, split: str | None, part: str) -> Iterator[Clip]:
    if camera not in (None, "0", "1", "2", "3"):
        raise DatasetError(f"KITTI raw has no camera {camera}: choose 0, 1 (grey), 2 or 3 (colour)")
    drives = kitti_drives(path, split, part)
    return map(partial(read_kitti_raw, camera=int(camera or 2)), drives)


def _waymo(path: Path, camera: str | None) -> Iterator[Clip]:
    is_v2 = path.suffix == ".parquet" or any(_has(path, p) for p in WAYMO_V2)
    return (read_waymo_v2_folder if is_v2 else read_waymo_v1_folder)(path, camera or "FRONT")
