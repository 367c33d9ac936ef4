# SPDX-License-Identifier: Apache-2.0
"""Gaussians for RVizSplat, if its messages (gsplat_msgs) are installed.

Format of its plugin (1.0.0): covariance in the upper left 3x3 of a pose's, opacity in 255ths, spherical harmonics of
degree 0; the topic reliable and transient local. It ignores the headers: positions are in RViz's fixed frame.
"""

from __future__ import annotations

from importlib import import_module

import numpy as np
from std_msgs.msg import Header

from pixel4d_ros.geometry.quaternions import quaternion_to_matrix
from pixel4d_ros.outputs.ply import SH_C0
from pixel4d_ros.scene import DynamicGaussians

LEAST_OPACITY = 0.4  # its shader discards fainter Gaussians
_CDR_LITTLE_ENDIAN = b"\x00\x01\x00\x00"


def splat_array_type() -> type | None:
    """The class gsplat_msgs/SplatArray; None where the package is not installed."""
    try:
        found: type = import_module("gsplat_msgs.msg").SplatArray
    except (ImportError, AttributeError):
        return None
    return found


def splat_array_bytes(scene: DynamicGaussians, header: Header) -> bytes:
    """A serialized SplatArray. Creating its messages, one per Gaussian, would take seconds."""
    frame = header.frame_id.encode() + b"\0"
    # CDR aligns doubles to 8 bytes; splats start at 4 modulo 8 and have one size.
    padding = -len(frame) % 8
    splat = np.dtype(
        [
            *(("sec", "<i4"), ("nanosec", "<u4"), ("frame_length", "<u4"), ("frame", f"V{len(frame) + padding}")),
            *(("position", "<f8", 3), ("orientation", "<f8", 4), ("covariance", "<f8", (6, 6))),
            *(("opacity", "u1"), ("degree", "u1"), ("padding", "V2")),
            *(("coefficients", "<u4"), ("harmonics", "<f4", 3)),
        ]
    )
    out = np.zeros(len(scene), splat)
    out["sec"], out["nanosec"] = header.stamp.sec, header.stamp.nanosec
    out["frame_length"], out["frame"] = len(frame), np.void(frame + bytes(padding))
    out["position"] = scene.means.cpu().numpy()
    out["orientation"] = scene.quaternions.cpu().numpy()[:, [1, 2, 3, 0]]  # x y z w
    axes = quaternion_to_matrix(scene.quaternions) * scene.scales[:, None]
    out["covariance"][:, :3, :3] = (axes @ axes.transpose(1, 2)).cpu().numpy()
    out["opacity"] = (scene.opacities * 255).round().cpu().numpy()
    out["coefficients"] = 3
    out["harmonics"] = ((scene.colors - 0.5) / SH_C0).cpu().numpy()
    return _CDR_LITTLE_ENDIAN + np.array(len(out), "<u4").tobytes() + out.tobytes()
