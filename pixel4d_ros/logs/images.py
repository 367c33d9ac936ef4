"""Pixels of sensor_msgs/Image and CompressedImage messages, whether `rosbags` or rclpy made them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

COLOR_CODES = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "8UC1": cv2.COLOR_GRAY2RGB,
    "8UC3": cv2.COLOR_BGR2RGB,
    # OpenCV names a Bayer pattern by its second row's second and third pixel, ROS by the first two of the first row.
    "bayer_rggb8": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr8": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGB2RGB,
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    "yuyv": cv2.COLOR_YUV2RGB_YUY2,
}
CHANNELS = {
    "rgb8": 3,
    "bgr8": 3,
    "8UC3": 3,
    "rgba8": 4,
    "bgra8": 4,
    "yuv422": 2,
    "uyvy": 2,
    "yuv422_yuy2": 2,
    "yuyv": 2,
}


def decode_image(message: Any) -> NDArray[np.uint8]:
    """RGB (H, W, 3) uint8 of an Image or CompressedImage. Raises ValueError: unknown encoding, wrong size, damaged."""
    if hasattr(message, "format"):
        pixels = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR) if len(message.data) else None
        if pixels is None:
            raise ValueError(
                f"a compressed image ({message.format or 'no format given'}) cannot be decoded: it is damaged"
            )
        return _converted(pixels, cv2.COLOR_BGR2RGB)
    encoding = message.encoding
    if encoding in ("mono16", "16UC1"):
        grey = _rows(message, np.dtype(np.uint16), 1)
        return _converted((grey >> 8).astype(np.uint8), cv2.COLOR_GRAY2RGB)
    if encoding != "rgb8" and encoding not in COLOR_CODES:
        raise ValueError(
            f"image encoding {encoding!r} is not supported: use rgb8, bgr8, mono8, a Bayer or a YUV 4:2:2 one"
        )
    pixels = _rows(message, np.dtype(np.uint8), CHANNELS.get(encoding, 1))
    return np.ascontiguousarray(pixels) if encoding == "rgb8" else _converted(pixels, COLOR_CODES[encoding])


def _converted(pixels: NDArray, code: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def decode_depth(message: Any) -> NDArray[np.float32]:
    """Depth (H, W) in metres, 0 where unknown: of an Image (16UC1 mm, 32FC1 m), a compressed png or compressedDepth.

    Raises ValueError: unknown encoding, wrong size, damaged.
    """
    if not hasattr(message, "format"):
        if message.encoding not in ("16UC1", "mono16", "32FC1"):
            raise ValueError(f"depth encoding {message.encoding!r} is not supported: use 16UC1 (mm) or 32FC1 (m)")
        return _metres(_rows(message, np.dtype(np.float32 if message.encoding == "32FC1" else np.uint16), 1))
    data = np.frombuffer(message.data, np.uint8)
    header = 12 if "compressedDepth" in message.format else 0  # compressed_depth_image_transport: enum, two floats
    pixels = cv2.imdecode(data[header:], cv2.IMREAD_UNCHANGED) if len(data) > header else None
    if pixels is None or pixels.ndim != 2:
        raise ValueError(
            f"a compressed depth image ({message.format or 'no format given'}) cannot be decoded: it is damaged"
        )
    if header and message.format.startswith("32FC1"):
        # The png holds inverse depth: depth = a / (value - b), value 0 = unknown.
        a, b = data[4:12].view("<f4")
        known = pixels > 0
        return _metres(np.where(known, a / np.where(known, pixels.astype(np.float32) - b, 1), 0).astype(np.float32))
    return _metres(pixels)


def _metres(depth: NDArray) -> NDArray[np.float32]:
    if depth.dtype == np.uint16:
        return depth.astype(np.float32) * np.float32(0.001)
    depth = depth.astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _rows(message: Any, dtype: np.dtype, channels: int) -> NDArray:
    """The pixels (H, W) or (H, W, channels) without the padding at the end of rows, in the machine's byte order."""
    height, width, step = message.height, message.width, message.step
    used = width * channels * dtype.itemsize
    if height == 0 or width == 0 or step < used or len(message.data) < step * height:
        raise ValueError(
            f"an image of {width}x{height} {message.encoding}, step {step}, holds {len(message.data)} bytes:"
            f" step must be at least {used} and data step * height; check the camera driver"
        )
    rows = np.frombuffer(message.data, np.uint8)[: step * height].reshape(height, step)[:, :used]
    pixels = np.ascontiguousarray(rows).view(dtype.newbyteorder(">" if message.is_bigendian else "<"))
    pixels = pixels.astype(dtype, copy=False)
    return pixels.reshape(height, width, channels) if channels > 1 else pixels
