"""Gaussians for RVizSplat, whose messages (gsplat_msgs) are used where they are installed.

Format as its plugin reads it: covariance in the upper left 3x3 of a pose's, opacity in 255ths, spherical harmonics of
degree 0; the topic reliable and transient local.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from std_msgs.msg import Header

from pixel4d_ros.rotations import quaternion_to_matrix
from pixel4d_ros.scene import SH_C0, DynamicGaussians


def splat_array_type() -> type | None:
    """The class gsplat_msgs/SplatArray; None where the package is not installed."""
    try:
        found: type = import_module("gsplat_msgs.msg").SplatArray
    except (ImportError, AttributeError):
        return None
    return found


def splat_array_message(scene: DynamicGaussians, header: Header) -> Any:
    """A SplatArray. It takes some 30 us per Gaussian: a message each is what the format asks for."""
    messages = import_module("gsplat_msgs.msg")
    axes = quaternion_to_matrix(scene.quaternions) * scene.scales[:, None]
    covariances = np.zeros((len(scene), 6, 6))
    covariances[:, :3, :3] = (axes @ axes.transpose(1, 2)).cpu().numpy()
    means = scene.means.cpu().double().numpy()
    quaternions = scene.quaternions.cpu().double().numpy()
    opacities = (scene.opacities * 255).round().int().cpu().numpy()
    harmonics = ((scene.colors - 0.5) / SH_C0).float().cpu().numpy()
    out = messages.SplatArray()
    for i in range(len(scene)):
        pose = PoseWithCovarianceStamped(header=header)
        place, turn = pose.pose.pose.position, pose.pose.pose.orientation
        place.x, place.y, place.z = means[i].tolist()
        turn.w, turn.x, turn.y, turn.z = quaternions[i].tolist()
        pose.pose.covariance = covariances[i].ravel()
        out.splats.append(
            messages.Splat(pose=pose, opacity=int(opacities[i]), spherical_harmonics=harmonics[i].tolist())
        )
    return out
