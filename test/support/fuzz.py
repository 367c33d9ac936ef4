# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies of the messages that the node subscribes to: any values that their types can hold."""

from __future__ import annotations

import math

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseStamped,
    PoseWithCovariance,
    Quaternion,
    Twist,
    TwistWithCovariance,
    Vector3,
)
from hypothesis import strategies as st
from nav_msgs.msg import Odometry, Path
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

SECONDS = 1_700_000_000  # of the harness's clock
numbers = st.one_of(
    st.floats(-50, 50), st.floats(), st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, 1e308, -1e-308])
)
frames = st.one_of(st.sampled_from(["odom", "/odom", "map", "camera", "base_link", "", "/"]), st.text(max_size=8))
encodings = st.one_of(
    st.sampled_from(
        ["rgb8", "bgra8", "mono8", "mono16", "bayer_rggb8", "yuv422", "yuv422_yuy2", "32FC1", "16UC1", "8UC3", "nv12"]
    ),
    st.text(max_size=6),
)
formats = st.one_of(
    st.sampled_from(
        [
            "jpeg",
            "png",
            "rgb8; jpeg compressed bgr8",
            "bayer_rggb8; jpeg compressed ",
            "16UC1; compressedDepth png",
            "32FC1; compressedDepth png",
            "16UC1; compressedDepth rvl",
            "",
        ]
    ),
    st.text(max_size=12),
)
sizes = st.one_of(st.integers(0, 70), st.sampled_from([64, 208, 8192, 2**31, 2**32 - 1]))


@st.composite
def times(draw: st.DrawFn) -> Time:
    """Mostly near the harness's clock."""
    sec = draw(st.one_of(st.integers(SECONDS, SECONDS + 20), st.integers(-(2**31), 2**31 - 1), st.just(0)))
    return Time(sec=sec, nanosec=draw(st.one_of(st.integers(0, 999_999_999), st.integers(0, 2**32 - 1))))


headers = st.builds(Header, stamp=times(), frame_id=frames)
points = st.builds(Point, x=numbers, y=numbers, z=numbers)
vectors = st.builds(Vector3, x=numbers, y=numbers, z=numbers)
quaternions = st.one_of(
    st.sampled_from([Quaternion(w=1.0), Quaternion(w=0.0), Quaternion(z=1.0, w=0.0), Quaternion(z=0.6, w=0.8)]),
    st.builds(Quaternion, x=numbers, y=numbers, z=numbers, w=numbers),
)
poses = st.builds(Pose, position=points, orientation=quaternions)
paths = st.builds(Path, header=headers, poses=st.lists(st.builds(PoseStamped, header=headers, pose=poses), max_size=6))
odometry = st.builds(
    Odometry,
    header=headers,
    child_frame_id=frames,
    pose=st.builds(PoseWithCovariance, pose=poses),
    twist=st.builds(TwistWithCovariance, twist=st.builds(Twist, linear=vectors, angular=vectors)),
)


@st.composite
def images(draw: st.DrawFn) -> Image:
    """Of any encoding, size and step, with as many bytes as they say, or not."""
    width, height, step = draw(sizes), draw(sizes), draw(sizes)
    message = Image(header=draw(headers), width=width, height=height, encoding=draw(encodings), step=step)
    message.is_bigendian = draw(st.integers(0, 255))
    whole = step * height
    length = whole if whole <= 100_000 and draw(st.booleans()) else draw(st.integers(0, 2000))
    message.data.frombytes(draw(st.randoms(use_true_random=False)).randbytes(length))
    return message


@st.composite
def compressed_images(draw: st.DrawFn) -> CompressedImage:
    """Files of images, cut off, with changed bytes, or no images at all."""
    pixels = np.random.default_rng(1).integers(0, 256, (64, 208, 3), np.uint8)
    depth = pixels[..., 0].astype(np.uint16) * 100
    made = draw(st.sampled_from([(".jpg", pixels), (".png", pixels), (".png", depth), (".png", pixels[..., 0])]))
    data = bytearray(draw(st.sampled_from([b"", bytes(12)])) + cv2.imencode(*made)[1].tobytes())
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=8)):
        data[place] = value
    message = CompressedImage(header=draw(headers), format=draw(formats))
    message.data.frombytes(bytes(data[: draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))]))
    return message


camera_infos = st.builds(
    CameraInfo,
    header=headers,
    width=sizes,
    height=sizes,
    distortion_model=st.one_of(
        st.sampled_from(["", "plumb_bob", "rational_polynomial", "equidistant", "fisheye"]), st.text(max_size=6)
    ),
    d=st.lists(numbers, max_size=15),
    k=st.one_of(
        st.just([120.0, 0.0, 103.5, 0.0, 120.0, 31.5, 0.0, 0.0, 1.0]), st.lists(numbers, min_size=9, max_size=9)
    ),
    p=st.one_of(st.just([0.0] * 12), st.lists(numbers, min_size=12, max_size=12)),
    binning_x=sizes,
    binning_y=sizes,
    roi=st.builds(RegionOfInterest, x_offset=sizes, y_offset=sizes, width=sizes, height=sizes),
)
