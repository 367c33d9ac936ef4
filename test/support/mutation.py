# SPDX-License-Identifier: Apache-2.0
"""Mutations of bytes and messages, for tests that give readers what nobody would write on purpose."""

from __future__ import annotations

import numpy as np

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)


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
