# SPDX-License-Identifier: Apache-2.0
"""Waiting for what other threads and processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 120.0  # seconds; a loaded machine with two cores is slow
Value = TypeVar("Value")


def pause() -> None:
    """Give others the processor for a moment."""
    time.sleep(0.02)


def wait_until(
    true: Callable[[], Value],
    why: Callable[[], str] = lambda: "",
    meanwhile: Callable[[], object] = pause,
    patience: float = PATIENCE,
) -> Value:
    """Wait until something holds; its value. `why` is added to the message of the failure."""
    end = time.monotonic() + patience
    while not (value := true()):
        assert time.monotonic() < end, f"waited {patience:g} s in vain: {why()}"
        meanwhile()
    return value
