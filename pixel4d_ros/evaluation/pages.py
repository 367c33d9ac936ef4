# SPDX-License-Identifier: Apache-2.0
"""HTML pages from the templates of this package, and evaluation.html: tables, charts, pictures and videos."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pixel4d_ros.evaluation.gallery import Exhibit
from pixel4d_ros.evaluation.plots import Series, line_chart, reliability_diagram
from pixel4d_ros.evaluation.results import Evaluation
from pixel4d_ros.evaluation.summary import FORECAST, REPEAT
from pixel4d_ros.evaluation.tables import (
    headline,
    measures_table,
    methods_table,
    overview_headline,
    overview_table,
    steps_table,
)
from pixel4d_ros.files import write_text


def render(template: str, **values: Any) -> str:
    """A page of templates/, with everything escaped that is not marked safe."""
    pages = Environment(loader=PackageLoader("pixel4d_ros.evaluation"), autoescape=True, undefined=StrictUndefined)
    pages.filters["data_uri"] = data_uri
    pages.tests["number_like"] = _is_number
    return pages.get_template(template).render(values)


def data_uri(data: bytes, kind: str) -> str:
    """Bytes of a MIME type as an address that a page can hold."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _is_number(text: str) -> bool:
    """Whether a table aligns a cell to the right."""
    return text.lstrip("+-").replace(".", "", 1).isdecimal()


def write_page(
    folder: Path, evaluations: Sequence[Evaluation], exhibits: Sequence[Exhibit], notes: Sequence[str]
) -> Path:
    """Write evaluation.html beside the exhibits' videos; returns its path."""
    shown = {exhibit.name: exhibit for exhibit in exhibits}
    several = len(evaluations) > 1
    title, _, protocol = (overview_headline(evaluations) if several else headline(evaluations[0])).partition(";")
    path = folder / "evaluation.html"
    text = render(
        "evaluation.html",
        title=title,
        protocol=protocol,
        overview=overview_table(evaluations) if several else None,
        notes=notes,
        clips=[_clip(e, shown.get(e.subject.log)) for e in evaluations],
    )
    write_text(path, text)
    return path


def _clip(evaluation: Evaluation, exhibit: Exhibit | None) -> dict[str, Any]:
    """What the page shows of one clip."""
    forecasts = bool(evaluation.methods)
    return {
        "headline": headline(evaluation),
        "tables": [*([methods_table(evaluation)] if forecasts else []), measures_table(evaluation)],
        "notes": evaluation.subject.notes,
        "charts": _charts(evaluation),
        "steps": steps_table(evaluation) if forecasts else None,
        "video": exhibit and exhibit.video,
        "pictures": exhibit.pictures if exhibit else [],
    }


def _charts(evaluation: Evaluation) -> list[str]:
    """Forecast and repeated image over the horizon, and the calibration of the probabilities of moving."""
    charts = []
    if evaluation.methods:
        later, x_label = evaluation.steps[1:], "seconds after the source image"
        for unit, values in (("PSNR, dB", [s.psnr for s in later]), ("SSIM", [s.ssim for s in later])):
            lines = [Series(name, [v[name] for v in values]) for name in (FORECAST, REPEAT)]
            charts.append(line_chart([step.time for step in later], lines, unit, x_label))
    if evaluation.motion is not None and evaluation.motion.reliability:
        charts.append(reliability_diagram(evaluation.motion.reliability))
    return charts
