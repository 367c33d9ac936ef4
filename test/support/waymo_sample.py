# SPDX-License-Identifier: Apache-2.0
"""The synthetic street as a segment of Waymo Open, in both distributions."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pixel4d_ros.datasets.waymo_v1 import masked_crc
from pixel4d_ros.geometry.optical import FORWARD_OPTICAL
from pixel4d_ros.geometry.rotations import rigid, rigid_inverse, rotation_matrix
from support.dataset_samples import BOX_SIZE, FRAMES, SIZE, street, world_boxes

NAME = "10017090168044687777_6380_000_6400_000"
FIRST = 1_550_083_467_346_370  # microseconds
FRONT, SIDE_LEFT, TOP, REAR = 1, 4, 1, 5
T_VEHICLE_CAMERA = rigid(rotation_matrix([0.01, 0.02, -0.005]), [1.54, -0.02, 2.1])
# Both lasers are where the camera is, so that what they hit is what it sees; their axes are turned.
T_VEHICLE_LASER = {
    TOP: rigid(rotation_matrix([0.003, -0.004, 2.6]), T_VEHICLE_CAMERA[:3, 3]),
    REAR: rigid(rotation_matrix([0.0, 0.0, -0.4]), T_VEHICLE_CAMERA[:3, 3]),
}
INCLINATIONS = {TOP: np.linspace(-0.3, 0.04, 24) ** 3 * 8 + np.linspace(-0.12, 0.03, 24), REAR: np.zeros(0)}
LOW, HIGH = -0.2, 0.1
SHIFT = np.array([0.4, 0.1, 0.0])  # metres of world: frame poses lag behind those of the images by this


def image_poses() -> np.ndarray:
    """T_world_vehicle (T, 4, 4) when the front image was taken."""
    return street().poses @ rigid_inverse(T_VEHICLE_CAMERA @ FORWARD_OPTICAL)


def frame_poses() -> np.ndarray:
    """T_world_vehicle (T, 4, 4) of labels and scans."""
    poses = image_poses()
    poses[:, :3, 3] -= SHIFT
    return poses


def vehicle_boxes() -> np.ndarray:
    """T_vehicle_box (T, M, 4, 4)."""
    return rigid_inverse(frame_poses())[:, None] @ world_boxes()


@lru_cache
def rays(laser: int, rows: int, columns: int) -> np.ndarray:
    """Unit vectors (rows, columns, 3) in the laser's frame, one by one as the data set's documents tell them."""
    out = np.zeros((rows, columns, 3))
    yaw = np.arctan2(T_VEHICLE_LASER[laser][1, 0], T_VEHICLE_LASER[laser][0, 0])
    for r in range(rows):
        up = INCLINATIONS[laser][rows - 1 - r] if laser == TOP else LOW + (rows - 1 - r + 0.5) / rows * (HIGH - LOW)
        for c in range(columns):
            around = np.pi * (1 - 2 * (c + 0.5) / columns) - yaw
            out[r, c] = rotation_matrix([0, 0, around]) @ rotation_matrix([0, -up, 0]) @ [1, 0, 0]
    return out


@lru_cache
def scan(frame: int, laser: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a laser at the camera's place measures: ranges (H, W, 4), pixel poses (H, W, 6), pixels hit (n, 2)."""
    truth = street()
    assert truth.depth is not None
    directions = rays(laser, 24, 360)
    # When the pixels are measured the vehicle is where it is for the image, so that laser and camera coincide.
    T_world_vehicle = image_poses()[frame]
    world = directions @ (T_world_vehicle @ T_VEHICLE_LASER[laser])[:3, :3].T
    seen = world @ truth.poses[frame, :3, :3]
    u, v, z = np.moveaxis(seen @ truth.K.T, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = np.rint(u / z), np.rint(v / z)
    inside = (z > 0) & (u >= 0) & (v >= 0) & (u < SIZE[0]) & (v < SIZE[1])
    u, v = (np.where(inside, p, 0).astype(int) for p in (u, v))
    depth = np.where(inside, truth.depth[frame][v, u], 0)
    ranges = np.full((24, 360, 4), -1.0, np.float32)
    hit = depth > 0
    ranges[..., 0][hit] = (depth / np.where(inside, seen[..., 2], 1))[hit]
    R, t = T_world_vehicle[:3, :3], T_world_vehicle[:3, 3]
    angles = [np.arctan2(R[2, 1], R[2, 2]), -np.arcsin(R[2, 0]), np.arctan2(R[1, 0], R[0, 0])]
    poses = np.tile(np.array([*angles, *t]), (24, 360, 1)).astype(np.float32)
    return ranges, poses, np.stack([v[hit], u[hit]], 1)


def jpeg(i: int) -> bytes:
    return cv2.imencode(".jpg", np.asarray(street().images)[i][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


def stamp(i: int) -> int:
    return FIRST + i * 100_000


def image_time(i: int) -> float:
    return stamp(i) * 1e-6 + 0.02


def intrinsic(distortion: Sequence[float] = (0,) * 5) -> list[float]:
    K = street().K
    return [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5, *distortion]


def write_v2(root: Path, distortion: Sequence[float] = (0,) * 5) -> Path:
    """The folder of a split, with the segment's components; each frame has a side image beside the front one."""
    import pyarrow as pa
    from pyarrow import parquet

    def write(component: str, rows: list[dict[str, Any]], types: dict[str, Any] | None = None) -> None:
        (root / component).mkdir(parents=True, exist_ok=True)
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        table = pa.table({n: pa.array(v, (types or {}).get(n)) for n, v in columns.items()})
        parquet.write_table(table, root / component / f"{NAME}.parquet", row_group_size=3)

    def key(i: int, **more: object) -> dict[str, Any]:
        named = {f"key.{k}": v for k, v in more.items()}
        return {"key.segment_context_name": NAME, "key.frame_timestamp_micros": stamp(i), **named}

    box, lidar, pose = "[LiDARBoxComponent]", "[LiDARComponent].range_image_return1", "[LiDARPoseComponent]"
    order = [2, 0, 3, 1]  # rows are not promised to be in order
    front, side = "[CameraImageComponent]", b"no picture"
    write("camera_image", [
        {**key(i, camera_name=camera), f"{front}.image": jpeg(i) if camera == FRONT else side,
         f"{front}.pose.transform": image_poses()[i].ravel().tolist(), f"{front}.pose_timestamp": image_time(i)}
        for i in order for camera in (SIDE_LEFT, FRONT)
    ])  # fmt: skip
    c, names = "[CameraCalibrationComponent]", ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3")
    write("camera_calibration", [
        {"key.segment_context_name": NAME, "key.camera_name": camera,
         **{f"{c}.intrinsic.{n}": float(v) for n, v in zip(names, intrinsic(distortion))},
         f"{c}.extrinsic.transform": T_VEHICLE_CAMERA.ravel().tolist(), f"{c}.width": SIZE[0], f"{c}.height": SIZE[1]}
        for camera in (SIDE_LEFT, FRONT)
    ])  # fmt: skip
    world = "[VehiclePoseComponent].world_from_vehicle.transform"
    write("vehicle_pose", [{**key(i), world: frame_poses()[i].ravel().tolist()} for i in order])
    boxes = vehicle_boxes()
    write("lidar_box", [
        {**key(i, laser_object_id=f"thing{m}"), f"{box}.type": 1,
         **{f"{box}.box.center.{a}": float(boxes[i, m, k, 3]) for k, a in enumerate("xyz")},
         **{f"{box}.box.size.{a}": float(BOX_SIZE[k]) for k, a in enumerate("xyz")},
         f"{box}.box.heading": float(np.arctan2(boxes[i, m, 1, 0], boxes[i, m, 0, 0]))}
        for i in order for m in range(boxes.shape[1])
    ])  # fmt: skip
    scans = {(i, laser): scan(i, laser) for i in order for laser in (TOP, REAR)}
    write("lidar", [
        {**key(i, laser_name=laser), f"{lidar}.values": ranges.ravel().tolist(), f"{lidar}.shape": list(ranges.shape)}
        for (i, laser), (ranges, _, _) in scans.items()
    ], {f"{lidar}.values": pa.list_(pa.float32())})  # fmt: skip
    write("lidar_pose", [
        {**key(i, laser_name=laser), f"{pose}.range_image_return1.values": poses.ravel().tolist(),
         f"{pose}.range_image_return1.shape": list(poses.shape)}
        for (i, laser), (_, poses, _) in scans.items()
    ], {f"{pose}.range_image_return1.values": pa.list_(pa.float64())})  # fmt: skip
    laser_c = "[LiDARCalibrationComponent]"
    write("lidar_calibration", [
        {"key.segment_context_name": NAME, "key.laser_name": laser,
         f"{laser_c}.extrinsic.transform": T_VEHICLE_LASER[laser].ravel().tolist(),
         f"{laser_c}.beam_inclination.min": LOW, f"{laser_c}.beam_inclination.max": HIGH,
         f"{laser_c}.beam_inclination.values": INCLINATIONS[laser].tolist() or None}
        for laser in (TOP, REAR)
    ])  # fmt: skip
    return root


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, value: object) -> bytes:
    """A field of a protocol buffer: int, float (a double), bytes, or a list of doubles, packed."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    data = value if isinstance(value, bytes) else struct.pack(f"<{len(value)}d", *value)  # type: ignore[arg-type]
    return varint(number << 3 | 2) + varint(len(data)) + data


def transform(T: np.ndarray) -> bytes:
    # As published: proto2 does not pack repeated doubles.
    return b"".join(field(1, float(v)) for v in T.ravel())


def matrix(values: np.ndarray) -> bytes:
    shape = b"".join(field(1, n) for n in values.shape)
    return zlib.compress(field(1, values.astype("<f4").tobytes()) + field(2, shape))


def context(distortion: Sequence[float]) -> bytes:
    out = field(1, NAME.encode())
    for camera in (SIDE_LEFT, FRONT):
        numbers = b"".join(field(2, float(v)) for v in intrinsic(distortion))
        size = field(4, SIZE[0]) + field(5, SIZE[1])
        out += field(2, field(1, camera) + numbers + field(3, transform(T_VEHICLE_CAMERA)) + size)
    for laser in (TOP, REAR):
        beams = b"".join(field(2, float(v)) for v in INCLINATIONS[laser])
        ends = field(3, LOW) + field(4, HIGH)
        out += field(3, field(1, laser) + beams + ends + field(5, transform(T_VEHICLE_LASER[laser])))
    return out


def frame(i: int, distortion: Sequence[float]) -> bytes:
    out = field(1, context(distortion)) + field(2, stamp(i)) + field(3, transform(frame_poses()[i]))
    for camera, picture in ((SIDE_LEFT, b"no picture"), (FRONT, jpeg(i))):
        pose = field(3, transform(image_poses()[i])) + field(5, image_time(i))
        out += field(4, field(1, camera) + field(2, picture) + pose)
    for laser in (TOP, REAR):
        ranges, poses, _ = scan(i, laser)
        out += field(5, field(1, laser) + field(2, field(2, matrix(ranges)) + field(4, matrix(poses))))
    boxes = vehicle_boxes()[i]
    length, width, height = (float(v) for v in BOX_SIZE)
    for m, T in enumerate(boxes):
        numbers = [*T[:3, 3], width, length, height, np.arctan2(T[1, 0], T[0, 0])]
        box = b"".join(field(k, float(v)) for k, v in enumerate(numbers, 1))
        out += field(6, field(1, box) + field(3, 1) + field(4, f"thing{m}".encode()))
    return out


def write_v1(root: Path, distortion: Sequence[float] = (0,) * 5) -> Path:
    """The segment's .tfrecord."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"segment-{NAME}_with_camera_labels.tfrecord"
    with path.open("wb") as file:
        for i in range(FRAMES):
            data = frame(i, distortion)
            length = struct.pack("<Q", len(data))
            file.write(length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data)))
    return path
