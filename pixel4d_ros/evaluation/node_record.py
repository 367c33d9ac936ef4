# SPDX-License-Identifier: Apache-2.0
"""The node's performance in a recording: rates, ages, and its own diagnostics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pixel4d_ros.logs.reader import LogReader

DIAGNOSTICS_TYPE = "diagnostic_msgs/msg/DiagnosticArray"
LEVELS = ("OK", "WARN", "ERROR", "STALE")
OTHER_CLOCK_NS = 6 * 3600 * 10**9
PLAUSIBLE_AGE_S = 60.0  # at more the recorder used another clock than the stamps


@dataclass(frozen=True)
class AgeSpread:
    """Median, 99th percentile and worst of some times."""

    p50: float
    p99: float
    worst: float
    count: int


def spread(values: ArrayLike) -> AgeSpread | None:
    """The spread of values (n,); None when there are none."""
    known = np.asarray(values, np.float64)
    if not known.size:
        return None
    return AgeSpread(float(np.median(known)), float(np.percentile(known, 99)), float(known.max()), known.size)


@dataclass(frozen=True)
class TopicRate:
    """One recorded topic."""

    name: str
    type: str
    count: int
    hz: float | None  # mean rate between the first and the last message


@dataclass(frozen=True)
class NodeRecord:
    """The node during one recording."""

    topics: tuple[TopicRate, ...]
    forecast_hz: float | None  # source images forecast per second
    age_s: AgeSpread | None  # from the source image's stamp to the recorder; None: different clocks
    latency_ms: dict[
        str, float
    ]  # p50, p99, ...: from the image's arrival to the published forecast, by the node's own count
    received: int | None  # images, as the node counts them
    published: int | None
    dropped: int | None
    states: dict[str, int]  # how many of the node's diagnostics had which level
    diagnostics: dict[str, str]  # the node's last values
    messages: tuple[str, ...]  # of the diagnostics, each once
    ages: tuple[float, ...] = field(repr=False, default=())


def read_node_record(recorded: LogReader, forecasts: Sequence[tuple[int, int]]) -> NodeRecord:
    """Summarise a recording; forecasts are (stamp ns, time of recording ns) of each source image's first forecast."""
    times: dict[str, list[int]] = defaultdict(list)
    for raw in recorded.raw():
        times[raw.topic].append(raw.time_ns)
    topics = tuple(
        TopicRate(name, recorded.topics[name].type, len(when), rate(when)) for name, when in sorted(times.items())
    )
    ages = [1e-9 * (at - stamp) for stamp, at in forecasts]
    # A recorder on simulated time stamps what comes before the first /clock with the wall clock.
    ages = [age for age in ages if -1 < age < PLAUSIBLE_AGE_S]
    statuses = _statuses(recorded)
    values = {v.key: str(v.value) for v in statuses[-1].values} if statuses else {}
    states: dict[str, int] = defaultdict(int)
    for status in statuses:
        states[LEVELS[min(_level(status), len(LEVELS) - 1)]] += 1
    return NodeRecord(
        topics=topics,
        forecast_hz=rate([at for _, at in forecasts]),
        age_s=spread(ages),
        latency_ms=_latencies(values),
        received=_count(values, "received"),
        published=_count(values, "published"),
        dropped=_count(values, "dropped"),
        states=dict(states),
        diagnostics=values,
        messages=tuple(dict.fromkeys(status.message for status in statuses)),
        ages=tuple(ages),
    )


def rate(times_ns: Sequence[int]) -> float | None:
    """Mean rate in Hz of messages at these times (ns); None for fewer than two, or when all came at once.

    Times on another clock, hours away from the others, are left out.
    """
    if not len(times_ns):
        return None
    times = np.asarray(times_ns, np.int64)
    times = times[np.abs(times - np.sort(times)[len(times) // 2]) < OTHER_CLOCK_NS]
    span = int(times.max() - times.min())
    return 1e9 * (len(times) - 1) / span if span else None


def _statuses(recorded: LogReader) -> list[Any]:
    """The node's statuses in all diagnostics; those of other nodes are left out."""
    topics = [t.name for t in recorded.topics.values() if t.type == DIAGNOSTICS_TYPE]
    if not topics:
        return []
    arrays = (logged.message for logged in recorded.messages(topics))
    return [status for array in arrays for status in array.status if "forecast" in status.name]


def _level(status: Any) -> int:
    level = status.level
    return level[0] if isinstance(level, bytes) else int(level)


def _latencies(values: dict[str, str]) -> dict[str, float]:
    """The values of keys like "latency p50 (ms)", by their middle word."""
    found = {}
    for key, value in values.items():
        words = key.split()
        if len(words) == 3 and words[0] == "latency" and words[2] == "(ms)":
            try:
                number = float(value)
            except ValueError:
                continue
            if np.isfinite(number):
                found[words[1]] = number
    return found


def _count(values: dict[str, str], word: str) -> int | None:
    """The whole number of the first key that starts with word."""
    return next((int(v) for k, v in values.items() if k.startswith(word) and v.isdecimal()), None)
