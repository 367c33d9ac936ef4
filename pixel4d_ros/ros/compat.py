# SPDX-License-Identifier: Apache-2.0
"""Modules that some installations lack: sensor_msgs_py, which is not on PyPI, and the package's own built messages."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

try:
    from sensor_msgs_py.point_cloud2 import create_cloud
except ImportError:

    def create_cloud(header: Header, fields: list[PointField], points: NDArray[Any]) -> PointCloud2:
        """An unordered cloud of a structured array (N,) with the 4-byte fields that `fields` describes."""
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


__all__ = ["create_cloud", "interface"]


def interface(kind: str, name: str) -> Any:
    """A message or service class of this package. Raises ImportError naming the cure when the package is not built."""
    try:
        return getattr(import_module(f"pixel4d_ros.{kind}"), name)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"the interface pixel4d_ros/{kind}/{name} is not built ({error}): run `make setup` or `colcon build`, "
            "then `source env.sh`"
        ) from error
