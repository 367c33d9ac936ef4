# SPDX-License-Identifier: Apache-2.0
"""DynamicGaussians -> sensor_msgs/PointCloud2 with the field names of 3DGS PLY files, plus the motion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

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
FULL = np.dtype([(name, "<u4" if name == "object_id" else "<f4") for name in FIELD_NAMES])
# 24 bytes a point in place of 128: what planners and RViz use. Motion is that of the object, on ~/objects.
COMPACT = np.dtype(
    [
        *((name, "<f4") for name in ("x", "y", "z", "rgb")),
        ("object_id", "<u4"),
        ("radius", "<u2"),  # mm: geometric mean of the standard deviations, at most 65535
        ("opacity", "u1"),  # 0..255
        ("observed", "u1"),  # 0..255: the share that the image showed
    ]
)
_DATATYPES = {"f4": PointField.FLOAT32, "u4": PointField.UINT32, "u2": PointField.UINT16, "u1": PointField.UINT8}


def cloud_array(scene: DynamicGaussians, track_ids: Mapping[int, int] | None = None) -> NDArray[np.float32]:
    """The scene's Gaussians as (N, 32) float32 in the order of FIELD_NAMES; rgb and object_id are bit patterns.

    track_ids: the ids to write in place of the scene's own.
    """
    columns = (
        scene.means,
        _packed_colors(scene)[:, None].view(torch.float32),
        (scene.colors - 0.5) / SH_C0,
        scene.opacities[:, None],
        scene.scales,
        scene.quaternions,
        scene.velocities,
        scene.accelerations,
        scene.angular_velocities,
        scene.angular_accelerations,
        _ids(scene, track_ids)[:, None].view(torch.float32),
        scene.centroids[scene.object_ids],
        _observed(scene)[:, None],
    )
    return torch.cat([c.detach().float() for c in columns], 1).cpu().numpy()


def compact_array(scene: DynamicGaussians, track_ids: Mapping[int, int] | None = None) -> NDArray[Any]:
    """The scene's Gaussians as (N,) of COMPACT; track_ids as for cloud_array."""
    radii = scene.scales.clamp(min=1e-9).log().mean(1).exp() * 1000
    columns = {
        **dict(zip("xyz", scene.means.unbind(1), strict=True)),
        "rgb": _packed_colors(scene).view(torch.float32),
        "object_id": _ids(scene, track_ids),
        "radius": radii.clamp(0, 65535).round(),
        "opacity": (scene.opacities.clamp(0, 1) * 255).round(),
        "observed": (_observed(scene).clamp(0, 1) * 255).round(),
    }
    points = np.empty(len(scene.means), COMPACT)
    for name, column in columns.items():
        points[name] = column.detach().cpu().numpy()
    return points


def _packed_colors(scene: DynamicGaussians) -> torch.Tensor:
    """Colours (N,) int32 as RViz reads them: 0x00RRGGBB."""
    bytes_ = (scene.colors.clamp(0, 1) * 255).round().to(torch.int32)
    return (bytes_[:, 0] << 16) | (bytes_[:, 1] << 8) | bytes_[:, 2]


def _ids(scene: DynamicGaussians, track_ids: Mapping[int, int] | None) -> torch.Tensor:
    """The object's id (N,) int32 of each Gaussian."""
    ids = torch.arange(len(scene.centroids), dtype=torch.int32)
    for own, track in (track_ids or {}).items():
        ids[own] = track
    return ids.to(scene.object_ids.device)[scene.object_ids]


def _observed(scene: DynamicGaussians) -> torch.Tensor:
    """(N,) 1: shown by the image, 0: guessed."""
    return torch.ones_like(scene.opacities) if scene.observed is None else scene.observed


def subsample(scene: DynamicGaussians, min_opacity: float, max_points: int) -> DynamicGaussians:
    """The Gaussians of at least min_opacity, or an even subset of max_points of them when there are more."""
    keep = torch.nonzero(scene.opacities >= min_opacity)[:, 0]
    if len(keep) > max_points:
        keep = keep[torch.linspace(0, len(keep) - 1, max_points, device=keep.device, dtype=torch.float64).long()]
    return replace(scene, futures=()).select(keep)


def pointcloud_message(
    scene: DynamicGaussians, header: Header, track_ids: Mapping[int, int] | None = None, compact: bool = False
) -> PointCloud2:
    """One point per Gaussian, little endian, unordered (height 1), in the layout FULL or COMPACT.

    track_ids as for cloud_array.
    """
    if compact:
        return create_cloud(header, _fields(COMPACT), compact_array(scene, track_ids))
    points = cloud_array(scene, track_ids).astype("<f4", copy=False).view(FULL)[:, 0]
    return create_cloud(header, _fields(FULL), points)


def _fields(layout: np.dtype[Any]) -> list[PointField]:
    places = [(name, layout.fields[name]) for name in layout.names or () if layout.fields]
    return [PointField(name=n, offset=at[1], datatype=_DATATYPES[at[0].str[1:]], count=1) for n, at in places]
