"""A report in a few lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def summary(numbers: dict[str, Any]) -> str:
    """The numbers of `write_report` in one paragraph."""

    def mean(name: str) -> str:
        interval: Sequence[Any] | dict[str, Any] | None = numbers.get(name)
        return f"{interval['mean']:.1f} dB" if isinstance(interval, dict) else "unknown"

    node = numbers["node"]
    age = node.get("age_s")
    lines = [
        f"{numbers['forecasts']} forecasts of {numbers['size'][0]}x{numbers['size'][1]}",
        f"PSNR {mean('psnr')} over the horizon, repeating the image {mean('repeat_psnr')}, gain {mean('gain')}",
    ]
    if age:
        lines.append(f"age when published {age['p50']:.2f} s (median), {age['worst']:.2f} s (worst)")
    if node.get("dropped") is not None:
        lines.append(f"{node['received']} images received, {node['dropped']} dropped as newer ones came")
    return "\n".join(lines)
