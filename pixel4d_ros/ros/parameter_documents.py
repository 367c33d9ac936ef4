"""What follows from the declared parameters: ROS descriptors, config/forecast.yaml and the README's table.

`python -m pixel4d_ros.ros.parameter_documents yaml` prints config/forecast.yaml, `... markdown` the README's table.
"""

from __future__ import annotations

import sys
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

from pixel4d_ros.ros.parameters import Parameters, parameter_name, updated

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor
    from rclpy.node import Node


def descriptor(f: Field[Any]) -> ParameterDescriptor:
    """The ROS descriptor of one field of Parameters."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    m = f.metadata
    out = ParameterDescriptor(description=m["description"], read_only=m["read_only"])
    if m["choices"]:
        out.additional_constraints = "one of " + ", ".join(m["choices"])
    if m["on_configure"]:
        out.additional_constraints = (out.additional_constraints + "; takes effect at the next configure").lstrip("; ")
    if isinstance(f.default, float) and m["low"] is not None:
        out.floating_point_range = [FloatingPointRange(from_value=m["low"], to_value=m["high"])]
    elif isinstance(f.default, int) and m["low"] is not None:
        out.integer_range = [IntegerRange(from_value=m["low"], to_value=m["high"])]
    return out


def declare(node: Node) -> Parameters:
    """Declare every parameter at the node and return their values. Raises ValueError saying why one is refused."""
    values = {}
    for f in fields(Parameters):
        name = parameter_name(f.name)
        default = list(f.default) if isinstance(f.default, tuple) else f.default
        values[name] = node.declare_parameter(name, default, descriptor(f)).value
    return updated(Parameters(), values)


def to_yaml() -> str:
    """The text of config/forecast.yaml: every parameter with its default and its description."""
    lines = [
        "# Parameters of the node, made by `python -m pixel4d_ros.ros.parameter_documents yaml`; a test sees to it.",
        "/**:",
        "  ros__parameters:",
    ]
    for f in fields(Parameters):
        name = parameter_name(f.name)
        group, _, leaf = name.rpartition(".")
        if group and f"    {group}:" not in lines:
            lines.append(f"    {group}:")
        indent = " " * (6 if group else 4)
        lines += [f"{indent}# {f.metadata['description']}{_limits(f)}", f"{indent}{leaf}: {_yaml_value(f.default)}"]
    return "\n".join(lines) + "\n"


def to_markdown() -> str:
    """The parameters' table of the README."""
    rows = ["| parameter | default | meaning |", "|---|---|---|"]
    for f in fields(Parameters):
        meaning = f.metadata["description"] + _limits(f)
        rows.append(f"| `{parameter_name(f.name)}` | `{_yaml_value(f.default)}` | {meaning} |")
    return "\n".join(rows) + "\n"


def _limits(f: Field[Any]) -> str:
    m = f.metadata
    notes = [f"{m['low']:g}..{m['high']:g}"] if m["low"] is not None and m["high"] < 1e6 else []
    notes += ["set at the start only"] if m["read_only"] else []
    notes += ["takes effect at configure"] if m["on_configure"] else []
    return f" ({'; '.join(notes)})" if notes else ""


def _yaml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    print(to_markdown() if sys.argv[1:] == ["markdown"] else to_yaml(), end="")
