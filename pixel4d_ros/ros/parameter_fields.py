# SPDX-License-Identifier: Apache-2.0
"""Declaration of one parameter, and the check of its values."""

from __future__ import annotations

from dataclasses import Field, field
from typing import Any

import numpy as np


def parameter(
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
    """One parameter. `on_configure`: changes take effect at the next configure; `read_only`: set at startup only."""
    metadata = {"description": description, "name": name, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata={**metadata, "read_only": read_only, "on_configure": on_configure})


def check(f: Field[Any], value: Any) -> None:
    """Raise ValueError with the reason when a value is not one of the choices, not finite or out of range."""
    name, (low, high, choices) = f.metadata["name"] or f.name, (f.metadata[key] for key in ("low", "high", "choices"))
    numbers = value if isinstance(value, tuple) else (value,)
    if choices and value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    if isinstance(f.default, (float, tuple)) and not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite, got {value}")
    if low is not None and any(not low <= n <= high for n in numbers):
        raise ValueError(f"{name} must be in {low:g}..{high:g}, got {value}")
