# SPDX-License-Identifier: Apache-2.0
"""Encoded images (JPEG, PNG, WebP, BMP, TIFF), checked before decoding.

The size in the header is checked because a PNG of some hundred kilobytes may unpack to gigabytes, the end marker
because decoders fill truncated images with grey. EXIF orientation is ignored: calibrations refer to the stored pixels.
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_SIDE = 8192  # pixels
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
TIFF = {b"II*\0": "<", b"MM\0*": ">"}  # with the order of bytes
TIFF_TYPES = {3: "H", 4: "I"}  # of the tags that hold the size
VIDEO = ("h264", "h265", "hevc", "avc", "av1", "vp8", "vp9", "theora")  # words in the format of packets of a video
# Markers of JPEG: frames (their headers hold the size), and those without a length.
FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
BARE = frozenset({0x01, 0xFF, *range(0xD0, 0xD9)})
START_OF_SCAN, END_OF_IMAGE = 0xDA, b"\xff\xd9"


def decode(data: bytes | NDArray[np.uint8], flags: int, upright: bool = False) -> NDArray[Any]:
    """The pixels of an encoded image, as cv2.imdecode with these flags; upright: apply the EXIF orientation.

    Raises ValueError with the cause.
    """
    raw = bytes(data)
    check_encoded(raw)
    try:
        pixels = cv2.imdecode(np.frombuffer(raw, np.uint8), flags | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION))
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ValueError("damaged, or not a format that OpenCV reads")
    check_size(pixels.shape[1], pixels.shape[0])
    return np.asarray(pixels)


def check_encoded(data: bytes) -> None:
    """Raise ValueError for an empty, truncated or too large image, or one of another format."""
    if not data:
        raise ValueError("damaged: empty")
    kind, size = _kind_and_size(data)
    if not kind:
        raise ValueError("damaged, or no image: JPEG, PNG, WebP, BMP and TIFF are read")
    if size is None:
        raise ValueError(f"damaged: a truncated {kind}")
    check_size(*size)


def _kind_and_size(data: bytes) -> tuple[str, tuple[int, int] | None]:
    """The format of an image, "" for an unknown one, and (width, height), None where it ends too early."""
    try:
        if data.startswith(PNG):
            return "PNG", struct.unpack_from(">II", data, 16) if data.rfind(b"IEND") >= 0 else None
        if data.startswith(JPEG):
            return "JPEG", _jpeg_size(data)
        if data.startswith(b"BM"):
            (end,), (width, height) = struct.unpack_from("<I", data, 2), struct.unpack_from("<ii", data, 18)
            return "BMP", (width, abs(height)) if end <= len(data) else None
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            whole = struct.unpack_from("<I", data, 4)[0] + 8 <= len(data)
            return "WebP", _webp_size(data) if whole else None
        if data[:4] in TIFF:
            return "TIFF", _tiff_size(data)
    except (struct.error, IndexError):
        return "image", None
    return "", None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a WebP, by its first chunk."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a TIFF's first image: tags 256 and 257 of its first directory."""
    order = TIFF[data[:4]]
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    sizes = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (256, 257) and kind in TIFF_TYPES:
            (sizes[tag],) = struct.unpack_from(order + TIFF_TYPES[kind], data, entry + 8)
    return (sizes[256], sizes[257]) if len(sizes) == 2 else None


def check_size(width: int, height: int) -> None:
    """Raise ValueError for an empty image or more than MAX_SIDE pixels along a side."""
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"image is {width}x{height}: more than {MAX_SIDE} pixels along a side are not supported")
    if min(width, height) < 1:
        raise ValueError(f"damaged: image of {width}x{height} pixels")


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG; None if it is truncated."""
    at, size = 2, None
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker in BARE:
            at += 1 if marker == 0xFF else 2  # 0xFF may be repeated before a marker
            continue
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        if marker in FRAMES and at + 9 <= len(data):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            size = width, height
        elif marker == START_OF_SCAN:
            # In entropy coded data, 0 or a restart marker follows 0xFF: the first such pair is the end.
            return size if data.find(END_OF_IMAGE, at + 2 + length) >= 0 else None
        at += 2 + length
    return None
