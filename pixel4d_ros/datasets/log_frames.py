"""Images and depth of a driving log, decoded when they are asked for."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.lazy_frames import LazyFrames
from pixel4d_ros.logs.reader import LogError, LogReader, RawMessage
from pixel4d_ros.logs.transforms import stamp_ns

S = TypeVar("S", bound=np.generic)
READ_ON_NS = 1_000_000_000  # a message this little ahead is reached by reading on, any other by a new search


@dataclass(frozen=True)
class ImageIndex:
    """The messages of an image topic: their stamps (T,) ns, strictly increasing, and when they were logged (T,) ns."""

    topic: str
    stamps: NDArray[np.int64]
    logged: NDArray[np.int64]
    first: Any  # the topic's first message

    @property
    def frame_id(self) -> str:
        """The camera's frame."""
        return str(self.first.header.frame_id.strip("/"))

    def __getitem__(self, keep: slice | NDArray[Any]) -> ImageIndex:
        return replace(self, stamps=self.stamps[keep], logged=self.logged[keep])


def image_messages(log: LogReader, topic: str) -> Iterator[tuple[int, Any]]:
    """(stamp ns, message) of an image topic, in strictly increasing order; a missing stamp is the time of logging."""
    last = -1
    for raw in log.raw([topic]):
        message = log.decode(raw)
        stamp = stamp_ns(message.header) or raw.time_ns
        if stamp > last:
            last = stamp
            yield stamp, message


def index_images(log: LogReader, topics: Iterable[str]) -> dict[str, ImageIndex]:
    """Where the images of some topics are, by topic, in one pass over the log; topics without images are left out."""
    times: dict[str, list[tuple[int, int]]] = {}
    firsts: dict[str, Any] = {}
    for raw in log.raw(list(topics)):
        message = log.decode(raw)
        stamp = stamp_ns(message.header) or raw.time_ns
        found = times.setdefault(raw.topic, [])
        if not found or stamp > found[-1][0]:
            found.append((stamp, raw.time_ns))
        firsts.setdefault(raw.topic, message)
    indices = {}
    for topic, found in times.items():
        stamps, logged = np.array(found, np.int64).T
        indices[topic] = ImageIndex(topic, stamps, logged, firsts[topic])
    return indices


def lazy_images(path: Path, index: ImageIndex, decode: Callable[[Any], NDArray[S]]) -> LazyFrames[S]:
    """The frames of an index, all as large as the topic's first. Raises LogError, also when a frame is asked for."""
    messages = _Messages(path, index.topic)

    def decoded(message: Any, i: int) -> NDArray[S]:
        try:
            return decode(message)
        except ValueError as error:
            raise LogError(f"{path}: {index.topic}, image {i}: {error}") from error

    first = decoded(index.first, 0)

    def read_alike(i: int) -> NDArray[S]:
        image = decoded(messages.at(int(index.logged[i]), int(index.stamps[i])), i)
        if image.shape != first.shape:
            size, wanted = (f"{s[1]}x{s[0]}" for s in (image.shape, first.shape))
            raise LogError(
                f"{path}: {index.topic}: image {i} has {size} pixels, the first {wanted}: a clip needs one size"
            )
        return image

    return LazyFrames(read_alike, len(index.stamps), first.shape, first.dtype)


class _Messages:
    """Messages of one topic by their times. Reading on in order is quick in every format, going back where it can be.

    The log is opened on first use, by each process for itself.
    """

    def __init__(self, path: Path, topic: str) -> None:
        self.path, self.topic = path, topic
        self._lock = Lock()
        self._process: int | None = None
        self._stream: Iterator[RawMessage] = iter(())
        self._position = 0  # when the last message that was read was logged

    def at(self, logged_ns: int, stamp: int) -> Any:
        """The message of that time of logging and that stamp."""
        with self._lock:
            if self._process != os.getpid():
                self._open()
            if not self._position < logged_ns < self._position + READ_ON_NS:
                self._stream = self._log.raw([self.topic], logged_ns)
            for raw in self._stream:
                if raw.time_ns < logged_ns:
                    continue
                self._position = raw.time_ns
                message = self._log.decode(raw)
                if (stamp_ns(message.header) or raw.time_ns) == stamp:
                    return message
                if raw.time_ns > logged_ns:
                    break
            self._position = logged_ns
            raise LogError(f"{self.path}: a message of {self.topic} is no longer there: the log was changed meanwhile")

    def _open(self) -> None:
        self._log = LogReader(self.path).__enter__()
        weakref.finalize(self, self._log.__exit__)
        self._position = -READ_ON_NS
        self._process = os.getpid()
