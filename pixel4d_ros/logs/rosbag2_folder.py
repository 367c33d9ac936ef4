# SPDX-License-Identifier: Apache-2.0
"""rosbag2 folders: their files are merged by log time, and count for more than their metadata.yaml.

Topics, types, counts and the format of a file are read from the file itself. Of metadata.yaml remain the names of the
files, and whether messages are compressed.
"""

from __future__ import annotations

import copy
import heapq
from collections.abc import Collection, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pixel4d_ros.logs.compression import ZSTD_MAGIC, unpack_zstd, unpack_zstd_file
from pixel4d_ros.logs.storage import Item, TolerantMcapReader, open_storage, warn_once

METADATA, BAG = "metadata.yaml", "rosbag2_bagfile_information"
STORAGES = ("*.mcap", "*.db3", "*.mcap.zstd", "*.db3.zstd")


class TolerantDirectoryReader(DirectoryReader):
    """A rosbag2 folder, read from those of its files that are there and whole."""

    def open(self) -> None:
        """Open the files. Those that are missing or damaged are named in a warning; raises if no file is readable."""
        folder = Path(str(self.path))
        names, compression = _listed(folder)
        self.stack = ExitStack()
        self.storages = []
        errors: list[Exception] = []
        for name in names:
            try:
                storage = self._open_file(folder / name)
            except Exception as error:  # parsers of damaged files raise many types
                if isinstance(error, (PermissionError, MemoryError)):
                    self.stack.close()
                    raise
                errors.append(error if len(names) == 1 else ReaderError(f"{name}: {error}"))
                continue
            self.stack.callback(storage.close)
            self.storages.append(storage)
        if not self.storages:
            self.stack.close()
            raise errors[0]
        for left_out in errors:
            warn_once(f"{folder}: a file is truncated or damaged and left out, {left_out}")
        self._merge_metadata(compression)

    def _open_file(self, path: Path) -> Any:
        """The open reader of a file; one that is compressed is unpacked to a temporary folder."""
        assert self.stack is not None
        with path.open("rb") as file:
            is_compressed = file.read(len(ZSTD_MAGIC)) == ZSTD_MAGIC
        if is_compressed:
            unpacked = Path(self.stack.enter_context(TemporaryDirectory())) / path.stem
            unpack_zstd_file(path, unpacked)
            packed, path = path, unpacked
        storage = open_storage(path)
        try:
            storage.open()
        except Exception as error:
            if is_compressed:  # name the file that the user knows
                raise ReaderError(str(error).replace(str(path), str(packed))) from error
            raise
        return storage

    def _merge_metadata(self, compression: str | None) -> None:
        """One connection for each topic and type, and the times and counts of all files."""
        merged: dict[tuple[object, ...], Connection] = {}
        for storage in self.storages:
            for c in storage.connections:
                key = (c.topic, c.msgtype, repr(c.ext), c.digest)
                known = merged.get(key)
                if known is None:
                    merged[key] = c._replace(id=len(merged) + 1, owner=self)
                    continue
                has_text = known.msgdef.format != MessageDefinitionFormat.NONE
                merged[key] = known._replace(
                    msgcount=known.msgcount + c.msgcount, msgdef=known.msgdef if has_text else c.msgdef
                )
        self.connections = list(merged.values())
        spans = [s.metadata for s in self.storages if s.metadata.message_count]
        first, last = min((s.start_time for s in spans), default=0), max((s.end_time for s in spans), default=0)
        self.metadata = self.metadata._replace(
            start_time=first,
            end_time=last,
            duration=last - first,
            message_count=sum(s.message_count for s in spans),
            compression_mode=compression,
        )

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Generator[Item, None, None]:
        """Messages of some connections in the order of their log times."""
        streams: list[Iterator[Item]] = []
        for storage in self.storages:
            alone = copy.copy(self)
            alone.storages = [storage]
            alone.metadata = self.metadata._replace(compression_mode=None)
            streams.append(DirectoryReader.messages(alone, connections, start, stop))
        compressed = self.metadata.compression_mode == "message"
        for connection, time, data in heapq.merge(*streams, key=lambda item: item[1]):
            yield connection, time, unpack_zstd(data) if compressed else data


def _listed(folder: Path) -> tuple[list[str], str | None]:
    """Names of the files that exist, and the mode of compression. Raises ReaderError if there are none.

    A warning names the files that metadata.yaml lists and that are missing, or says why it is not used.
    """
    mode, fault = None, ""
    try:
        about = YAML(typ="safe").load((folder / METADATA).read_text())[BAG]
        names = [PurePath(name).name for name in about["relative_file_paths"]]
        mode = str(about.get("compression_mode") or "").lower() or None
    except (ValueError, KeyError, TypeError, AttributeError, YAMLError) as error:
        names, fault = [], f"{METADATA} is damaged ({type(error).__name__}) and not used"
    missing = [name for name in names if not (folder / name).exists()]
    if len(missing) < len(names):
        if missing:
            warn_once(f"{folder}: of the recording's files, {', '.join(missing)} are missing; the others are read")
        return [name for name in names if name not in missing], mode
    found = sorted({path.name for pattern in STORAGES for path in folder.glob(pattern)})
    if not found:
        raise ReaderError(f"{fault or f'{METADATA} lists {missing}'}; there are no .mcap or .db3 files in the folder")
    fault = fault or f"none of the files that {METADATA} lists is there ({', '.join(missing)})"
    warn_once(f"{folder}: {fault}; read are {', '.join(found)}")
    return found, mode


class TolerantReader(Reader):
    """rosbags' Reader of rosbag2 folders and files, with this package's storages."""

    STORAGE_PLUGINS = {"dir": TolerantDirectoryReader, ".mcap": TolerantMcapReader, ".db3": Sqlite3Reader}  # noqa: RUF012 (as in the base class)
