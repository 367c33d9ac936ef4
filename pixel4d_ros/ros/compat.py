# SPDX-License-Identifier: Apache-2.0
"""What only some installations have: a helper of ROS distributions, and the package's own built messages.

sensor_msgs_py is not on PyPI; where it is absent, the one function needed of it is defined here.
"""

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
        """An unordered cloud of a structured array (N,) whose fields are 4 bytes each, as `fields` says."""
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
        # frombytes, as assigning takes hundreds of times longer.
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
