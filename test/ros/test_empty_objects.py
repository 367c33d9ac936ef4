# SPDX-License-Identifier: Apache-2.0
"""Scenes that name more objects than they hold: messages are about those that have Gaussians."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from std_msgs.msg import Header

from pixel4d_ros.outputs.moving_objects import moving_objects
from pixel4d_ros.ros.messages.markers import motion_markers
from pixel4d_ros.ros.messages.pointcloud import FIELD_NAMES, cloud_array, pointcloud_message, subsample
from pixel4d_ros.scene import DynamicGaussians

pytestmark = pytest.mark.ros
HEADER = Header(frame_id="camera")
COUNT = 60
NUMBERS = torch.tensor([0, 3, 11])  # of the background and of two cars, among sixteen


def scene() -> DynamicGaussians:
    """A background and two cars that drive; the centroids of all other objects are not numbers."""
    g = torch.Generator().manual_seed(1)
    kinds = torch.arange(COUNT) % 3
    means = torch.randn(COUNT, 3, generator=g) + torch.tensor([[0.0, 0, 9], [5, 0, 9], [-5, 0, 9]])[kinds]
    centroids = torch.full((17, 3), torch.nan)
    centroids[NUMBERS] = torch.stack([means[kinds == k].mean(0) for k in range(3)])
    zero = torch.zeros(COUNT, 3)
    return DynamicGaussians(
        means=means,
        quaternions=torch.tensor([1.0, 0, 0, 0]).expand(COUNT, 4),
        scales=torch.full((COUNT, 3), 0.1),
        opacities=torch.ones(COUNT),
        colors=torch.rand(COUNT, 3, generator=g),
        velocities=torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, 3]])[kinds],
        accelerations=zero,
        angular_velocities=zero,
        angular_accelerations=zero,
        object_ids=NUMBERS[kinds],
        centroids=centroids,
    )


def test_markers_are_of_the_objects_that_are_there() -> None:
    objects = moving_objects(scene(), np.array([0.0, -1.0, 0.0]), np.array([0.0, 1.0]))
    markers = motion_markers(objects, np.tile(np.eye(4), (2, 1, 1)), HEADER).markers
    for namespace in ("boxes", "velocities", "paths"):
        assert [m.id for m in markers if m.ns == namespace] == [3, 11]
    points = [p for m in markers for p in (m.pose.position, *m.points)]
    assert np.isfinite([(p.x, p.y, p.z) for p in points]).all()


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_clouds_hold_the_gaussians_and_nothing_else(seconds: float) -> None:
    full = scene()
    later = subsample(full, 0.05, 1000).at(seconds)
    message = pointcloud_message(later, HEADER)
    points = np.frombuffer(message.data, np.float32).reshape(message.width, -1)
    assert message.width == COUNT and np.isfinite(points[:, :3]).all()
    np.testing.assert_allclose(points[:, :3], (full.means + seconds * full.velocities).numpy(), atol=1e-5)
    ids = points[:, FIELD_NAMES.index("object_id")].view(np.uint32)
    assert (ids == full.object_ids.numpy()).all()


def test_a_scene_of_empty_objects_only_makes_an_empty_cloud_and_no_boxes() -> None:
    nothing = replace(scene().select(torch.zeros(0, dtype=torch.long)), futures=())
    assert cloud_array(nothing.at(1.0)).shape == (0, len(FIELD_NAMES))
    assert moving_objects(nothing, np.array([0.0, -1.0, 0.0]), np.array([0.0])) == []
