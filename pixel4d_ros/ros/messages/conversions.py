# SPDX-License-Identifier: Apache-2.0
"""ROS messages <-> arrays, no logic.

logs/images.py decodes pixels, for messages of the node and of logs alike. Readers raise ValueError with the cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from geometry_msgs.msg import Pose
from nav_msgs.msg import MapMetaData, OccupancyGrid
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from pixel4d_ros.camera import Camera
from pixel4d_ros.geometry.rotations import FloatArray, rigid_from_xyzw, xyzw_from_matrix
from pixel4d_ros.logs.images import RgbImage
from pixel4d_ros.ros.messages.headers import time_message

if TYPE_CHECKING:  # with it comes torch, for which replay would wait seconds
    from pixel4d_ros.outputs.occupancy import OccupancyMap


def camera_info_message(camera: Camera, header: Header) -> CameraInfo:
    """CameraInfo of an ideal pinhole camera."""
    K = camera.K
    P = np.hstack([K, np.zeros((3, 1))])
    return CameraInfo(
        header=header,
        width=camera.width,
        height=camera.height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=K.ravel(),
        r=np.eye(3).ravel(),
        p=P.ravel(),
    )


def image_message(rgb: RgbImage, header: Header) -> Image:
    """An rgb8 Image of an RGB uint8 array (H, W, 3)."""
    return _image(rgb, "rgb8", header)


def depth_message(depth: NDArray[np.float32], header: Header) -> Image:
    """A 32FC1 Image of depth (H, W) in metres, inf where unseen (REP 118)."""
    return _image(depth.astype("<f4", copy=False), "32FC1", header)


def mono_message(values: NDArray[np.uint8], header: Header) -> Image:
    """A mono8 Image of values (H, W)."""
    return _image(values, "mono8", header)


def _image(pixels: NDArray[Any], encoding: str, header: Header) -> Image:
    """An Image of pixels (H, W, ...) without padding."""
    height, width = pixels.shape[:2]
    message = Image(header=header, height=height, width=width, encoding=encoding, step=pixels.nbytes // height)
    fill(message, pixels)
    return message


def jpeg_message(rgb: RgbImage, quality: int, header: Header) -> CompressedImage:
    """A CompressedImage in the format of image_transport's compressed plugin."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    message = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
    fill(message, data)
    return message


def grid_message(occupancy: OccupancyMap, at_ns: int, header: Header) -> OccupancyGrid:
    """An OccupancyGrid at height 0 of the header's frame; map_load_time is at_ns, the time of the forecast."""
    rows, columns = occupancy.cells.shape
    info = MapMetaData(map_load_time=time_message(at_ns), resolution=occupancy.resolution, width=columns, height=rows)
    info.origin.position.x, info.origin.position.y = (float(v) for v in occupancy.origin)
    message = OccupancyGrid(header=header, info=info)
    fill(message, occupancy.cells)
    return message


def fill(message: Any, array: NDArray[Any]) -> None:
    """Put an array's bytes into message.data (uint8[] or int8[]): frombytes: an assignment takes far longer."""
    message.data.frombytes(np.ascontiguousarray(array).data.cast("B"))


def read_pose(pose: Pose) -> FloatArray:
    """4x4 matrix of a Pose. Raises ValueError if it is not finite or its quaternion not of about unit length."""
    p, q = pose.position, pose.orientation
    return rigid_from_xyzw((q.x, q.y, q.z, q.w), (p.x, p.y, p.z))


def pose_messages(poses: FloatArray) -> list[Pose]:
    """Poses of 4x4 matrices (n, 4, 4)."""
    messages = []
    for (x, y, z), (i, j, k, w) in zip(poses[:, :3, 3].tolist(), xyzw_from_matrix(poses[:, :3, :3]).tolist()):
        message = Pose()  # creates point and quaternion itself; passing others costs more
        p, q = message.position, message.orientation
        p.x, p.y, p.z, q.x, q.y, q.z, q.w = x, y, z, i, j, k, w
        messages.append(message)
    return messages


def pose_message(T: FloatArray) -> Pose:
    """Pose of a 4x4 matrix."""
    return pose_messages(T[None])[0]
