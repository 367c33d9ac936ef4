"""Driving logs as a stream of messages: a bare .mcap or .db3 file, a rosbag2 folder, a rosbag1 .bag. No ROS needed.

`rosbags` reads all of these with one interface, which is why neither the mcap package nor rosbag2_py is used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rosbags import rosbag1, rosbag2
from rosbags.convert.converter import is_same_wireformat, migrate_bytes
from rosbags.interfaces import Connection, ConnectionExtRosbag1, QosDurability

from pixel4d_ros.logs.types import RENAMED, merged_types, ros1_types, ros2_types

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")
TRANSIENT_LOCAL = QosDurability.TRANSIENT_LOCAL


class LogError(ValueError):
    """A log that cannot be used; the message names the file, the cause and the cure."""


@dataclass(frozen=True)
class Topic:
    """One topic of a log; type is the ROS 2 name, e.g. "sensor_msgs/msg/Image"."""

    name: str
    type: str
    count: int


@dataclass(frozen=True)
class LoggedMessage:
    """A deserialised message (a dataclass with the fields of the ROS 2 type) and when it was logged, ns."""

    topic: str
    time_ns: int
    message: Any


@dataclass(frozen=True)
class RawMessage:
    """A message as ROS 2 CDR bytes and when it was logged, ns."""

    topic: str
    type: str
    time_ns: int
    data: bytes


class LogReader:
    """A log opened for reading: `with LogReader(path) as log: for m in log.messages(["/odometry"]): ...`

    Opening reads only the index. Raises LogError, also while reading, when the file is damaged. `latched` are the
    topics whose last messages late subscribers get (transient local; latching in ROS 1).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = existing_log(Path(path))
        self.is_ros1 = self.path.suffix == ".bag"
        self._reader: Any = None

    def __enter__(self) -> Self:
        opener = rosbag1.Reader if self.is_ros1 else rosbag2.Reader
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
        self._connections: list[Connection] = list(self._reader.connections)
        definitions = [(c.msgtype, c.msgdef) for c in self._connections]
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

    def messages(self, topics: Collection[str] | None = None, start_ns: int | None = None) -> Iterator[LoggedMessage]:
        """Deserialised messages of some topics (None: of all whose type is known) in the order of their log times."""
        known = [name for name in (self.topics if topics is None else topics) if topics is not None or self.knows(name)]
        for name in known:
            if name in self.topics and not self.knows(name):
                raise LogError(
                    f"{self.path}: topic {name} has the unknown type {self.topics[name].type} and the log lacks its"
                    " definition; record it again with a recorder that stores definitions (MCAP does)"
                )
        for raw in self.raw(known, start_ns):
            yield LoggedMessage(raw.topic, raw.time_ns, self.decode(raw))

    def decode(self, raw: RawMessage) -> Any:
        """The message in CDR bytes, as a dataclass."""
        return self._guarded(lambda: self.types.deserialize_cdr(raw.data, raw.type))

    def raw(self, topics: Collection[str] | None = None, start_ns: int | None = None) -> Iterator[RawMessage]:
        """Messages as ROS 2 CDR bytes in the order of their log times; those of a rosbag1 are converted.

        Topics of a rosbag1 whose type ROS 2 cannot express are left out.
        """
        wanted = [c for c in self._connections if topics is None or c.topic in topics]
        if self.is_ros1:
            wanted = [c for c in wanted if self.knows(c.topic)]
        if not wanted:
            return
        stream = self._guarded(lambda: iter(self._reader.messages(connections=wanted, start=start_ns)))
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

    def knows(self, topic: str) -> bool:
        """Whether the definition of this topic's type is known, so that its messages can be deserialised."""
        return self.topics[topic].type in self.types.fielddefs

    def definition(self, type_name: str) -> str:
        """The message definition as text, with those it contains (the `ros2msg` schema of MCAP)."""
        return self.types.generate_msgdef(type_name, ros_version=2)[0]

    def _guarded(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except LogError:
            raise
        except Exception as error:  # a damaged file makes the parsers raise anything: struct.error, apsw.Error...
            raise explained(self.path, error) from error


def _is_latched(connection: Connection) -> bool:
    if isinstance(connection.ext, ConnectionExtRosbag1):
        return bool(connection.ext.latching) or connection.topic.endswith("tf_static")
    profiles = connection.ext.offered_qos_profiles
    return connection.topic.endswith("tf_static") or any(q.durability == TRANSIENT_LOCAL for q in profiles)


def existing_log(path: Path) -> Path:
    """The log at this path, with its suffix added where it was left out. Raises LogError."""
    if not path.exists():
        found = [path.with_name(path.name + suffix) for suffix in (".mcap", ".bag", ".db3")]
        found = [p for p in found if p.is_file()]
        if not found:
            raise LogError(f"{path} does not exist: check the path of the log")
        path = found[0]
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
    ".mcap": "it was not closed or not copied whole; `mcap recover` saves what is there",
    ".db3": "it was not closed or not copied whole; copy it again, or try `sqlite3 FILE .recover`",
    ".bag": "it was not closed or not copied whole; `rosbag reindex` saves what is there",
    "": "it was not closed or not copied whole; copy it again, or try `ros2 bag reindex`",
}


def explained(path: Path, error: Exception) -> LogError:
    """The LogError for what a parser said about the file at path."""
    what = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, PermissionError):
        return LogError(f"{path} cannot be read: permission denied; check its owner and mode")
    if "magic" in what and "end" not in what.lower():
        return LogError(f"{path} is not a log although it is named {path.suffix}: pass the file that was recorded")
    if "Profile is not ros2" in what:
        return LogError(
            f"{path} is an MCAP file but not of ROS 2: convert it, e.g. `mcap convert` or `rosbags-convert`"
        )
    if isinstance(error, KeyError) and not what.strip("'").isdigit():
        what = f"unknown key {what}"
    return LogError(f"{path} is truncated or damaged ({what.rstrip('.')}): {CURES.get(path.suffix, CURES[''])}")
