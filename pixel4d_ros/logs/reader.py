# SPDX-License-Identifier: Apache-2.0
"""Driving logs as a stream of messages: a bare .mcap or .db3 file, a rosbag2 folder, a rosbag1 .bag. No ROS needed.

`rosbags` reads all of these through one interface, hence neither the mcap package nor rosbag2_py.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rosbags import rosbag1
from rosbags.convert.converter import is_same_wireformat, migrate_bytes
from rosbags.interfaces import Connection, ConnectionExtRosbag1, QosDurability
from rosbags.typesys.store import Typestore

from pixel4d_ros.logs.compression import bound_rosbags
from pixel4d_ros.logs.rosbag2_folder import TolerantReader
from pixel4d_ros.logs.types import HEADER, RENAMED, merged_types, ros1_types, ros2_types

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")
DATES_NS = 10**17  # log times beyond this are dates (1973), not those of a simulator
TRANSIENT_LOCAL = QosDurability.TRANSIENT_LOCAL


class LogError(ValueError):
    """An unusable log; the message names the file, the cause and the cure."""


@dataclass(frozen=True)
class Topic:
    """One topic of a log; type is the ROS 2 name, e.g. "sensor_msgs/msg/Image"."""

    name: str
    type: str
    count: int


@dataclass(frozen=True)
class LoggedMessage:
    """A deserialised message (a dataclass with the fields of the ROS 2 type) and its log time, ns."""

    topic: str
    time_ns: int
    message: Any


@dataclass(frozen=True)
class RawMessage:
    """A message as ROS 2 CDR bytes and its log time, ns."""

    topic: str
    type: str
    time_ns: int
    data: bytes


class LogReader:
    """A log opened for reading.

    `with LogReader(path) as log: for m in log.messages(["/odometry"]): ...`

    Opening reads only the index. Raises LogError, also while reading, if the file is damaged. `latched`: transient
    local topics (latched in ROS 1).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = existing_log(Path(path))
        self.is_ros1 = self.path.suffix == ".bag"
        self._reader: Any = None

    def __enter__(self) -> Self:
        bound_rosbags()
        opener = rosbag1.Reader if self.is_ros1 else TolerantReader
        self._reader = self._guarded(lambda: opener(self.path))
        self._guarded(self._reader.open)
        try:
            self._guarded(self._index)
        except LogError:
            self._reader.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def _index(self) -> None:
        self._connections: list[Connection] = [c for c in self._reader.connections if _is_cdr(c)]
        definitions = tuple((c.msgtype, c.msgdef) for c in self._connections)
        if self.is_ros1:
            self._source_types = ros1_types(definitions)
            self.types = ros2_types(self._source_types)
            self._migrations: dict[str, object] = {}
        else:
            self.types = merged_types(definitions)
        self.topics: dict[str, Topic] = {}
        for c in self._connections:
            count = c.msgcount + (self.topics[c.topic].count if c.topic in self.topics else 0)
            self.topics[c.topic] = Topic(c.topic, RENAMED.get(c.msgtype, c.msgtype), count)
        self.latched = frozenset(c.topic for c in self._connections if _is_latched(c))
        if not self._reader.message_count:
            raise LogError(f"{self.path} holds no messages: the recording had nothing to record; record it again")
        self.start_ns: int = self._reader.start_time
        self.end_ns: int = self._reader.end_time
        self._retimed = False
        if self.start_ns <= 0 and (self.end_ns > DATES_NS or self.end_ns <= 1):
            self._retime()

    def _retime(self) -> None:
        """Use the stamps of messages that were logged at time 0."""
        self._retimed = True
        times = [raw.time_ns for raw in self.raw()]
        valid = [time for time in times if time > 0]
        if not valid:
            raise LogError(
                f"{self.path}: all messages were logged at time 0 and have no stamps, their order in time is unknown:"
                " record it again with a recorder whose clock runs (without --use-sim-time, or with /clock published)"
            )
        self.start_ns, self.end_ns = min(valid), max(valid) + 1

    def messages(self, topics: Collection[str] | None = None, start_ns: int | None = None) -> Iterator[LoggedMessage]:
        """Deserialised messages of some topics (None: all of known type) in the order of their log times."""
        chosen = list(filter(self.is_known, self.topics) if topics is None else topics)
        for name in chosen:
            if name in self.topics and not self.is_known(name):
                raise LogError(
                    f"{self.path}: topic {name} has the unknown type {self.topics[name].type} and the log lacks its"
                    " definition; record it again with a recorder that stores definitions (MCAP does)"
                )
        for raw in self.raw(chosen, start_ns):
            yield LoggedMessage(raw.topic, raw.time_ns, self.decode(raw))

    def decode(self, raw: RawMessage) -> Any:
        """The message in CDR bytes, as a dataclass."""
        return self._guarded(lambda: self.types.deserialize_cdr(raw.data, raw.type))

    def raw(self, topics: Collection[str] | None = None, start_ns: int | None = None) -> Iterator[RawMessage]:
        """Messages as ROS 2 CDR bytes in the order of their log times. Messages of a rosbag1 are converted.

        Topics of a rosbag1 without a corresponding ROS 2 type are skipped.
        """
        chosen = [c for c in self._connections if topics is None or c.topic in topics]
        if self.is_ros1:
            chosen = [c for c in chosen if self.is_known(c.topic)]
        if chosen:
            yield from (self._retimed_messages if self._retimed else self._stored)(chosen, start_ns)

    def _retimed_messages(self, connections: list[Connection], start_ns: int | None) -> Iterator[RawMessage]:
        """All messages in memory, sorted; those logged at time 0 get their stamp, without one the log's start."""
        earliest = getattr(self, "start_ns", 0)
        timed = [
            raw if raw.time_ns > 0 else replace(raw, time_ns=raw_stamp_ns(raw, self.types) or earliest)
            for raw in self._stored(connections, None)
        ]
        yield from (raw for raw in sorted(timed, key=lambda raw: raw.time_ns) if raw.time_ns >= (start_ns or 0))

    def _stored(self, connections: list[Connection], start_ns: int | None) -> Iterator[RawMessage]:
        stream = self._guarded(lambda: iter(self._reader.messages(connections=connections, start=start_ns)))
        while (item := self._guarded(lambda: next(stream, None))) is not None:
            connection, time_ns, data = item
            name = RENAMED.get(connection.msgtype, connection.msgtype)
            if self.is_ros1:
                data = self._guarded(lambda: self._to_cdr(connection.msgtype, name, data))  # noqa: B023 (called at once)
            yield RawMessage(connection.topic, name, time_ns, bytes(data))

    def _to_cdr(self, ros1_name: str, name: str, data: bytes) -> memoryview:
        if is_same_wireformat(self._source_types, self.types, ros1_name, name):
            return self.types.ros1_to_cdr(data, name)
        return migrate_bytes(
            self._source_types, self.types, ros1_name, name, self._migrations, data, src_is2=False, dst_is2=True
        )

    def is_known(self, topic: str) -> bool:
        """Whether the topic's messages can be deserialised: the definition of their type is known."""
        return self.topics[topic].type in self.types.fielddefs

    def _guarded(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except LogError:
            raise
        except Exception as error:  # parsers of damaged files raise many types: struct.error, apsw.Error...
            raise log_error(self.path, error) from error


def _is_cdr(connection: Connection) -> bool:
    """Whether a connection holds ROS messages; MCAP files may also hold JSON and protobuf."""
    return isinstance(connection.ext, ConnectionExtRosbag1) or connection.ext.serialization_format in ("cdr", "")


def raw_stamp_ns(raw: RawMessage, types: Typestore) -> int:
    """The header stamp of a message, ns, without deserialising the rest; 0 if its type has no header."""
    fields = types.fielddefs.get(raw.type, ([], []))[1]
    if not fields or fields[0][1][1] != HEADER or len(raw.data) < 12:
        return 0
    sec, nanosec = struct.unpack_from("<iI" if raw.data[1] & 1 else ">iI", raw.data, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


def raw_frame_id(raw: RawMessage, types: Typestore) -> str:
    """The frame_id of a message's header, without deserialising the rest; "" if its type has no header."""
    fields = types.fielddefs.get(raw.type, ([], []))[1]
    if not fields or fields[0][1][1] != HEADER or len(raw.data) < 16:
        return ""
    (length,) = struct.unpack_from("<I" if raw.data[1] & 1 else ">I", raw.data, 12)
    return raw.data[16 : 16 + length].rstrip(b"\0").decode(errors="replace").strip("/")


def _is_latched(connection: Connection) -> bool:
    if isinstance(connection.ext, ConnectionExtRosbag1):
        return bool(connection.ext.latching) or connection.topic.endswith("tf_static")
    profiles = connection.ext.offered_qos_profiles
    return connection.topic.endswith("tf_static") or any(q.durability == TRANSIENT_LOCAL for q in profiles)


def existing_log(path: Path) -> Path:
    """The log at a path, whose suffix may be omitted. Raises LogError."""
    if not path.exists():
        found = [path.with_name(path.name + suffix) for suffix in (".mcap", ".bag", ".db3")]
        found = [p for p in found if p.is_file()]
        partial = path.with_name(f"{path.stem}.partial")
        if not found and partial.is_dir():
            raise LogError(f"{path} does not exist, but a recorder that was killed left {partial}: pass that folder")
        if not found:
            raise LogError(f"{path} does not exist: check the path of the log")
        path = found[0]
    if path.suffix == ".partial" and path.is_dir():  # of LogWriter: the folder of an unfinished recording
        path = path / path.stem / f"{path.stem}.mcap"
        if not path.is_file():
            raise LogError(f"{path} does not exist: the recorder was killed before it had anything to write")
    if path.is_dir():
        if not (path / "metadata.yaml").is_file():
            inside = sorted(p.name for p in path.iterdir() if p.suffix in (".mcap", ".db3", ".bag"))
            cure = (
                f"pass a file in it, e.g. {path / inside[0]}"
                if inside
                else "pass the folder of a rosbag2 or a .mcap file"
            )
            raise LogError(f"{path} is not a rosbag2 folder, it has no metadata.yaml: {cure}")
    elif path.suffix not in (".mcap", ".db3", ".bag"):
        raise LogError(f"{path} is not a driving log: pass a .mcap, .db3 or .bag file, or a rosbag2 folder")
    elif path.stat().st_size == 0:
        raise LogError(f"{path} is empty (0 bytes): the recording or the copy failed; record or copy it again")
    return path


CURES = {
    ".mcap": "it was not closed or not copied whole; copy it again, or save what is there with `mcap recover`",
    ".db3": "it was not closed or not copied whole; copy it again, or try `sqlite3 FILE .recover | sqlite3 NEW.db3`",
    ".bag": "it was not closed or not copied whole; copy it again, or save what is there with `rosbag reindex`",
    "": "it was not closed or not copied whole; copy it again, or pass one of the files in it",
}


def log_error(path: Path, error: Exception) -> LogError:
    """The LogError for a parser's error on the file at path."""
    what = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, PermissionError):
        return LogError(f"{path} cannot be read: permission denied; check its owner and mode")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return LogError(f"{path}: {error.strerror}: set TMPDIR to a folder on a larger disk")
    if "magic" in what and "end" not in what.lower():
        return LogError(f"{path} is not a log although it is named {path.suffix}: pass the file that was recorded")
    if "Profile is not ros2" in what:
        return LogError(
            f"{path} is an MCAP file of ROS 1: pass the .bag that it was made of, or convert that with"
            " `rosbags-convert --src LOG.bag --dst FOLDER`"
        )
    if "holds no ROS 2 messages" in what:
        return LogError(f"{path} {what}: record the ROS 2 topics, with message encoding cdr")
    if isinstance(error, KeyError) and not what.strip("'").isdigit():
        what = f"unknown key {what}"
    return LogError(f"{path} is truncated or damaged ({what.rstrip('.')}): {CURES.get(path.suffix, CURES[''])}")
