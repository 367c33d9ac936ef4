# SPDX-License-Identifier: Apache-2.0
"""Objects through time in the node: their ids last from image to image, and their velocities become steadier."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from nav_msgs.msg import Odometry
from std_msgs.msg import Header
from support.drive import stamp

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rotations import rigid, rigid_from_xyzw
from pixel4d_ros.outputs.clearance import Footprint
from pixel4d_ros.outputs.tracked_scene import track_ids
from pixel4d_ros.ros.inputs import Inputs, Source
from pixel4d_ros.ros.messages.conversions import pose_message
from pixel4d_ros.ros.messages.pointcloud import pointcloud_message
from pixel4d_ros.ros.object_tracks import ObjectTracks
from pixel4d_ros.ros.odometry import OdometryTrack
from pixel4d_ros.ros.parameters import Parameters
from pixel4d_ros.ros.services import path_distances
from pixel4d_ros.ros.transforms import EgoState, NullTransforms
from pixel4d_ros.scene import DynamicGaussians

pytestmark = pytest.mark.ros
AHEAD = rigid_from_xyzw((-0.5, 0.5, -0.5, 0.5), (0.0, 0.0, 1.2))
EGO_SPEED, SPEED = 5.0, 9.0  # m/s, of the camera and of the car ahead


def source(seconds: float) -> Source:
    camera = Camera(np.array([[100.0, 0, 63.5], [0, 100.0, 31.5], [0, 0, 1]]), 128, 64)
    return Source(np.zeros((64, 128, 3), np.uint8), camera, Header(stamp=stamp(seconds), frame_id="camera"))


def ego(seconds: float, odometry: bool = True) -> EgoState:
    track = OdometryTrack()
    for s in (seconds - 0.1, seconds) if odometry else ():
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id, message.header.stamp = "odom", stamp(s)
        message.pose.pose = pose_message(rigid(np.eye(3), [EGO_SPEED * s, 0, 0]))
        message.twist.twist.linear.x = EGO_SPEED
        track.add(message)
    return EgoState(track, NullTransforms(), AHEAD)


def car(seconds: float, measured_speed: float) -> DynamicGaussians:
    """A red car that drives ahead of the camera, among nothing else; object 1 of its scene."""
    n, rng = 60, np.random.default_rng(4)
    distance = 12.0 + (SPEED - EGO_SPEED) * seconds
    means = torch.tensor(rng.uniform((-0.9, 0.0, distance - 2), (0.9, 1.2, distance + 2), (n, 3)), dtype=torch.float32)
    velocity = torch.tensor([0.0, 0.0, measured_speed])
    zero = torch.zeros(n, 3)
    return DynamicGaussians(
        means, torch.tensor([1.0, 0, 0, 0]).expand(n, 4), torch.full((n, 3), 0.1), torch.full((n,), 0.9),
        torch.tensor([0.8, 0.1, 0.1]).expand(n, 3), velocity.expand(n, 3), zero, zero, zero,
        torch.ones(n, dtype=torch.int64), torch.stack((torch.zeros(3), means.mean(0))),
    )  # fmt: skip


def drive_behind(tracks: ObjectTracks, inputs: Inputs, first: float = 0.0) -> tuple[list[dict[int, int]], list[float]]:
    """Ten images; the ids, and the speeds, which one image measures with an error of 3 m/s."""
    ids, speeds, rng = [], [], np.random.default_rng(7)
    for k in range(10):
        seconds = first + 0.1 * k
        tracked = tracks.update(car(seconds, SPEED + rng.normal(0, 3)), source(seconds), ego(seconds), inputs)
        ids.append(track_ids(tracked.objects))
        speeds.append(float(tracked.scene.velocities[0, 2]))
    return ids, speeds


def test_a_car_keeps_its_id_and_its_speed_becomes_steady():
    ids, speeds = drive_behind(ObjectTracks(), Inputs())
    assert ids == [{1: 1}] * 10
    assert np.abs(np.array(speeds[5:]) - SPEED).max() < 2.0


def test_when_time_jumps_back_objects_are_new_ones():
    tracks = ObjectTracks()
    drive_behind(tracks, Inputs())
    ids, _ = drive_behind(tracks, Inputs(), first=-5.0)
    assert ids == [{1: 2}] * 10


def test_without_odometry_scenes_stay_as_they_are():
    scene = car(0.0, SPEED)
    tracked = ObjectTracks().update(scene, source(0.0), ego(0.0, odometry=False), Inputs())
    assert tracked.scene is scene and not tracked.objects


def test_the_cloud_holds_the_track_ids():
    message = pointcloud_message(car(0.0, SPEED), source(0.0).header, {1: 42})
    points = np.frombuffer(bytes(message.data), np.uint8).reshape(-1, message.point_step)
    (at,) = (field.offset for field in message.fields if field.name == "object_id")
    assert set(points[:, at : at + 4].copy().view("<u4").ravel().tolist()) == {42}


def test_distances_along_paths_carry_the_ids_of_the_objects_topic():
    tracks, inputs = ObjectTracks(), Inputs()
    tracks.update(car(0.0, SPEED), source(0.0), ego(0.0), inputs)
    tracks.update(car(-0.5, SPEED), source(-0.5), ego(-0.5), Inputs())  # time jumps back: the next id
    tracked = tracks.update(car(-0.4, SPEED), source(-0.4), ego(-0.4), Inputs())
    ids = {o.id for o in tracked.objects}
    p = Parameters(steps=4)
    poses = np.stack([np.tile(np.eye(4), (4, 1, 1))] * 2)
    distances = path_distances(tracked, poses, AHEAD, Footprint(radius=0.5), p)
    for k in range(2):
        fields = distances.fields(k)
        assert {thing.object_id for thing in fields["closest_moving"]} == ids == set(fields["closest_object"]) == {3}
        assert all(6 < thing.distance < 13 and thing.observed for thing in fields["closest_moving"])
        assert np.isinf(fields["static_contact"]) and np.isinf(fields["moving_contact"])
