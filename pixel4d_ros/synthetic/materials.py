# SPDX-License-Identifier: Apache-2.0
"""Appearance of surfaces: one function per material, from surface coordinates to colour and gloss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from pixel4d_ros.synthetic.textures import band, cell_hash, fade, fractal, mix, noise


class Material(IntEnum):
    """Column `material` of a primitive; the comments give its params."""

    PLAIN = 0  # grain frequency 1/m, contrast, vertical stretch, gloss
    FACADE = 1  # storey height m, window pitch m, window share, 0 plaster / 1 brick / 2 stone
    ROOF = 2  # tile size m
    FOLIAGE = 3  # leaf frequency 1/m, share of holes, 1: twigs without leaves
    CAR_BODY = 4  # 1: has lights at its ends
    CAR_CABIN = 5  # number of side windows
    WHEEL = 6
    STRIPES = 7  # stripe width m, contrast, 1: vertical
    PLANKS = 8  # plank width m, length m
    TILES = 9  # tile size m, joint share
    PICTURE = 10  # frequency 1/m
    BOOKS = 11  # shelf height m, book width m
    SIGN = 12
    FENCE = 13  # pitch of the bars m, solid share, 0 bars / 1 mesh / 2 rails, metres between posts
    BICYCLE = 14
    CABLES = 15  # radius m, number
    SHOP = 16  # width of a window m, height of the sill m
    PRINT = 17  # pitch m, 0 poster / 1 graffiti
    MESH = 18  # number of the model, 1: color takes the place of its paint; color2 brightens its texture


@dataclass(frozen=True)
class Surface:
    """N points of one material."""

    unit: Tensor  # (N, 3) in unit space
    half: Tensor  # (N, 3) metres
    normal: Tensor  # (N, 3) local, unit length
    color: Tensor  # (N, 3) linear
    color2: Tensor
    params: Tensor  # (N, 4)
    seed: Tensor  # (N,) int64
    footprint: Tensor  # (N,) metres per pixel

    @property
    def p(self) -> Tensor:
        """Local position in metres."""
        return self.unit * self.half

    def wall_coordinates(self) -> tuple[Tensor, Tensor]:
        """Along the wall and up from its foot, metres; on level faces the two level axes."""
        p, n = self.p, self.normal.abs()
        level = n[:, 2] > 0.7
        along = torch.where(level | (n[:, 1] >= n[:, 0]), p[:, 0] + self.half[:, 0], p[:, 1] + self.half[:, 1])
        return along, torch.where(level, p[:, 1] + self.half[:, 1], p[:, 2] + self.half[:, 2])


Shade = tuple[Tensor, Tensor]  # colour (N, 3) linear and gloss (N,)


def _grain(s: Surface, frequency: float | Tensor, octaves: int = 3) -> Tensor:
    return fractal(s.p, s.seed, s.footprint, frequency, octaves)


def _matt(s: Surface) -> Tensor:
    return torch.zeros_like(s.footprint)


def _plain(s: Surface) -> Shade:
    stretch = s.p / torch.stack((torch.ones_like(s.footprint),) * 2 + (s.params[:, 2].clamp(min=0.1),), -1)
    wave = fractal(stretch, s.seed, s.footprint, s.params[:, 0], 4)
    return mix(s.color, s.color2, (0.5 + s.params[:, 1] * wave).clamp(0, 1)), s.params[:, 3]


def _painted(s: Surface) -> Shade:
    """Bars, tubes and cables; their params place the holes."""
    return mix(s.color, s.color2, (0.5 + 0.8 * _grain(s, 2.0, 2)).clamp(0, 1)), _matt(s)


def _facade(s: Surface) -> Shade:
    along, up = s.wall_coordinates()
    storey, pitch, share, style = s.params.unbind(-1)
    wall = _masonry(s, along, up, style)
    wall = wall * (1 + 0.16 * _grain(s, 0.35, 2) - 0.18 * torch.exp(-up / 0.8))[:, None]
    base = band(up, 0.9, s.footprint.clamp(min=0.02)) * (cell_hash(s.seed[:, None] * 0, s.seed + 3) < 0.6)
    wall = mix(wall, s.color2 * (0.8 + 0.3 * _grain(s, 2.5))[:, None], base)
    floor, bay = (up / storey).floor(), (along / pitch).floor()
    x, y = (along / pitch - bay - 0.5) * pitch, (up / storey - floor - 0.55) * storey
    cell = torch.stack((bay, floor), -1).long()
    width, height = 0.5 * share * pitch, 0.27 * storey
    soft = s.footprint.clamp(min=0.015)
    inside = band(x, width, soft) * band(y, height, soft)
    around = band(x, width + 0.13, soft) * band(y + 0.05, height + 0.15, soft)
    bars = torch.maximum(band(x, 0.04, soft), band(y - 0.3 * height, 0.035, soft))
    rim = 1 - band(x, width - 0.07, soft) * band(y, height - 0.07, soft)
    tone = cell_hash(cell, s.seed + 11)
    curtain = (tone > 0.55) * band(x.abs() - width, 0.45 * width * tone, soft)
    glass = mix(torch.full_like(s.color, 0.025) + 0.05 * (tone * tone)[:, None], 0.45, curtain * 0.8)
    frame_color = torch.where((cell_hash(s.seed[:, None] * 0, s.seed + 5) < 0.7)[:, None], 0.62, 0.12)
    shutter = ((tone * 7.3) % 1 < 0.12) * band(y + height * 0.3, height * 1.3, soft)
    glass = mix(glass, frame_color * (0.75 + 0.25 * torch.sin(up * 60 * fade(soft, 10.0)))[:, None], shutter)
    window = mix(glass, frame_color, torch.maximum(bars, rim))
    upright = (s.normal[:, 2].abs() < 0.5).float()
    # The lintel's shade on the glass and the bright sill give the flat window some depth.
    window = window * (1 - 0.5 * band(y - height, 0.16, 0.2))[:, None]
    wall = mix(wall, s.color2, upright * around * 0.75)
    wall = mix(wall, window, upright * inside)
    gloss = upright * inside * (1 - torch.maximum(bars, rim)) * (1 - curtain) * (1 - shutter)
    return wall, 0.9 * gloss


def _masonry(s: Surface, along: Tensor, up: Tensor, style: Tensor) -> Tensor:
    """Plaster, brick or rough stone."""
    stone = style > 1.5
    height = torch.where(stone, 0.28, 0.085)
    length = torch.where(stone, 0.5, 0.26)
    row = (up / height).floor()
    shifted = along / length + 0.5 * (row % 2) + torch.where(stone, cell_hash(row[:, None].long(), s.seed), 0.0)
    column = shifted.floor()
    tone = cell_hash(torch.stack((column, row), -1).long(), s.seed + 2)
    soft = s.footprint.clamp(min=0.01)
    joint = torch.maximum(
        1 - band((up / height - row - 0.5) * height, 0.44 * height, soft),
        1 - band((shifted - column - 0.5) * length, 0.46 * length, soft),
    ) * fade(soft, 1 / height)
    spread = torch.where(stone, 0.75, 0.4) * fade(soft, 0.6 / height)
    bricks = s.color * (1 + spread * (tone - 0.5) + 0.25 * _grain(s, 7.0, 2))[:, None]
    bricks = mix(bricks, torch.where(stone[:, None], s.color * 0.3, s.color * 0.6 + 0.12), joint * 0.8)
    plaster = s.color * (1 + 0.12 * _grain(s, 1.3, 4))[:, None]
    return torch.where((style > 0.5)[:, None], bricks, plaster)


def _roof(s: Surface) -> Shade:
    along, up = s.p[:, 0], s.p[:, 2] * 1.4
    size = s.params[:, 0]
    row = (up / size).floor()
    tone = cell_hash(torch.stack(((along / size).floor(), row), -1).long(), s.seed)
    lines = (up / size - row) * fade(s.footprint, 1 / size)
    shade = 1 + 0.3 * (tone - 0.5) * fade(s.footprint, 1 / size) - 0.35 * lines + 0.3 * _grain(s, 0.7)
    # The gable's upright faces are walls, not tiles.
    gable = (s.normal[:, 2].abs() < 0.3).float()
    return mix(s.color * shade[:, None], s.color2 * (1 + 0.1 * _grain(s, 1.5))[:, None], gable), _matt(s)


def _foliage(s: Surface) -> Shade:
    frequency = s.params[:, 0]
    leaves = fractal(s.p, s.seed + 3, s.footprint, frequency * 1.5, 4)
    clumps = fractal(s.p, s.seed + 9, s.footprint, frequency * 0.3, 2)
    color = mix(s.color, s.color2, (0.5 + 0.45 * leaves + 0.35 * clumps).clamp(0, 1))
    return color * (1 + 0.75 * leaves + 0.35 * s.unit[:, 2]).clamp(min=0.12)[:, None], _matt(s)


def _car_body(s: Surface) -> Shade:
    p, u = s.p, s.unit
    soft = s.footprint.clamp(min=0.01)
    # Neighbouring parts of one car share a seed, and with it the dirt and the plate's colour.
    dirt = 0.5 + 0.5 * _grain(s, 2.0, 2)
    paint = s.color * (1 - 0.15 * dirt * (1 - u[:, 2]))[:, None]
    sill = band(u[:, 2] + 1, 0.35, soft / s.half[:, 2])
    line = band(u[:, 2] - 0.15, 0.035, soft / s.half[:, 2]) + 0.8 * band(p[:, 0] - 0.1, 0.012, soft)
    paint = mix(paint, s.color * 0.35, (line * (s.normal[:, 1].abs() > 0.7)).clamp(0, 1))
    paint = mix(paint, 0.03 * torch.ones_like(paint), sill * 0.8)
    end = (s.normal[:, 0].abs() > 0.7) * (s.params[:, 0] > 0.5)
    front = s.normal[:, 0] > 0
    lamp = band(u[:, 1].abs() - 0.8, 0.16, soft / s.half[:, 1]) * band(u[:, 2] - 0.35, 0.3, soft / s.half[:, 2])
    lamp_color = torch.where(front[:, None], paint.new_tensor([0.75, 0.75, 0.7]), paint.new_tensor([0.38, 0.012, 0.01]))
    paint = mix(paint, lamp_color, lamp * end)
    grille = band(u[:, 1], 0.45, soft / s.half[:, 1]) * band(u[:, 2] - 0.25, 0.2, soft / s.half[:, 2])
    paint = mix(paint, 0.03 * torch.ones_like(paint), grille * end * front)
    plate = band(p[:, 1], 0.26, soft) * band(u[:, 2] + 0.22, 0.17, soft / s.half[:, 2])
    letters = 0.5 * (noise(p * 22, s.seed) > 0.58) * fade(soft, 12.0) * band(p[:, 1], 0.22, soft)
    paint = mix(paint, mix(torch.full_like(paint, 0.7), 0.05, letters), plate * end)
    return paint, 0.35 * (1 - sill) * (1 - plate * end)


def _car_cabin(s: Surface) -> Shade:
    u = s.unit
    soft = (s.footprint / s.half[:, 2]).clamp(min=0.02)
    pane = band(u[:, 2] + 0.08, 0.78, soft)
    sides = s.normal[:, 1].abs() > 0.6
    count = s.params[:, 1]
    pillar = torch.where(
        sides, 1 - band(((u[:, 0] * 0.5 + 0.5) * count) % 1 - 0.5, 0.44, soft), 1 - band(u[:, 1], 0.86, soft)
    )
    glass = pane * (1 - pillar) * (s.normal[:, 2].abs() < 0.93)
    dark = s.color.new_tensor([0.018, 0.022, 0.026]) * (1 + 0.8 * _grain(s, 3.0, 2))[:, None]
    return mix(s.color, dark, glass), 0.35 + 0.6 * glass


def _wheel(s: Surface) -> Shade:
    radius = torch.hypot(s.unit[:, 0], s.unit[:, 1])
    angle = torch.atan2(s.unit[:, 1], s.unit[:, 0])
    cap = s.normal[:, 2].abs() > 0.7
    spokes = band(((angle * 5 / 6.2832) % 1) - 0.5, 0.32, 0.1) * (radius > 0.18)
    rim = band(radius, 0.68, 0.08) * cap
    color = torch.full_like(s.color, 0.016) * (1 + 0.6 * _grain(s, 9.0, 2))[:, None]
    return mix(color, s.color * (0.35 + 0.65 * spokes)[:, None], rim), 0.2 * rim


def _stripes(s: Surface) -> Shade:
    along, up = s.wall_coordinates()
    width, contrast, upright, gloss = s.params.unbind(-1)
    x = torch.where(upright > 0.5, along, up) / width
    wave = (0.5 + 0.5 * torch.sin(6.2832 * x)) * fade(s.footprint, 1 / width)
    figure = (0.5 + 0.9 * fractal(s.p, s.seed, s.footprint, 1.4 / width, 4)).clamp(0, 1)
    color = mix(s.color, s.color2, contrast * (0.55 * wave + 0.45 * figure))
    return color * (1 + 0.08 * _grain(s, 0.8))[:, None], gloss


def _planks(s: Surface) -> Shade:
    along, up = s.wall_coordinates()
    width, length = s.params[:, 0], s.params[:, 1]
    row = (up / width).floor()
    shifted = along / length + cell_hash(row[:, None].long(), s.seed)
    tone = cell_hash(torch.stack((shifted.floor(), row), -1).long(), s.seed + 1)
    soft = s.footprint.clamp(min=0.004)
    joint = (1 - band((up / width - row - 0.5) * width, 0.48 * width, soft)) * fade(soft, 1 / width)
    fibres = torch.stack((along * 1.5, up * 22, tone * 50), -1)
    wood = 0.5 + 0.5 * fractal(fibres, s.seed, s.footprint * 14, 1.0, 3)
    color = mix(s.color, s.color2, wood.clamp(0, 1)) * (0.75 + 0.5 * tone)[:, None]
    return mix(color, s.color2 * 0.3, joint * 0.7), s.params[:, 3]


def _tiles(s: Surface) -> Shade:
    along, up = s.wall_coordinates()
    size = s.params[:, 0]
    x, y = along / size, up / size
    cell = torch.stack((x.floor(), y.floor()), -1).long()
    soft = s.footprint.clamp(min=0.004) / size
    face = band(x % 1 - 0.5, 0.5 - s.params[:, 1], soft) * band(y % 1 - 0.5, 0.5 - s.params[:, 1], soft)
    color = s.color * (0.8 + 0.4 * cell_hash(cell, s.seed) + 0.25 * _grain(s, 3.0, 4))[:, None]
    return mix(s.color2, color, face), s.params[:, 3]


def _picture(s: Surface) -> Shade:
    frequency = s.params[:, 0]
    hue = torch.stack([noise(s.p * frequency[:, None], s.seed + 17 * k) for k in range(3)], -1)
    detail = fractal(s.p, s.seed + 77, s.footprint, frequency * 3, 4)
    rim = torch.stack((s.unit[:, 0].abs(), s.unit[:, 1].abs(), s.unit[:, 2].abs()), -1).sort(-1).values[:, 1] > 0.88
    # Prints are rarely pure in hue: half grey, around the colour they are given.
    hue = 0.5 * hue + 0.5 * hue.mean(-1, keepdim=True)
    color = (mix(hue * hue, s.color, 0.3 + 0.3 * hue[:, 0]) * (1 + 0.8 * detail)[:, None]).clamp(0.01, 0.9)
    return torch.where(rim[:, None], s.color2, color), 0.1 * torch.ones_like(frequency)


def _books(s: Surface) -> Shade:
    along, up = s.wall_coordinates()
    height, width = s.params[:, 0], s.params[:, 1]
    shelf = (up / height).floor()
    x = along / width + 9 * cell_hash(shelf[:, None].long(), s.seed)
    book = torch.stack((x.floor(), shelf), -1).long()
    tall = 0.6 + 0.3 * cell_hash(book, s.seed + 4)
    y = up / height - shelf
    hue = torch.stack([cell_hash(book, s.seed + 31 * k) for k in range(3)], -1)
    hue = 0.4 * hue + 0.6 * cell_hash(book, s.seed + 3)[:, None]
    spine = hue * hue * (0.8 + 0.5 * _grain(s, 14.0, 2))[:, None] * (0.4 + 0.6 * band(x % 1 - 0.5, 0.42, 0.1))[:, None]
    color = torch.where((y < 0.06)[:, None], s.color, torch.where((y < tall)[:, None], spine, s.color2 * 0.15))
    return color, _matt(s)


def _sign(s: Surface) -> Shade:
    radius = torch.hypot(s.unit[:, 0], s.unit[:, 1])
    bar = band(s.unit[:, 1] - 0.2 * s.unit[:, 0], 0.16, 0.06)
    inner = mix(s.color2, s.color, bar)
    face = mix(s.color, inner, band(radius, 0.76, 0.06))
    return torch.where((s.normal[:, 2] > 0.5)[:, None], face, torch.full_like(face, 0.2)), 0.1 * _grain(s, 1.0).abs()


def _shop(s: Surface) -> Shade:
    """A shop window: dark glass with displays behind it, frames, a sill."""
    along, up = s.wall_coordinates()
    width, sill = s.params[:, 0], s.params[:, 1]
    top = 2 * s.half[:, 2]
    soft = s.footprint.clamp(min=0.01)
    pane = (along / width).floor()
    x = (along / width - pane - 0.5) * width
    glass = band(x, 0.5 * width - 0.06, soft) * ((up - sill) / soft + 0.5).clamp(0, 1)
    glass = glass * ((top - 0.12 - up) / soft + 0.5).clamp(0, 1)
    cell = torch.stack((pane, torch.zeros_like(pane)), -1).long()
    lit = cell_hash(cell, s.seed + 3)
    shapes = fractal(s.p * s.p.new_tensor([1.0, 1.0, 1.7]), s.seed, s.footprint, 1.6, 4)
    goods = torch.stack([noise(s.p * 2.2, s.seed + 13 * k) for k in range(3)], -1) ** 2
    goods = goods * (0.1 + 0.9 * (shapes > 0.05))[:, None] * ((1.6 + sill - up) / 0.3).clamp(0, 1)[:, None]
    inside = goods * (0.15 + 0.8 * lit * lit)[:, None] + 0.02 + 0.12 * (lit > 0.8)[:, None]
    frame = mix(s.color, s.color2, band(up, 0.25, soft))
    return mix(frame, inside, glass), 0.95 * glass


def _print(s: Surface) -> Shade:
    """A poster: blocks of colour with lines of letters; or graffiti: strokes of a few colours on a wall."""
    along, up = s.wall_coordinates()
    pitch, graffiti = s.params[:, 0], s.params[:, 1] > 0.5
    flat = torch.stack((along, up, torch.zeros_like(up)), -1) / pitch[:, None]
    cell = torch.stack(((along / pitch).floor(), (up / pitch).floor()), -1).long()
    hues = torch.stack([cell_hash(cell, s.seed + 5 * k) for k in range(3)], -1)
    hues = 0.45 * hues + 0.55 * hues.mean(-1, keepdim=True)  # prints are rarely pure in hue
    row = (up / pitch * 5) % 1
    letters = (noise(flat * 9, s.seed + 9) > 0.5).float() * band(row - 0.5, 0.3, 0.1) * fade(s.footprint, 4 / pitch)
    picture = noise(flat * 1.7, s.seed + 2)
    poster = mix(mix(hues * hues, s.color, 0.4 * picture + 0.2), s.color2, 0.85 * letters * (hues[:, 0] > 0.4))
    stroke = (noise(flat * 1.5, s.seed) - 0.5).abs()
    outline, body = band(stroke - 0.09, 0.035, 0.02), band(stroke, 0.09, 0.02)
    tag = mix(mix(s.color, s.color2, body), 0.02 * torch.ones_like(s.color), outline)
    return torch.where(graffiti[:, None], tag, poster), 0.05 * torch.ones_like(up)


SHADERS: dict[Material, Callable[[Surface], Shade]] = {
    Material.PLAIN: _plain,
    Material.FACADE: _facade,
    Material.ROOF: _roof,
    Material.FOLIAGE: _foliage,
    Material.CAR_BODY: _car_body,
    Material.CAR_CABIN: _car_cabin,
    Material.WHEEL: _wheel,
    Material.STRIPES: _stripes,
    Material.PLANKS: _planks,
    Material.TILES: _tiles,
    Material.PICTURE: _picture,
    Material.BOOKS: _books,
    Material.SIGN: _sign,
    Material.FENCE: _painted,
    Material.BICYCLE: _painted,
    Material.CABLES: _painted,
    Material.SHOP: _shop,
    Material.PRINT: _print,
}
