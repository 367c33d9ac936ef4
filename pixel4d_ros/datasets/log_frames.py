# SPDX-License-Identifier: Apache-2.0
"""Images and depth of a driving log, decoded on access."""

from __future__ import annotations

import logging
import os
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.lazy_frames import LazyFrames
from pixel4d_ros.logs.calibration import CalibrationChange
from pixel4d_ros.logs.images import first_decoded
from pixel4d_ros.logs.reader import LogError, LogReader, RawMessage, raw_frame_id, raw_stamp_ns

logger = logging.getLogger(__name__)
S = TypeVar("S", bound=np.generic)
STAMP_END = 12  # of the bytes of a message with a header
MANY = 0.5  # share of a topic's images
# Of images sorted by stamp: how far their log times go back where two runs mix, in that share of the images.
RUN_BACK_NS, MIXED = 1_000_000_000, 0.1
READ_ON_NS = 1_000_000_000  # messages within this time ahead are reached by reading on, others by a seek


@dataclass(frozen=True)
class ImageIndex:
    """The messages of an image topic: their stamps (T,) ns, strictly increasing, and log times (T,) ns."""

    topic: str
    stamps: NDArray[np.int64]
    logged: NDArray[np.int64]
    first: Any  # the topic's first logged message
    unstamped: bool = False  # the messages have no stamps: log times are used

    def __getitem__(self, keep: slice | NDArray[Any]) -> ImageIndex:
        return replace(self, stamps=self.stamps[keep], logged=self.logged[keep])

    def before(self, change: CalibrationChange | None) -> ImageIndex:
        """The images that were taken before the calibration changed."""
        if change is None:
            return self
        stamped = change.stamp_ns > 0 and not self.unstamped
        return self[self.stamps < change.stamp_ns if stamped else self.logged < change.logged_ns]


def image_messages(log: LogReader, topic: str, change: CalibrationChange | None = None) -> Iterator[tuple[int, Any]]:
    """(stamp ns, message) of an image topic in strictly increasing order of stamps; see index_images.

    change: images after it are left out.
    """
    index = index_images(log, [topic]).get(topic)
    if index is None:
        return
    index = index.before(change)
    yield from zip(index.stamps.tolist(), indexed_messages(log.path, index))


def indexed_messages(path: Path, index: ImageIndex) -> Iterator[Any]:
    """The messages of an index in its order. Raises LogError."""
    messages = _Messages(path, index.topic, index.unstamped)
    return (messages.at(logged, stamp) for stamp, logged in zip(index.stamps.tolist(), index.logged.tolist()))


def index_images(log: LogReader, topics: Iterable[str]) -> dict[str, ImageIndex]:
    """Index of the images of each topic, in one pass over the log; topics without images are omitted.

    Images are sorted by stamp; if all stamps of a topic are 0, by log time. Images out of order, repeated stamps, and
    images of another frame than most, the last two of which are omitted, are logged as a warning. Raises LogError
    where most images share their stamps with others, or several runs mix.
    """
    times: dict[str, dict[str, list[tuple[int, int, int]]]] = {}  # by topic and frame
    firsts: dict[tuple[str, str], RawMessage] = {}
    for raw in log.raw(list(topics)):
        frame = raw_frame_id(raw, log.types)
        firsts.setdefault((raw.topic, frame), raw)
        content = zlib.crc32(raw.data[STAMP_END:])
        found = times.setdefault(raw.topic, {}).setdefault(frame, [])
        found.append((raw_stamp_ns(raw, log.types), raw.time_ns, content))
    indices = {}
    for topic, frames in times.items():
        own = max(frames, key=lambda frame: len(frames[frame]))
        for frame in frames.keys() - {own}:
            logger.warning(
                "%s: %s holds %d images of the frame %r, which are left out; most are of %r: do two cameras share the"
                " topic?",
                *(log.path, topic, len(frames[frame]), frame, own),
            )
        indices[topic] = _index(log, topic, frames[own], firsts[topic, own])
    return indices


def _index(log: LogReader, topic: str, found: list[tuple[int, int, int]], first: RawMessage) -> ImageIndex:
    stamps, logged, contents = np.array(found, np.int64).T
    unstamped = not stamps.any()
    if unstamped:
        stamps = logged
    late = int((stamps < np.maximum.accumulate(stamps)).sum())
    if late:
        logger.warning(
            "%s: %d of %d images on %s were logged out of the order of their stamps; they are sorted",
            *(log.path, late, len(stamps), topic),
        )
    order = np.argsort(stamps, kind="stable")
    _, unique = np.unique(stamps[order], return_index=True)
    repeated = len(stamps) - len(unique)
    different = len(set(zip(stamps.tolist(), contents.tolist()))) - len(unique)  # not messages recorded twice
    if different > MANY * len(stamps):
        raise LogError(
            f"{log.path}: {different} of {len(stamps)} images on {topic} have the stamp of another one: have the driver"
            " stamp each image with the time at which it was taken, with fractions of a second"
        )
    if repeated:
        logger.warning(
            "%s: %d of %d images on %s repeat a stamp and are left out", log.path, repeated, len(stamps), topic
        )
    keep = order[unique]
    if (np.diff(logged[keep]) < -RUN_BACK_NS).sum() > max(MIXED * len(keep), 2):
        back = int(np.argmax(stamps < np.maximum.accumulate(stamps) - RUN_BACK_NS // 2))
        begin, by = ((ns[i] - ns[j]) * 1e-9 for ns, i, j in ((logged, back, 0), (stamps, back - 1, back)))
        raise LogError(
            f"{log.path}: the stamps of {topic} go back by {by:.1f} s, {begin:.1f} s after"
            " its first image: several runs (a simulation that was reset, a replay that was repeated) mix;"
            f" record each to a log of its own, e.g. `pixel4d replay LOG --duration {begin:.1f}` with `pixel4d record`"
        )
    return ImageIndex(topic, stamps[keep], logged[keep], log.decode(first), unstamped)


def lazy_images(path: Path, index: ImageIndex, decode: Callable[[Any], NDArray[S]]) -> LazyFrames[S]:
    """The frames of an index, all of the first whole one's size. Raises LogError, also on access to a frame."""
    messages = _Messages(path, index.topic, index.unstamped)

    try:
        _, first = first_decoded(indexed_messages(path, index), decode)
    except ValueError as error:
        raise LogError(f"{path}: {index.topic}, image 0: {error}") from error

    def read_alike(i: int) -> NDArray[S]:
        message = messages.at(int(index.logged[i]), int(index.stamps[i]))
        try:
            image = decode(message)
        except ValueError as error:
            raise LogError(f"{path}: {index.topic}, image {i}: {error}") from error
        if image.shape != first.shape:
            size, expected = (f"{s[1]}x{s[0]}" for s in (image.shape, first.shape))
            raise LogError(
                f"{path}: {index.topic}: image {i} has {size} pixels, the first {expected}: a clip needs one size"
            )
        return image

    return LazyFrames(read_alike, len(index.stamps), first.shape, first.dtype)


class _Messages:
    """Messages of one topic by time; sequential access is fast in every format.

    Each process opens the log on first use.
    """

    def __init__(self, path: Path, topic: str, unstamped: bool) -> None:
        self.path, self.topic, self.unstamped = path, topic, unstamped
        self._lock = Lock()
        self._process: int | None = None
        self._stream: Iterator[RawMessage] = iter(())
        self._position = 0  # log time of the last message read

    def at(self, logged_ns: int, stamp: int) -> Any:
        """The message with a log time and a stamp."""
        with self._lock:
            if self._process != os.getpid():
                self._open()
            if not self._position < logged_ns < self._position + READ_ON_NS:
                self._stream = self._log.raw([self.topic], logged_ns)
            for raw in self._stream:
                if raw.time_ns < logged_ns:
                    continue
                self._position = raw.time_ns
                if (raw.time_ns if self.unstamped else raw_stamp_ns(raw, self._log.types)) == stamp:
                    return self._log.decode(raw)
                if raw.time_ns > logged_ns:
                    break
            self._position = logged_ns
            raise LogError(f"{self.path}: a message of {self.topic} is missing: the log has changed since opening")

    def _open(self) -> None:
        self._log = LogReader(self.path).__enter__()
        weakref.finalize(self, self._log.__exit__)
        self._position = -READ_ON_NS
        self._process = os.getpid()
