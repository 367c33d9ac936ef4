# SPDX-License-Identifier: Apache-2.0
"""Readers of rosbag2 storages that tolerate more faults than those of `rosbags`.

Unclosed MCAP files (of a killed recorder) are read to their end, channels without ROS messages (protobuf, JSON) are
skipped, and an empty profile or storage identifier is detected from the file.
"""

from __future__ import annotations

import heapq
import logging
import struct
from collections import defaultdict
from collections.abc import Collection, Generator, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.storage_mcap import (
    ChunkInfo,
    McapReader,
    Schema,
    decompress,
    get_msgdef,
    get_qos,
)
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

logger = logging.getLogger(__name__)

MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK, FOOTER, DATA_END = 0x03, 0x04, 0x05, 0x06, 0x02, 0x0F
SCHEMA_ENCODINGS = ("ros2msg", "ros2idl", "omgidl", "")
MESSAGE_HEADER = struct.Struct("<HIQQ")  # channel, sequence number, log time, publish time
CHUNK_HEADER = struct.Struct("<QQQI")  # first and last log time, uncompressed size, CRC
Item = tuple[Connection, int, bytes]


@cache
def warn_once(text: str) -> None:
    """A warning about a file, which is opened several times."""
    logger.warning(text)


class TolerantMcapReader(McapReader):
    """An MCAP file, by its index if that lists ROS messages only, else by a scan of all records."""

    def open(self) -> None:
        """Open the file. Raises ReaderError, or any error of the parser for a damaged file."""
        self._loose: list[tuple[int, int, int, int]] = []  # unchunked messages: log time, offset, size, channel
        self._foreign: set[str] = set()
        try:
            super().open()
        except Exception as error:
            profile, is_closed = _outline(Path(str(self.path)))
            is_foreign = isinstance(error, (KeyError, UnicodeDecodeError)) or profile == ""
            if profile in (None, "ros1") or (is_closed and not is_foreign):
                raise
            self._read_through(is_closed, error)
            return
        if not self.chunks and self.metadata.message_count:
            self._read_through(True, ReaderError("no messages"))

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Generator[Item, None, None]:
        """Messages of some connections in the order of their log times."""
        if not self._loose:
            yield from super().messages(connections, start, stop)
            return
        streams: list[Iterator[Item]] = [self._loose_messages({c.id: c for c in connections}, start, stop)]
        if self.chunks:
            streams.append(super().messages(connections, start, stop))
        yield from heapq.merge(*streams, key=lambda item: item[1])

    def _loose_messages(
        self, connections: dict[int, Connection], start: int | None, stop: int | None
    ) -> Iterator[Item]:
        for time, offset, size, channel in self._loose:
            if channel in connections and time >= (start or 0) and (stop is None or time < stop):
                assert self.bio
                self.bio.seek(offset)
                yield connections[channel], time, self.bio.read(size)

    def _read_through(self, is_closed: bool, error: Exception) -> None:
        """Index the file by its records up to the first incomplete one. Raises `error` without messages."""
        self.schemas.clear()
        self.chunks.clear()
        self.connections.clear()
        self.bio = cast("BinaryIO", Path(str(self.path)).open("rb"))  # noqa: SIM115 (closed by close)
        counts: dict[int, int] = defaultdict(int)
        try:
            end = self._read_records(counts, is_closed)
        except BaseException:
            self.bio.close()
            raise
        known = {c.id for c in self.connections}
        self._loose = sorted(entry for entry in self._loose if entry[3] in known)
        total = sum(count for channel, count in counts.items() if channel in known)
        if not total:
            self.bio.close()
            if self._foreign:
                kinds = ", ".join(sorted(self._foreign))
                raise ReaderError(f"holds no ROS 2 messages; its channels are {kinds}") from error
            raise error
        if not is_closed:
            warn_once(f"{self.path} was not closed: {total} messages are read, the rest is lost ({end} bytes)")
        if self._foreign:
            warn_once(f"{self.path}: channels that hold no ROS messages are left out: {', '.join(self._foreign)}")
        times = [entry[0] for entry in self._loose]
        first = min([*times[:1], *(c.message_start_time for c in self.chunks)])
        last = max([*times[-1:], *(c.message_end_time for c in self.chunks)])
        self.connections[:] = [c._replace(msgcount=counts[c.id]) for c in self.connections]
        self.metadata = self.metadata._replace(
            duration=last - first + 1, start_time=first, end_time=last + 1, message_count=total
        )

    def _read_records(self, counts: dict[int, int], is_closed: bool) -> int:
        """Index chunks and unchunked messages. Returns the number of unreadable bytes."""
        assert self.bio
        size = Path(str(self.path)).stat().st_size
        offset = len(MAGIC)
        while offset + 9 <= size:
            self.bio.seek(offset)
            kind, length = struct.unpack("<BQ", self.bio.read(9))
            if kind in (FOOTER, DATA_END) or offset + 9 + length > size:
                break
            try:
                if kind == CHUNK:
                    self._take_chunk(offset, self.bio.read(length), counts)
                elif kind == MESSAGE and length >= MESSAGE_HEADER.size:
                    channel, _, time, _ = MESSAGE_HEADER.unpack(self.bio.read(MESSAGE_HEADER.size))
                    self._loose.append((time, offset + 9 + MESSAGE_HEADER.size, length - MESSAGE_HEADER.size, channel))
                    counts[channel] += 1
                elif kind in (SCHEMA, CHANNEL):
                    self._take_definition(kind, self.bio.read(length))
            except Exception:
                if is_closed:
                    raise
                break  # the last record may be damaged
            offset += 9 + length
        return size - offset

    def _take_chunk(self, offset: int, record: bytes, counts: dict[int, int]) -> None:
        first, last, size, crc = CHUNK_HEADER.unpack_from(record)
        rest = BytesIO(record[CHUNK_HEADER.size :])
        compression = _text(rest)
        (compressed_size,) = struct.unpack("<Q", rest.read(8))
        data = decompress(rest.read(compressed_size), compression, size, crc)
        own: dict[int, int] = defaultdict(int)
        at = 0
        while at + 9 <= len(data):
            kind, length = struct.unpack_from("<BQ", data, at)
            if kind == MESSAGE:
                own[struct.unpack_from("<H", data, at + 9)[0]] += 1
            elif kind in (SCHEMA, CHANNEL):
                self._take_definition(kind, data[at + 9 : at + 9 + length])
            at += 9 + length
        if own:
            info = ChunkInfo(first, last, offset, 9 + len(record), {}, 0, compression, compressed_size, size, dict(own))
            self.chunks.append(info)
        for channel, count in own.items():
            counts[channel] += count

    def _take_definition(self, kind: int, record: bytes) -> None:
        stream = BytesIO(record)
        (key,) = struct.unpack("<H", stream.read(2))
        if kind == SCHEMA:
            name, encoding, data = _text(stream), _text(stream), _sized(stream)
            text = data.decode() if encoding in SCHEMA_ENCODINGS else ""
            self.schemas[key] = Schema(key, name, encoding, text)
            return
        (schema_id,) = struct.unpack("<H", stream.read(2))
        topic, encoding = _text(stream), _text(stream)
        schema = self.schemas.get(schema_id)
        if encoding != "cdr" or schema is None or schema.encoding not in SCHEMA_ENCODINGS:
            self._foreign.add(f"{topic} ({encoding or 'no encoding'})")
        elif key not in {c.id for c in self.connections}:
            ext = ConnectionExtRosbag2(encoding, get_qos(_sized(stream)))
            self.connections.append(Connection(key, topic, schema.name, get_msgdef(schema), "", 0, ext, self))


def _outline(path: Path) -> tuple[str | None, bool]:
    """The profile of an MCAP file (None: no MCAP file), and whether it was closed."""
    with path.open("rb") as file:
        head = file.read(4096)
        file.seek(max(0, path.stat().st_size - len(MAGIC)))
        is_closed = file.read() == MAGIC
    if not head.startswith(MAGIC) or len(head) < 21 or head[8] != 0x01:
        return None, is_closed
    (length,) = struct.unpack_from("<I", head, 17)
    return head[21 : 21 + length].decode(errors="replace"), is_closed


def _sized(stream: BytesIO) -> bytes:
    (length,) = struct.unpack("<I", stream.read(4))
    data = stream.read(length)
    if len(data) < length:
        raise ReaderError("a record is shorter than it claims")
    return data


def _text(stream: BytesIO) -> str:
    return _sized(stream).decode()


def open_storage(path: Path) -> Any:
    """The reader of a storage file, by its content."""
    with path.open("rb") as file:
        is_sqlite = file.read(15) == b"SQLite format 3"
    return Sqlite3Reader(path) if is_sqlite else TolerantMcapReader(path)
