# SPDX-License-Identifier: Apache-2.0
"""Occupancy grids of scenes as a camera sees them: obstacles, free space that rays crossed, the rest unknown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.seen_scene import T_BASE_SCENE, at_mounting, seen_scene

from pixel4d_ros.evaluation.lidar_ground import lidar_points, road_heights, seen_by_camera
from pixel4d_ros.evaluation.occupancy import compare_with_lidar, total
from pixel4d_ros.geometry.rotations import FloatArray, rigid, rotation_matrix
from pixel4d_ros.outputs.ground import estimate_ground
from pixel4d_ros.outputs.occupancy import MapExtent, OccupancyMap, occupancy_map, occupancy_maps

EXTENT = MapExtent((40.0, 20.0), 0.25, (0.3, 2.0), 15.0)
CAR = ((10.0, 1.0, 0.75), (4.0, 1.8, 1.5))  # its rear at x = 8
BRIDGE = ((15.0, 0.0, 5.0), (4.0, 30.0, 1.0))


def cell(made: OccupancyMap, x: float, y: float) -> int:
    """The value at a place of the fixed frame."""
    column, row = np.floor((np.array([x, y]) - made.origin) / made.resolution).astype(int)
    return int(made.cells[row, column])


def occupied(made: OccupancyMap) -> FloatArray:
    """Centres (n, 2) of the occupied cells in the fixed frame."""
    row, column = np.nonzero(made.cells >= 65)
    return (np.stack((column, row), 1) + 0.5) * made.resolution + made.origin


def assert_at_the_car(places: FloatArray) -> None:
    """Places (N, 2) are at CAR or behind its rear, at most 5 m along the rays."""
    low, high = np.array([7.7, -0.3]), np.array([13.4, 3.5])
    assert ((places >= low) & (places <= high)).all()


def test_obstacles_are_occupied_what_rays_crossed_is_free_and_what_they_hide_is_unknown() -> None:
    made = occupancy_map(seen_scene(CAR, BRIDGE), np.eye(4), T_BASE_SCENE, EXTENT)
    assert made.cells.shape == (80, 160) and made.cells.dtype == np.int8
    np.testing.assert_allclose(made.origin, [-5.0, -10.0])
    assert cell(made, 8.1, 1.0) == 100
    assert cell(made, 6.0, 1.0) == 0 and cell(made, 10.0, -2.0) == 0 and cell(made, 15.0, -2.0) == 0  # under the bridge
    assert cell(made, 14.0, 1.3) == -1 and cell(made, -2.0, 0.0) == -1 and cell(made, 3.0, 8.0) == -1
    assert_at_the_car(occupied(made))
    assert (made.cells >= 0).mean() > 0.3


@pytest.mark.parametrize("blur", [1, 2])
def test_flying_pixels_behind_an_outline_occupy_nothing(blur: int) -> None:
    scene = seen_scene(CAR, blur=blur)
    made = occupancy_map(scene, np.eye(4), T_BASE_SCENE, EXTENT)
    heights = estimate_ground(scene, T_BASE_SCENE)
    assert heights is not None
    means = scene.means.double().numpy() @ T_BASE_SCENE[:3, :3].T + T_BASE_SCENE[:3, 3]
    behind = (means[:, 0] > 13) & (means[:, 0] < 24) & (means[:, 2] > 0.3) & (means[:, 2] < 2.0)
    assert behind.sum() > 20  # there are such pixels
    places = occupied(made)
    assert len(places) and (places[:, 0] < 13.5).all() and cell(made, 8.1, 1.0) == 100


@pytest.mark.parametrize(("height", "yaw"), [(1.5, 0.0), (0.6, 0.0), (0.0, 0.4)])
def test_heights_count_from_the_ground_that_the_scene_shows_not_from_the_base(height: float, yaw: float) -> None:
    ground = estimate_ground(seen_scene(CAR), at_mounting(height, yaw))
    assert ground is not None
    np.testing.assert_allclose(ground.T_ground_base[2], [0, 0, 1, 1.5 - height], atol=0.02)
    assert ground.field.abs().max() < 0.05
    expected = occupancy_map(seen_scene(CAR), np.eye(4), T_BASE_SCENE, EXTENT)
    made = occupancy_map(seen_scene(CAR), rigid(rotation_matrix([0, 0, yaw]), [0, 0, 1.5 - height]),
                         at_mounting(height, yaw), replace(EXTENT, ahead=0.0, size=(60.0, 60.0)))  # fmt: skip
    for x, y in ((8.1, 1.0), (6.0, 1.0), (12.5, 1.3)):
        assert cell(made, x, y) == cell(expected, x, y)


def test_the_ground_between_cars_of_a_queue_is_found() -> None:
    """Most of the image shows cars; the road is where nothing lies below."""
    queue = [((8.0 + 8 * k, y, 0.75), (4.5, 1.9, 1.5)) for k in range(4) for y in (-3.2, 0.0, 3.2)]
    ground = estimate_ground(seen_scene(*queue), T_BASE_SCENE)
    assert ground is not None
    np.testing.assert_allclose(ground.T_ground_base[2], [0, 0, 1, 0.0], atol=0.08)


def test_guesses_leave_cells_unknown_and_an_empty_scene_all() -> None:
    guessed = replace(seen_scene(CAR), observed=torch.zeros(len(seen_scene(CAR))))
    for scene in (guessed, guessed.select(torch.zeros(0, dtype=torch.long))):
        assert (occupancy_map(scene, np.eye(4), T_BASE_SCENE, EXTENT).cells == -1).all()


def test_what_moves_is_elsewhere_later_and_leaves_unknown_cells() -> None:
    scene = seen_scene(CAR, ((16.1, -3.0, 1.0), (2.0, 2.0, 2.0)), velocities=((5.0, 0.0, 0.0),))
    now, later = occupancy_maps(scene, [0.0, 1.0], np.eye(4), T_BASE_SCENE, EXTENT)
    assert (cell(now, 8.1, 1.0), cell(later, 8.1, 1.0), cell(later, 13.1, 1.0)) == (100, -1, 100)
    assert cell(now, 15.2, -3.0) == cell(later, 15.2, -3.0) == 100
    assert (now.cells == occupancy_map(scene, np.eye(4), T_BASE_SCENE, EXTENT).cells).all()


def test_objects_without_gaussians_occupy_nothing() -> None:
    scene = seen_scene(CAR, velocities=((2.0, 0.0, 0.0),))
    ids, centroids = scene.object_ids * 7, torch.full((17, 3), torch.nan)  # nobody may look at those of empty slots
    centroids[0], centroids[7] = scene.centroids[0], scene.centroids[1]
    slotted = replace(scene, object_ids=ids, centroids=centroids)
    for t in (0.0, 1.0):
        a, b = (occupancy_maps(s, [t], np.eye(4), T_BASE_SCENE, EXTENT)[0] for s in (scene, slotted))
        assert (a.cells == b.cells).all()


@settings(max_examples=8, deadline=None)
@given(st.floats(-3, 3), st.floats(-1e5, 1e5), st.floats(-1e5, 1e5))
def test_everything_lies_where_the_fixed_frame_has_it(yaw: float, x: float, y: float) -> None:
    T = rigid(rotation_matrix([0, 0, yaw]), [x, y, 7.0])
    made = occupancy_map(seen_scene(CAR), T, T_BASE_SCENE, MapExtent((60.0, 60.0), 0.25, (0.3, 2.0), 20.0))
    places = (occupied(made) - [x, y]) @ T[:2, :2]  # in the base's frame
    assert len(places) > 5
    assert_at_the_car(places)
    # Cells lie on multiples of the resolution wherever the base is; the middle of the map is 20 m ahead of it.
    assert np.allclose(made.origin / 0.25, np.round(made.origin / 0.25))
    center = made.origin + 30.0
    assert np.abs(center - (T @ [20, 0, 0, 1])[:2]).max() <= 0.13


def test_maps_are_compared_with_lidar() -> None:
    made = occupancy_map(seen_scene(CAR), np.eye(4), T_BASE_SCENE, EXTENT)
    random = np.random.default_rng(0)
    road = np.column_stack((random.uniform(4, 7.7, 300), random.uniform(-1, 2, 300), random.normal(0, 0.02, 300)))
    rear = np.column_stack((np.full(50, 8.0), random.uniform(0.2, 1.8, 50), random.uniform(0.4, 1.4, 50)))
    lamp = np.column_stack((np.full(9, 6.0), np.full(9, -0.5), np.linspace(0.4, 1.9, 9)))  # the scene has none
    points = np.concatenate((road, rear, lamp))
    heights = road_heights(points, 0.2)
    np.testing.assert_allclose(heights[300:], points[300:, 2], atol=0.1)
    counts = compare_with_lidar(made, points, heights, np.array([0, 0, 1.5]), EXTENT)
    assert counts.called_occupied[0] == 0 and counts.called_free[0] > 0.95 * counts.free[0] > 0
    assert counts.obstacles[0] == counts.found[0] + 1 and 0.8 < counts.found.sum() / counts.obstacles.sum() < 1
    assert total([counts, counts]).free[0] == 2 * counts.free[0]


def test_cells_behind_a_tall_surface_are_occupied_unless_rays_crossed_them() -> None:
    """Depth is uncertain and things have a thickness, more so far away."""
    wall = ((16.1, 0.0, 1.0), (0.2, 4.0, 2.0))
    made = occupancy_map(seen_scene(wall), np.eye(4), T_BASE_SCENE, EXTENT)
    assert cell(made, 16.1, 0.0) == cell(made, 18.1, 0.0) == 100
    assert cell(made, 24.0, 0.0) == -1
    assert cell(made, 14.0, 0.0) == cell(made, 18.1, 4.0) == 0
    near, low = (
        occupancy_map(seen_scene(((6.1, 0.0, h / 2), (0.2, 4.0, h))), np.eye(4), T_BASE_SCENE, EXTENT) for h in (2, 0.6)
    )
    assert (cell(near, 6.1, 0.0), cell(near, 9.1, 0.0), cell(near, 11.5, 0.0)) == (100, 100, -1)
    assert (cell(low, 6.1, 0.0), cell(low, 7.1, 0.0)) == (100, -1)


def test_what_is_behind_a_moving_surface_moves_with_it() -> None:
    scene = seen_scene(((16.1, 0.0, 1.0), (0.2, 4.0, 2.0)), velocities=((0.0, 4.0, 0.0),))
    now, later = occupancy_maps(scene, [0.0, 1.0], np.eye(4), T_BASE_SCENE, EXTENT)
    assert (cell(now, 18.1, 1.5), cell(later, 18.1, 5.5), cell(later, 18.1, 1.5)) == (100, 100, -1)


def test_the_road_beside_a_ditch_and_a_bank_are_ground_and_a_box_is_not() -> None:
    x, y = (part.ravel() for part in np.mgrid[4:20:0.2, -6:6:0.2])
    ditch, bank = np.clip((y - 3) * 0.5, 0, 0.35) * -1, np.clip((-3 - y) * 0.15, 0, 0.45)
    box = (np.abs(x - 10) < 0.5) & (np.abs(y) < 0.5)
    heights = road_heights(np.column_stack((x, y, ditch + bank + 0.5 * box - 1.6)))
    np.testing.assert_allclose(heights[box], 0.5, atol=0.1)
    assert np.abs(heights[~box]).max() < 0.28


@pytest.mark.parametrize(("camera", "slope"), [(0.7, 0.0), (1.6, 0.5)], ids=["low", "tilted"])
def test_depth_without_a_level_road_below_a_vehicles_camera_is_refused(camera: float, slope: float) -> None:
    """A robot's low camera or one held by hand: heights were above the camera, and the scores wrong without a word."""
    x, y = (part.ravel() for part in np.mgrid[4:20:0.2, -6:6:0.2])
    with pytest.raises(ValueError, match=r"no level road 1\.2 m or more below the camera"):
        road_heights(np.column_stack((x, y, slope * y - camera)))


def test_returns_that_the_camera_cannot_see_do_not_count() -> None:
    """A van at 6 m with a window, its body 0.5 m above the ground; a wall at 15 m; the road."""
    K = np.array([[480.0, 0, 200], [0, 480.0, 60], [0, 0, 1]])
    v, u = np.mgrid[0:200:2, 0:400:4]
    rays = np.stack(((u - 200) / 480, (v - 60) / 480, np.ones(u.shape)), -1)
    z = np.minimum(np.where(rays[..., 1] > 0, 1.65 / np.maximum(rays[..., 1], 1e-6), np.inf), 15.0)
    x, y = rays[..., 0] * 6, rays[..., 1] * 6
    window = (np.abs(x) < 0.4) & (np.abs(y - 0.3) < 0.12)
    body = (np.abs(x) < 0.9) & (y > -0.2) & (y < 1.15) & ~window
    depth = np.zeros((200, 400), np.float32)
    depth[v, u] = np.where(body, 6.0, z)
    heights = 1.65 - lidar_points(depth, K)[:, 1]
    seen = np.zeros(depth.shape, bool)
    seen[depth > 0] = seen_by_camera(depth, heights, K, (0.3, 2.0))
    assert seen[v, u][body].all()  # the van itself
    assert not seen[v, u][window].any()  # the wall through its window
    below = (np.abs(x) < 0.8) & (y > 1.25) & (z > 6.2)
    assert below.any() and not seen[v, u][below].any()  # the road beneath it
    aside = np.abs(x) > 1.0
    assert seen[v, u][aside].all()  # the wall and the road beside it
