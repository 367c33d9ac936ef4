# SPDX-License-Identifier: Apache-2.0
"""Outputs for planners and eyes over DDS: markers, occupancy, uncertainty, depth and jpeg, each only where wanted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from nav_msgs.msg import OccupancyGrid, Odometry
from pixel4d_ros.msg import OccupancyForecast, PredictedObjects
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from support.harness import HEIGHT, WIDTH, Client, calibration, image, running_node, stamp
from visualization_msgs.msg import Marker, MarkerArray

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rotations import rigid, rotation_matrix
from pixel4d_ros.logs.images import decode_depth, decode_image
from pixel4d_ros.outputs.moving_objects import MovingObject
from pixel4d_ros.outputs.ply import SH_C0
from pixel4d_ros.ros.inputs import Source
from pixel4d_ros.ros.messages.conversions import read_pose
from pixel4d_ros.ros.messages.markers import motion_markers
from pixel4d_ros.ros.messages.splats import splat_array_bytes
from pixel4d_ros.ros.odometry import OdometryTrack
from pixel4d_ros.ros.publishing import in_odometry, uncertainty_image
from pixel4d_ros.synthetic import street_clip

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_context")]
OUTPUTS = {
    "motion": MarkerArray,
    "occupancy": OccupancyGrid,
    "uncertainty": Image,
    "forecast/depth": Image,
    "forecast/image/compressed": CompressedImage,
    "forecast/image": Image,
    "forecast/camera_info": CameraInfo,
    "forecast/depth/camera_info": CameraInfo,
    "camera_info": CameraInfo,
    "occupancy/forecast": OccupancyForecast,
    "objects": PredictedObjects,
}


@pytest.fixture(scope="module")
def street():
    return street_clip(seed=2, frames=1, size=(WIDTH, HEIGHT))


FINE = True  # objects are found, and the ground
PARAMETERS = {
    "steps": 4,
    "selected_step": 2,
    "num_samples": 2,
    "diagnostics_period": 0.2,
    "occupancy.steps": "[0, 3]",
    "occupancy.heights": "[0.3, 2.0]",
    "occupancy.size": "[40.0, 20.0]",
}


@pytest.fixture
def listener(node):
    made: list[Client] = []

    def listening_to(*names: str) -> Client:
        client = Client(listen=False)
        made.append(client)
        for name in names:
            client.listen(OUTPUTS[name], f"forecast_node/{name}")
        return client.connect()

    yield listening_to
    for client in made:
        client.destroy_node()


def forecast(client: Client, street, seconds: float, came: Callable[[], object]) -> None:
    """Send odometry and the street until something comes out."""
    client.clear()
    for _ in range(3):
        client.send_odometry(seconds)
        client.settle()
    client.info.publish(calibration(seconds, k=street.K.ravel()))
    client.settle()
    client.send_until(lambda: client.image.publish(image(seconds, street.images[0])), came)


def test_every_output_of_one_street(node, listener, street):
    client = listener(*OUTPUTS)
    forecast(client, street, 10.0, lambda: all(client.got[n] for n in OUTPUTS) and len(client.got["occupancy"]) >= 2)
    shown = decode_image(client.got["forecast/image"][0])
    assert shown.shape == (HEIGHT, WIDTH, 3)

    jpeg = client.got["forecast/image/compressed"][0]
    assert jpeg.header.stamp == stamp(10.0) and jpeg.format == "rgb8; jpeg compressed bgr8"
    assert np.abs(decode_image(jpeg).astype(int) - shown).mean() < 5 and len(jpeg.data) < shown.size / 3

    depth = client.got["forecast/depth"][0]
    assert depth.encoding == "32FC1" and depth.header.frame_id == "camera"
    metres = decode_depth(depth)
    assert metres.shape == (HEIGHT, WIDTH) and 1 < np.median(metres[HEIGHT // 2 :]) < np.median(metres[: HEIGHT // 2])

    uncertainty = client.got["uncertainty"][0]
    assert (uncertainty.encoding, uncertainty.width, uncertainty.height) == ("mono8", WIDTH, HEIGHT)

    markers = client.got["motion"][0].markers
    assert markers[0].action == Marker.DELETEALL and {m.ns for m in markers[1:]} <= {
        *("camera_path", "boxes", "velocities", "paths")
    }
    assert all(m.header.frame_id == "camera" and m.header.stamp == stamp(10.0) for m in markers)
    way = next(m for m in markers if m.ns == "camera_path").points
    assert [p.z for p in way] == pytest.approx([0, 0.5, 1.0, 1.5], abs=1e-6)  # odometry says 5 m/s
    boxes = [m for m in markers if m.ns == "boxes"]
    assert boxes and all(m.scale.x > 0 and m.scale.y > 0 and m.scale.z > 0 for m in boxes)

    now, later = client.got["occupancy"][:2]
    for grid, t in ((now, 10.0), (later, 10.3)):
        assert grid.header.frame_id == "odom" and grid.header.stamp == stamp(10.0)
        assert grid.info.map_load_time == stamp(t)
        assert (grid.info.width, grid.info.height, round(grid.info.resolution, 6)) == (160, 80, 0.25)
        # base_link is at x = 50 m, the grid's middle 25 m ahead.
        assert (grid.info.origin.position.x, grid.info.origin.position.y) == pytest.approx((55.0, -10.0), abs=0.13)
        cells = np.array(grid.data).reshape(80, 160)
        assert cells.min() == -1 and cells.max() == 100 and (cells == 0).mean() > 0.02

    every = client.got["occupancy/forecast"][0]
    assert every.header == now.header and [round(1e-8 * t.nanosec) for t in every.time_from_start] == [0, 1, 2, 3]
    assert every.grids[0] == now and every.grids[3] == later

    for topic in ("forecast/camera_info", "forecast/depth/camera_info", "camera_info"):
        info = client.got[topic][0]
        assert info.header == depth.header and (info.width, info.height) == (WIDTH, HEIGHT)
        assert np.allclose(np.reshape(info.k, (3, 3)), street.K)

    objects = client.got["objects"][0]
    assert objects.header.frame_id == "odom" and len({o.id for o in objects.objects}) == len(objects.objects)
    assert all(len(o.paths) == 6 and len(o.paths[0].poses) == 4 and o.size.x > 0 for o in objects.objects)


def test_a_grid_without_odometry_degrades_and_says_why(node, listener, street):
    client = listener("occupancy", "motion")
    client.info.publish(calibration(500.0, k=street.K.ravel()))
    client.send_until(lambda: client.image.publish(image(500.0, street.images[0])), lambda: client.got["motion"])
    status = client.status_with("occupancy: the grid is in odometry's frame")
    grids = [m for m in client.got["occupancy"] if m.header.stamp.sec >= stamp(500.0).sec]  # of no earlier test
    assert status.level == b"\x01" and not grids
    forecast(client, street, 501.0, lambda: client.got["occupancy"])
    client.until(lambda: "occupancy" not in client.status().message)


@pytest.mark.parametrize("name", OUTPUTS)
def test_each_output_comes_alone(node, listener, street, name):
    client = listener(name)
    forecast(client, street, 600.0, lambda: client.got[name])
    assert {k for k, v in client.got.items() if v} <= {name, "/diagnostics"}


def test_markers_of_one_object():
    T = rigid(rotation_matrix([0.1, 0.2, 0.3]), [1, 2, 10])
    way = np.array([[1, 2, 10.0], [1, 2, 11.0]])
    car = MovingObject(7, T, np.array([4.0, 1.8, 1.5]), np.array([0, 0, 6.0]), way)
    header = Header(frame_id="camera", stamp=stamp(1.0))
    clear, camera, box, arrow, line = motion_markers([car], np.eye(4)[None], header).markers
    assert clear.action == Marker.DELETEALL and len(camera.points) == 2  # RViz refuses a line of one point
    assert {m.id for m in (box, arrow, line)} == {7} and box.type == Marker.CUBE and arrow.type == Marker.ARROW
    assert np.allclose(read_pose(box.pose), T) and (box.scale.x, box.scale.y, box.scale.z) == (4.0, 1.8, 1.5)
    assert [(p.x, p.y, p.z) for p in arrow.points] == [(1, 2, 10), (1, 2, 16)]
    assert [(p.x, p.y, p.z) for p in line.points] == [tuple(p) for p in way]
    assert all(m.header == header and m.color.a > 0 for m in (camera, box, arrow, line))


SPLAT_ARRAY = "gsplat_msgs/msg/SplatArray"
SPLAT_DEFINITION = f"""
gsplat_msgs/Splat[] splats
{"=" * 80}
MSG: gsplat_msgs/Splat
geometry_msgs/PoseWithCovarianceStamped pose
uint8 opacity
uint8 harmonics_deg
float32[] spherical_harmonics
"""


@pytest.mark.parametrize("frame", ["", "odom", "camera", "a_longer_name"])  # strings move what comes after them
def test_splats_are_what_rvizsplat_reads(frame):
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    from support.scenes import scene_of

    scene = scene_of(5)
    made = splat_array_bytes(scene, Header(frame_id=frame, stamp=stamp(1.5)))
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg(SPLAT_DEFINITION, SPLAT_ARRAY))
    splats = store.deserialize_cdr(made, SPLAT_ARRAY).splats
    assert len(splats) == 5 and all(s.harmonics_deg == 0 and len(s.spherical_harmonics) == 3 for s in splats)
    one = splats[3]
    sent = (one.pose.header.frame_id, one.pose.header.stamp.sec, one.pose.header.stamp.nanosec)
    assert sent == (frame, stamp(1.5).sec, stamp(1.5).nanosec)
    assert one.opacity == round(255 * float(scene.opacities[3]))
    T = read_pose(one.pose.pose.pose)
    assert np.allclose(T[:3, 3], scene.means[3])
    covariance = np.reshape(one.pose.pose.covariance, (6, 6))[:3, :3]
    assert np.allclose(covariance, T[:3, :3] @ np.diag(scene.scales[3].numpy() ** 2) @ T[:3, :3].T, atol=1e-6)
    assert np.allclose(np.array(one.spherical_harmonics) * SH_C0 + 0.5, scene.colors[3], atol=1e-6)


def test_splats_are_as_long_as_ros_makes_them():
    messages = pytest.importorskip("gsplat_msgs.msg", reason="needs RVizSplat's messages, which are not on PyPI")
    from rclpy.serialization import deserialize_message, serialize_message
    from support.scenes import scene_of

    scene = scene_of(3)
    made = splat_array_bytes(scene, Header(frame_id="odom", stamp=stamp(1.5)))
    read = deserialize_message(made, messages.SplatArray)
    assert len(serialize_message(read)) == len(made)  # what pads it is not defined
    last = read.splats[2]
    assert last.pose.header == Header(frame_id="odom", stamp=stamp(1.5)) and last.opacity == 255
    assert np.allclose(read_pose(last.pose.pose.pose)[:3, 3], scene.means[2])
    assert np.allclose(np.array(last.spherical_harmonics) * SH_C0 + 0.5, scene.colors[2], atol=1e-6)


def test_splats_lie_in_odometrys_frame():
    """RVizSplat takes them for the fixed frame's, whatever the header says."""
    from support.drive import ego_state
    from support.scenes import scene_of

    scene, odometry = scene_of(5), OdometryTrack()
    source = Source(np.zeros((2, 2, 3), np.uint8), Camera(np.eye(3), 2, 2), Header(frame_id="camera", stamp=stamp(1.0)))
    ego = ego_state(odometry=odometry)
    unmoved, header = in_odometry(scene, ego, source)
    assert header.frame_id == "camera" and unmoved is scene
    message = Odometry(header=Header(frame_id="odom", stamp=stamp(1.0)), child_frame_id="base_link")
    message.pose.pose.position.x = 7.0
    odometry.add(message)
    moved, header = in_odometry(scene, ego, source)
    assert header == Header(frame_id="odom", stamp=stamp(1.0))
    expected = rigid(np.eye(3), [7, 0, 0]) @ ego.mounting
    assert np.allclose(moved.means, scene.means.numpy() @ expected[:3, :3].T + expected[:3, 3], atol=1e-5)


def test_splats_come_over_dds_to_a_late_viewer(tmp_path, street):
    messages = pytest.importorskip("gsplat_msgs.msg", reason="needs RVizSplat's messages, which are not on PyPI")
    with running_node(tmp_path / "log.txt", "-r", "__ns:=/splat", steps=1, max_splats=100):
        client = Client(listen=False, namespace="splat")
        late = Client(listen=False, namespace="splat")
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        try:
            client.listen(messages.SplatArray, "forecast_node/splats")
            client.connect()
            forecast(client, street, 1.0, lambda: client.got["splats"])
            assert len(client.got["splats"][0].splats) == 100
            late.create_subscription(messages.SplatArray, "forecast_node/splats", late.got["splats"].append, latched)
            late.until(lambda: late.got["splats"])
        finally:
            client.destroy_node()
            late.destroy_node()


def test_uncertainty_is_twice_the_standard_deviation():
    same = np.full((3, 2, 2, 3), 80, np.uint8)
    assert not uncertainty_image(same).any() and not uncertainty_image(same[:1]).any()
    extremes = np.stack([np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)])
    assert (uncertainty_image(extremes) == 255).all()
