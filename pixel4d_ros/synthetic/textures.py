"""Procedural colours: hashed value noise in three dimensions, filtered by the size of a pixel on the surface."""

from __future__ import annotations

import torch
from torch import Tensor

# Odd multipliers of a spatial hash (Teschner et al. 2003) and of the integer finaliser that follows it.
_PRIMES = (73856093, 19349663, 83492791)
_MIX = 1274126177
_MASK = 0xFFFFFF


def hash01(key: Tensor) -> Tensor:
    """Uniform float32 numbers in [0, 1) from integers (int64), the same on every device."""
    key = (key ^ (key >> 13)) * _MIX & 0x7FFFFFFFFFFF
    key = (key ^ (key >> 16)) * _MIX & 0x7FFFFFFFFFFF
    return ((key ^ (key >> 15)) & _MASK).float() / (_MASK + 1)


def cell_hash(cell: Tensor, seed: Tensor) -> Tensor:
    """One number in [0, 1) per integer cell: cell (N, D <= 3) int64, seed (N,) int64."""
    key = seed * 2654435761
    for axis in range(cell.shape[-1]):
        key = key + cell[..., axis] * _PRIMES[axis]
    return hash01(key)


def noise(p: Tensor, seed: Tensor) -> Tensor:
    """Smooth value noise in [0, 1] at points p (N, 3) in units of its lattice; seed (N,) int64."""
    base = p.floor()
    f = p - base
    f = f * f * (3 - 2 * f)
    cell = base.long()
    key = seed * 2654435761 + cell[:, 0] * _PRIMES[0] + cell[:, 1] * _PRIMES[1] + cell[:, 2] * _PRIMES[2]
    planes = []
    for z in (0, _PRIMES[2]):
        rows = [
            torch.lerp(hash01(key + (y + z)), hash01(key + (y + z + _PRIMES[0])), f[:, 0]) for y in (0, _PRIMES[1])
        ]
        planes.append(torch.lerp(rows[0], rows[1], f[:, 1]))
    return torch.lerp(planes[0], planes[1], f[:, 2])


def fade(footprint: Tensor, frequency: Tensor | float) -> Tensor:
    """Weight 1..0 of a pattern of that many cycles per metre, seen through pixels of footprint metres."""
    x = ((footprint * frequency - 0.35) / 0.9).clamp(0, 1)
    return 1 - x * x * (3 - 2 * x)


def fractal(p: Tensor, seed: Tensor, footprint: Tensor, frequency: Tensor | float, octaves: int = 3) -> Tensor:
    """Octaves of noise about zero, roughly in [-1, 1]: p (N, 3) metres, footprint (N,) metres per pixel.

    Octaves finer than the pixel fade out, so that images do not flicker between frames.
    """
    total = torch.zeros_like(footprint)
    f = torch.as_tensor(frequency, dtype=p.dtype, device=p.device).expand_as(footprint)
    weight = 1.0
    for octave in range(octaves):
        wave = noise(p * f[:, None], seed + 101 * octave) - 0.5
        total = total + weight * 2 * wave * fade(footprint, f)
        f = f * 2.17
        weight *= 0.62
    return total


def band(x: Tensor, width: Tensor | float, softness: Tensor | float) -> Tensor:
    """1 where |x| < width, 0 outside, with an edge as soft as a pixel (softness > 0, in the unit of x)."""
    return ((width - x.abs()) / softness + 0.5).clamp(0, 1)


def mix(a: Tensor, b: Tensor | float, weight: Tensor) -> Tensor:
    """Colours a (N, 3) where weight (N,) is 0, b where it is 1."""
    return a + (b - a) * weight[:, None]
