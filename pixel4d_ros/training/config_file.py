# SPDX-License-Identifier: Apache-2.0
"""A training run as a YAML file, and as the plain values (of JSON) that a checkpoint carries."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pixel4d_ros.training.config import TrainingConfig, TrainingSource


def read_config_file(path: Path) -> dict[str, Any]:
    """Fields of TrainingConfig that a YAML file sets; its paths are relative to its folder.

    Raises ValueError naming the file and what is wrong in it.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.is_file():
        raise ValueError(f"config file {path} does not exist")
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text())
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config file {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"config file {path} must hold `option: value` lines, such as `steps: 1000`")
    return parse_fields(content, str(path), path.parent)


def parse_fields(content: Mapping[str, Any], where: str, folder: Path) -> dict[str, Any]:
    """Plain values as fields of TrainingConfig; relative paths start at folder. ValueError names where."""
    types = {f.name: str(f.type) for f in fields(TrainingConfig)}
    for key in content:
        if key not in types:
            close = difflib.get_close_matches(str(key), types, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(types)}"
            raise ValueError(f"{where}: unknown option {key}; {hint}")
    return {key: _parse(key, value, types[key], where, folder) for key, value in content.items()}


def plain_values(config: TrainingConfig) -> dict[str, Any]:
    """The inverse of parse_fields; paths are absolute."""
    return {name: _plain(value) for name, value in asdict(config).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _parse(key: str, value: Any, kind: str, where: str, folder: Path) -> Any:
    """One value as the field's type."""
    if kind == "tuple[TrainingSource, ...]":
        if not isinstance(value, list):
            raise ValueError(f"{where}: {key} must be a list, not {value!r}")
        return tuple(_source(item, f"{where}: {key}[{i}]", folder) for i, item in enumerate(value))
    if value is None and kind.endswith("| None"):
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "float" and number:
        return float(value)
    if kind == "int" and number and isinstance(value, int):
        return value
    if kind.startswith("Path") and isinstance(value, str):
        return Path(os.path.normpath(folder / Path(value).expanduser()))
    if kind == "str" and isinstance(value, str):
        return value
    wanted = {"float": "a number", "int": "a whole number", "str": "text"}.get(kind, "a path")
    raise ValueError(f"{where}: {key} must be {wanted}, not {value!r}")


def _source(item: Any, where: str, folder: Path) -> TrainingSource:
    """A source: its path alone, or a mapping of path, weight and labels."""
    values = {"path": item} if isinstance(item, str) else item
    if not isinstance(values, dict) or "path" not in values or values.keys() - {"path", "weight", "labels"}:
        raise ValueError(f"{where} must be a path, or as in {{path: a.mcap, weight: 2, labels: false}}, not {item!r}")
    labels = values.get("labels", True)
    if not isinstance(labels, bool):
        raise ValueError(f"{where}: labels must be true or false, not {labels!r}")
    path = _parse("path", values["path"], "Path", where, folder)
    try:
        return TrainingSource(path, _parse("weight", values.get("weight", 1.0), "float", where, folder), labels)
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
