"""ROS messages <-> arrays, no logic. The only place that knows both quaternion orders (wxyz inside, xyzw in messages).

Images are decoded here with numpy and OpenCV: cv_bridge 1.13 from PyPI miscounts channels with OpenCV 5 (whose type
codes changed), calls ndarray.tostring (gone from numpy 2.3) and knows no yuv422; so one path serves every installation.
All readers raise ValueError with one clear sentence.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, Quaternion
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from pixel4d_ros.camera import Camera
from pixel4d_ros.ros.compat import quaternion_from_matrix, quaternion_matrix
from pixel4d_ros.rotations import FloatArray

RgbImage = NDArray[np.uint8]

# encoding: (numpy type, channels, OpenCV conversion to RGB). Names of sensor_msgs/image_encodings.hpp; the bare OpenCV
# types 8UC3 and 8UC4 are BGR as everywhere in OpenCV; float images run from 0 to 1.
_ENCODINGS: dict[str, tuple[str, int, int | None]] = {
    "rgb8": ("u1", 3, None),
    "rgba8": ("u1", 4, cv2.COLOR_RGBA2RGB),
    "bgr8": ("u1", 3, cv2.COLOR_BGR2RGB),
    "bgra8": ("u1", 4, cv2.COLOR_BGRA2RGB),
    "mono8": ("u1", 1, cv2.COLOR_GRAY2RGB),
    "8UC1": ("u1", 1, cv2.COLOR_GRAY2RGB),
    "8UC3": ("u1", 3, cv2.COLOR_BGR2RGB),
    "8UC4": ("u1", 4, cv2.COLOR_BGRA2RGB),
    "rgb16": ("u2", 3, None),
    "bgr16": ("u2", 3, cv2.COLOR_BGR2RGB),
    "mono16": ("u2", 1, cv2.COLOR_GRAY2RGB),
    "32FC1": ("f4", 1, cv2.COLOR_GRAY2RGB),
    "32FC3": ("f4", 3, cv2.COLOR_BGR2RGB),
    "bayer_rggb8": ("u1", 1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": ("u1", 1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": ("u1", 1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": ("u1", 1, cv2.COLOR_BayerGRBG2RGB),
    "yuv422": ("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": ("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": ("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": ("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
}


def read_image(message: Image | CompressedImage) -> RgbImage:
    """The image as RGB uint8 (H, W, 3). Raises ValueError for what cannot be decoded."""
    return _read_compressed(message) if isinstance(message, CompressedImage) else _read_raw(message)


def _read_raw(message: Image) -> RgbImage:
    if message.encoding not in _ENCODINGS:
        known = ", ".join(_ENCODINGS)
        raise ValueError(f"image encoding {message.encoding!r} is not supported: publish one of {known}")
    kind, channels, to_rgb = _ENCODINGS[message.encoding]
    pixels = _pixels(message, np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<"), channels)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    elif pixels.dtype == np.float32:
        pixels = _float_to_uint8(pixels, message.encoding)
    # OpenCV wants yuv422 as two channels and grey as a plain (H, W).
    pixels = np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels)
    return pixels if to_rgb is None else np.asarray(cv2.cvtColor(pixels, to_rgb))


def _pixels(message: Image, dtype: np.dtype[Any], channels: int) -> NDArray[Any]:
    """The message's data as (H, W, channels) in native byte order, row padding cut off."""
    width, height, step = message.width, message.height, message.step
    row = width * channels * dtype.itemsize
    if width == 0 or height == 0:
        raise ValueError(f"image of {width}x{height} pixels: the camera driver sends no picture")
    if step < row:
        raise ValueError(f"image step {step} is too small: {width} {message.encoding} pixels take {row} bytes")
    if len(message.data) < height * step:
        needed = f"height {height} x step {step} needs {height * step}"
        raise ValueError(f"image data holds {len(message.data)} bytes, but {needed}")
    rows = np.frombuffer(message.data, np.uint8, height * step).reshape(height, step)[:, :row]
    pixels = np.ascontiguousarray(rows).view(dtype).reshape(height, width, channels)
    return pixels.astype(dtype.newbyteorder("="), copy=False)


def _float_to_uint8(pixels: NDArray[np.float32], encoding: str) -> RgbImage:
    if not np.isfinite(pixels).all():
        raise ValueError(f"{encoding} image contains NaN or Inf")
    if pixels.min() < 0 or pixels.max() > 1:
        raise ValueError(f"{encoding} image has values outside 0..1: is this a depth image? `image` needs colours")
    return np.rint(pixels * 255).astype(np.uint8)


def _read_compressed(message: CompressedImage) -> RgbImage:
    data = np.frombuffer(message.data, np.uint8)
    # An empty buffer and a file that is no image at all raise; a damaged one gives None.
    try:
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except cv2.error:
        bgr = None
    if bgr is None:
        raise ValueError(f"compressed image ({message.format!r}) cannot be decoded: damaged, or neither jpeg nor png")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def read_intrinsics(info: CameraInfo, width: int, height: int) -> FloatArray:
    """K (3, 3) of an image of width x height pixels: CameraInfo's K after its region of interest and binning.

    Raises ValueError when the camera is not calibrated, K or D are not finite, or the image has another size.
    """
    if not np.isfinite(info.k).all() or not np.isfinite(np.asarray(info.d)).all():
        raise ValueError("CameraInfo contains NaN or Inf in K or D: check the camera's calibration")
    if info.k[0] <= 0 or info.k[4] <= 0:
        raise ValueError(f"CameraInfo has focal lengths {info.k[0]:g}, {info.k[4]:g}: the camera is not calibrated")
    camera = Camera(np.reshape(info.k, (3, 3)), info.width, info.height)
    roi = info.roi
    if roi.width and roi.height:
        camera = camera.shifted(roi.x_offset, roi.y_offset, roi.width, roi.height)
    if info.binning_x > 1 or info.binning_y > 1:
        camera = camera.resized(camera.width // max(1, info.binning_x), camera.height // max(1, info.binning_y))
    if (camera.width, camera.height) != (width, height):
        said = f"{camera.width}x{camera.height}"
        raise ValueError(f"image is {width}x{height} but CameraInfo says {said}: remap camera_info to this camera's")
    return camera.K


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
    height, width, _ = rgb.shape
    message = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
    fill(message, rgb)
    return message


def fill(message: Any, array: NDArray[Any]) -> None:
    """Put an array's bytes into message.data (uint8[]): frombytes, as assigning takes hundreds of times longer."""
    message.data.frombytes(np.ascontiguousarray(array).data.cast("B"))


def read_pose(pose: Pose) -> FloatArray:
    """4x4 matrix of a Pose. Raises ValueError when it is not finite or its quaternion is not near unit length."""
    p, q = pose.position, pose.orientation
    return rigid_from_xyzw((q.x, q.y, q.z, q.w), (p.x, p.y, p.z))


def rigid_from_xyzw(rotation: ArrayLike, translation: ArrayLike) -> FloatArray:
    """4x4 matrix of a quaternion (x, y, z, w) and a translation. Raises ValueError as read_pose does."""
    x, y, z, w = np.asarray(rotation, np.float64)
    norm = np.sqrt(w * w + x * x + y * y + z * z)
    if not np.isfinite([norm, *np.asarray(translation, np.float64)]).all():
        raise ValueError("pose contains NaN or Inf")
    if abs(norm - 1) > 0.1:
        raise ValueError(f"pose has a quaternion of length {norm:.3g}: it must be a unit quaternion")
    T = np.asarray(quaternion_matrix(np.array([x, y, z, w]) / norm))
    T[:3, 3] = translation
    return T


def pose_message(T: FloatArray) -> Pose:
    """Pose of a 4x4 matrix."""
    x, y, z, w = map(float, quaternion_from_matrix(T))
    px, py, pz = map(float, T[:3, 3])
    return Pose(position=Point(x=px, y=py, z=pz), orientation=Quaternion(x=x, y=y, z=z, w=w))


def nanoseconds(stamp: Time) -> int:
    """A message's stamp as nanoseconds since the epoch."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def duration_message(seconds: float) -> Duration:
    """Duration of a number of seconds >= 0, rounded to nanoseconds."""
    sec, nanosec = divmod(round(seconds * 1e9), 1_000_000_000)
    return Duration(sec=sec, nanosec=nanosec)
