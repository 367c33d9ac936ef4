"""evaluation.html: tables, charts, pictures and videos of an evaluation, on one page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from pixel4d_ros.evaluation.gallery import Exhibit
from pixel4d_ros.evaluation.plots import Series, line_chart, reliability_diagram
from pixel4d_ros.evaluation.report_style import STYLE
from pixel4d_ros.evaluation.results import Evaluation
from pixel4d_ros.evaluation.summary import FORECAST, REPEAT
from pixel4d_ros.evaluation.tables import (
    Table,
    headline,
    measures_table,
    methods_table,
    overview_headline,
    overview_table,
    steps_table,
)


def write_page(
    folder: Path, evaluations: Sequence[Evaluation], exhibits: Sequence[Exhibit], notes: Sequence[str]
) -> Path:
    """Write evaluation.html beside the exhibits' videos; returns its path."""
    shown = {exhibit.name: exhibit for exhibit in exhibits}
    several = len(evaluations) > 1
    title = overview_headline(evaluations) if several else headline(evaluations[0])
    parts = [f"<h1>{escape(title.partition(';')[0])}</h1><p class='dim'>{escape(title.partition(';')[2])}</p>"]
    if several:
        parts.append(_html(overview_table(evaluations)))
    parts += [f"<p>Note: {escape(note)}</p>" for note in notes]
    parts += [_clip(e, shown.get(e.subject.log), several) for e in evaluations]
    path = folder / "evaluation.html"
    path.write_text(
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title.partition(';')[0])}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main></body></html>\n",
        encoding="utf-8",
    )
    return path


def _clip(evaluation: Evaluation, exhibit: Exhibit | None, titled: bool) -> str:
    """One clip's section."""
    parts = [f"<h2>{escape(headline(evaluation))}</h2>" if titled else ""]
    forecasts = bool(evaluation.methods)
    parts += [_html(methods_table(evaluation))] if forecasts else []
    parts.append(_html(measures_table(evaluation)))
    parts += [f"<p>Note: {escape(note)}</p>" for note in evaluation.subject.notes]
    parts.append(_charts(evaluation) if forecasts else "")
    if evaluation.motion is not None and evaluation.motion.reliability:
        parts.append(reliability_diagram(evaluation.motion.reliability))
    if exhibit is not None:
        if exhibit.video is not None:
            parts.append(f"<video controls loop muted playsinline src='{escape(exhibit.video)}'></video>")
        for caption, jpeg in exhibit.pictures:
            uri = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
            parts.append(f"<figure><figcaption>{escape(caption)}</figcaption><img alt='' src='{uri}'></figure>")
    return f"<section>{''.join(parts)}</section>"


def _charts(evaluation: Evaluation) -> str:
    """Forecast and repeated image over the horizon, and the same as a table."""
    later, parts = evaluation.steps[1:], []
    times, x_label = [step.time for step in later], "seconds after the source image"
    for unit, values in (("PSNR, dB", [s.psnr for s in later]), ("SSIM", [s.ssim for s in later])):
        lines = [Series(name, [v[name] for v in values]) for name in (FORECAST, REPEAT)]
        parts.append(line_chart(times, lines, unit, x_label))
    parts.append(f"<details><summary>step by step</summary>{_html(steps_table(evaluation))}</details>")
    return "".join(parts)


def _html(table: Table) -> str:
    header, rows = table
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr><td>{escape(row[0])}</td>{''.join(f'<td class=n>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
