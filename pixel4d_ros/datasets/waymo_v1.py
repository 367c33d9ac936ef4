# SPDX-License-Identifier: Apache-2.0
"""Waymo Open v1: segments in .tfrecord files, read without TensorFlow.

A record is a protocol buffer `Frame` with its length; only the fields in use are decoded. Field numbers: the data set's
dataset.proto and label.proto. Files are memory-mapped.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.image_files import DatasetError
from pixel4d_ros.datasets.protobuf import Message, ProtobufError, doubles, first, floats, integer, integers, parse, real
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

HEADER, FOOTER = 12, 4  # bytes around a record: its length and that number's checksum; the data's checksum


def waymo_v1_segments(path: Path) -> list[Path]:
    """.tfrecord files at path: itself, or those in the folder or its parts. Raises DatasetError."""
    inside = (f for pattern in ("*.tfrecord", "*/*.tfrecord") for f in path.glob(pattern))
    found = [path] if path.suffix == ".tfrecord" else sorted(inside)
    if not found:
        raise DatasetError(f"{path} holds no segments of Waymo Open: segment-*.tfrecord was expected")
    return found


def read_waymo_v1_folder(path: Path, camera: str = "FRONT") -> Iterator[Clip]:
    """All segments at path as clips, see read_waymo_v1."""
    return map(partial(read_waymo_v1, camera=camera), waymo_v1_segments(path))


def read_waymo_v1(path: str | Path, camera: str = "FRONT") -> Clip:
    """A segment as a Clip of one camera, with depth of all lasers' first returns and boxes of the laser's labels.

    Raises DatasetError, also on access to a damaged frame.
    """
    path = Path(path)
    number = camera_number(camera)
    records = _records(path)
    try:
        heads = [_Head(parse(record), number) for record in records]
        context = parse(first(parse(records[0]), 1))
        segment = Segment(
            name=bytes(first(context, 1)).decode(),
            source=str(path),
            camera=_camera(context, number),
            times=np.array([head.time for head in heads]),
            image_poses=np.stack([head.image_pose for head in heads]),
            frame_poses=np.stack([head.frame_pose for head in heads]),
            labels=[head.labels for head in heads],
            image=lambda i: bytes(heads[i].image),
            scans=_scan_reader(path, records, context),
        )
    except ProtobufError as error:
        raise DatasetError(f"{path} is damaged or no segment of Waymo Open ({error}): download it again") from error
    return segment_clip(segment)


class _Head:
    """The metadata of a frame, and a view of its image."""

    def __init__(self, frame: Message, camera: int) -> None:
        image = next((m for m in map(parse, frame.get(4, [])) if integer(m, 1) == camera), None)
        if image is None:
            raise ProtobufError(f"a frame has no image of camera {camera}")
        self.image: memoryview = first(image, 2)
        self.frame_pose = _transform(first(frame, 3))
        self.image_pose = _transform(first(image, 3))
        self.time = real(image, 5) or integer(frame, 2) * 1e-6
        self.labels = [_label(parse(label)) for label in frame.get(6, [])]


def _records(path: Path) -> list[memoryview]:
    """The records of a file, mapped. Raises DatasetError."""
    try:
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read ({error}): a .tfrecord of Waymo Open was expected") from error
    records: list[memoryview] = []
    at = 0
    while at < len(data):
        head = bytes(data[at : at + HEADER])
        if len(head) == HEADER and masked_crc(head[:8]) != struct.unpack("<I", head[8:])[0]:
            raise DatasetError(f"{path} is no .tfrecord, or damaged: the length at byte {at} has another checksum")
        end = at + HEADER + (struct.unpack("<Q", head[:8])[0] if len(head) == HEADER else 0) + FOOTER
        if len(head) < HEADER or end > len(data):
            raise DatasetError(f"{path} is truncated in record {len(records)}: download it again")
        records.append(data[at + HEADER : end - FOOTER])
        at = end
    if not records:
        raise DatasetError(f"{path} holds no records: a segment of Waymo Open was expected")
    return records


@lru_cache(maxsize=1)
def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


def masked_crc(data: bytes) -> int:
    """TFRecord's checksum: CRC-32C, rotated and shifted by a constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _crc_table()[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _transform(message: memoryview) -> FloatArray:
    values = doubles(parse(message), 1)
    if len(values) != 16:
        raise ProtobufError(f"a transform has {len(values)} values, not 16")
    return values.reshape(4, 4)


def _camera(context: Message, number: int) -> CameraCalibration:
    for camera in map(parse, context.get(2, [])):
        if integer(camera, 1) == number:
            intrinsic = doubles(camera, 2)
            if len(intrinsic) != 9:
                raise ProtobufError(f"camera {number} has {len(intrinsic)} intrinsics, not 9")
            pose = _transform(first(camera, 3))
            return CameraCalibration(intrinsic, pose, integer(camera, 4), integer(camera, 5))
    raise ProtobufError(f"camera {number} is not calibrated")


def _label(label: Message) -> Label:
    box = parse(first(label, 1))
    # center x y z, width 4, length 5, height 6, heading
    x, y, z, width, length, height, heading = (real(box, k) for k in range(1, 8))
    id_ = bytes(first(label, 4)).decode()
    return Label(id_, integer(label, 3), np.array([x, y, z]), np.array([length, width, height]), heading)


def _scan_reader(path: Path, records: list[memoryview], context: Message) -> Callable[[int], list[Scan]] | None:
    lasers = {integer(laser, 1): _laser(laser) for laser in map(parse, context.get(3, []))}
    if not lasers or not parse(records[0]).get(5):
        return None

    def read(i: int) -> list[Scan]:
        try:
            found = [parse(laser) for laser in parse(records[i]).get(5, [])]
            return [_scan(lasers[integer(laser, 1)], parse(first(laser, 2))) for laser in found]
        except (ProtobufError, KeyError, zlib.error, ValueError) as error:
            raise DatasetError(f"{path}: the scan of frame {i} is damaged ({error}): download it again") from error

    return read


def _laser(laser: Message) -> LaserCalibration:
    return LaserCalibration(_transform(first(laser, 5)), doubles(laser, 2), real(laser, 3), real(laser, 4))


def _scan(laser: LaserCalibration, returns: Message) -> Scan:
    poses = _matrix(first(returns, 4)) if returns.get(4) and len(first(returns, 4)) else None
    return Scan(laser, _matrix(first(returns, 2))[..., 0], poses)


def _matrix(compressed: memoryview) -> FloatArray:
    """A MatrixFloat in zlib: (H, W, C)."""
    matrix = parse(memoryview(zlib.decompress(compressed)))
    return floats(matrix, 1).reshape(integers(parse(first(matrix, 2)), 1))
