"""Every parameter of the forecast node, declared once: ROS declaration, config/forecast.yaml and README table follow.

`python -m pixel4d_ros.ros.parameters yaml` prints config/forecast.yaml, `... markdown` the README's table.
"""

from __future__ import annotations

import sys
from dataclasses import Field, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor
    from rclpy.node import Node


def _parameter(
    default: Any,
    description: str,
    *,
    name: str | None = None,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    read_only: bool = False,
    on_configure: bool = False,
) -> Any:
    """One parameter. `on_configure`: changes take effect at the next configure; `read_only`: only set at the start."""
    metadata = {
        "description": description,
        "name": name,
        "low": low,
        "high": high,
        "choices": choices,
        "read_only": read_only,
        "on_configure": on_configure,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Parameters:
    """Values of all parameters. Raises ValueError with the reason when one is out of its range."""

    weights: str = _parameter(
        "", "Predictor weights (.safetensors); empty: those shipped with the package.", on_configure=True
    )
    device: str = _parameter(
        "auto", "Where to compute: auto (CUDA where there is one), cpu, cuda or cuda:N.", on_configure=True
    )
    steps: int = _parameter(14, "Forecast frames; frame 0 is the source image's time.", low=1, high=100)
    step: float = _parameter(0.1, "Seconds from one forecast frame to the next.", low=0.001, high=10.0)
    num_samples: int = _parameter(1, "Sampled futures per image; sample 0 is the most likely.", low=1, high=64)
    seed: int = _parameter(
        0, "Seed of the sampled futures: same image, same seed, same forecast.", low=0, high=2**31 - 1
    )
    selected_step: int = _parameter(
        10, "Forecast frame shown on ~/forecast/image and ~/gaussians/forecast; capped at the last.", low=0, high=99
    )
    image_transport: str = _parameter(
        "raw",
        "Type of `image`: raw (Image) or compressed (CompressedImage).",
        choices=("raw", "compressed"),
        on_configure=True,
    )
    output_size: tuple[int, ...] = _parameter(
        (0, 0), "Width and height in pixels of forecast images; 0, 0: the source image's.", low=0, high=8192
    )
    max_cloud_points: int = _parameter(
        200_000, "Gaussians in a point cloud at most; an even subset of more.", low=1, high=10_000_000
    )
    min_opacity: float = _parameter(
        0.05, "Gaussians less opaque than this are left out of point clouds.", low=0.0, high=1.0
    )
    max_candidates: int = _parameter(
        64, "Trajectories that one call of ~/forecast_trajectories may hold.", low=1, high=1000
    )
    trajectory_timeout: float = _parameter(
        2.0, "Seconds after its stamp at which a trajectory is stale and no longer followed.", low=0.0, high=3600.0
    )
    odometry_timeout: float = _parameter(
        0.5, "Seconds between odometry and image beyond which odometry is not used.", low=0.0, high=3600.0
    )
    base_frame: str = _parameter(
        "", "Frame whose poses the trajectory gives; empty: child_frame_id of the odometry, else base_link."
    )
    mounting_translation: tuple[float, ...] = _parameter(
        (0.0, 0.0, 0.0),
        "Camera's position in base_frame (x, y, z in metres), used when tf does not know it.",
        name="mounting.translation",
    )
    mounting_rotation: tuple[float, ...] = _parameter(
        (-0.5, 0.5, -0.5, 0.5),
        "Camera's optical frame in base_frame (quaternion x, y, z, w), used as the translation is; default: ahead.",
        name="mounting.rotation",
    )
    autostart: bool = _parameter(
        True, "Configure and activate at the start; false where a launch file or manager does that.", read_only=True
    )
    diagnostics_period: float = _parameter(
        1.0, "Seconds between /diagnostics messages.", low=0.05, high=60.0, read_only=True
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            _check(f, getattr(self, f.name))
        for name, length in (("output_size", 2), ("mounting_translation", 3), ("mounting_rotation", 4)):
            if len(getattr(self, name)) != length:
                raise ValueError(f"{parameter_name(name)} needs {length} numbers, got {list(getattr(self, name))}")
        if (self.output_size[0] == 0) != (self.output_size[1] == 0):
            raise ValueError(f"output_size needs width and height, or 0, 0 for auto, got {list(self.output_size)}")
        if abs(np.linalg.norm(self.mounting_rotation) - 1) > 1e-2:
            raise ValueError(f"mounting.rotation must be a unit quaternion xyzw, got {list(self.mounting_rotation)}")

    @property
    def times(self) -> np.ndarray:
        """Forecast times (steps,), seconds after the source image."""
        return np.arange(self.steps) * self.step

    @property
    def selected(self) -> int:
        """Index of the selected forecast frame."""
        return min(self.selected_step, self.steps - 1)

    def size_of(self, source: tuple[int, int]) -> tuple[int, int]:
        """Width and height of forecast images, given the source image's."""
        return source if self.output_size == (0, 0) else (self.output_size[0], self.output_size[1])


def _check(f: Field[Any], value: Any) -> None:
    name, low, high, choices = parameter_name(f.name), f.metadata["low"], f.metadata["high"], f.metadata["choices"]
    numbers = value if isinstance(value, tuple) else (value,)
    if choices and value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    if isinstance(f.default, (float, tuple)) and not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite, got {value}")
    if low is not None and any(not low <= n <= high for n in numbers):
        raise ValueError(f"{name} must lie in {low:g}..{high:g}, got {value}")


def parameter_name(field_name: str) -> str:
    """The ROS name of a field of Parameters."""
    return next(f.metadata["name"] or f.name for f in fields(Parameters) if f.name == field_name)


def updated(parameters: Parameters, changes: dict[str, Any]) -> Parameters:
    """The parameters with changes {ROS name: value} applied, other names ignored. Raises ValueError saying why not."""
    known = {parameter_name(f.name): f.name for f in fields(Parameters)}
    values: dict[str, Any] = {
        known[name]: tuple(v) if np.ndim(v) else v for name, v in changes.items() if name in known
    }
    return replace(parameters, **values)


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
        "# Parameters of forecast_node; made by `python -m pixel4d_ros.ros.parameters yaml`, a test keeps it so.",
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
