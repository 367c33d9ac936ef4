"""report.html: one self-contained page from a Report, readable in light and dark browsers and on paper."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from pixel4d_ros.evaluation.intervals import Interval
from pixel4d_ros.evaluation.plots import Series, histogram, line_chart
from pixel4d_ros.evaluation.report_style import STYLE

if TYPE_CHECKING:
    from pixel4d_ros.evaluation.report import Report, Strip

MAX_EMBEDDED_VIDEO = 12_000_000  # bytes; a larger video is linked, not embedded


def page(report: Report, video: Path) -> str:
    """The whole page; video is embedded when it is there and small enough, else linked by its name."""
    title = f"{report.log}: forecast report"
    sections = [
        f"<header><h1>{escape(report.log)}</h1><p class='dim'>{_introduction(report)}</p></header>",
        _cards(report),
        _section("Forecast beside what really happened", _video(video)),
        _section("Quality over the horizon", _quality(report)),
        _section("Pictures", "".join(map(_strip, report.strips))) if report.strips else "",
        _section("The node", _node(report)),
        _section("Environment", _environment(report)),
    ]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _introduction(report: Report) -> str:
    scored = f"{report.scored} of them scored" if report.scored < report.forecasts else "all of them scored"
    futures = f" Of {report.samples} sampled futures the most likely one is shown." if report.samples > 1 else ""
    horizon = report.steps[-1].time
    return (
        f"pixel4d_ros {escape(report.environment.package)} made {report.forecasts} forecasts of "
        f"{len(report.steps)} frames ({horizon:.1f} s), {report.size[0]}x{report.size[1]} pixels, {scored} against "
        f"the images that the camera took later.{futures}"
    )


def _cards(report: Report) -> str:
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
    inner = "".join(
        f"<div class='card'><div class='dim'>{name}</div><div class='big'>{value}<small> {unit}</small></div>"
        f"<div class='dim'>{below or '&nbsp;'}</div></div>"
        for name, value, unit, below in cards
    )
    return f"<div class='cards'>{inner}</div>"


def _video(path: Path) -> str:
    if not path.is_file():
        return "<p>No video: the log shows nothing of what happened after any of the source images.</p>"
    large = path.stat().st_size > MAX_EMBEDDED_VIDEO
    source = escape(path.name) if large else _data_uri("video/mp4", path.read_bytes())
    return f"<video controls loop muted playsinline src='{source}'></video>"


def _strip(strip: Strip) -> str:
    """One forecast: its source image, then forecast and truth side by side for each time."""
    source = _picture(strip.source, f"the image it was made from, t = {strip.seconds:.2f} s", "")
    pairs = "".join(
        _picture(forecast, f"forecast, +{t:.1f} s", "c0") + _picture(truth, f"what really happened, +{t:.1f} s", "c1")
        for t, forecast, truth in strip.pairs
    )
    return f"<div class='strip'><div class='source'>{source}</div>{pairs}</div>"


def _picture(jpeg: bytes, caption: str, css: str) -> str:
    text = escape(caption)
    image = f"<img alt='{text}' src='{_data_uri('image/jpeg', jpeg)}'>"
    return f"<figure><figcaption class='{css}'>{text}</figcaption>{image}</figure>"


def _quality(report: Report) -> str:
    later = report.steps[1:]
    times = [s.time for s in later]
    psnr = [Series("forecast", [s.psnr for s in later]), Series("last image", [s.repeat_psnr for s in later])]
    ssim = [Series("forecast", [s.ssim for s in later]), Series("last image", [s.repeat_ssim for s in later])]
    x_label = "seconds after the source image"
    charts = line_chart(times, psnr, "PSNR, dB", x_label) + line_chart(times, ssim, "SSIM", x_label)
    rows = [
        [
            f"+{s.time:.2f}",
            str(s.count),
            _number(s.psnr, 2),
            "" if i == 0 else _number(s.repeat_psnr, 2),
            "" if i == 0 else _number(s.psnr - s.repeat_psnr, 2, "+"),
            _number(s.ssim, 3),
            "" if i == 0 else _number(s.repeat_ssim, 3),
            _number(100 * s.confidence, 0),
        ]
        for i, s in enumerate(report.steps)
    ]
    header = ["time, s", "forecasts", "PSNR, dB", "last image, dB", "gain, dB", "SSIM", "last image", "seen before, %"]
    note = (
        "Each forecast frame is compared with the logged image nearest to its time; so is the last image that the "
        "camera took, repeated without any forecast. Seen before: share of the frame that the source image showed. "
        "Brackets are 95 % bootstrap intervals over the forecasts, which overlap in time and are therefore not quite "
        "independent."
    )
    table = f"<details><summary>Table</summary>{_table(header, rows)}</details>"
    return f"<div class='charts'>{charts}</div>{table}<p class='dim'>{note}</p>"


def _node(report: Report) -> str:
    node = report.node
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
    topics = [[t.name, t.type, str(t.count), "" if t.hz is None else f"{t.hz:.2f}"] for t in node.topics]
    parts = ["<div class='charts'><div>", _table(["node", ""], facts), "</div>"]
    if node.ages:
        parts.append(histogram(node.ages, "s", "age of a forecast when it reached the recorder"))
    parts += ["</div>", _table(["topic", "type", "messages", "Hz"], topics)]
    if node.messages:
        said = "".join(f"<li>{escape(m)}</li>" for m in node.messages)
        parts.append(f"<details><summary>What the diagnostics said</summary><ul>{said}</ul></details>")
    if node.diagnostics:
        values = [[k, v] for k, v in node.diagnostics.items()]
        parts.append(f"<details><summary>Last diagnostics</summary>{_table(['key', 'value'], values)}</details>")
    return "".join(parts)


def _environment(report: Report) -> str:
    e = report.environment
    rows = [
        ["pixel4d_ros", e.package],
        ["Python, PyTorch", f"{e.python}, {e.torch}"],
        ["ROS", e.ros_distro or "not sourced"],
        ["system", e.system],
        ["processor", f"{e.processor}, {e.cores} cores"],
        ["GPU", e.gpu or "none"],
        ["recording", report.recording],
    ]
    return _table(["what", ""], rows)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are escaped; cells that are numbers are aligned right."""

    def cell(text: str) -> str:
        number = text.lstrip("+-").replace(".", "", 1).isdecimal()
        return f"<td class='n'>{escape(text)}</td>" if number else f"<td>{escape(text)}</td>"

    head = "".join(f"<th>{escape(h)}</th>" for h in header)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _number(value: float, digits: int, sign: str = "") -> str:
    return "" if value != value else f"{value:{sign}.{digits}f}"


def _value(interval: Interval | None, digits: int, sign: str = "") -> str:
    return "?" if interval is None else f"{interval.mean:{sign}.{digits}f}"


def _interval(interval: Interval | None, digits: int) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
