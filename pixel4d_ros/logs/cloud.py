# SPDX-License-Identifier: Apache-2.0
"""Recorded Gaussian clouds (sensor_msgs/PointCloud2) converted to scenes and PLY files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixel4d_ros.logs.reader import LogError, LogReader
from pixel4d_ros.outputs.ply import SH_C0
from pixel4d_ros.scene import DynamicGaussians

CLOUD = "sensor_msgs/msg/PointCloud2"
DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}  # PointField.INT8 .. FLOAT64


def read_gaussians(cloud: Any) -> DynamicGaussians:
    """The scene in a PointCloud2 of the node; centroids are the means of each object's Gaussians.

    Raises ValueError if the cloud lacks a field of Gaussians.
    """
    points = _points(cloud)
    colors = SH_C0 * _columns(points, "f_dc_0", "f_dc_1", "f_dc_2") + 0.5
    means = _columns(points, "x", "y", "z", "object_id")[:, :3]
    # Ids last from image to image and grow without bound, so objects are numbered anew; 0 stays the static background.
    lasting, renumbered = np.unique(np.append(points["object_id"].astype(np.int64), 0), return_inverse=True)
    ids, count = torch.from_numpy(renumbered.reshape(-1)[:-1].astype(np.int64)), len(lasting)
    total = torch.zeros(count, 3).index_add(0, ids, means)
    return DynamicGaussians(
        means=means,
        quaternions=_columns(points, "rot_0", "rot_1", "rot_2", "rot_3"),
        scales=_columns(points, "scale_0", "scale_1", "scale_2"),
        opacities=_columns(points, "opacity")[:, 0],
        colors=colors.clamp(0, 1),
        velocities=_columns(points, "vx", "vy", "vz"),
        accelerations=_columns(points, "ax", "ay", "az"),
        angular_velocities=_columns(points, "wx", "wy", "wz"),
        angular_accelerations=_columns(points, "alx", "aly", "alz"),
        object_ids=ids,
        centroids=total / torch.bincount(ids, minlength=count).clamp(min=1)[:, None],
    )


def save_middle_cloud(recorded: Path, topic: str, ply: Path) -> int:
    """Write the middle one of a topic's recorded clouds as a 3DGS PLY. Returns the number of Gaussians.

    Raises LogError if the recording has no such clouds.
    """
    with LogReader(recorded) as log:
        found = log.topics.get(topic)
        if found is None or found.type != CLOUD or not found.count:
            raise LogError(f"{recorded} holds no Gaussian clouds on {topic}: did the node publish any?")
        for index, raw in enumerate(log.raw([topic])):
            if index == found.count // 2:
                try:
                    scene = read_gaussians(log.decode(raw))
                except ValueError as error:
                    raise LogError(f"{recorded}: {topic}: {error}") from error
                scene.save_ply(ply)
                return len(scene)
    raise LogError(f"{recorded} holds fewer messages on {topic} than its index lists: record it again")


def _points(cloud: Any) -> NDArray[np.void]:
    order = ">" if cloud.is_bigendian else "<"
    unknown = [f.name for f in cloud.fields if f.datatype not in DTYPES]
    if unknown:
        raise ValueError(f"fields {', '.join(unknown)} of the point cloud have a datatype unknown to PointField")
    kind = np.dtype(
        {
            "names": [f.name for f in cloud.fields],
            "formats": [order + DTYPES[f.datatype] for f in cloud.fields],
            "offsets": [f.offset for f in cloud.fields],
            "itemsize": cloud.point_step,
        }
    )
    return np.frombuffer(cloud.data, kind, cloud.width * cloud.height)


def _columns(points: NDArray[np.void], *names: str) -> Tensor:
    missing = [name for name in names if name not in (points.dtype.names or ())]
    if missing:
        raise ValueError(f"the point cloud is not one of Gaussians, it lacks {', '.join(missing)}")
    return torch.from_numpy(np.stack([points[name].astype(np.float32) for name in names], 1))
