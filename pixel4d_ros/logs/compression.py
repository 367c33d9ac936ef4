# SPDX-License-Identifier: Apache-2.0
"""Decompression of chunks and messages of logs, bounded: a megabyte may unpack to many gigabytes.

`rosbags` looks its decompressors up in two tables, whose entries `bound_rosbags` replaces.
"""

from __future__ import annotations

import bz2
import sys
from collections.abc import Callable
from typing import Any

from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]
from rosbags.rosbag1 import reader as rosbag1_reader
from rosbags.rosbag2 import storage_mcap

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_UNPACKED = 1 << 28  # bytes: recorders begin a new chunk after some megabytes; the largest images take 200 MB


def unpack(data: bytes, decompressor: Callable[[], Any], limit: int = MAX_UNPACKED) -> bytes:
    """The unpacked data of one or several frames. Raises ValueError for more than `limit` bytes, or a truncated frame.

    decompressor: makes an object with decompress(data, max_length), eof, needs_input and unused_data.
    """
    parts, left = [], limit
    while data:
        frame = decompressor()
        part = frame.decompress(data, max_length=left + 1)
        left -= len(part)
        if left < 0:
            raise ValueError(f"a chunk unpacks to more than {limit >> 20} MiB")
        if not frame.eof:
            raise ValueError("a compressed chunk is truncated")
        parts.append(part)
        data = frame.unused_data or b""
    return b"".join(parts)


def unpack_zstd(data: bytes, limit: int = MAX_UNPACKED) -> bytes:
    """The data that zstd compressed, see unpack."""
    return unpack(data, zstd.ZstdDecompressor, limit)


def unpack_lz4(data: bytes, limit: int = MAX_UNPACKED) -> bytes:
    """The data that lz4 compressed, see unpack."""
    return unpack(data, LZ4FrameDecompressor, limit)


def unpack_bz2(data: bytes, limit: int = MAX_UNPACKED) -> bytes:
    """The data that bz2 compressed, see unpack."""
    return unpack(data, bz2.BZ2Decompressor, limit)


def bound_rosbags() -> None:
    """Have the readers of rosbags unpack no more than MAX_UNPACKED at once."""
    storage_mcap.DECOMPRESSORS.update(
        {"lz4": lambda data, _: unpack_lz4(data), "zstd": lambda data, _: unpack_zstd(data)}
    )
    compression = rosbag1_reader.Compression
    rosbag1_reader.decompressors.update({compression.LZ4.value: unpack_lz4, compression.BZ2.value: unpack_bz2})
