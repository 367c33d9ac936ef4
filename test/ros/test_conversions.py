# SPDX-License-Identifier: Apache-2.0
"""Messages <-> arrays: every image encoding, calibration, poses and point clouds, and what is wrong with bad ones."""

from __future__ import annotations

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from support.scenes import scene_of

pytest.importorskip("rclpy")

from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointField, RegionOfInterest
from std_msgs.msg import Header

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.camera_info import read_camera_info
from pixel4d_ros.geometry.rotations import rigid, rigid_from_xyzw, rotation_matrix
from pixel4d_ros.logs.images import decode_image
from pixel4d_ros.outputs.ply import SH_C0
from pixel4d_ros.ros.compat import euler_from_quaternion
from pixel4d_ros.ros.messages import conversions as c
from pixel4d_ros.ros.messages.headers import duration_message, nanoseconds
from pixel4d_ros.ros.messages.pointcloud import COMPACT, FIELD_NAMES, cloud_array, pointcloud_message, subsample

pytestmark = pytest.mark.ros
RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (6, 8, 3), np.uint8)


def message_of(pixels: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False) -> Image:
    """An Image of pixels (H, W) or (H, W, C), each row followed by padding bytes."""
    stored = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<"))
    rows = stored.reshape(len(stored), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=171)
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding=encoding, step=rows.shape[1], is_bigendian=int(big_endian))
    c.fill(message, rows)
    return message


def alpha(pixels: np.ndarray) -> np.ndarray:
    return np.dstack([pixels, np.full(pixels.shape[:2], 7, np.uint8)])


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("8UC3", RGB[..., ::-1]),
        ("rgba8", alpha(RGB)),
        ("bgra8", alpha(RGB[..., ::-1])),
        ("8UC4", alpha(RGB[..., ::-1])),
    ],
)
def test_colour_encodings_give_the_same_rgb_with_and_without_row_padding(encoding, pixels, padding):
    assert np.array_equal(decode_image(message_of(pixels, encoding, padding)), RGB)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_becomes_three_equal_channels(encoding):
    grey = RGB[..., 0]
    assert np.array_equal(decode_image(message_of(grey, encoding, 3)), np.dstack([grey] * 3))


@pytest.mark.parametrize("big_endian", [False, True])
def test_16_bit_and_float_images_in_either_byte_order(big_endian):
    wide = RGB.astype(np.uint16) * 257
    assert np.array_equal(decode_image(message_of(wide, "rgb16", 2, big_endian)), RGB)
    assert np.array_equal(decode_image(message_of(wide[..., 0], "mono16", 0, big_endian))[..., 1], RGB[..., 0])
    floats = (RGB[..., ::-1] / 255).astype(np.float32)
    assert np.array_equal(decode_image(message_of(floats, "32FC3", 4, big_endian)), RGB)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_show_the_colour_that_was_filtered(pattern):
    red = np.zeros((16, 16), np.uint8)
    row, column = divmod(pattern.index("r"), 2)
    red[row::2, column::2] = 200
    rgb = decode_image(message_of(red, f"bayer_{pattern}8"))
    assert (rgb[4:-4, 4:-4, 0] == 200).all() and (rgb[4:-4, 4:-4, 1:] == 0).all()


@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")]
)
def test_yuv422_in_both_orders(encoding, order):
    colour = np.array([200, 80, 40])
    # ITU-R BT.601, video range: what cameras send.
    matrix = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
    y, u, v = np.array([16, 128, 128]) + matrix @ colour / 255
    packed = {"uyvy": [u, y, v, y], "yuyv": [y, u, y, v]}[order]
    pixels = np.tile(np.uint8(np.round(packed)), (4, 4)).reshape(4, 8, 2)
    assert np.abs(decode_image(message_of(pixels, encoding)).astype(int) - colour).max() <= 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "rainbow9"}, "'rainbow9' is not supported"),
        ({"encoding": "16UC1"}, "'16UC1' is not supported"),
        ({"height": 7}, "holds 144 bytes, but height 7 x step 24 needs 168"),
        ({"step": 12}, "step 12 is too small"),
        ({"width": 0}, "0x6 pixels"),
    ],
)
def test_bad_images_are_refused_with_the_reason(change, words):
    message = message_of(RGB, "rgb8")
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ValueError, match=words):
        decode_image(message)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "NaN or Inf"), (np.inf, "NaN or Inf"), (12.5, "depth image")])
def test_float_images_must_be_colours(value, words):
    pixels = np.full((6, 8), 0.5, np.float32)
    pixels[2, 3] = value
    with pytest.raises(ValueError, match=words):
        decode_image(message_of(pixels, "32FC1"))


def test_compressed_images():
    smooth = np.dstack([np.full((16, 16), v, np.uint8) for v in (220, 120, 20)])
    for extension in (".png", ".jpg"):
        message = CompressedImage(format="rgb8; compressed bgr8")
        c.fill(message, cv2.imencode(extension, smooth[..., ::-1])[1])
        assert np.abs(decode_image(message).astype(int) - smooth).max() <= 3


@pytest.mark.parametrize("data", [b"", b"no image at all", "truncated"])
def test_undecodable_compressed_images_are_refused(data):
    if data == "truncated":
        data = cv2.imencode(".jpg", RGB)[1].tobytes()[:30]
    message = CompressedImage(format="jpeg")
    message.data.frombytes(data)
    with pytest.raises(ValueError, match="cannot be decoded"):
        decode_image(message)


def calibration(**changes) -> CameraInfo:
    info = CameraInfo(width=64, height=48, k=[50.0, 0.0, 31.5, 0.0, 52.0, 23.5, 0.0, 0.0, 1.0], d=[0.0] * 5)
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def test_intrinsics_of_the_full_image():
    assert np.array_equal(read_camera_info(calibration(), 64, 48).camera.K, [[50, 0, 31.5], [0, 52, 23.5], [0, 0, 1]])


def test_intrinsics_after_region_of_interest_and_binning():
    info = calibration(roi=RegionOfInterest(x_offset=10, y_offset=4, width=40, height=20), binning_x=2, binning_y=2)
    K = read_camera_info(info, 20, 10).camera.K
    # A point at pixel (30, 14) of the full image is at (20, 10) of the region, and binned by 2 at (9.75, 4.75).
    x, y = (30 - 31.5) / 50, (14 - 23.5) / 52
    assert np.allclose(K @ [x, y, 1], [9.75, 4.75, 1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": [0.0] * 9}, "not calibrated"),
        ({"k": [np.nan] * 9}, "NaN or Inf"),
        ({"d": [0.1, np.inf]}, "NaN or Inf"),
        ({"width": 96}, "image is 64x48 but CameraInfo is for 96x48"),
        ({"binning_x": 2}, "CameraInfo is for 32x48"),
    ],
)
def test_unusable_calibrations_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        read_camera_info(calibration(**changes), 64, 48)


def test_camera_info_message_reads_back():
    camera = Camera(np.array([[50, 0, 31.5], [0, 52, 23.5], [0, 0, 1]]), 64, 48)
    info = c.camera_info_message(camera, Header(frame_id="camera"))
    assert np.array_equal(read_camera_info(info, 64, 48).camera.K, camera.K)
    assert np.array_equal(np.reshape(info.p, (3, 4))[:, :3], camera.K)


def test_poses_survive_the_message_and_quaternions_are_xyzw():
    T = rigid(rotation_matrix([0.3, -0.5, 1.1]), [1, 2, 3])
    assert np.allclose(c.read_pose(c.pose_message(T)), T)
    quarter_left = rigid_from_xyzw([0, 0, np.sqrt(0.5), np.sqrt(0.5)], [0, 0, 0])
    assert np.allclose(quarter_left[:3, :3] @ [1, 0, 0], [0, 1, 0])


def test_many_poses_are_read_and_written_as_each_of_them():
    rng = np.random.default_rng(1)
    poses = np.stack([rigid(rotation_matrix(rng.uniform(-3, 3, 3)), rng.uniform(-9, 9, 3)) for _ in range(20)])
    messages = c.pose_messages(poses)
    assert np.allclose([c.read_pose(m) for m in messages], poses)
    rotations = [(m.orientation.x, m.orientation.y, m.orientation.z, m.orientation.w) for m in messages]
    assert np.allclose(rigid_from_xyzw(rotations, poses[:, :3, 3]), poses)
    with pytest.raises(ValueError, match="length 2: it must be a unit quaternion"):
        rigid_from_xyzw([[0, 0, 0, 1], [0, 0, 2, 0]], np.zeros((2, 3)))
    with pytest.raises(ValueError, match="NaN or Inf"):
        rigid_from_xyzw([[0, 0, 0, 1]], [[np.nan, 0, 0]])


@pytest.mark.parametrize(("rotation", "words"), [([0, 0, 0, 0], "unit quaternion"), ([np.nan, 0, 0, 1], "NaN or Inf")])
def test_bad_poses_are_refused(rotation, words):
    with pytest.raises(ValueError, match=words):
        rigid_from_xyzw(rotation, [0, 0, 0])


def test_durations_and_stamps():
    assert (duration_message(1.3).sec, duration_message(1.3).nanosec) == (1, 300_000_000)
    assert nanoseconds(duration_message(12.000000001)) == 12_000_000_001


def test_point_cloud_holds_every_field_of_the_scene():
    scene = scene_of(50)
    message = pointcloud_message(scene, Header(frame_id="camera"))
    kinds = {PointField.FLOAT32: "<f4", PointField.UINT32: "<u4"}
    dtype = np.dtype(
        {
            "names": [f.name for f in message.fields],
            "formats": [kinds[f.datatype] for f in message.fields],
            "offsets": [f.offset for f in message.fields],
            "itemsize": message.point_step,
        }
    )
    points = np.frombuffer(message.data, dtype)
    expected = "x y z rgb f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3 "
    expected += "vx vy vz ax ay az wx wy wz alx aly alz object_id cx cy cz observed"
    assert dtype.names == FIELD_NAMES == tuple(expected.split())
    assert (message.width, message.height, message.row_step) == (50, 1, len(message.data))

    def columns(*names: str) -> np.ndarray:
        return np.stack([points[name] for name in names], 1)

    assert np.array_equal(columns("x", "y", "z"), scene.means.numpy())
    assert np.array_equal(columns("rot_0", "rot_1", "rot_2", "rot_3"), scene.quaternions.numpy())
    assert np.array_equal(columns("alx", "aly", "alz"), scene.angular_accelerations.numpy())
    assert np.array_equal(points["object_id"], scene.object_ids.numpy())
    assert np.array_equal(columns("cx", "cy", "cz"), scene.centroids[scene.object_ids].numpy())
    assert (points["observed"] == 1).all()
    guessed = replace(scene, observed=torch.linspace(0, 1, 50).round())
    assert np.array_equal(cloud_array(guessed)[:, -1], guessed.observed.numpy())
    colours = columns("f_dc_0", "f_dc_1", "f_dc_2") * SH_C0 + 0.5
    assert np.allclose(colours, scene.colors.numpy(), atol=1e-6)
    packed = points["rgb"].view(np.uint32)
    bytes_ = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1)
    assert np.abs(bytes_ / 255 - scene.colors.numpy()).max() < 0.5 / 255 + 1e-6


def test_a_compact_cloud_takes_24_bytes_a_point():
    scene = replace(scene_of(50), observed=torch.linspace(0, 1, 50))
    message = pointcloud_message(scene, Header(frame_id="camera"), {1: 70_000}, compact=True)
    assert (message.point_step, message.width, len(message.data)) == (24, 50, 24 * 50)
    assert tuple(f.name for f in message.fields) == COMPACT.names
    assert [f.offset for f in message.fields] == [0, 4, 8, 12, 16, 20, 22, 23]
    points = np.frombuffer(message.data, COMPACT)
    full = cloud_array(scene)
    assert np.array_equal(np.stack([points[name] for name in "xyz"], 1), full[:, :3])
    assert np.array_equal(points["rgb"].view(np.uint32), full[:, 3].copy().view(np.uint32))
    assert np.array_equal(points["object_id"], np.where(scene.object_ids == 1, 70_000, scene.object_ids))
    assert np.allclose(points["radius"], 1000 * scene.scales.numpy().prod(1) ** (1 / 3), atol=0.51)
    assert np.allclose(points["opacity"] / 255, scene.opacities, atol=0.5 / 255 + 1e-6)
    assert np.allclose(points["observed"] / 255, scene.observed, atol=0.5 / 255 + 1e-6)


def test_point_cloud_is_thinned_by_opacity_and_count():
    thin = subsample(scene_of(101), 0.5, 1000)
    assert len(thin) == 51 and thin.opacities.min() >= 0.5
    few = subsample(scene_of(101), 0.0, 11)
    assert torch.allclose(few.opacities, torch.linspace(0, 1, 11))


def test_filling_is_fast():
    frames = np.zeros((14, 256, 832, 3), np.uint8)
    message = Image()
    start = time.process_time()  # on a busy machine, others' time passes too
    c.fill(message, frames)
    # 1 to 4 ms for 9 MB; assigning the array takes some hundred.
    assert time.process_time() - start < 0.05 and len(message.data) == frames.nbytes


def test_euler_angles_of_a_quaternion_are_roll_pitch_and_yaw():
    half = np.radians(30) / 2
    assert np.allclose(euler_from_quaternion((0, 0, np.sin(half), np.cos(half))), (0, 0, np.radians(30)))
    assert np.allclose(euler_from_quaternion((np.sin(half), 0, 0, np.cos(half))), (np.radians(30), 0, 0))
