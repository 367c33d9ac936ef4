# SPDX-License-Identifier: Apache-2.0
"""Waymo Open v2: segments in parquet components, read with pyarrow (the extra `waymo`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.image_files import DatasetError
from pixel4d_ros.datasets.waymo import (
    CameraCalibration,
    Label,
    LaserCalibration,
    Scan,
    Segment,
    camera_number,
    segment_clip,
)
from pixel4d_ros.geometry.rotations import FloatArray

STAMP, CAMERA, LASER = "key.frame_timestamp_micros", "key.camera_name", "key.laser_name"
IMAGE, POSE = "[CameraImageComponent].image", "[CameraImageComponent].pose.transform"
IMAGE_TIME = "[CameraImageComponent].pose_timestamp"
CALIBRATION = "[CameraCalibrationComponent]"
INTRINSIC = ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3")
VEHICLE_POSE = "[VehiclePoseComponent].world_from_vehicle.transform"
BOX = "[LiDARBoxComponent]"
SCAN = "[LiDARComponent].range_image_return1"
SCAN_POSE = "[LiDARPoseComponent].range_image_return1"
LASER_CALIBRATION = "[LiDARCalibrationComponent]"
AT_ONCE = 4  # rows per batch


def waymo_v2_segments(path: Path) -> list[Path]:
    """camera_image/*.parquet of a split's folder, of the folder of the splits, or of one file. Raises DatasetError."""
    if path.suffix == ".parquet":
        return [path.parent.parent / "camera_image" / path.name]
    found = sorted(f for pattern in ("camera_image", "*/camera_image") for f in path.glob(f"{pattern}/*.parquet"))
    if not found:
        raise DatasetError(f"{path / 'camera_image'} holds no segments: <segment>.parquet was expected")
    return found


def read_waymo_v2_folder(path: Path, camera: str = "FRONT") -> Iterator[Clip]:
    """All segments at path as clips, see read_waymo_v2."""
    return map(partial(read_waymo_v2, camera=camera), waymo_v2_segments(path))


def read_waymo_v2(path: str | Path, camera: str = "FRONT") -> Clip:
    """A segment, named by the file of any of its components, as a Clip of one camera.

    Needs camera_image, camera_calibration and vehicle_pose; lidar_box gives boxes, lidar with lidar_calibration depth,
    lidar_pose its correction for the vehicle's motion during a scan. Raises DatasetError, also on access to a damaged
    frame.
    """
    images = waymo_v2_segments(Path(path))[0]
    root, name = images.parent.parent, images.name
    number = camera_number(camera)
    rows = _Rows(images, [IMAGE])
    keys = _columns(images, [STAMP, CAMERA, POSE, IMAGE_TIME])
    own = np.flatnonzero(np.array(keys[CAMERA]) == number)
    if not len(own):
        raise DatasetError(f"{images} has no images of the camera {camera}")
    own = own[np.argsort(np.array(keys[STAMP])[own])]
    stamps = [int(keys[STAMP][i]) for i in own]
    vehicle = _columns(root / "vehicle_pose" / name, [STAMP, VEHICLE_POSE])
    poses = dict(zip(vehicle[STAMP], vehicle[VEHICLE_POSE]))
    missing = [stamp for stamp in stamps if stamp not in poses]
    if missing:
        raise DatasetError(f"{root / 'vehicle_pose' / name} has no pose for the frame {missing[0]} us")
    segment = Segment(
        name=images.stem,
        source=str(images),
        camera=_camera(root / "camera_calibration" / name, number),
        times=np.array([keys[IMAGE_TIME][i] for i in own], np.float64),
        image_poses=_transforms([keys[POSE][i] for i in own]),
        frame_poses=_transforms([poses[stamp] for stamp in stamps]),
        labels=_labels(root / "lidar_box" / name, stamps),
        image=lambda i: rows.row(int(own[i]))[IMAGE].as_py(),
        scans=_scans(root, name, stamps),
    )
    return segment_clip(segment)


def _pyarrow() -> Any:
    try:
        return import_module("pyarrow.parquet")
    except ImportError as error:
        raise DatasetError("Waymo Open v2 needs pyarrow: pip install 'pixel4d_ros[waymo]'") from error


def _open(path: Path, columns: list[str]) -> Any:
    """The parquet file, with these columns. Raises DatasetError."""
    parquet = _pyarrow()
    if not path.is_file():
        raise DatasetError(f"{path} is missing: download the component {path.parent.name} of the segment as well")
    try:
        file = parquet.ParquetFile(path)
    except Exception as error:  # pyarrow's errors, or OSError
        raise DatasetError(f"{path} is truncated or no parquet file ({error}): download it again") from error
    missing = [c for c in columns if c not in file.schema_arrow.names]
    if missing:
        raise DatasetError(f"{path} has no column {missing[0]}: Waymo Open v2's {path.parent.name} was expected")
    return file


def _columns(path: Path, columns: list[str]) -> dict[str, list[Any]]:
    """Whole columns as Python values."""
    file = _open(path, columns)
    try:
        values: dict[str, list[Any]] = file.read(columns=columns).to_pydict()
    except Exception as error:
        raise DatasetError(f"{path} is damaged ({error}): download it again") from error
    return values


class _Rows:
    """Rows of large columns by number; sequential access is fast."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self.path, self.columns = path, columns
        self._file = _open(path, columns)
        groups = [self._file.metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)]
        self._starts = np.cumsum([0, *groups])
        self._lock = Lock()
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None
        self._first, self._stop = int(self._starts[-1]), 0  # rows of the batch; initially none

    def row(self, number: int) -> dict[str, Any]:
        """One row's columns as pyarrow scalars."""
        with self._lock:
            try:
                self._seek(number)
            except StopIteration:
                raise DatasetError(f"{self.path} has no row {number}: it is truncated") from None
            except Exception as error:
                raise DatasetError(f"{self.path}, row {number}: {error}: download it again") from error
            return {c: self._batch.column(c)[number - self._first] for c in self.columns}

    def _seek(self, number: int) -> None:
        group = int(np.searchsorted(self._starts, number, side="right")) - 1
        if not self._first <= number < self._stop + (self._starts[group + 1] - self._starts[group]):
            groups = range(group, self._file.num_row_groups)
            self._batches = self._file.iter_batches(AT_ONCE, row_groups=groups, columns=self.columns)
            self._stop = int(self._starts[group])
        while not self._first <= number < self._stop:
            self._batch = next(self._batches)
            self._first, self._stop = self._stop, self._stop + self._batch.num_rows


def _transforms(values: list[list[float]]) -> FloatArray:
    return np.array(values, np.float64).reshape(-1, 4, 4)


def _camera(path: Path, number: int) -> CameraCalibration:
    names = [f"{CALIBRATION}.intrinsic.{key}" for key in INTRINSIC]
    other = [f"{CALIBRATION}.{key}" for key in ("extrinsic.transform", "width", "height")]
    table = _columns(path, [CAMERA, *names, *other])
    if number not in table[CAMERA]:
        raise DatasetError(f"{path} has no calibration of camera {number}")
    at = table[CAMERA].index(number)
    intrinsic = np.array([table[n][at] for n in names], np.float64)
    pose, width, height = (table[n][at] for n in other)
    return CameraCalibration(intrinsic, _transforms([pose])[0], int(width), int(height))


def _labels(path: Path, stamps: list[int]) -> list[list[Label]] | None:
    """Labels of the frames; None without the component."""
    if not path.is_file():
        return None
    axes = [[f"{BOX}.box.{what}.{axis}" for axis in "xyz"] for what in ("center", "size")]
    id_, kind, heading = "key.laser_object_id", f"{BOX}.type", f"{BOX}.box.heading"
    table = _columns(path, [STAMP, id_, kind, heading, *axes[0], *axes[1]])
    frames: dict[int, list[Label]] = {stamp: [] for stamp in stamps}
    for i, stamp in enumerate(table[STAMP]):
        if stamp in frames:
            centre, size = (np.array([table[a][i] for a in names], np.float64) for names in axes)
            frames[stamp].append(Label(str(table[id_][i]), int(table[kind][i]), centre, size, table[heading][i]))
    return [frames[stamp] for stamp in stamps]


def _scans(root: Path, name: str, stamps: list[int]) -> Callable[[int], list[Scan]] | None:
    """The scans of the frames; None without the components lidar and lidar_calibration."""
    if not (root / "lidar" / name).is_file() or not (root / "lidar_calibration" / name).is_file():
        return None
    lasers = _lasers(root / "lidar_calibration" / name)
    scans = _LaserRows(root / "lidar" / name, SCAN)
    poses = _LaserRows(root / "lidar_pose" / name, SCAN_POSE) if (root / "lidar_pose" / name).is_file() else None

    def read(i: int) -> list[Scan]:
        out = []
        for number, laser in lasers.items():
            ranges = scans.read(stamps[i], number)
            if ranges is not None:
                pose = poses.read(stamps[i], number) if poses is not None else None
                out.append(Scan(laser, ranges[..., 0], pose))
        return out

    return read


def _lasers(path: Path) -> dict[int, LaserCalibration]:
    names = [f"{LASER_CALIBRATION}.{key}" for key in ("extrinsic.transform", "beam_inclination.min")]
    names += [f"{LASER_CALIBRATION}.beam_inclination.{key}" for key in ("max", "values")]
    table = _columns(path, [LASER, *names])
    rows = zip(table[LASER], *(table[n] for n in names))
    return {
        int(number): LaserCalibration(_transforms([pose])[0], np.array(values or [], np.float64), low, high)
        for number, pose, low, high, values in rows
    }


class _LaserRows:
    """Range images of a component by frame and laser."""

    def __init__(self, path: Path, prefix: str) -> None:
        self.values, self.shape = f"{prefix}.values", f"{prefix}.shape"
        self.path = path
        self._rows = _Rows(path, [self.values, self.shape])
        keys = _columns(path, [STAMP, LASER])
        self._where = {key: i for i, key in enumerate(zip(keys[STAMP], keys[LASER]))}

    def read(self, stamp: int, laser: int) -> FloatArray | None:
        """(H, W, C); None if there is none."""
        row = self._where.get((stamp, laser))
        if row is None:
            return None
        cells = self._rows.row(row)
        if not cells[self.values].is_valid:
            return None
        values = cells[self.values].values.to_numpy(zero_copy_only=False)
        shape = tuple(cells[self.shape].as_py())
        if values.size != int(np.prod(shape)):
            raise DatasetError(f"{self.path}, row {row}: {values.size} values do not fill a range image of {shape}")
        return np.asarray(values).reshape(shape)
