# SPDX-License-Identifier: Apache-2.0
"""Triangles and textures of several models, joined to a few tensors on the rendering device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixel4d_ros.geometry.rotations import FloatArray

SIDE = 512  # pixels of every texture
LEVELS = 7  # of its mip map: 512 to 8 pixels a side
_SIDES = [SIDE >> level for level in range(LEVELS)]
_STARTS = np.cumsum([0, *(side * side for side in _SIDES)]).tolist()


@dataclass(frozen=True)
class Texture:
    """One texture: how it is painted, and whether it has holes."""

    rgb: NDArray[np.uint8]  # (SIDE, SIDE, 3) sRGB
    mask: NDArray[np.uint8]  # (SIDE, SIDE): 255 where a model's paint covers it; of a cutout, 255 where it is solid
    gloss: float = 0.0
    cutout: bool = False


@dataclass(frozen=True)
class Triangles:
    """One model of F triangles in its unit space: its bounding box is [-1, 1]^3, x looks forward, z up."""

    corners: FloatArray  # (F, 3, 3)
    normals: FloatArray  # (F, 3, 3) such that to_unit^T n is the direction in the world
    uv: FloatArray  # (F, 3, 2)
    texture: NDArray[np.int64]  # (F,) index of its texture
    texels: FloatArray  # (F,) texels per metre at the model's usual size


@dataclass(frozen=True, eq=False)
class MeshLibrary:
    """M models of F triangles in all, and K textures."""

    first: Tensor  # (M,) int64: a model's first triangle
    count: Tensor  # (M,) int64
    corners: Tensor  # (F, 3, 3)
    normals: Tensor  # (F, 3, 3)
    uv: Tensor  # (F, 3, 2)
    texture: Tensor  # (F,) int64
    texels: Tensor  # (F,)
    mips: Tensor  # (K, all levels' texels, 4) uint8: sRGB and mask
    linear: Tensor  # (256,) linear value of an sRGB byte
    paint_level: Tensor  # (K,) mean linear brightness of what paint covers
    gloss: Tensor  # (K,)
    cutout: Tensor  # (K,) bool

    @staticmethod
    def of(models: Sequence[Triangles], textures: Sequence[Texture]) -> MeshLibrary:
        """Join models and textures, on the CPU."""
        counts = np.array([len(model.corners) for model in models])
        joined = {f.name: np.concatenate([getattr(m, f.name) for m in models]) for f in fields(Triangles)}
        tensors = {
            name: torch.from_numpy(values if name == "texture" else values.astype(np.float32))
            for name, values in joined.items()
        }
        return MeshLibrary(
            first=torch.from_numpy(np.cumsum(counts) - counts),
            count=torch.from_numpy(counts),
            mips=torch.from_numpy(np.stack([_mip_levels(texture) for texture in textures])),
            linear=torch.from_numpy(srgb_to_linear(np.arange(256) / 255).astype(np.float32)),
            paint_level=torch.tensor([_paint_level(texture) for texture in textures]),
            gloss=torch.tensor([texture.gloss for texture in textures]),
            cutout=torch.tensor([texture.cutout for texture in textures]),
            **tensors,
        )

    def to(self, device: torch.device) -> MeshLibrary:
        """The library on a device; the last ones are kept."""
        return self if self.first.device == device else _moved(self, device)

    def sample(self, texture: Tensor, uv: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Linear colour (N, 3) and mask (N,) in 0..1 of textures (N,) at uv (N, 2), in mip level (N,), bilinear."""
        level = level.round().long().clamp(0, LEVELS - 1)
        side = SIDE >> level
        start = level.new_tensor(_STARTS)[level]
        x = (uv[:, 0] - uv[:, 0].floor()) * side - 0.5
        y = (uv[:, 1].ceil() - uv[:, 1]) * side - 0.5
        left, top = x.floor(), y.floor()
        out = torch.zeros(len(uv), 4, device=uv.device)
        for dx in (0, 1):
            for dy in (0, 1):
                column, row = (left.long() + dx) % side, (top.long() + dy) % side
                texel = self.mips[texture, start + row * side + column].long()
                values = torch.cat((self.linear[texel[:, :3]], texel[:, 3:] * (1 / 255)), -1)
                weight = (1 - (x - left - dx).abs()) * (1 - (y - top - dy).abs())
                out += values * weight[:, None]
        return out[:, :3], out[:, 3]


@lru_cache(maxsize=2)
def _moved(library: MeshLibrary, device: torch.device) -> MeshLibrary:
    return MeshLibrary(**{f.name: getattr(library, f.name).to(device) for f in fields(MeshLibrary)})


def srgb_to_linear(values: FloatArray) -> FloatArray:
    """Linear light of sRGB values in 0..1."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(values: FloatArray) -> FloatArray:
    """The inverse of srgb_to_linear."""
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * np.maximum(values, 1e-9) ** (1 / 2.4) - 0.055)


def _mip_levels(texture: Texture) -> NDArray[np.uint8]:
    """All levels (L, 4), finest first, averaged in linear light; a cutout's colour is that of its solid part."""
    linear = srgb_to_linear(texture.rgb / 255.0).astype(np.float32)
    mask = texture.mask[..., None].astype(np.float32) / 255
    weight = mask + 1e-3 if texture.cutout else np.ones_like(mask)
    levels = []
    for side in _SIDES:
        size = (side, side)
        w = cv2.resize(weight, size, interpolation=cv2.INTER_AREA).reshape(side, side, 1)
        color = cv2.resize(linear * weight, size, interpolation=cv2.INTER_AREA) / w
        solid = cv2.resize(mask, size, interpolation=cv2.INTER_AREA).reshape(side, side, 1)
        levels.append(np.concatenate((linear_to_srgb(color), solid), -1).reshape(-1, 4))
    return np.asarray((np.concatenate(levels) * 255).round().clip(0, 255), np.uint8)


def _paint_level(texture: Texture) -> float:
    """Mean linear brightness of what paint covers; 1 where that is nothing."""
    covered = texture.mask > 127
    return float(srgb_to_linear(texture.rgb[covered] / 255.0).mean()) if covered.any() else 1.0
