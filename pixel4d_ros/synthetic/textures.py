# SPDX-License-Identifier: Apache-2.0
"""Procedural colours: hashed value noise in three dimensions, filtered by the size of a pixel on the surface."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

# Odd multipliers of a spatial hash (Teschner et al. 2003), and of an integer finaliser (C. Wellons, public domain).
_PRIMES = (73856093, 19349663, 83492791)
_SEED_PRIME = 1640531535
_MIX = (739982445, 695872825)
_BITS = 23


def hash01(key: Tensor) -> Tensor:
    """Uniform float32 numbers in [0, 1) from int32 keys, whose products wrap; the same on every device."""
    key = (key ^ (key >> 15)) * _MIX[0]
    key = (key ^ (key >> 12)) * _MIX[1]
    return ((key >> 4) & ((1 << _BITS) - 1)).float() * (1 / (1 << _BITS))


def cell_hash(cell: Tensor, seed: Tensor) -> Tensor:
    """One number in [0, 1) per integer cell: cell (N, D <= 3) and seed (N,) integers."""
    key = seed.int() * _SEED_PRIME
    for axis in range(cell.shape[-1]):
        key = key + cell[..., axis].int() * _PRIMES[axis]
    return hash01(key)


def noise(p: Tensor, seed: Tensor) -> Tensor:
    """Smooth value noise in [0, 1] at points p (..., 3) in units of its lattice; seed (...) integers."""
    base = p.floor()
    f = p - base
    f = f * f * (3 - 2 * f)
    x, y, z = base.int().unbind(-1)
    key = seed.int() * _SEED_PRIME + x * _PRIMES[0] + y * _PRIMES[1] + z * _PRIMES[2]
    # All eight corners of the cell in one go: a GPU spends its time on starting kernels here.
    values = hash01(key + _corner_keys(p.device).view(8, *(1,) * key.ndim))
    fx, fy, fz = f.unbind(-1)
    values = torch.lerp(values[:4], values[4:], fx)
    values = torch.lerp(values[:2], values[2:], fy)
    return torch.lerp(values[0], values[1], fz)


@lru_cache(maxsize=8)
def _corner_keys(device: torch.device) -> Tensor:
    """What the eight corners of a lattice cell add to its key, (8,) int32; x varies slowest."""
    keys = [x * _PRIMES[0] + y * _PRIMES[1] + z * _PRIMES[2] for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    return torch.tensor(keys, dtype=torch.int32, device=device)


def fade(footprint: Tensor, frequency: Tensor | float) -> Tensor:
    """Weight 1..0 of a pattern of that many cycles per metre, seen through pixels of footprint metres."""
    x = ((footprint * frequency - 0.35) / 0.9).clamp(0, 1)
    return 1 - x * x * (3 - 2 * x)


def fractal(p: Tensor, seed: Tensor, footprint: Tensor, frequency: Tensor | float, octaves: int = 3) -> Tensor:
    """Octaves of noise about zero, roughly in [-1, 1]: p (N, 3) metres, footprint (N,) metres per pixel.

    Octaves finer than the pixel fade out, so that images do not flicker between frames.
    """
    f = torch.as_tensor(frequency, dtype=p.dtype, device=p.device).expand_as(footprint)
    octave = torch.arange(octaves, device=p.device)[:, None]
    f = f * 2.17**octave
    waves = noise(p * f[..., None], seed + 101 * octave) - 0.5
    return (2 * 0.62**octave * waves * fade(footprint, f)).sum(0)


def band(x: Tensor, width: Tensor | float, softness: Tensor | float) -> Tensor:
    """1 where |x| < width, 0 outside, with an edge as soft as a pixel (softness > 0, in the unit of x)."""
    return ((width - x.abs()) / softness + 0.5).clamp(0, 1)


def mix(a: Tensor, b: Tensor | float, weight: Tensor) -> Tensor:
    """Colours a (N, 3) where weight (N,) is 0, b where it is 1."""
    return a + (b - a) * weight[:, None]
