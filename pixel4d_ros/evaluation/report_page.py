# SPDX-License-Identifier: Apache-2.0
"""report.html: one self-contained page from a Report, readable in light and dark browsers and on paper."""

from __future__ import annotations

from pathlib import Path

from pixel4d_ros.evaluation.intervals import Interval
from pixel4d_ros.evaluation.node_record import NodeRecord
from pixel4d_ros.evaluation.pages import data_uri, render
from pixel4d_ros.evaluation.plots import Series, histogram, line_chart
from pixel4d_ros.evaluation.report_results import HorizonStep, Report

MAX_EMBEDDED_VIDEO = 12_000_000  # bytes; a larger video is linked, not embedded
QUALITY = ["time, s", "forecasts", "PSNR, dB", "last image, dB", "gain, dB", "SSIM", "last image", "seen before, %"]


def page(report: Report, video: Path) -> str:
    """The whole page; video is embedded when it is there and small enough, else linked by its name."""
    later, node, e = report.steps[1:], report.node, report.environment
    times, x_label = [s.time for s in later], "seconds after the source image"
    psnr = [Series("forecast", [s.psnr for s in later]), Series("last image", [s.repeat_psnr for s in later])]
    ssim = [Series("forecast", [s.ssim for s in later]), Series("last image", [s.repeat_ssim for s in later])]
    return render(
        "report.html",
        report=report,
        cards=_cards(report),
        video=_video(video),
        charts=[line_chart(times, psnr, "PSNR, dB", x_label), line_chart(times, ssim, "SSIM", x_label)],
        quality=(QUALITY, [_quality_row(i, step) for i, step in enumerate(report.steps)]),
        facts=_node_facts(node),
        ages=histogram(node.ages, "s", "age of a forecast when it reached the recorder") if node.ages else "",
        topics=[[t.name, t.type, str(t.count), "" if t.hz is None else f"{t.hz:.2f}"] for t in node.topics],
        surroundings=[
            ["pixel4d_ros", e.package],
            ["Python, PyTorch", f"{e.python}, {e.torch}"],
            ["ROS", e.ros_distro or "not sourced"],
            ["system", e.system],
            ["processor", f"{e.processor}, {e.cores} cores"],
            ["GPU", e.gpu or "none"],
            ["recording", report.recording],
        ],
    )


def _cards(report: Report) -> list[tuple[str, str, str, str]]:
    """Name, value, unit and small print of the numbers at the top."""
    node = report.node
    latency = node.latency_ms.get("p50")
    cards = [
        ("gain over repeating the image", _value(report.gain, 1, "+"), "dB", _interval(report.gain, 1)),
        ("PSNR, later frames", _value(report.psnr, 1), "dB", _interval(report.psnr, 1)),
        ("PSNR, frame 0", _value(report.frame0_psnr, 1), "dB", _interval(report.frame0_psnr, 1)),
        ("SSIM, later frames", _value(report.ssim, 3), "", f"repeating the image: {_value(report.repeat_ssim, 3)}"),
    ]
    if latency is not None:
        p99 = node.latency_ms.get("p99")
        cards.append(("latency, median", f"{latency:.0f}", "ms", "" if p99 is None else f"p99 {p99:.0f} ms"))
    if node.forecast_hz is not None:
        dropped = "" if node.dropped is None else f"{node.dropped} of {node.received} images dropped"
        cards.append(("forecasts", f"{node.forecast_hz:.1f}", "per second", dropped))
    return cards


def _video(path: Path) -> str | None:
    """The video's address; None without one."""
    if not path.is_file():
        return None
    return path.name if path.stat().st_size > MAX_EMBEDDED_VIDEO else data_uri(path.read_bytes(), "video/mp4")


def _quality_row(i: int, s: HorizonStep) -> list[str]:
    """Frame 0 has no baseline: the repeated image is its truth."""
    return [
        f"+{s.time:.2f}",
        str(s.count),
        _number(s.psnr, 2),
        _number(s.repeat_psnr, 2) if i else "",
        _number(s.psnr - s.repeat_psnr, 2, "+") if i else "",
        _number(s.ssim, 3),
        _number(s.repeat_ssim, 3) if i else "",
        _number(100 * s.confidence, 0),
    ]


def _node_facts(node: NodeRecord) -> list[list[str]]:
    facts = [[f"latency {k}, ms", f"{v:.1f}"] for k, v in node.latency_ms.items()]
    if node.age_s is not None:
        a = node.age_s
        facts.append(
            ["age of a forecast at the recorder p50 / p99 / worst, s", f"{a.p50:.2f} / {a.p99:.2f} / {a.worst:.2f}"]
        )
    for name, value in (("received", node.received), ("forecast", node.published), ("dropped", node.dropped)):
        if value is not None:
            facts.append([f"images {name}", str(value)])
    if node.states:
        facts.append(["diagnostics", ", ".join(f"{n} x {level}" for level, n in node.states.items())])
    return facts


def _number(value: float, digits: int, sign: str = "") -> str:
    return "" if value != value else f"{value:{sign}.{digits}f}"


def _value(interval: Interval | None, digits: int, sign: str = "") -> str:
    return "?" if interval is None else f"{interval.mean:{sign}.{digits}f}"


def _interval(interval: Interval | None, digits: int) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
