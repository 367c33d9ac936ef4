# SPDX-License-Identifier: Apache-2.0
"""Compressed logs are read, and do not fill the memory."""

from __future__ import annotations

import bz2
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import lz4.frame  # type: ignore[import-untyped]
import numpy as np
import pytest
from rosbags import rosbag2
from support.log_samples import entries, write_mcap, write_rosbag2

from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.logs.compression import MAX_UNPACKED, unpack_bz2, unpack_lz4, unpack_zstd, zstd
from pixel4d_ros.logs.reader import LogError, LogReader
from pixel4d_ros.logs.types import jazzy_types

FORMATS = [
    pytest.param(unpack_zstd, zstd.compress, id="zstd"),
    pytest.param(unpack_lz4, lz4.frame.compress, id="lz4"),
    pytest.param(unpack_bz2, bz2.compress, id="bz2"),
]


@pytest.mark.parametrize(("unpack", "pack"), FORMATS)
def test_frames_are_unpacked_up_to_a_limit(unpack: Callable[..., bytes], pack: Callable[[bytes], bytes]) -> None:
    data = np.random.default_rng(1).bytes(1000) + bytes(100_000)
    packed = pack(data)
    assert unpack(packed) == unpack(packed, len(data)) == data
    assert unpack(packed + packed) == data + data
    assert unpack(b"") == b""
    with pytest.raises(ValueError, match="unpacks to more than"):
        unpack(packed, len(data) - 1)
    with pytest.raises(ValueError, match="truncated"):
        unpack(packed[:-5])


def test_a_chunk_of_gigabytes_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    """Three gigabytes of zeros are 98 kB of zstd."""
    packer, block = zstd.ZstdCompressor(), bytes(1 << 26)
    bomb = b"".join(packer.compress(block) for _ in range(48)) + packer.flush()
    whole = write_mcap(tmp_path / "whole.mcap", entries()).read_bytes()
    header_end = 17 + struct.unpack_from("<Q", whole, 9)[0]
    record = struct.pack("<QQQI", 1, 2, 48 << 26, 0) + struct.pack("<I", 4) + b"zstd" + struct.pack("<Q", len(bomb))
    path = tmp_path / "bomb.mcap"
    path.write_bytes(whole[:header_end] + struct.pack("<BQ", 6, len(record) + len(bomb)) + record + bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LogError, match=r"bomb\.mcap is truncated or damaged"), LogReader(path):
        pass
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 3 * MAX_UNPACKED


@pytest.mark.parametrize("mode", [rosbag2.CompressionMode.FILE, rosbag2.CompressionMode.MESSAGE])
def test_zstd_of_files_and_messages_is_read_and_a_torn_file_refused(
    tmp_path: Path, mode: rosbag2.CompressionMode
) -> None:
    types, path = jazzy_types(), tmp_path / "bag"
    bag = rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.SQLITE3)
    bag.set_compression(mode, rosbag2.CompressionFormat.ZSTD)
    with bag:
        connections = {}
        for e in entries():
            kind = e.message.__msgtype__
            if e.topic not in connections:
                connections[e.topic] = bag.add_connection(e.topic, kind, typestore=types)
            bag.write(connections[e.topic], e.time_ns, types.serialize_cdr(e.message, kind))
    assert len(read_clip(path)) == 6
    for file in path.glob("*.zstd"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(LogError, match=r"bag is truncated or damaged \(bag.db3.zstd is truncated\)"):
            read_clip(path)


def test_a_compressed_file_that_would_fill_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three gigabytes of zeros behind a log are 98 kB of zstd; a disk that is full is named."""
    bag = write_rosbag2(tmp_path / "bag", list(entries()), rosbag2.StoragePlugin.SQLITE3)
    packer, block = zstd.ZstdCompressor(), bytes(1 << 26)
    data = packer.compress((bag / "bag.db3").read_bytes())
    (bag / "bag.db3.zstd").write_bytes(data + b"".join(packer.compress(block) for _ in range(48)) + packer.flush())
    (bag / "bag.db3").unlink()
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("- bag.db3", "- bag.db3.zstd"))
    with pytest.raises(LogError, match=r"bag is truncated or damaged \(bag.db3.zstd unpacks to more than 256 MiB\)"):
        read_clip(bag)
    monkeypatch.setattr("pixel4d_ros.logs.compression.LEFT_FREE", 1 << 62)
    with pytest.raises(LogError, match=r"no space left to unpack bag\.db3\.zstd in .*: set TMPDIR to a folder on a"):
        read_clip(bag)
