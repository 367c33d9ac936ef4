# SPDX-License-Identifier: Apache-2.0
"""Distances from a footprint to anything along candidate paths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.seen_scene import T_BASE_SCENE, seen_scene

from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse, rotation_matrix
from pixel4d_ros.outputs.clearance import (
    Clearance,
    Footprint,
    clearance,
    find_scene_obstacles,
    footprint_of_corners,
    parse_footprint,
)
from pixel4d_ros.scene import DynamicGaussians

VEHICLE = Footprint(np.array([[2.0, 0.9], [2.0, -0.9], [-1.0, -0.9], [-1.0, 0.9]]))
TIMES = np.linspace(0, 1.5, 16)
TRUCK = ((14.0, 3.0, 1.5), (6.0, 2.2, 3.0))  # its rear at x = 11, its right side at y = 1.9
HEIGHTS = (0.3, 2.5)


def straight(speed: float, left: float = 0.0) -> FloatArray:
    """Poses (T, 4, 4) in the scene's frame of a base that drives ahead from `left` metres beside its place."""
    poses = np.tile(np.eye(4), (len(TIMES), 1, 1))
    poses[:, 0, 3], poses[:, 1, 3] = speed * TIMES, left
    return rigid_inverse(T_BASE_SCENE) @ poses


def measured(scene: DynamicGaussians, *paths: FloatArray, footprint: Footprint = VEHICLE) -> Clearance:
    return clearance(find_scene_obstacles(scene, T_BASE_SCENE, HEIGHTS), np.stack(paths), TIMES, footprint)


def test_a_path_three_metres_to_the_left_runs_through_a_standing_truck() -> None:
    found = measured(seen_scene(TRUCK), straight(10.0), straight(10.0, left=3.0))
    assert found.static.distances.shape == (2, 16)
    # Ahead: past its right side, 1.9 m to the left of the middle. To the left: into its rear, 9 m ahead of the bumper.
    assert found.static.distances[0].min() == pytest.approx(1.0, abs=0.1) and np.isinf(found.static.contact[0])
    assert found.static.distances[1, 0] == pytest.approx(9.0, abs=0.15)
    assert found.static.contact[1] == pytest.approx(0.9, abs=0.05)
    assert found.static.observed[1].all() and not found.static.object_ids.any()
    np.testing.assert_allclose((T_BASE_SCENE @ [*found.static.points[1, 0], 1])[0], 11.0, atol=0.15)
    assert np.isinf(found.moving.distances).all() and np.isnan(found.moving.points).all()


def test_what_moves_is_where_it_will_be_and_is_named() -> None:
    scene = seen_scene(((12.0, 0.0, 0.75), (4.0, 1.8, 1.5)), velocities=((-5.0, 0.0, 0.0),))
    found = measured(scene, straight(5.0), straight(0.0, left=4.0)).moving
    np.testing.assert_allclose(found.distances[0, :6], 8.0 - 10.0 * TIMES[:6], atol=0.1)
    assert found.contact[0] == pytest.approx(0.8, abs=0.05) and np.isinf(found.contact[1])
    assert (found.object_ids == 1).all() and found.observed.all()
    np.testing.assert_allclose((T_BASE_SCENE @ [*found.points[1, 10], 1])[0], 10.0 - 5.0, atol=0.2)


def test_the_road_a_bridge_and_flying_pixels_are_no_obstacles() -> None:
    bridge = ((15.0, 0.0, 5.0), (4.0, 30.0, 1.0))
    scene = seen_scene(((12.0, 4.0, 0.75), (4.0, 1.8, 1.5)), bridge, blur=2)
    # The path leads past the car's outline, from which flying pixels reach far behind it.
    found = measured(scene, straight(15.0))
    assert 1.5 < found.static.distances.min() < 2.4  # to the car's right side, 3.1 m to the left
    assert np.isinf(found.static.contact).all()


def test_a_guess_is_said_to_be_one() -> None:
    scene = seen_scene(TRUCK)
    heights = scene.means @ torch.tensor(T_BASE_SCENE[2, :3], dtype=torch.float32) + 1.5
    guessed = replace(scene, observed=(heights < 0.2).float())
    found = measured(guessed, straight(10.0, left=3.0))
    assert np.isfinite(found.static.contact).all() and not found.static.observed.any()


def test_the_vehicles_own_hood_does_not_count() -> None:
    hood = ((1.2, 0.0, 0.9), (0.6, 1.6, 0.2))
    found = measured(seen_scene(hood, TRUCK), straight(10.0))
    assert np.isinf(found.static.contact).all()


def test_nothing_is_close_in_an_empty_scene() -> None:
    scene = seen_scene(TRUCK)
    found = measured(scene.select(torch.zeros(0, dtype=torch.long)), straight(1.0))
    assert np.isinf(found.static.distances).all() and np.isinf(found.static.contact).all()


points = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(points, st.integers(3, 8), st.floats(0, 6))
def test_distances_from_a_polygon_are_those_of_opencv(places: list[tuple[float, float]], n: int, turn: float) -> None:
    import cv2

    angles = turn + np.arange(n) * 2 * np.pi / n
    radii = np.where(np.arange(n) % 2, 1.0, 2.5)  # stars too
    corners = np.stack((radii * np.cos(angles), radii * np.sin(angles)), 1)
    outline = corners.astype(np.float32)[:, None]
    expected = [max(0.0, -cv2.pointPolygonTest(outline, p, True)) for p in places]
    made = Footprint(corners).distances(torch.tensor(places, dtype=torch.float64))
    np.testing.assert_allclose(made, expected, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.floats(-3, 3), st.floats(0, 3))
def test_a_circle_is_the_same_from_all_sides(yaw: float, radius: float) -> None:
    circle = Footprint(radius=radius)
    place = rotation_matrix([0, 0, yaw]) @ [5.0, 0, 0]
    assert float(circle.distances(torch.tensor(place[:2]))) == pytest.approx(5 - radius)
    scene = seen_scene(TRUCK)
    at_rest = measured(scene, straight(3.0), footprint=circle).static.distances
    point = measured(scene, straight(3.0), footprint=Footprint()).static.distances
    np.testing.assert_allclose(at_rest, np.maximum(point - radius, 0), atol=1e-4)


def test_footprints_are_read_as_nav2_writes_them() -> None:
    made = parse_footprint("[[0.5, 0.3], [0.5, -0.3], [-0.5, -0.3], [-0.5, 0.3]]", 1.0)
    assert made.corners is not None and made.corners.tolist()[1] == [0.5, -0.3]
    with pytest.raises(ValueError, match="the footprint reaches 500 m far: corners must be in metres"):
        parse_footprint("[[500, 300], [500, -300], [-500, -300]]", 0.0)
    with pytest.raises(ValueError, match="crosses itself: give its corners in order around the vehicle"):
        parse_footprint("[[2, 1], [-1, -1], [2, -1], [-1, 1]]", 0.0)
    with pytest.raises(ValueError, match="at least three corners of x and y"):  # not as x, y of six corners
        parse_footprint("[[2, 1, 0], [-1, 1, 0], [-1, -1, 0], [2, -1, 0]]", 0.0)
    concave = [(2, 1), (0, 0.2), (-1, 1), (-1, -1), (2, -1)]
    assert Footprint(np.array(concave)).corners is not None
    assert parse_footprint("[]", 0.4) == parse_footprint("", 0.4) == Footprint(radius=0.4)
    assert footprint_of_corners([], 0.0, made) is made and footprint_of_corners([], 2.0, made) == Footprint(radius=2.0)
    for bad in ("banana", "[[1, 2], [3, 4]]", "[[1, 2], [3, 4], [5]]"):
        with pytest.raises(ValueError, match="footprint"):
            parse_footprint(bad, 0.0)
    with pytest.raises(ValueError, match="NaN"):
        footprint_of_corners([(0, 0), (1, 0), (np.nan, 1)], 0.0, made)
    with pytest.raises(ValueError, match="radius"):
        Footprint(radius=-1.0)


def test_a_radius_in_millimetres_is_refused() -> None:
    """All that is inside the footprint at the image's time counts as the vehicle: nothing would ever be touched."""
    with pytest.raises(ValueError, match="radius must be 0 to 100 metres, got 300"):
        footprint_of_corners([], 300.0, Footprint())


@pytest.mark.parametrize("corners", [[(0, 0)] * 4, [(0, 0), (1, 0), (2, 0)], [(-1, -1), (2, 2), (1, 1), (0, 0)]])
def test_a_footprint_without_an_area_is_refused(corners: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=r"the footprint has no area: .* are x and y filled\?"):
        footprint_of_corners(corners, 0.0, Footprint())
