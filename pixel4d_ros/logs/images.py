# SPDX-License-Identifier: Apache-2.0
"""Pixels of sensor_msgs/Image and CompressedImage messages of `rosbags` or rclpy.

Decoded with numpy and OpenCV, to the same pixels as cv_bridge gives, which the node uses where it is installed
(ros/messages/images.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.logs.encoded import VIDEO, check_size, decode

RgbImage = NDArray[np.uint8]
S = TypeVar("S", bound=np.generic)
TRIES = 20  # images at the begin of a topic, of which one must be whole
NEAR_PERCENT, FARTHEST_NEAR_M = 5, 200.0  # a depth image whose nearest parts lie beyond is not in metres
FAR_PERCENT, NEAREST_FAR_M = 95, 0.1  # nor is one whose farthest parts are nearer
SATURATED = 65535  # of 16 bits: what is beyond the range, in simulators the sky
MOST_DATA = 1.25  # of height x step: buffers may end with some padding, a fourth channel is a third more
BLACK = 16  # of 255: lamps and screens are brighter at night, 12 bits in 16 are not
# Correlation of neighbouring pixels, along rows and columns, of LINES of each: pictures have 0.86 or more. Deviation of
# colours in terms of that of brightness: pictures have 0.42 or less, YUYV read as UYVY 3.6.
LINES, LEAST_ALIKE, MOST_COLOURED = 100, 0.3, 1.5
STRUCTURE = 12  # of 255, deviation: the noise and the lamps of a night have less
# Ratio of neighbouring depths, median: sensors and laser scans have 1.005 or less, swapped bytes 1.4.
MANY_PAIRS, ROUGHEST = 500, 1.2
PLAIN, SPARSE = 4, 4  # of 255: noise of cameras spreads more; pixels between those that are compared first

# encoding: (numpy type, channels, OpenCV conversion to RGB). Names of sensor_msgs/image_encodings.hpp; the bare OpenCV
# types 8UC3 and 8UC4 are BGR as everywhere in OpenCV; float images run from 0 to 1.
ENCODINGS: dict[str, tuple[str, int, int | None]] = {
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
    "bayer_rggb16": ("u2", 1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr16": ("u2", 1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg16": ("u2", 1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg16": ("u2", 1, cv2.COLOR_BayerGRBG2RGB),
    "yuv422": ("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": ("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": ("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": ("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
}


def decode_image(message: Any) -> RgbImage:
    """RGB (H, W, 3) uint8 of an Image or CompressedImage. Raises ValueError for what cannot be decoded."""
    return _read_compressed(message) if hasattr(message, "format") else _read_raw(message)


def first_decoded(messages: Iterable[Any], decode: Callable[[Any], NDArray[S]]) -> tuple[Any, NDArray[S]]:
    """The first message that can be decoded, and its pixels. Raises the first one's ValueError if the first TRIES fail.

    A log may begin with a damaged image.
    """
    fault = ValueError("there is no image")
    for i, message in enumerate(islice(messages, TRIES)):
        try:
            return message, decode(message)
        except ValueError as error:
            fault = fault if i else error
    raise fault


def _read_raw(message: Any) -> RgbImage:
    dtype, channels = _pixel_type(message)
    to_rgb = ENCODINGS[message.encoding][2]
    pixels = _pixels(message, dtype, channels)
    if pixels.dtype == np.float32:
        pixels = _float_to_uint8(pixels, message.encoding)
    # OpenCV expects yuv422 as two channels and grey as (H, W).
    pixels = np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels)
    return _to_8_bits(pixels if to_rgb is None else _converted(pixels, to_rgb, message.encoding))


def picture_doubt(rgb: RgbImage) -> str:
    """Why pixels (H, W, 3) may be no picture; else empty."""
    if rgb.max(initial=0) > BLACK:
        if any(np.ptp(part.reshape(-1, 3), axis=0).max() > PLAIN for part in (rgb[::SPARSE, ::SPARSE], rgb)):
            return _layout_doubt(rgb)
        return "the image has one colour: is the lens covered, or does the driver or a decoder send blank images?"
    return (
        f"the image is almost black (no value above {BLACK} of 255): is the lens covered, or are 10 or 12 bits"
        " stored in 16 without being scaled?"
    )


def _layout_doubt(rgb: RgbImage) -> str:
    """Why the bytes of pixels (H, W, 3) may lie in another order than they were read in; else empty."""
    yuv = cv2.cvtColor(np.ascontiguousarray(rgb[:: max(1, len(rgb) // LINES)]), cv2.COLOR_RGB2YUV).astype(np.float32)
    columns = rgb[:, :: max(1, rgb.shape[1] // LINES), 1].astype(np.float32)
    brightness, colours = yuv[..., 0], yuv[..., 1:]
    alike = min(_alike(brightness[:, 1:], brightness[:, :-1]), _alike(columns[1:], columns[:-1]))
    if brightness.std() > STRUCTURE and alike < LEAST_ALIKE:
        return (
            "neighbouring pixels of the image differ as noise does: are its width, its encoding and the order of its"
            " bytes (is_bigendian) as declared?"
        )
    if colours.std(axis=(0, 1)).min() > max(STRUCTURE, MOST_COLOURED * brightness.std()):
        return "colours of the image vary more than its brightness: is it YUYV declared as UYVY, or vice versa?"
    return ""


def _alike(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Correlation of two arrays of pixels; 1 where one has no structure."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 0 else 1.0


def check_image(message: Any) -> tuple[np.dtype[Any], int]:
    """Type and number of channels of an Image's pixels. Raises ValueError: unknown encoding, size that cannot be."""
    dtype, channels = _pixel_type(message)
    _check_layout(message, dtype, channels)
    return dtype, channels


def _pixel_type(message: Any) -> tuple[np.dtype[Any], int]:
    if message.encoding not in ENCODINGS:
        known = ", ".join(ENCODINGS)
        raise ValueError(f"image encoding {message.encoding!r} is not supported: publish one of {known}")
    kind, channels, _ = ENCODINGS[message.encoding]
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    return dtype, channels


def _to_8_bits(pixels: NDArray[Any]) -> RgbImage:
    """16 bits to 8 by 255 / 65535, rounded, after the conversion to colours: both as cv_bridge does it."""
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=255 / 65535)) if pixels.dtype == np.uint16 else pixels


def _converted(pixels: NDArray[Any], to_rgb: int, encoding: str) -> RgbImage:
    try:
        return np.asarray(cv2.cvtColor(pixels, to_rgb))
    except cv2.error as error:  # an odd width of yuv422, a single row of a Bayer pattern
        height, width = pixels.shape[:2]
        raise ValueError(
            f"an image of {width}x{height} pixels cannot be {encoding}: check the camera driver"
        ) from error


def _pixels(message: Any, dtype: np.dtype[Any], channels: int) -> NDArray[Any]:
    """The message's data as (H, W, channels) in native byte order, row padding cut off."""
    _check_layout(message, dtype, channels)
    width, height, step = message.width, message.height, message.step
    row = width * channels * dtype.itemsize
    rows = np.frombuffer(message.data, np.uint8, height * step).reshape(height, step)[:, :row]
    pixels = np.ascontiguousarray(rows).view(dtype).reshape(height, width, channels)
    return pixels.astype(dtype.newbyteorder("="), copy=False)


def _check_layout(message: Any, dtype: np.dtype[Any], channels: int) -> None:
    width, height, step = message.width, message.height, message.step
    row = width * channels * dtype.itemsize
    if width == 0 or height == 0:
        raise ValueError(f"image of {width}x{height} pixels: the camera driver sends no picture")
    check_size(width, height)
    if step < row:
        raise ValueError(f"image step {step} is too small: {width} {message.encoding} pixels take {row} bytes")
    if len(message.data) < height * step:
        needed = f"height {height} x step {step} needs {height * step}"
        raise ValueError(f"image data holds {len(message.data)} bytes, but {needed}")
    times = len(message.data) / (height * step)
    if times > MOST_DATA:
        raise ValueError(
            f"image data holds {len(message.data)} bytes, {times:.3g} times height {height} x step {step}: do the"
            f" pixels have another type than {message.encoding}?"
        )


def _float_to_uint8(pixels: NDArray[np.float32], encoding: str) -> RgbImage:
    if not np.isfinite(pixels).all():
        raise ValueError(f"{encoding} image contains NaN or Inf")
    if pixels.min() < 0 or pixels.max() > 1:
        raise ValueError(f"{encoding} image has values outside 0..1: is this a depth image? `image` needs colours")
    return np.rint(pixels * 255).astype(np.uint8)


def _read_compressed(message: Any) -> RgbImage:
    """`format` as of image_transport's compressed plugin: "ORIGINAL ENCODING; CODEC compressed ORDER OF CHANNELS".

    Bayer patterns are compressed without demosaicing. "compressed rgb8": red and blue are swapped in the file. Without
    an encoding (older publishers, other software) it is an ordinary picture.
    """
    encoding, _, rest = str(message.format).partition(";")
    encoding = encoding.strip()
    if encoding in ("16UC1", "32FC1") or "compressedDepth" in rest:
        raise ValueError(f"compressed image ({message.format!r}) is a depth image: `image` needs colours")
    if any(word in str(message.format).lower() for word in VIDEO):
        raise ValueError(
            f"compressed image ({message.format!r}) is a packet of a video, which cannot be decoded alone: republish it"
            " as jpeg or raw"
        )
    is_bayer = encoding.startswith("bayer_") and encoding in ENCODINGS
    try:
        pixels = decode(message.data, cv2.IMREAD_UNCHANGED if is_bayer else cv2.IMREAD_COLOR)
    except ValueError as error:
        raise ValueError(f"compressed image ({message.format!r}) cannot be decoded: {error}") from error
    if is_bayer:
        if pixels.ndim == 3 and (pixels[..., :1] == pixels[..., 1:3]).all():
            pixels = pixels[..., 0]  # the pattern, stored with three equal channels
        if pixels.ndim == 2:
            return _to_8_bits(_converted(np.ascontiguousarray(pixels), ENCODINGS[encoding][2] or 0, encoding))
        pixels = _to_8_bits(pixels[..., :3])  # colours already
    if "compressed rgb" in rest:
        return np.ascontiguousarray(pixels)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def decode_depth(message: Any) -> NDArray[np.float32]:
    """Depth (H, W) in metres, 0 where unknown: of an Image (16UC1 mm, 32FC1 m), a compressed png or compressedDepth.

    Raises ValueError: unknown encoding, wrong size, 8 bits, RVL, damaged.
    """
    if not hasattr(message, "format"):
        if message.encoding not in ("16UC1", "mono16", "32FC1"):
            raise ValueError(f"depth encoding {message.encoding!r} is not supported: use 16UC1 (mm) or 32FC1 (m)")
        kind = np.dtype("f4" if message.encoding == "32FC1" else "u2")
        return _metres(_pixels(message, kind.newbyteorder(">" if message.is_bigendian else "<"), 1)[..., 0])
    form = str(message.format)
    if "rvl" in form.lower():
        raise ValueError(
            f"depth compressed as RVL ({form!r}) is not supported: set the publisher's parameter compressedDepth.format"
            " to png, or publish raw depth (`ros2 run image_transport republish compressedDepth raw`)"
        )
    data = np.frombuffer(message.data, np.uint8)
    header = 12 if "compressedDepth" in form else 0  # compressed_depth_image_transport: enum, two floats
    try:
        pixels = decode(data[header:], cv2.IMREAD_UNCHANGED)
    except ValueError as error:
        raise ValueError(f"compressed depth image ({form or 'no format given'}) cannot be decoded: {error}") from error
    if pixels.ndim != 2 or pixels.dtype not in (np.uint16, np.float32):
        held = f"{pixels.dtype.itemsize * 8} bits in {pixels.shape[2] if pixels.ndim == 3 else 1} channel(s)"
        raise ValueError(
            f"compressed depth image ({form or 'no format given'}) holds {held}, which is no depth: publish 16UC1 (mm)"
            " as png, or compressedDepth"
        )
    if header and form.startswith("32FC1"):
        # The png holds inverse depth: depth = a / (value - b), value 0 = unknown.
        a, b = data[4:12].view("<f4")
        known = pixels > 0
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return _metres(np.where(known, a / np.where(known, pixels.astype(np.float32) - b, 1), 0).astype(np.float32))
    return _metres(pixels)


def _metres(depth: NDArray[Any]) -> NDArray[np.float32]:
    """Depth in metres, 0 where unknown. Raises ValueError for values that must be in other units."""
    if depth.dtype == np.uint16:
        metres: NDArray[np.float32] = np.where(depth < SATURATED, depth, 0).astype(np.float32) * np.float32(0.001)
        unit = "16UC1 holds metres: it must be in millimetres"
    else:
        depth = depth.astype(np.float32)
        metres = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
        unit = "32FC1 is not in metres"
    known = metres[metres > 0]
    if not known.size:
        return metres
    if np.percentile(known, FAR_PERCENT) < NEAREST_FAR_M:
        raise ValueError(
            f"depth ends at {np.percentile(known, FAR_PERCENT):.3g} m: probably {unit} (REP 118); scale it, or publish"
            " 32FC1 in metres"
        )
    if np.percentile(known, NEAR_PERCENT) > FARTHEST_NEAR_M:
        raise ValueError(
            f"depth of 32FC1 begins at {np.percentile(known, NEAR_PERCENT):.0f}: it must be in metres (REP 118); divide"
            " millimetres by 1000, or publish 16UC1"
        )
    near, far = (pick(metres[:, 1:], metres[:, :-1]) for pick in (np.minimum, np.maximum))
    pairs = near > 0
    if pairs.sum() > MANY_PAIRS and np.median(far[pairs] / near[pairs]) > ROUGHEST:
        raise ValueError(
            "depth changes from pixel to pixel as noise does: are its width, its encoding and the order of its bytes"
            " (is_bigendian) as declared?"
        )
    return metres
