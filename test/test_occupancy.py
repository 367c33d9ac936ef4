"""Occupancy maps of scenes: what stands above the ground, where, in whatever frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixel4d_ros.geometry.rotations import FloatArray, rigid, rotation_matrix
from pixel4d_ros.outputs.occupancy import MapExtent, OccupancyMap, occupancy_map
from pixel4d_ros.scene import DynamicGaussians

# A camera 1.5 m above the base's origin, looking ahead: base x is the scene's z.
T_BASE_SCENE = rigid([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0, 0, 1.5])
EXTENT = MapExtent((20.0, 10.0), 0.5, (0.3, 2.0))


def scene(points: FloatArray, opacity: float = 0.9, scale: float = 0.01) -> DynamicGaussians:
    """Small static Gaussians at points (n, 3) of the base's frame."""
    means = (points - T_BASE_SCENE[:3, 3]) @ T_BASE_SCENE[:3, :3]
    n = len(means)
    zero = torch.zeros(n, 3)
    return DynamicGaussians(
        means=torch.tensor(means, dtype=torch.float32),
        quaternions=torch.tensor([1.0, 0, 0, 0]).expand(n, 4),
        scales=torch.full((n, 3), scale),
        opacities=torch.full((n,), opacity),
        colors=torch.full((n, 3), 0.5),
        velocities=zero,
        accelerations=zero,
        angular_velocities=zero,
        angular_accelerations=zero,
        object_ids=torch.zeros(n, dtype=torch.long),
        centroids=torch.zeros(1, 3),
    )


def cell(made: OccupancyMap, x: float, y: float) -> int:
    """The value at a place of the fixed frame."""
    column, row = np.floor((np.array([x, y]) - made.origin) / made.resolution).astype(int)
    return int(made.cells[row, column])


def test_obstacles_ground_and_the_unseen() -> None:
    ground, post, bridge = [4.2, 1.2, 0.0], [6.2, -2.3, 1.0], [8.2, 0.2, 4.0]
    made = occupancy_map(scene(np.array([ground, post, bridge])), np.eye(4), T_BASE_SCENE, EXTENT)
    assert made.cells.shape == (20, 40) and made.cells.dtype == np.int8
    np.testing.assert_allclose(made.origin, [-10.0, -5.0])
    assert cell(made, 4.2, 1.2) == 0 and cell(made, 6.2, -2.3) == 90 and cell(made, 8.2, 0.2) == -1
    assert (made.cells == -1).sum() == 20 * 40 - 2


def test_gaussians_of_a_cell_add_up_as_in_rendering_and_large_gaussians_reach_far() -> None:
    faint, dense = scene(np.array([[3.2, 0.2, 1.0]]), 0.2), scene(np.array([[3.3, 0.3, 0.5]]), 0.7)
    both = replace(faint, **{n: torch.cat((getattr(faint, n), getattr(dense, n))) for n in PER_GAUSSIAN})
    assert cell(occupancy_map(both, np.eye(4), T_BASE_SCENE, EXTENT), 3.2, 0.2) == 76  # 1 - 0.8 * 0.3
    large = occupancy_map(scene(np.array([[3.2, 0.2, 1.0]]), scale=0.6), np.eye(4), T_BASE_SCENE, EXTENT)
    assert [cell(large, 3.2 + dx, 0.2) for dx in (-1.1, -0.6, 0, 0.6, 1.1)] == [-1, 90, 90, 90, -1]


PER_GAUSSIAN = (
    *("means", "quaternions", "scales", "opacities", "colors", "velocities", "accelerations", "angular_velocities"),
    *("angular_accelerations", "object_ids"),
)


def test_guesses_leave_cells_unknown_and_an_empty_scene_all() -> None:
    guessed = replace(scene(np.array([[3.2, 0.2, 1.0], [5.2, 0.2, 1.0]])), observed=torch.tensor([0.0, 1.0]))
    made = occupancy_map(guessed, np.eye(4), T_BASE_SCENE, EXTENT)
    assert cell(made, 3.2, 0.2) == -1 and cell(made, 5.2, 0.2) == 90
    assert (occupancy_map(scene(np.zeros((0, 3))), np.eye(4), T_BASE_SCENE, EXTENT).cells == -1).all()


def test_objects_without_gaussians_occupy_nothing() -> None:
    """One of sixteen objects is there, and drives 2 m ahead in a second."""
    still = scene(np.array([[3.2, 0.2, 1.0], [5.2, -1.3, 1.0]]))
    ids, ahead = torch.tensor([0, 7]), torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    centroids = torch.full((17, 3), torch.nan)  # nobody may look at those of empty slots
    centroids[0], centroids[7] = 0.0, still.means[1]
    moving = replace(still, object_ids=ids, velocities=ahead, centroids=centroids)
    now, later = (occupancy_map(moving.at(t), np.eye(4), T_BASE_SCENE, EXTENT) for t in (0.0, 1.0))
    assert (now.cells == occupancy_map(still, np.eye(4), T_BASE_SCENE, EXTENT).cells).all()
    assert (cell(later, 3.2, 0.2), cell(later, 7.2, -1.3), cell(later, 5.2, -1.3)) == (90, 90, -1)
    assert (later.cells >= 0).sum() == 2


turns = st.floats(-3, 3)


@settings(max_examples=40, deadline=None)
@given(turns, st.floats(-1e5, 1e5), st.floats(-1e5, 1e5), st.integers(0, 2**31))
def test_everything_lies_where_the_fixed_frame_has_it(yaw: float, x: float, y: float, seed: int) -> None:
    T_fixed_base = rigid(rotation_matrix([0, 0, yaw]), [x, y, 7.0])
    points = np.random.default_rng(seed).uniform([-3, -3, 0.5], [3, 3, 1.8], (20, 3))
    made = occupancy_map(scene(points, scale=1e-6), T_fixed_base, T_BASE_SCENE, EXTENT)
    assert (made.cells >= 0).sum() <= 20
    for px, py, _ in points @ T_fixed_base[:3, :3].T + T_fixed_base[:3, 3]:
        near = [cell(made, px + dx, py + dy) for dx in (-1e-4, 1e-4) for dy in (-1e-4, 1e-4)]
        assert max(near) >= 90
    # Cells lie on multiples of the resolution wherever the base is, which is near the middle.
    assert np.allclose(made.origin / 0.5, np.round(made.origin / 0.5))
    assert np.abs(made.origin + np.array([10 - x, 5 - y])).max() <= 0.25 + 1e-6
