# SPDX-License-Identifier: Apache-2.0
"""Modules that some installations lack: helpers of ROS distributions, and the package's own built messages.

sensor_msgs_py and tf_transformations are not on PyPI. This module defines replacements of their functions, the second
with transforms3d, as tf_transformations itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

try:
    from sensor_msgs_py.point_cloud2 import create_cloud
except ImportError:

    def create_cloud(header: Header, fields: list[PointField], points: NDArray[Any]) -> PointCloud2:
        """An unordered cloud of a structured array (N,) with the layout of `fields`."""
        message = PointCloud2(
            header=header,
            height=1,
            width=len(points),
            fields=fields,
            is_bigendian=False,
            is_dense=True,
            point_step=points.itemsize,
            row_step=points.nbytes,
        )
        # frombytes: an assignment takes hundreds of times longer.
        message.data.frombytes(np.ascontiguousarray(points).data.cast("B"))
        return message


try:
    from tf_transformations import euler_from_quaternion
except ImportError:
    from transforms3d.euler import quat2euler

    def euler_from_quaternion(quaternion: ArrayLike) -> tuple[float, float, float]:
        """Roll, pitch and yaw in radians, about fixed axes, of a quaternion (x, y, z, w)."""
        x, y, z, w = np.asarray(quaternion, np.float64)
        return tuple(map(float, quat2euler((w, x, y, z), axes="sxyz")))  # type: ignore[return-value]


__all__ = ["create_cloud", "euler_from_quaternion", "interface"]


def interface(kind: str, name: str) -> Any:
    """A message or service class of this package. Raises ImportError with the cure if the package is not built."""
    try:
        return getattr(import_module(f"pixel4d_ros.{kind}"), name)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"the interface pixel4d_ros/{kind}/{name} is not built ({error}): run `make setup` or `colcon build`, "
            "then `source env.sh`"
        ) from error
