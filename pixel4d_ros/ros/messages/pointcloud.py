# SPDX-License-Identifier: Apache-2.0
"""DynamicGaussians -> sensor_msgs/PointCloud2 with the field names of 3DGS PLY files, plus the motion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from pixel4d_ros.outputs.ply import SH_C0
from pixel4d_ros.ros.compat import create_cloud
from pixel4d_ros.scene import DynamicGaussians

# Values are activated: opacity 0..1, scale in metres, rot w x y z; f_dc as in a PLY file: (colour - 0.5) / SH_C0.
FIELD_NAMES = (
    *("x", "y", "z", "rgb"),
    *("f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
    *("vx", "vy", "vz", "ax", "ay", "az", "wx", "wy", "wz", "alx", "aly", "alz"),
    "object_id",
    # The rotation centre of the Gaussian's object (zero for the background), and whether the image shows it (1) or the
    # network inferred it (0).
    *("cx", "cy", "cz", "observed"),
)
_POINT = np.dtype([(name, "<u4" if name == "object_id" else "<f4") for name in FIELD_NAMES])
_FIELDS = [
    PointField(
        name=name,
        offset=4 * i,
        datatype=PointField.UINT32 if name == "object_id" else PointField.FLOAT32,
        count=1,
    )
    for i, name in enumerate(FIELD_NAMES)
]


def cloud_array(scene: DynamicGaussians, lasting_ids: Mapping[int, int] | None = None) -> NDArray[np.float32]:
    """The scene's Gaussians as (N, 32) float32 in the order of FIELD_NAMES; rgb and object_id are bit patterns.

    lasting_ids: the ids to write in place of the scene's own.
    """
    ids = torch.arange(len(scene.centroids), dtype=torch.int32)
    for own, lasting in (lasting_ids or {}).items():
        ids[own] = lasting
    bytes_ = (scene.colors.clamp(0, 1) * 255).round().to(torch.int32)
    packed = (bytes_[:, 0] << 16) | (bytes_[:, 1] << 8) | bytes_[:, 2]
    columns = (
        scene.means,
        packed[:, None].view(torch.float32),
        (scene.colors - 0.5) / SH_C0,
        scene.opacities[:, None],
        scene.scales,
        scene.quaternions,
        scene.velocities,
        scene.accelerations,
        scene.angular_velocities,
        scene.angular_accelerations,
        ids.to(scene.object_ids.device)[scene.object_ids][:, None].view(torch.float32),
        scene.centroids[scene.object_ids],
        (torch.ones_like(scene.opacities) if scene.observed is None else scene.observed)[:, None],
    )
    return torch.cat([c.detach().float() for c in columns], 1).cpu().numpy()


def subsample(scene: DynamicGaussians, min_opacity: float, max_points: int) -> DynamicGaussians:
    """The Gaussians of at least min_opacity, or an even subset of max_points of them when there are more."""
    keep = torch.nonzero(scene.opacities >= min_opacity)[:, 0]
    if len(keep) > max_points:
        keep = keep[torch.linspace(0, len(keep) - 1, max_points, device=keep.device, dtype=torch.float64).long()]
    return replace(scene, futures=()).select(keep)


def pointcloud_message(
    scene: DynamicGaussians, header: Header, lasting_ids: Mapping[int, int] | None = None
) -> PointCloud2:
    """One point per Gaussian, little endian, unordered (height 1). lasting_ids as cloud_array has them."""
    points = cloud_array(scene, lasting_ids).astype("<f4", copy=False).view(_POINT)[:, 0]
    return create_cloud(header, _FIELDS, points)
