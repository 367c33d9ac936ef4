# SPDX-License-Identifier: Apache-2.0
"""RealEstate10K: camera files and frames of their videos as clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pixel4d_ros.camera import check_poses
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.image_files import DatasetError, FrameCameras, image_size, lazy_image_files
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse

COLUMNS = 19  # timestamp in microseconds; fx fy cx cy of an image of size 1; k1 k2; 3x4 world to camera
SUFFIXES = (".png", ".jpg", ".jpeg")


def camera_files(path: Path) -> list[Path]:
    """Camera files at path: itself, in the folder, or in its parts (train/, test/).

    Raises DatasetError when there are none.
    """
    if path.is_file():
        return [path]
    found = sorted(f for pattern in ("*.txt", "*/*.txt") for f in path.glob(pattern) if is_camera_file(f))
    if not found:
        raise DatasetError(f"{path} holds no camera files of RealEstate10K: <id>.txt was expected")
    return found


def is_camera_file(path: Path) -> bool:
    """Whether a file looks like one of RealEstate10K's: a URL, then lines of 19 values."""
    if path.suffix != ".txt" or not path.is_file():
        return False
    with path.open(errors="replace") as file:
        file.readline()
        return len(file.readline().split()) == COLUMNS


def frame_folder(path: Path) -> Path | None:
    """The frames of a camera file: <id>/ beside it, or in frames/ or frames/<part>/ beside its folder."""
    above, part = path.parent.parent, path.parent.name
    places = (path.parent, path.parent / "frames", above / "frames" / part, above / "frames", above / f"{part}_frames")
    return next((place / path.stem for place in places if (place / path.stem).is_dir()), None)


def read_re10k(path: str | Path) -> Clip:
    """A camera file with its frames, <timestamp>.png or .jpg in its frame_folder, as a Clip.

    Lines without a frame are omitted. Poses are structure from motion: no metric scale, any world axes. Frames are
    undistorted by k1 and k2; those with other intrinsics than the first are resampled to the first's. Raises
    DatasetError, also on access to a damaged frame.
    """
    path = Path(path)
    stamps, cameras, poses = _read_cameras(path)
    folder = frame_folder(path)
    if folder is None:
        raise DatasetError(f"{path} has no frames: a folder {path.stem}/ with <timestamp>.png beside it was expected")
    found = [(i, f) for i, stamp in enumerate(stamps) if (f := _frame(folder, stamp)) is not None]
    if not found:
        raise DatasetError(f"{folder} holds no frames of {path.name}: {stamps[0]}.png or .jpg ... was expected")
    rows, files = [i for i, _ in found], [f for _, f in found]
    size = image_size(files)
    lenses = np.pad(cameras[rows, 4:], ((0, 0), (0, 3)))  # k1, k2, and p1, p2, k3 = 0
    frame_cameras = FrameCameras(_intrinsics(path, cameras[rows, :4], size), lenses, size)
    return Clip(
        name=path.stem,
        images=lazy_image_files(files, size, f"the first frame {files[0].name}", frame_cameras),
        K=frame_cameras.K,
        poses=poses[rows],
        times=np.array(stamps, np.float64)[rows] * 1e-6,
        metric=False,
    )


def read_re10k_folder(path: Path) -> Iterator[Clip]:
    """All camera files at path that have frames. Raises DatasetError if there are none."""
    files = camera_files(path)
    if len(files) == 1:
        return map(read_re10k, files)
    present = [f for f in files if frame_folder(f) is not None]
    if not present:
        raise DatasetError(f"{path} holds {len(files)} camera files but no frames: {files[0].stem}/ was expected")
    return map(read_re10k, present)


def _read_cameras(path: Path) -> tuple[list[int], FloatArray, FloatArray]:
    """Stamps (us), fx fy cx cy k1 k2 (T, 6) and T_world_camera (T, 4, 4) of a camera file."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as a camera file of RealEstate10K: {error}") from error
    stamps: list[int] = []
    rows: list[list[float]] = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        try:
            stamp, *values = line.split()
            stamps.append(int(stamp))
            rows.append([float(v) for v in values])
        except ValueError as error:
            raise DatasetError(f"{path}, line {number}: {error}; {COLUMNS} numbers were expected") from error
        if len(rows[-1]) != COLUMNS - 1:
            raise DatasetError(
                f"{path}, line {number} has {len(values) + 1} numbers, {COLUMNS} were expected: truncated?"
            )
    if not rows:
        raise DatasetError(f"{path} contains no cameras: a URL and then lines of {COLUMNS} numbers were expected")
    if (np.diff(stamps) <= 0).any():
        raise DatasetError(f"{path}: the timestamps do not increase")
    table = np.array(rows)
    camera_world = np.tile(np.eye(4), (len(table), 1, 1))
    camera_world[:, :3] = table[:, 6:].reshape(-1, 3, 4)
    try:
        return stamps, table[:, :6], rigid_inverse(check_poses(camera_world))
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error


def _frame(folder: Path, stamp: int) -> Path | None:
    return next((f for suffix in SUFFIXES if (f := folder / f"{stamp}{suffix}").is_file()), None)


def _intrinsics(path: Path, cameras: FloatArray, size: tuple[int, int]) -> FloatArray:
    """K (T, 3, 3) of frames of this size. The file's K are of an image of size 1 with its corner at (0, 0)."""
    if cameras.min() <= 0:
        raise DatasetError(f"{path}: fx fy cx cy are {cameras.min(0).tolist()}: positive numbers were expected")
    K = np.tile(np.eye(3), (len(cameras), 1, 1))
    K[:, [0, 1, 0, 1], [0, 1, 2, 2]] = cameras * (*size, *size) - (0, 0, 0.5, 0.5)
    return K
