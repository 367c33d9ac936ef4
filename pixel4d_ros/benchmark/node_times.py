# SPDX-License-Identifier: Apache-2.0
"""Inputs and results of `pixel4d benchmark --node`. Times are milliseconds; nothing here needs ROS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pixel4d_ros.benchmark.source_image import SourceImage
from pixel4d_ros.benchmark.statistics import Spread
from pixel4d_ros.benchmark.stopwatch import Effort
from pixel4d_ros.evaluation.tables import counted, table


@dataclass(frozen=True)
class Feed:
    """Images sent to the node, and requests sent after them."""

    source: SourceImage
    frames: int
    samples: int
    seconds: float
    rate: float  # images per second
    device: str
    candidates: tuple[int, ...]  # paths per request to the service
    effort: Effort  # requests for each number of them, without images and with
    weights: Path | None = None

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and self.rate > 0 and self.seconds * self.rate >= 1):
            raise ValueError(
                f"--node and --rate must be positive and give an image, got {self.seconds:g} s at {self.rate:g} Hz"
            )


@dataclass(frozen=True)
class Publishing:
    """Costs of sending one ForecastSequence to another process, at the rate of the images."""

    megabytes: float
    sent: int
    arrived: int
    build: Spread  # arrays to message
    serialize: Spread  # message to bytes, which publish does too
    publish: Spread  # the call, serialisation included
    arrive: Spread | None  # from the end of publish's serialisation to the other process's callback; None: none came


@dataclass(frozen=True)
class ServiceTimes:
    """Sequential requests to ~/forecast_trajectories without new images; the prediction is cached."""

    candidates: int
    with_images: bool
    megabytes: float  # of one answer
    answer: Spread  # from the call to the answer in the process that calls

    @property
    def name(self) -> str:
        """Name in tables."""
        answer = f"with images, {self.megabytes:.1f} MB" if self.with_images else "without images"
        return f"{counted(self.candidates, 'candidate')}, answer {answer}"


@dataclass(frozen=True)
class NodeTimes:
    """The node over DDS, in a process of its own, for a while."""

    size: tuple[int, int]
    frames: int
    samples: int
    rate: float
    seconds: float
    sent: int  # images
    received: int  # images that reached the node
    dropped: int  # images that a newer one replaced while the node worked
    published: int  # forecasts, as the node counts them
    arrived: int  # forecasts that arrived here whole, with all their samples
    to_published: Spread | None  # stamp to the node's call of publish; None: the middleware does not report it
    to_arrived: Spread  # stamp to this process's callback
    course: tuple[float, ...]  # medians of to_published, or else to_arrived, in equal parts of the run
    node: dict[str, str]  # the node's own figures, from /diagnostics
    publishing: Publishing
    services: tuple[ServiceTimes, ...]  # asked after all the rest

    @property
    def per_second(self) -> float:
        """Forecasts that arrived per second."""
        return self.arrived / self.seconds

    @property
    def lost_images(self) -> int:
        """Sent, but not received by the node."""
        return self.sent - self.received

    @property
    def lost_forecasts(self) -> int:
        """Published, but not arrived whole."""
        return self.published - self.arrived

    @property
    def waiting(self) -> int:
        """Images that the node has received, but neither dropped nor forecast: at the end, so 0 when nothing queues."""
        return self.received - self.dropped - self.published


def describe_node(times: NodeTimes, markdown: bool = False) -> str:
    """The node's times as tables."""
    p, course = times.publishing, ", ".join(f"{median:.1f}" for median in times.course) or "too short"
    head = (
        f"{'### ' if markdown else ''}node: {times.size[0]}x{times.size[1]}, {counted(times.frames, 'frame')}, "
        f"{counted(times.samples, 'sample')}, {times.seconds:g} s of images at {times.rate:g} Hz over DDS"
    )
    end = "arrival" if times.to_published is None else "publish"
    spreads = [
        ("image stamp to publish", times.to_published),
        ("image stamp to arrival in another process", times.to_arrived),
        ("publishing alone: arrays to message", p.build),
        ("publishing alone: serialisation", p.serialize),
        ("publishing alone: publish(), with serialisation", p.publish),
        ("publishing alone: publish to arrival in another process", p.arrive),
        *((s.name, s.answer) for s in times.services),
    ]
    rows = [
        [name, *(f"{value:.1f}" for value in (s.p50, s.p99, s.worst)), str(s.runs)]
        for name, s in spreads
        if s is not None
    ]
    counts = (
        f"{times.per_second:.1f} forecasts per second; {times.sent} images sent, {times.lost_images} lost on the way, "
        f"{times.dropped} replaced by newer ones, {times.waiting} left waiting; {times.published} forecasts published, "
        f"{times.lost_forecasts} lost on the way\n"
        f"medians of equal parts of the run, image stamp to {end}, ms: {course}\n"
        f"publishing alone: {p.arrived} of {p.sent} messages of {p.megabytes:.1f} MB arrived\n"
        f"/diagnostics: {', '.join(f'{name} {value}' for name, value in times.node.items())}"
    )
    if times.services:
        counts += (
            "\ncandidates: request to answer of ~/forecast_trajectories in the process that asks, one after another, "
            "with no images meanwhile, from an image that the node has just forecast"
        )
    return "\n\n".join((head, table(("", "p50 ms", "p99 ms", "worst ms", "messages"), rows, markdown), counts))
