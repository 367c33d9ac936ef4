# SPDX-License-Identifier: Apache-2.0
"""Mutations of bytes and messages, for tests that give readers what nobody would write on purpose."""

from __future__ import annotations

import re

import numpy as np

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
NUMBERS = (
    "0",
    "-0.0",
    "1",
    "-1",
    "0.5",
    "0,5",
    "nan",
    "-inf",
    "1e309",
    "1e-320",
    "1e9",
    "1700000000.25",
    "1_0",
    "x",
    "",
)
SEPARATORS = (" ", ",", ";", "\t", "\n", "#", ":", "[", '"', "\ufeff")


def mutated(data: bytes, rng: np.random.Generator, most: int = 8) -> bytes:
    """The data with a few bytes changed, a piece cut out, repeated, or the end cut off."""
    out = bytearray(data)
    for _ in range(rng.integers(1, most + 1)):
        if not out:
            return bytes(out)
        at = int(rng.integers(len(out)))
        kind = rng.integers(6)
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = INTERESTING[rng.integers(len(INTERESTING))]
        elif kind == 2:
            end = min(len(out), at + int(rng.integers(1, 9)))
            out[at:end] = bytes([INTERESTING[rng.integers(len(INTERESTING))]]) * (end - at)
        elif kind == 3:
            del out[at : at + int(rng.integers(1, 64))]
        elif kind == 4:
            out[at:at] = out[at : at + int(rng.integers(1, 64))]
        elif rng.integers(4) == 0:
            del out[at:]
    return bytes(out)


def mutated_text(data: bytes, rng: np.random.Generator, most: int = 3) -> bytes:
    """A text with a few numbers, separators or lines changed, so that most of it is still parsed."""
    text = data.decode()
    for _ in range(rng.integers(1, most + 1)):
        kind = rng.integers(4)
        numbers = list(NUMBER.finditer(text))
        lines = text.splitlines(keepends=True)
        if kind < 2 and numbers:
            number = numbers[rng.integers(len(numbers))]
            changed = NUMBERS[rng.integers(len(NUMBERS))] if kind else f"{float(number[0]) * rng.normal():.6g}"
            text = text[: number.start()] + changed + text[number.end() :]
        elif kind == 2 and text:
            at = int(rng.integers(len(text)))
            text = text[:at] + SEPARATORS[rng.integers(len(SEPARATORS))] + text[at + int(rng.integers(2)) :]
        elif lines:
            line = lines.pop(int(rng.integers(len(lines))))
            for _ in range(rng.integers(3)):  # removed, moved, or repeated
                lines.insert(int(rng.integers(len(lines) + 1)), line)
            text = "".join(lines)
    return text.encode()
