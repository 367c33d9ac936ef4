# SPDX-License-Identifier: Apache-2.0
"""Encoded images (JPEG, PNG, WebP, BMP, TIFF), checked before decoding.

What decides about memory and time is read from the header, because some hundred kilobytes may unpack to gigabytes. The
end marker is searched, because decoders fill truncated images with grey. Of a PNG, only the chunks that hold pixels are
decoded: OpenCV allocates what a chunk claims to hold (up to 4 GiB), and unpacks every compressed comment. EXIF
orientation is ignored: calibrations refer to the stored pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

# Cameras of vehicles and robots have 1 to 12 Mpixel, large industrial sensors some 50. 200 MB are 50 Mpixel of 8-bit
# colours with alpha, or 33 Mpixel of 16-bit colours; decoders take about twice as much.
MAX_SIDE, MAX_PIXELS, MAX_BYTES = 8192, 50_000_000, 200_000_000
MAX_SCANS = 100  # of a progressive JPEG: encoders write about ten, and each takes the time of a whole image
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
PNG_CHUNKS = (b"IHDR", b"PLTE", b"eXIf", b"IDAT", b"IEND")
PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by the type of colour; palettes are decoded to three
TIFF = {b"II*\0": "<", b"MM\0*": ">"}  # with the order of bytes
TIFF_TYPES = {3: "H", 4: "I"}  # of the tags that hold sizes
# Tags: width and height of the image, bits of each channel, number of channels, width and height of a tile.
WIDTH, HEIGHT, BITS, CHANNELS, TILE_WIDTH, TILE_HEIGHT = 256, 257, 258, 277, 322, 323
VIDEO = ("h264", "h265", "hevc", "avc", "av1", "vp8", "vp9", "theora")  # words in the format of packets of a video
# Markers of JPEG: frames (their headers hold the size), and those without a length.
FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
BARE = frozenset({0x01, 0xFF, *range(0xD0, 0xD9)})
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


class Layout(NamedTuple):
    """The size of an image, pixels, and the bytes of a pixel."""

    width: int
    height: int
    pixel_bytes: float


def decode(data: bytes | NDArray[np.uint8], flags: int, upright: bool = False) -> NDArray[Any]:
    """The pixels of an encoded image, as cv2.imdecode with these flags; upright: apply the EXIF orientation.

    Raises ValueError with the cause.
    """
    raw = bytes(data)
    check_encoded(raw)
    if raw.startswith(PNG):
        raw = PNG + b"".join(chunk for kind, chunk in _png_chunks(raw) if kind in PNG_CHUNKS)
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
    kind, layout = _kind_and_layout(data)
    if not kind:
        raise ValueError("damaged, or no image: JPEG, PNG, WebP, BMP and TIFF are read")
    if layout is None:
        raise ValueError(f"damaged: a truncated {kind}")
    check_size(*layout)
    if kind == "JPEG" and data.count(START_OF_SCAN) > MAX_SCANS:
        raise ValueError(f"a JPEG of more than {MAX_SCANS} scans is not supported")


def check_size(width: int, height: int, pixel_bytes: float = 1) -> None:
    """Raise ValueError for an empty image, or one that is too large to be a camera's."""
    if min(width, height) < 1:
        raise ValueError(f"damaged: image of {width}x{height} pixels")
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"image is {width}x{height}: more than {MAX_SIDE} pixels along a side are not supported")
    if width * height > MAX_PIXELS:
        raise ValueError(f"image is {width}x{height}: more than {MAX_PIXELS / 1e6:g} Mpixel are not supported")
    if width * height * pixel_bytes > MAX_BYTES:
        raise ValueError(
            f"image is {width}x{height} with {8 * pixel_bytes:g} bits a pixel: more than {MAX_BYTES / 1e6:g} MB are not"
            " supported"
        )


def _kind_and_layout(data: bytes) -> tuple[str, Layout | None]:
    """The format of an image, "" for an unknown one, and its layout, None where it ends too early."""
    try:
        if data.startswith(PNG):
            return "PNG", _png_layout(data)
        if data.startswith(JPEG):
            return "JPEG", _jpeg_layout(data)
        if data.startswith(b"BM"):
            (end,), (width, height) = struct.unpack_from("<I", data, 2), struct.unpack_from("<ii", data, 18)
            return "BMP", Layout(width, abs(height), 4) if end <= len(data) else None
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            whole = struct.unpack_from("<I", data, 4)[0] + 8 <= len(data)
            return "WebP", _webp_layout(data) if whole else None
        if data[:4] in TIFF:
            return "TIFF", _tiff_layout(data)
    except (struct.error, IndexError):
        return "image", None
    return "", None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and bytes of each whole chunk, up to the end of the image."""
    at, kind = len(PNG), b""
    while kind != b"IEND" and at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            return
        yield kind, data[at:end]
        at = end


def _png_layout(data: bytes) -> Layout | None:
    kinds = [kind for kind, _ in _png_chunks(data)]
    if kinds[:1] != [b"IHDR"] or kinds[-1] != b"IEND":
        return None
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    return Layout(width, height, max(bits, 8) // 8 * PNG_CHANNELS.get(colour, 4))


def _webp_layout(data: bytes) -> Layout | None:
    """By the first chunk."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        return Layout(1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little"), 4)
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Layout(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), 4)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Layout(width & 0x3FFF, height & 0x3FFF, 3)
    return None


def _tiff_layout(data: bytes) -> Layout | None:
    """By the tags of the first directory; of an image in tiles, at least the size of a tile."""
    order = TIFF[data[:4]]
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    tags = {CHANNELS: 1, BITS: 8, TILE_WIDTH: 1, TILE_HEIGHT: 1}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", data, entry)
        if tag not in (WIDTH, HEIGHT, BITS, CHANNELS, TILE_WIDTH, TILE_HEIGHT) or kind not in TIFF_TYPES:
            continue
        place = entry + 8
        if values * struct.calcsize(TIFF_TYPES[kind]) > 4:  # stored elsewhere
            (place,) = struct.unpack_from(order + "I", data, place)
        (tags[tag],) = struct.unpack_from(order + TIFF_TYPES[kind], data, place)
    if not (tags.get(WIDTH) and tags.get(HEIGHT)):
        return None
    size = max(tags[WIDTH], tags[TILE_WIDTH]), max(tags[HEIGHT], tags[TILE_HEIGHT])
    return Layout(*size, tags[BITS] / 8 * tags[CHANNELS])


def _jpeg_layout(data: bytes) -> Layout | None:
    """By the header of the frame; None for a truncated image."""
    at, layout = 2, None
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker in BARE:
            at += 1 if marker == 0xFF else 2  # 0xFF may be repeated before a marker
            continue
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        if marker in FRAMES and at + 10 <= len(data):
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            layout = Layout(width, height, max(bits, 8) / 8 * channels)
        elif marker == START_OF_SCAN[1]:
            # In entropy coded data, 0 or a restart marker follows 0xFF: the first such pair is the end.
            return layout if data.find(END_OF_IMAGE, at + 2 + length) >= 0 else None
        at += 2 + length
    return None
