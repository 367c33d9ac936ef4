# SPDX-License-Identifier: Apache-2.0
"""The synthetic street as a drive of KITTI raw."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pixel4d_ros.geometry.rotations import rigid, rigid_inverse, rotation_matrix
from support.dataset_samples import BOX_SIZE, SIZE, street, world_boxes

LATITUDE, LONGITUDE, ALTITUDE = 49.015, 8.434, 116.4
EARTH = 6378137.0
BASELINE = 0.54
RECTIFIED = rotation_matrix([0.004, -0.007, 0.003])
T_CAM0_VELO = rigid(
    rotation_matrix([0.01, -0.02, 0.005]) @ [[0, -1, 0], [0, 0, -1], [1, 0, 0]], [-0.004, -0.076, -0.27]
)
T_VELO_IMU = rigid(rotation_matrix([0.002, -0.003, 0.015]), [-0.81, 0.32, -0.8])
# P_rect's translation, metres: mostly along x
BESIDE = {2: [0.06, -3e-4, 2.7e-3], 3: [0.06 - BASELINE, -3e-4, 2.7e-3]}
START = "2011-09-26 13:02:{:.9f}"


def write_kitti(root: Path, date: str = "2011_09_26", drive: str = "0001") -> Path:
    """The drive's folder, with calibration in the day's folder above it."""
    clip = street()
    day = root / date
    folder = day / f"{date}_drive_{drive}_sync"
    write_calibration(day)
    T_camera_velo = rigid(np.eye(3), BESIDE[2]) @ rigid(RECTIFIED, np.zeros(3)) @ T_CAM0_VELO
    world_velo = clip.poses @ T_camera_velo
    write_poses(folder / "oxts" / "data", world_velo @ T_VELO_IMU)
    for camera, images in ((2, clip.images), (3, np.asarray(clip.images)[:, ::-1])):
        data = folder / f"image_{camera:02d}" / "data"
        data.mkdir(parents=True)
        for i, image in enumerate(images):
            cv2.imwrite(str(data / f"{i:010d}.png"), image[..., ::-1])
        seconds = 25.964389445 + clip.times
        (data.parent / "timestamps.txt").write_text("".join(START.format(s) + "\n" for s in seconds))
    scans = folder / "velodyne_points" / "data"
    scans.mkdir(parents=True)
    for i, depth in enumerate(np.asarray(clip.depth)):
        write_scan(scans / f"{i:010d}.bin", depth, clip.K, T_camera_velo)
    (folder / "tracklet_labels.xml").write_text(tracklets(rigid_inverse(world_velo)[:, None] @ world_boxes()))
    return folder


def numbers(values: object) -> str:
    return " ".join(f"{v:.12e}" for v in np.ravel(np.asarray(values)))


def write_calibration(day: Path) -> None:
    day.mkdir(parents=True)
    K = street().K
    lines = ["calib_time: 09-Jan-2012 13:57:47", "corner_dist: 9.95e-02"]
    for camera in range(4):
        P = np.hstack([K, (K @ BESIDE.get(camera, np.zeros(3)))[:, None]])
        lines += [f"S_rect_{camera:02d}: {numbers(SIZE)}", f"R_rect_{camera:02d}: {numbers(RECTIFIED)}"]
        lines += [f"P_rect_{camera:02d}: {numbers(P)}"]
    (day / "calib_cam_to_cam.txt").write_text("\n".join(lines) + "\n")
    for name, T in (("velo_to_cam", T_CAM0_VELO), ("imu_to_velo", T_VELO_IMU)):
        text = f"calib_time: 15-Mar-2012 11:37:16\nR: {numbers(T[:3, :3])}\nT: {numbers(T[:3, 3])}\n"
        (day / f"calib_{name}.txt").write_text(text)


def write_poses(folder: Path, world_imu: np.ndarray) -> None:
    """OXTS packets: latitude, longitude, altitude, roll, pitch, yaw and 24 values that are not read."""
    folder.mkdir(parents=True)
    scale = np.cos(np.radians(LATITUDE))
    for i, T in enumerate(world_imu):
        x, y, z = T[:3, 3] - world_imu[0, :3, 3]
        north = np.log(np.tan(np.pi / 4 + np.radians(LATITUDE) / 2)) + y / (scale * EARTH)
        latitude = np.degrees(2 * (np.arctan(np.exp(north)) - np.pi / 4))
        longitude = LONGITUDE + np.degrees(x / (scale * EARTH))
        R = T[:3, :3]
        yaw, roll = np.arctan2(R[1, 0], R[0, 0]), np.arctan2(R[2, 1], R[2, 2])
        values = [latitude, longitude, ALTITUDE + z, roll, -np.arcsin(R[2, 0]), yaw]
        (folder / f"{i:010d}.txt").write_text(" ".join(f"{v:.14f}" for v in values) + " 0.5" * 19 + " 4 9 4 4 0\n")


def write_scan(path: Path, depth: np.ndarray, K: np.ndarray, T_camera_velo: np.ndarray) -> None:
    """A scan of all pixels with depth, and of points one metre behind each that they hide."""
    v, u = np.nonzero(depth)
    rays = np.stack([u, v, np.ones_like(u)], 1) @ np.linalg.inv(K).T
    seen = rays * depth[v, u, None]
    hidden = rays * (depth[v, u, None] + 1)
    behind = seen * [1, 1, -1]
    T = rigid_inverse(T_camera_velo)
    points = np.concatenate([hidden[::2], seen, hidden[1::2], behind]) @ T[:3, :3].T + T[:3, 3]
    np.hstack([points, np.full((len(points), 1), 0.3)]).astype(np.float32).tofile(path)


def tracklets(velo_boxes: np.ndarray) -> str:
    """tracklet_labels.xml of boxes T_velodyne_box (T, M, 4, 4), labelled from the first frame on."""
    items = []
    for m in range(velo_boxes.shape[1]):
        poses = [pose_item(T) for T in velo_boxes[: len(velo_boxes) - m % 2, m]]
        length, width, height = BOX_SIZE
        items.append(
            f"<item><objectType>Car</objectType><h>{height}</h><w>{width}</w><l>{length}</l>"
            f"<first_frame>0</first_frame><poses><count>{len(poses)}</count><item_version>2</item_version>"
            f"{''.join(poses)}</poses><finished>1</finished></item>"
        )
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes" ?>\n<!DOCTYPE boost_serialization>\n'
        '<boost_serialization signature="serialization::archive" version="9">'
        f'<tracklets class_id="0" tracking_level="0" version="0"><count>{len(items)}</count>'
        f"<item_version>1</item_version>{''.join(items)}</tracklets></boost_serialization>\n"
    )


def pose_item(T: np.ndarray) -> str:
    x, y, z = T[:3, 3]
    yaw = np.arctan2(T[1, 0], T[0, 0])
    return (
        f"<item><tx>{x}</tx><ty>{y}</ty><tz>{z - BOX_SIZE[2] / 2}</tz><rx>0</rx><ry>0</ry><rz>{yaw}</rz>"
        "<state>2</state><occlusion>0</occlusion><occlusion_kf>0</occlusion_kf><truncation>0</truncation></item>"
    )
