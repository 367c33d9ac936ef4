# SPDX-License-Identifier: Apache-2.0
"""What Nav2 makes of ~/occupancy: the rules of costmap_2d's static layer on the message that the node sends."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from nav_msgs.msg import OccupancyGrid
from numpy.typing import NDArray
from std_msgs.msg import Header
from support.seen_scene import T_BASE_SCENE, seen_scene

from pixel4d_ros.outputs.occupancy import MapExtent, occupancy_map
from pixel4d_ros.ros.messages.conversions import grid_message

pytestmark = pytest.mark.ros
NO_INFORMATION, LETHAL, FREE = 255, 254, 0


def static_layer(grid: OccupancyGrid, trinary: bool = True, lethal_threshold: int = 100) -> NDArray[np.uint8]:
    """Costs (rows, columns) as nav2_costmap_2d's StaticLayer::interpretValue makes them with its default parameters.

    track_unknown_space true, unknown_cost_value -1 (255 as a byte), lethal_cost_threshold 100, trinary_costmap true.
    """
    values = np.array(grid.data, np.int8).astype(np.uint8).reshape(grid.info.height, grid.info.width)
    scaled = values / lethal_threshold * LETHAL
    costs = np.where(values >= lethal_threshold, LETHAL, FREE if trinary else scaled)
    return np.where(values == 255, NO_INFORMATION, costs).astype(np.uint8)


@pytest.mark.parametrize("trinary", [True, False])
def test_obstacles_are_lethal_free_space_is_free_and_the_rest_has_no_information(trinary: bool) -> None:
    extent = MapExtent((40.0, 20.0), 0.25, (0.3, 2.0), 15.0)
    made = occupancy_map(seen_scene(((10.0, 1.0, 0.75), (4.0, 1.8, 1.5))), np.eye(4), T_BASE_SCENE, extent)
    grid = grid_message(made, 0, Header(frame_id="odom"))
    # The static layer ignores the origin's rotation and refuses an empty frame.
    assert (grid.info.origin.orientation.w, grid.header.frame_id) == (1.0, "odom")
    costs = static_layer(grid, trinary)

    def cost(x: float, y: float) -> int:
        column, row = ((np.array([x, y]) - made.origin) / made.resolution).astype(int)
        return int(costs[row, column])

    # Hidden cells are occupied up to MAX_THICKNESS behind the car's rear at 8 m; beyond them nothing is known.
    assert (cost(8.1, 1.0), cost(6.0, 1.0), cost(14.5, 1.3)) == (LETHAL, FREE, NO_INFORMATION)
    assert (costs == LETHAL).sum() >= 6  # the car's rear is 1.8 m wide
