# SPDX-License-Identifier: Apache-2.0
"""Writing driving logs: one MCAP file that `ros2 bag play`, Foxglove and LogReader open.

`rosbags` writes a rosbag2 folder, of which the .mcap file is kept.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import TypesysError, get_types_from_msg
from rosbags.typesys.store import Typestore

from pixel4d_ros.files import check_name, is_stream, real_path
from pixel4d_ros.logs.reader import LogError
from pixel4d_ros.logs.types import jazzy_types, store_of

if TYPE_CHECKING:
    from typing_extensions import Self

FLUSH_S = 1.0  # a killed recorder loses at most this much
FOREVER = QosTime(9223372036, 854775807)


class LogWriter:
    """`with LogWriter(path) as log: log.write("/odometry", stamp_ns, message)`; the file appears when it is complete.

    Messages are dataclasses of `jazzy_types().types`, or CDR bytes on topics that were added with their type. An
    existing file, or that to which a link leads, is replaced at the end. Chunks are compressed with zstd. An exception
    discards the file.

    recording: save as much as possible. The log grows in the folder OUT.partial beside OUT.mcap, FLUSH_S behind,
    so that a killed recorder leaves a log that LogReader reads; an exception, such as KeyboardInterrupt, closes the log
    and moves it into place. Raises LogError if that folder exists.
    """

    def __init__(self, path: str | Path, recording: bool = False) -> None:
        self.path = real_path(Path(path))
        self._recording = recording
        check_name(self.path)
        if Path(path).suffix != ".mcap":
            raise LogError(f"cannot write {path}: logs are written as MCAP, name it {Path(path).with_suffix('.mcap')}")
        if is_stream(self.path):
            raise LogError(f"cannot write {path}: it is a device or a pipe; name a file")
        if self.path.is_dir():
            raise LogError(f"cannot write {self.path}: it is a folder; remove it or choose another name")
        self.counts: dict[str, int] = {}
        self._topics: dict[str, tuple[Connection, Typestore]] = {}
        self._folder = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        self._flushed = time.monotonic()
        if recording:
            self._folder = partial_folder(self.path)
            if self._folder.exists():
                raise LogError(
                    f"{self._folder} holds the recording of a recorder that was killed: read it by that path, move its"
                    f" .mcap file to where you want it, or remove it; or record to another name than {self.path.name}"
                )

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._folder, ignore_errors=True)
            # The metadata in the MCAP contains the name of the inner folder: give it the file's name.
            self._writer = Writer(self._folder / self.path.stem, version=9, storage_plugin=StoragePlugin.MCAP)
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            self._writer.open()
        except OSError as error:
            raise LogError(
                f"cannot write {self.path}: {error.strerror}; choose a folder that can be written"
            ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self._recording:
            self._writer.abort()
            shutil.rmtree(self._folder, ignore_errors=True)
            return
        try:
            self._writer.close()
            written = self._folder / self.path.stem / f"{self.path.stem}.mcap"
            with written.open("rb") as file:
                os.fsync(file.fileno())
            written.replace(self.path)
        except OSError as error:
            if self._recording:
                raise LogError(
                    f"{self.path} cannot be written ({error.strerror}); all messages so far are in {self._folder}"
                ) from error
            shutil.rmtree(self._folder, ignore_errors=True)
            raise LogError(f"{self.path} cannot be written: {error.strerror}") from error
        shutil.rmtree(self._folder, ignore_errors=True)

    def add_topic(
        self, name: str, type_name: str, definition: str | None = None, transient_local: bool | None = None
    ) -> None:
        """Add a topic. definition: the message's .msg text with contained types (None: Jazzy's).

        transient_local: the durability of the topic; None: transient local for tf_static only.
        Raises LogError if the type is unknown or its definition cannot be parsed.
        """
        if name in self._topics:
            return
        types = _types_of(type_name, definition)
        keep = name.endswith("tf_static") if transient_local is None else transient_local
        connection = self._writer.add_connection(
            name, type_name, typestore=types, offered_qos_profiles=[_quality(transient_local=keep)]
        )
        self._topics[name] = connection, types
        self.counts[name] = 0

    def write(self, topic: str, time_ns: int, message: Any) -> None:
        """Append a message, a dataclass or CDR bytes, logged at time_ns."""
        is_bytes = isinstance(message, (bytes, bytearray, memoryview))
        if topic not in self._topics:
            if is_bytes:
                raise LogError(f"cannot write bytes to {topic}: its type is unknown, call add_topic first")
            self.add_topic(topic, message.__msgtype__)
        connection, types = self._topics[topic]
        data = message if is_bytes else types.serialize_cdr(message, connection.msgtype)
        self._writer.write(connection, time_ns, data)
        self.counts[topic] += 1

    def flush(self) -> None:
        """Write the current chunk if the last flush is FLUSH_S ago; for recordings."""
        storage: Any = self._writer.storage
        if time.monotonic() > self._flushed + FLUSH_S and storage.chunk.msgs:
            storage.close_chunk()
            storage.bio.flush()
            self._flushed = time.monotonic()


def partial_folder(path: Path) -> Path:
    """The folder of an unfinished recording: OUT.partial beside OUT.mcap, containing OUT/OUT.mcap."""
    return path.with_name(f"{path.stem}.partial")


def _types_of(name: str, definition: str | None) -> Typestore:
    if definition is None:
        if name not in jazzy_types().fielddefs:
            raise LogError(f"message type {name} is unknown: pass its definition (the text of its .msg file)")
        return jazzy_types()
    try:
        return store_of(get_types_from_msg(definition, name))
    except TypesysError as error:
        raise LogError(f"the definition of {name} cannot be parsed: {error}") from error


def _quality(transient_local: bool) -> Qos:
    durability = QosDurability.TRANSIENT_LOCAL if transient_local else QosDurability.VOLATILE
    return Qos(
        QosHistory.KEEP_LAST,
        100 if transient_local else 10,
        QosReliability.RELIABLE,
        durability,
        FOREVER,
        FOREVER,
        QosLiveliness.AUTOMATIC,
        FOREVER,
        avoid_ros_namespace_conventions=False,
    )
