# SPDX-License-Identifier: Apache-2.0
"""Types of command line arguments."""

from __future__ import annotations

import argparse

LARGEST = 8192  # pixels along a side


def image_size(text: str, smallest: int = 16) -> tuple[int, int]:
    """(width, height) of a text such as 832x256. Raises ArgumentTypeError, also for sides outside smallest..LARGEST."""
    width, _, height = text.lower().partition("x")
    if width.isdecimal() and height.isdecimal():
        size = int(width), int(height)
        if smallest <= min(size) and max(size) <= LARGEST:
            return size
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a size: write WIDTHxHEIGHT, e.g. 832x256, from {smallest} to {LARGEST} pixels"
    )


def count(text: str) -> int:
    """A number of at least 1. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)
