"""How the node is doing: counters, latencies and faults (logged once each), and the DiagnosticStatus of all that."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import RLock

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

WINDOW = 300  # published forecasts over which latencies are taken
RATE_S = 10.0  # seconds over which the rate is taken
REPEAT_S = 10.0  # the same fault coming back within this time is not logged again
DEGRADING = (
    "motion",
    "odometry",
    "depth",
    "occupancy",
)  # faults in these places worsen the forecast but do not prevent it
SILENCE_S = 2.0  # without images for so long the node is stale


class Faults:
    """What is wrong now, by place ("image", "motion", ...). A new fault is one log line; so is a flickering one."""

    def __init__(self, warn: Callable[[str], object], error: Callable[[str], object]) -> None:
        self._warn, self._error = warn, error
        self._lock = RLock()
        self._logged: dict[str, tuple[str, float]] = {}
        self._active: dict[str, str] = {}
        self.last = ""
        self.count = 0

    def report(self, place: str, message: str) -> bool:
        """Note a fault; true when it was new and therefore logged."""
        with self._lock:
            text, at = self._logged.get(place, ("", -REPEAT_S))
            standing = self._active.get(place) == message
            recent = text == message and time.monotonic() - at < REPEAT_S
            self._active[place] = self.last = message
            self.count += 1
            if standing or recent:
                return False
            self._logged[place] = (message, time.monotonic())
        # Two lines on purpose: rclpy refuses one line of code that logs at changing severities.
        if place in DEGRADING:
            self._warn(f"{place}: {message}")
        else:
            self._error(f"{place}: {message}")
        return True

    def clear(self, *places: str) -> None:
        """These places are fine (again); without arguments: all of them."""
        with self._lock:
            for place in places or tuple(self._active):
                self._active.pop(place, None)

    @property
    def active(self) -> dict[str, str]:
        """Faults that stand now: {place: message}."""
        with self._lock:
            return dict(self._active)


class Statistics:
    """Counters since activation and sliding windows; safe to use from the executor's and the worker's thread."""

    def __init__(self) -> None:
        self._lock = RLock()
        self.received = 0
        self.dropped = 0
        self.published = 0
        self.skipped = 0  # not computed because nobody subscribes
        self.motion = "none yet"
        self.motion_warning = ""
        self.depth = "none"
        self._last_received: float | None = None
        self._last_stamp_ns: int | None = None
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._publish_times: deque[float] = deque(maxlen=1000)

    def frame_received(self, dropped_one: bool) -> None:
        """An image came in; dropped_one: it replaced one that was still waiting."""
        with self._lock:
            self.received += 1
            self.dropped += dropped_one
            self._last_received = time.monotonic()

    def frame_skipped(self) -> None:
        """A frame was not computed because nobody subscribes to any output."""
        with self._lock:
            self.skipped += 1

    def moved_by(self, source: str, warning: str) -> None:
        """Which motion the forecast follows, and why nothing better."""
        with self._lock:
            self.motion, self.motion_warning = source, warning

    def frame_published(self, received_at: float, stamp_ns: int) -> None:
        """A forecast went out; received_at: time.monotonic() of its image's callback."""
        with self._lock:
            now = time.monotonic()
            self.published += 1
            self._last_stamp_ns = stamp_ns
            self._latencies.append(now - received_at)
            self._publish_times.append(now)

    def silent(self) -> bool:
        """Whether no image came for a while."""
        with self._lock:
            return self._last_received is None or time.monotonic() - self._last_received > SILENCE_S

    def values(self, ros_now_ns: int) -> dict[str, str]:
        """Everything as text for diagnostics; age is that of the last published stamp against the ROS clock."""
        with self._lock:
            now = time.monotonic()
            recent = [t for t in self._publish_times if now - t <= RATE_S]
            # Intervals rather than counts, so that the rate is right from the second forecast on.
            rate = (len(recent) - 1) / max(now - recent[0], 1e-9) if len(recent) > 1 else 0.0
            latency = np.percentile(self._latencies, (50, 99, 100)) * 1e3 if self._latencies else [np.nan] * 3
            age = np.nan if self._last_stamp_ns is None else (ros_now_ns - self._last_stamp_ns) * 1e-9
            return {
                "rate (Hz)": f"{rate:.2f}",
                "latency p50 (ms)": f"{latency[0]:.1f}",
                "latency p99 (ms)": f"{latency[1]:.1f}",
                "latency worst (ms)": f"{latency[2]:.1f}",
                "received frames": str(self.received),
                "published forecasts": str(self.published),
                "dropped frames": str(self.dropped),
                "frames without subscribers": str(self.skipped),
                "age of the last published (s)": f"{age:.3f}",
                "motion source": self.motion,
                "motion warning": self.motion_warning,
                "depth": self.depth,
            }


def status(
    name: str, state: str, hardware: str, statistics: Statistics, faults: Faults, values: dict[str, str]
) -> DiagnosticStatus:
    """The node's status: ERROR while frames fail, WARN for degraded motion, STALE without images, OK otherwise."""
    level, message = _judge(state, statistics, faults.active)
    everything = {"state": state, **values, "faults": str(faults.count), "last error": faults.last}
    pairs = [KeyValue(key=key, value=value) for key, value in everything.items()]
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware, values=pairs)


def _judge(state: str, statistics: Statistics, active: dict[str, str]) -> tuple[bytes, str]:
    failing = [f"{place}: {text}" for place, text in active.items() if place not in DEGRADING]
    degraded = [f"{place}: {text}" for place, text in active.items() if place in DEGRADING]
    if failing:
        return DiagnosticStatus.ERROR, "; ".join(failing)
    if state != "active":
        return DiagnosticStatus.OK, state
    if statistics.silent():
        return DiagnosticStatus.STALE, "no images are coming in"
    if degraded or statistics.motion_warning:
        text = "; ".join(degraded) or statistics.motion_warning
        return DiagnosticStatus.WARN, f"{text}; following {statistics.motion}"
    return DiagnosticStatus.OK, f"forecasting along {statistics.motion}"
