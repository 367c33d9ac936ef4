# SPDX-License-Identifier: Apache-2.0
"""Definitions of installed message types as text, for self-contained logs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory


def installed_definition(type_name: str) -> str | None:
    """The .msg text of a type and of all types it contains, as an MCAP ros2msg schema; None if not installed."""
    parts: dict[str, str] = {}
    waiting = [type_name]
    while waiting:
        name = waiting.pop(0)
        if name in parts:
            continue
        text = _message_file(name)
        if text is None:
            return None
        parts[name] = text
        waiting += _contained_types(name, text)
    separator = "=" * 80
    own, *others = parts.items()
    return own[1] + "".join(f"\n{separator}\nMSG: {n.replace('/msg/', '/')}\n{text}" for n, text in others)


def _message_file(type_name: str) -> str | None:
    package, _, name = type_name.partition("/msg/")
    try:
        path = Path(get_package_share_directory(package)) / "msg" / f"{name}.msg"
    except (PackageNotFoundError, ValueError):
        return None
    return path.read_text() if path.is_file() else None


def _contained_types(type_name: str, text: str) -> Iterator[str]:
    """Full names of the message types that a .msg text uses."""
    package = type_name.partition("/")[0]
    for line in text.splitlines():
        match = re.match(r"\s*([A-Za-z]\w*(?:/\w+)*)", line.partition("#")[0])
        if match is None:
            continue
        *packages, name = match[1].split("/")
        if packages or name[0].isupper():  # built-in types are lower case
            yield f"{packages[0] if packages else package}/msg/{name}"
