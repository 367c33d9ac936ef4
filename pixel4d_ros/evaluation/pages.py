# SPDX-License-Identifier: Apache-2.0
"""HTML pages from the templates of this package: one look, self-contained, light and dark."""

from __future__ import annotations

import base64
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


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
