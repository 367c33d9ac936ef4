# SPDX-License-Identifier: Apache-2.0
"""Recorded forecasts and the true images: the two streams that a report compares."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixel4d_ros.datasets.driving_log import half_period, image_messages
from pixel4d_ros.evaluation.windows import resize_image
from pixel4d_ros.geometry.camera_info import ImageCamera
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.logs.calibration import CalibrationChange
from pixel4d_ros.logs.images import decode_image
from pixel4d_ros.logs.reader import LogError, LogReader
from pixel4d_ros.logs.transforms import stamp_ns

FORECAST_TYPE = "pixel4d_ros/msg/ForecastSequence"
MIN_SLACK_NS, MAX_SLACK_NS = 30_000_000, 50_000_000


@dataclass(frozen=True)
class RecordedForecast:
    """One published future of one source image: T frames; its images are decoded when asked for."""

    stamp: int  # ns, of the source image
    recorded: int  # ns, when the recorder got it, on the recorder's clock
    times: FloatArray  # (T,) s after the source image
    sample_index: int
    sample_count: int
    confidence: NDArray[np.float32]  # (T,), may be empty
    messages: tuple[Any, ...]  # sensor_msgs/Image

    def image(self, i: int) -> NDArray[np.uint8]:
        """Frame i as RGB (H, W, 3)."""
        return decode_image(self.messages[i])


def forecast_topic(log: LogReader) -> str:
    """The topic of the recorded forecasts. Raises LogError when the log has none."""
    for topic in log.topics.values():
        if topic.type == FORECAST_TYPE and topic.count:
            return topic.name
    raise LogError(f"{log.path} holds no forecasts ({FORECAST_TYPE}): did the node run, and get images and CameraInfo?")


def read_forecasts(log: LogReader, topic: str) -> Iterator[RecordedForecast]:
    """The recorded forecasts in the order in which they were published."""
    for logged in log.messages([topic]):
        m = logged.message
        if not m.images:
            continue
        yield RecordedForecast(
            stamp=stamp_ns(m.header),
            recorded=logged.time_ns,
            times=np.array([t.sec + 1e-9 * t.nanosec for t in m.time_from_start], np.float64),
            sample_index=int(m.sample_index),
            sample_count=int(m.sample_count),
            confidence=np.asarray(m.confidence, np.float32),
            messages=tuple(m.images),
        )


class Truth:
    """True images of the log by time. Holds the images from the latest source on, and decodes them when needed.

    camera: undistorts the images, as the node does (None: they are taken as they are). change: when another camera
    applies; there the images end.
    """

    def __init__(
        self,
        log: LogReader,
        topic: str,
        camera: ImageCamera | None = None,
        change: CalibrationChange | None = None,
    ) -> None:
        self.log, self.topic, self.camera, self.change = log, topic, camera, change
        stamps = [stamp for stamp, _ in islice(image_messages(log, topic, change), 50)]
        if not stamps:
            raise LogError(f"{log.path}: {topic} holds no images")
        self.first_stamp = stamps[0]  # ns
        # Half the camera's period, within bounds. Less loses frames of a 9.7 Hz camera, more compares different times.
        self.slack_ns = int(np.clip(half_period(np.array(stamps, np.int64)), MIN_SLACK_NS, MAX_SLACK_NS))
        self.faults: dict[int, str] = {}  # of damaged images, by stamp
        self._floor = -1
        self._rewind()

    def start_at(self, stamp: int) -> None:
        """Move to the source image with this stamp (ns); earlier images are dropped."""
        floor = stamp - self.slack_ns
        if floor < self._floor:
            self._rewind()  # the replay looped
        self._floor = floor
        while self._held and self._held[0][0] < floor:
            self._decoded.pop(self._held.popleft()[0], None)

    def at(self, stamp: int, size: tuple[int, int] | None = None) -> NDArray[np.uint8] | None:
        """The image nearest to stamp (ns), resized to size (width, height); None if none is near enough, or damaged."""
        self._read_until(stamp + self.slack_ns)
        near = min(self._held, key=lambda item: abs(item[0] - stamp), default=None)
        if near is None or abs(near[0] - stamp) > self.slack_ns:
            return None
        if near[0] not in self._decoded:
            self._decoded[near[0]] = self._decode(*near)
        image = self._decoded[near[0]]
        return image if size is None or image is None else resize_image(image, size)

    def _decode(self, stamp: int, message: Any) -> NDArray[np.uint8] | None:
        try:
            image = decode_image(message)
        except ValueError as error:
            self.faults[stamp] = f"{stamp * 1e-9:.2f} s: {error}"
            return None
        return image if self.camera is None else self.camera.image(image)

    def _rewind(self) -> None:
        self._source = image_messages(self.log, self.topic, self.change)
        self._held: deque[tuple[int, Any]] = deque()
        self._decoded: dict[int, NDArray[np.uint8] | None] = {}

    def _read_until(self, stamp: int) -> None:
        while not self._held or self._held[-1][0] < stamp:
            item = next(self._source, None)
            if item is None:
                return
            if item[0] >= self._floor:
                self._held.append(item)
