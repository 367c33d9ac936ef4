# SPDX-License-Identifier: Apache-2.0
"""State of the node: counters, latencies, faults (each logged once), and the DiagnosticStatus made of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from pixel4d_ros.ros.parameters import Parameters

WINDOW = 300  # published forecasts over which latencies are taken
RATE_S = 10.0  # seconds over which the rate is taken
ENDED_S = (2.0, 10.0)  # without images, after which they have stopped, depending on their interval
REPEAT_S = 10.0  # the same fault coming back within this time is not logged again
DEGRADING = (
    "image stamps",
    "image frames",
    "picture",
    "calibration",
    "mounting",
    "poses",
    "motion",
    "odometry",
    "depth",
    "occupancy",
)  # faults in these places worsen the forecast but do not prevent it
FROM_ONE_IMAGE = "by the image alone"  # source of the object motion
OFF, NO_ODOMETRY = "reference.enabled is false", "no odometry at its time"  # why there is no reference image
STANDING = "simulated, standing"  # state of the clock
NO_IMAGE = "no earlier image of the right age"


@dataclass(frozen=True)
class Measured:
    """Figures of the last seconds; NaN where there are none."""

    rate: float  # Hz
    latencies: tuple[float, float, float]  # s: p50, p99, worst
    age: float  # s
    drops: float  # share of the images received since activation


class Faults:
    """Active faults by place ("image", "motion", ...). A new or an intermittent fault is logged once."""

    def __init__(self, warn: Callable[[str], object], error: Callable[[str], object]) -> None:
        self._warn, self._error = warn, error
        self._lock = RLock()
        self._logged: dict[tuple[str, str], float] = {}  # (place, message): time of the last log line
        self._active: dict[str, str] = {}
        self.last = ""
        self.count = 0

    def report(self, place: str, message: str) -> bool:
        """Record a fault. Returns whether it was logged, i.e. is new."""
        with self._lock:
            now = time.monotonic()
            # Keep all recent ones: two alternating faults would fill the log.
            self._logged = {what: at for what, at in self._logged.items() if now - at < REPEAT_S}
            repeated = self._active.get(place) == message or (place, message) in self._logged
            self._active[place] = self.last = message
            self.count += 1
            if repeated:
                return False
            self._logged[place, message] = now
        # Two calls: rclpy rejects one call site that logs at different severities.
        if place in DEGRADING:
            self._warn(f"{place}: {message}")
        else:
            self._error(f"{place}: {message}")
        return True

    def note(self, place: str, fault: str) -> None:
        """Report a fault that stands now, or that the place is fine where it is empty."""
        if fault:
            self.report(place, fault)
        else:
            self.clear(place)

    def clear(self, *places: str) -> None:
        """Remove the faults of these places, or of all places without arguments."""
        with self._lock:
            for place in places or tuple(self._active):
                self._active.pop(place, None)

    @property
    def active(self) -> dict[str, str]:
        """Active faults as {place: message}."""
        with self._lock:
            return dict(self._active)


class Statistics:
    """Counters since activation and sliding windows. Thread-safe."""

    def __init__(self) -> None:
        self._lock = RLock()
        self.received = 0
        self.dropped = 0
        self.published = 0
        self.skipped = 0  # not computed for lack of subscribers
        self.motion = "none yet"
        self.motion_warning = ""
        self.depth = "none"
        self.objects = FROM_ONE_IMAGE
        self.calibration = "none yet"
        self._last_received: float | None = None
        self._interval = 0.0  # s, between the last two images
        self._last_stamp_ns: int | None = None
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._publish_times: deque[float] = deque(maxlen=1000)

    def frame_received(self, dropped_one: bool) -> None:
        """Count a received image; dropped_one: it replaced a waiting image."""
        with self._lock:
            self.received += 1
            self.dropped += dropped_one
            now = time.monotonic()
            self._interval = 0.0 if self._last_received is None else now - self._last_received
            self._last_received = now

    def frame_dropped(self) -> None:
        """Count a received image whose forecast is not published."""
        with self._lock:
            self.dropped += 1

    def frame_skipped(self) -> None:
        """Count a frame that was not computed for lack of subscribers."""
        with self._lock:
            self.skipped += 1

    def frame_resumed(self) -> None:
        """Count a frame that was skipped, and is computed for a late subscriber, as not skipped."""
        with self._lock:
            self.skipped -= 1

    def moved_by(self, source: str, warning: str) -> None:
        """Record the source of the ego motion, and why no better one is used."""
        with self._lock:
            self.motion, self.motion_warning = source, warning

    def no_reference(self, reason: str) -> None:
        """Record that objects move as one image tells, and why."""
        with self._lock:
            self.objects = f"{FROM_ONE_IMAGE}: {reason}"

    def reference_used(self, age: float, baseline: float, found: int, seconds: float) -> None:
        """Record a comparison with a reference image: its age in s, baseline in m, objects found, seconds it took."""
        with self._lock:
            self.objects = (
                f"{found} found with a reference image of {age:.2f} s and {baseline:.2f} m, in {1e3 * seconds:.0f} ms"
            )

    def frame_published(self, received_at: float, stamp_ns: int) -> None:
        """Count a published forecast; received_at: time.monotonic() of its image's callback."""
        with self._lock:
            now = time.monotonic()
            self.published += 1
            self._last_stamp_ns = stamp_ns
            self._latencies.append(now - received_at)
            self._publish_times.append(now)

    def silent(self, seconds: float) -> bool:
        """Whether no image arrived within the last seconds."""
        with self._lock:
            return self._last_received is None or time.monotonic() - self._last_received > seconds

    @property
    def ended(self) -> bool:
        """Whether images came and no next one is due: none within three intervals, but at least and at most ENDED_S."""
        with self._lock:
            return self._last_received is not None and self.silent(float(np.clip(3 * self._interval, *ENDED_S)))

    def summary(self) -> str:
        """What became of the images, for the console."""
        with self._lock:
            numbers = f"{self.received} received, {self.published} forecast, {self.dropped} dropped"
            return numbers + (f", {self.skipped} without a subscriber" if self.skipped else "")

    def measured(self, ros_now_ns: int) -> Measured:
        """Current figures; age is the ROS time minus the last published stamp."""
        with self._lock:
            now = time.monotonic()
            recent = [t for t in self._publish_times if now - t <= RATE_S]
            # Intervals instead of counts: correct from the second forecast on.
            rate = (len(recent) - 1) / max(now - recent[0], 1e-9) if len(recent) > 1 else 0.0
            p50, p99, worst = np.percentile(self._latencies, (50, 99, 100)) if self._latencies else [np.nan] * 3
            age = np.nan if self._last_stamp_ns is None else (ros_now_ns - self._last_stamp_ns) * 1e-9
            return Measured(rate, (float(p50), float(p99), float(worst)), age, self.dropped / max(self.received, 1))

    def values(self, ros_now_ns: int) -> dict[str, str]:
        """All values as text for /diagnostics."""
        measured = self.measured(ros_now_ns)
        p50, p99, worst = (1e3 * seconds for seconds in measured.latencies)
        with self._lock:
            return {
                "rate (Hz)": f"{measured.rate:.2f}",
                "latency p50 (ms)": f"{p50:.1f}",
                "latency p99 (ms)": f"{p99:.1f}",
                "latency worst (ms)": f"{worst:.1f}",
                "received frames": str(self.received),
                "published forecasts": str(self.published),
                "dropped frames": str(self.dropped),
                "frames without subscribers": str(self.skipped),
                "age of the last published (s)": f"{measured.age:.3f}",
                "motion source": self.motion,
                "motion warning": self.motion_warning,
                "depth": self.depth,
                "moving objects": self.objects,
                "calibration": self.calibration,
            }


def exceeded(measured: Measured, limits: Parameters, has_subscribers: bool) -> list[str]:
    """Messages about exceeded limits. Rate and age count only while there are subscribers."""
    messages = []
    min_rate, max_latency = limits.diagnostics_min_rate, limits.diagnostics_max_latency
    max_age, max_drops = limits.diagnostics_max_age, limits.diagnostics_max_drops
    if has_subscribers and min_rate and measured.rate < min_rate:
        messages.append(f"only {measured.rate:.2f} forecasts per second, diagnostics_min_rate is {min_rate:g}")
    if max_latency and measured.latencies[1] > max_latency:
        messages.append(f"latency p99 {measured.latencies[1]:.3f} s is above diagnostics_max_latency {max_latency:g}")
    if has_subscribers and max_age and measured.age > max_age:
        messages.append(f"the last forecast is {measured.age:.3f} s old, diagnostics_max_age is {max_age:g}")
    if max_drops and measured.drops > max_drops:
        messages.append(f"{measured.drops:.0%} of the images are dropped, diagnostics_max_drops is {max_drops:.0%}")
    return messages


@dataclass(frozen=True)
class Condition:
    """Input of the node's DiagnosticStatus."""

    state: str  # of the lifecycle
    statistics: Statistics
    faults: Faults
    limits: Parameters
    ros_now_ns: int
    has_subscribers: bool
    clock: str = ""  # see simulated_time


def status(name: str, hardware: str, condition: Condition, values: dict[str, str]) -> DiagnosticStatus:
    """The node's status: ERROR while frames fail, WARN when degraded or beyond a limit, STALE without images, else OK.

    values: key-value pairs to add to those of the condition's statistics and faults.
    """
    level, message = _judge(condition)
    faults = condition.faults
    everything = {"state": condition.state, **condition.statistics.values(condition.ros_now_ns), **values}
    everything |= {"faults": str(faults.count), "last error": faults.last}
    pairs = [KeyValue(key=key, value=value) for key, value in everything.items()]
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware, values=pairs)


def _judge(condition: Condition) -> tuple[bytes, str]:
    active, statistics, limits = condition.faults.active, condition.statistics, condition.limits
    failing = [f"{place}: {text}" for place, text in active.items() if place not in DEGRADING]
    degraded = [f"{place}: {text}" for place, text in active.items() if place in DEGRADING]
    if failing:
        return DiagnosticStatus.ERROR, "; ".join(failing)
    if condition.state != "active":
        return DiagnosticStatus.OK, condition.state
    if statistics.silent(limits.diagnostics_silence):
        paused = ": simulated time stands, is the simulation paused?" if condition.clock == STANDING else ""
        return DiagnosticStatus.STALE, f"no images are coming in{paused}"
    if statistics.motion_warning and "motion" not in active:
        degraded.append(statistics.motion_warning)
    degraded += exceeded(statistics.measured(condition.ros_now_ns), limits, condition.has_subscribers)
    if degraded:
        return DiagnosticStatus.WARN, f"{'; '.join(degraded)}; following {statistics.motion}"
    return DiagnosticStatus.OK, f"forecasting along {statistics.motion}"


def simulated_time(use_sim_time: bool, now_ns: int, before_ns: int) -> str:
    """State of the node's clock, from its time now and at the previous diagnostics."""
    if not use_sim_time:
        return "wall clock"
    if now_ns == 0:
        return "simulated, waiting for /clock"
    return "simulated, running" if now_ns != before_ns else STANDING


def gpu_memory(device: str) -> str:
    """GPU memory allocated by this process."""
    if not device.startswith("cuda"):
        return "no GPU"
    used, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    return f"{used / 2**20:.0f} MiB, at most {peak / 2**20:.0f} MiB"
