# SPDX-License-Identifier: Apache-2.0
"""Encoded images (JPEG, PNG and other formats of OpenCV), checked before decoding.

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
    """Raise ValueError for an empty, truncated or too large JPEG or PNG."""
    if not data:
        raise ValueError("damaged: empty")
    if data.startswith(PNG):
        if len(data) < 24 or data.rfind(b"IEND") < 0:
            raise ValueError("damaged: a truncated PNG")
        check_size(*struct.unpack(">II", data[16:24]))
    elif data.startswith(JPEG):
        size = _jpeg_size(data)
        if size is None:
            raise ValueError("damaged: a truncated JPEG")
        check_size(*size)


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
