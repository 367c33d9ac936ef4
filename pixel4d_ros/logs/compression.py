# SPDX-License-Identifier: Apache-2.0
"""Decompression of chunks and messages of logs, bounded: a megabyte may unpack to many gigabytes.

`rosbags` looks its decompressors up in two tables, whose entries `bound_rosbags` replaces.
"""

from __future__ import annotations

import bz2
import errno
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]
from rosbags.rosbag1 import reader as rosbag1_reader
from rosbags.rosbag2 import storage_mcap

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MAX_UNPACKED = 1 << 28  # bytes: recorders begin a new chunk after some megabytes; the largest images take 200 MB

# A file may unpack to so many times its size (raw images: up to 10), and must leave so many bytes free on the disk.
MAX_RATIO, LEFT_FREE = 100, 1 << 29
BLOCK = 1 << 22  # bytes that are unpacked at once


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


def unpack_zstd_file(path: Path, to: Path) -> None:
    """Write the data that a file holds in zstd to the file `to`.

    Raises ValueError for more than MAX_RATIO times its size or a truncated file, OSError if the disk is almost full.
    """
    limit, written = max(MAX_UNPACKED, MAX_RATIO * path.stat().st_size), 0
    with zstd.open(path, "rb") as packed, to.open("wb") as file:
        while True:
            try:
                part = packed.read(BLOCK)
            except EOFError as error:
                raise ValueError(f"{path.name} is truncated") from error
            if not part:
                return
            written += len(part)
            if written > limit:
                raise ValueError(f"{path.name} unpacks to more than {limit >> 20} MiB")
            if shutil.disk_usage(to.parent).free < LEFT_FREE + len(part):
                raise OSError(errno.ENOSPC, f"no space left to unpack {path.name} in {to.parent}")
            file.write(part)


def bound_rosbags() -> None:
    """Have the readers of rosbags unpack no more than MAX_UNPACKED at once."""
    storage_mcap.DECOMPRESSORS.update(
        {"lz4": lambda data, _: unpack_lz4(data), "zstd": lambda data, _: unpack_zstd(data)}
    )
    compression = rosbag1_reader.Compression
    rosbag1_reader.decompressors.update({compression.LZ4.value: unpack_lz4, compression.BZ2.value: unpack_bz2})
