# SPDX-License-Identifier: Apache-2.0
"""The CPU rasterizer: one compiled loop over Gaussians, front to back; views in parallel. No gradients.

Golden reference: torch_rasterizer. The projection follows projection.py step by step. Of a second future only the
tiles that differ from the first are rendered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray
from torch import Tensor

from pixel4d_ros.rendering.tiles import TILE, tile_grid, within
from pixel4d_ros.rendering.types import (
    EPS2D,
    MAX_ALPHA,
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
    NEAR,
    GaussianViews,
    Rendering,
    depth_from_inverses,
)

Floats = NDArray[np.float32]
Tiles = NDArray[np.bool_]
# exp(u) for -0.7 <= u <= 0, a polynomial fitted at Chebyshev points. Its eighth power is exp(8 u) to 1e-6, and alphas
# end at 1 / 255. Unlike math.exp it is computed for many pixels at once.
E0, E1, E2, E3, E4, E5 = (
    np.float32(e) for e in (0.999999942, 0.99999399, 0.499898514, 0.166035914, 0.039871595, 0.005902442)
)


def rasterize_numba(views: GaussianViews) -> Rendering:
    """Render on the CPU in float32. The first call compiles for some seconds."""
    return _rendering(views, np.ones((len(views.means), 0, 0), np.bool_))


def rasterize_numba_futures(futures: Sequence[GaussianViews]) -> Iterator[Rendering]:
    """Render futures that differ only in where the same Gaussians moved; after the first, only tiles these touch."""
    first, *others = futures
    rendering = rasterize_numba(first.placed())
    yield rendering
    if not others:
        return
    touched_first = _touched(first)
    for views in others:
        tiles = touched_first | _touched(views)
        yield within(torch.from_numpy(tiles), _rendering(views.placed(), tiles), rendering, views.size)


def _rendering(views: GaussianViews, tiles: Tiles) -> Rendering:
    """All views; undefined where tiles (V, h, w) are false, unless there are none (V, 0, 0)."""
    _start_threads()
    width, height = views.size
    image = np.zeros((len(views.means), views.features.shape[2] + 3, height, width), np.float32)
    means, quaternions, scales, opacities, features, T, K = _arrays(*views.tensors())
    _render_views((means, quaternions, scales, opacities, T, K), features, tiles, image)
    rendered = torch.from_numpy(image).permute(0, 2, 3, 1)
    depth = depth_from_inverses(rendered[..., -3], rendered[..., -2])
    return Rendering(rendered[..., :-3], depth, rendered[..., -1])


@lru_cache(maxsize=1)
def _start_threads() -> None:
    """Start numba's threads, and keep torch's number of threads: both may use one OpenMP, where numba sets its own."""
    threads = torch.get_num_threads()
    get_num_threads()
    torch.set_num_threads(threads)


def _touched(views: GaussianViews) -> Tiles:
    """Tiles (V, h, w) that moved Gaussians touch."""
    assert views.moved is not None
    columns, rows = tile_grid(views.size)
    tiles = np.zeros((len(views.means), rows, columns), np.bool_)
    moved, index = views.moved, views.moved.index
    scales, opacities = (t[:1, index] if t.stride(0) == 0 else t[:, index] for t in (views.scales, views.opacities))
    arrays = _arrays(moved.means, moved.quaternions, scales, opacities, views.T_camera_world, views.K)
    _touch(tuple(arrays), views.size, tiles)
    return tiles


def _arrays(*tensors: Tensor) -> list[Floats]:
    """Contiguous float32 arrays; tensors that all views share (expanded, stride 0) have a first axis of 1."""
    once = (t[:1] if t.stride(0) == 0 else t for t in tensors)
    return [t.detach().to(torch.float32).contiguous().numpy() for t in once]


@njit(parallel=True, fastmath=True, cache=True)
def _render_views(shared: tuple[Floats, ...], features: Floats, tiles: Tiles, image: Floats) -> None:
    for v in prange(len(image)):
        visible, splats = _project_view(v, shared, (image.shape[3], image.shape[2]))
        if tiles.size > 0:
            kept = _reaching(splats, tiles[v])
            visible, splats = visible[kept], splats[kept]
        _splat(visible, splats, np.argsort(splats[:, 0], kind="mergesort"), features[v % len(features)], image[v])


@njit(parallel=True, fastmath=True, cache=True)
def _touch(shared: tuple[Floats, ...], size: tuple[int, int], tiles: Tiles) -> None:
    """Set the tiles (V, h, w) that Gaussians (V, M, ...) reach."""
    for v in prange(len(tiles)):
        _, splats = _project_view(v, shared, size)
        for i in range(len(splats)):
            x0, x1, y0, y1 = _tiles_of(splats[i], tiles[v])
            tiles[v, y0:y1, x0:x1] = True


@njit(fastmath=True, cache=True)
def _tiles_of(splat: Floats, tiles: Tiles) -> tuple[int, int, int, int]:
    """Tiles x0 <= x < x1, y0 <= y < y1 of (h, w) that a splat reaches."""
    px, py, rx, ry = splat[1], splat[2], splat[7], splat[8]
    x0, y0 = max(0, math.floor((px - rx) / TILE)), max(0, math.floor((py - ry) / TILE))
    x1 = min(tiles.shape[1], math.floor((px + rx) / TILE) + 1)
    y1 = min(tiles.shape[0], math.floor((py + ry) / TILE) + 1)
    return x0, x1, y0, y1


@njit(fastmath=True, cache=True)
def _reaching(splats: Floats, tiles: Tiles) -> Tiles:
    """Which splats (n, 9) reach any of the tiles (h, w): bool (n,)."""
    rows, columns = tiles.shape
    sums = np.zeros((rows + 1, columns + 1), np.int32)  # of the tiles above and to the left
    for y in range(rows):
        for x in range(columns):
            sums[y + 1, x + 1] = sums[y, x + 1] + sums[y + 1, x] - sums[y, x] + tiles[y, x]
    reaching = np.empty(len(splats), np.bool_)
    for i in range(len(splats)):
        x0, x1, y0, y1 = _tiles_of(splats[i], tiles)
        reaching[i] = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0] > 0
    return reaching


@njit(fastmath=True, cache=True)
def _project_view(v: int, shared: tuple[Floats, ...], size: tuple[int, int]) -> tuple[NDArray[np.int32], Floats]:
    """_project for view v, of means, quaternions, scales, opacities, T and K with a first axis of V, or 1 if shared."""
    means, quaternions, scales, opacities, T, K = shared
    view: tuple[NDArray[np.int32], Floats] = _project(
        means[v % len(means)],
        quaternions[v % len(quaternions)],
        scales[v % len(scales)],
        opacities[v % len(opacities)],
        T[v % len(T)],
        K[v % len(K)],
        size[0],
        size[1],
    )
    return view


@njit(fastmath=True, cache=True)
def _project(
    means: Floats, quaternions: Floats, scales: Floats, opacities: Floats, T: Floats, K: Floats, width: int, height: int
) -> tuple[NDArray[np.int32], Floats]:
    """Indices (n,) of the Gaussians in view and their splats (n, 9).

    A splat is: Depth, x, y, conic a b c, opacity, reach in x and y (n, 9).
    """
    visible = np.empty(len(means), np.int32)
    splats = np.empty((len(means), 9), np.float32)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    x_high, x_low = (width - cx - 0.5 + 0.15 * width) / fx, -(cx + 0.5 + 0.15 * width) / fx
    y_high, y_low = (height - cy - 0.5 + 0.15 * height) / fy, -(cy + 0.5 + 0.15 * height) / fy
    n = 0
    for g in range(len(means)):
        m, opacity = means[g], opacities[g]
        z = T[2, 0] * m[0] + T[2, 1] * m[1] + T[2, 2] * m[2] + T[2, 3]
        if z <= NEAR or opacity < MIN_ALPHA:
            continue
        x = (T[0, 0] * m[0] + T[0, 1] * m[1] + T[0, 2] * m[2] + T[0, 3]) / z
        y = (T[1, 0] * m[0] + T[1, 1] * m[1] + T[1, 2] * m[2] + T[1, 3]) / z
        tx, ty = min(max(x, x_low), x_high), min(max(y, y_low), y_high)
        xx, xy, yy = _covariance(quaternions[g], scales[g], T, fx / z, fy / z, tx, ty)
        px, py = fx * x + cx, fy * y + cy
        reach = math.sqrt(2 * math.log(opacity / MIN_ALPHA))
        rx, ry = reach * math.sqrt(xx), reach * math.sqrt(yy)
        if not (px + rx >= 0 and px - rx <= width - 1 and py + ry >= 0 and py - ry <= height - 1):
            continue
        determinant = xx * yy - xy * xy
        splat = splats[n]
        splat[0], splat[1], splat[2] = z, px, py
        splat[3], splat[4], splat[5] = yy / determinant, -xy / determinant, xx / determinant
        splat[6], splat[7], splat[8] = opacity, rx, ry
        visible[n] = g
        n += 1
    return visible[:n], splats[:n]


@njit(fastmath=True, cache=True)
def _splat(
    visible: NDArray[np.int32], splats: Floats, order: NDArray[np.int64], features: Floats, image: Floats
) -> None:
    """Blend front to back into image (C + 3, H, W): features, inverse depth, its square, alpha.

    Row by row: first the weights of its pixels, without branches, then each channel, so that many pixels are computed
    at once. In functions of their own these loops took half as long again.
    """
    channels, height, width = features.shape[1], image.shape[1], image.shape[2]
    through, weights = np.ones((height, width), np.float32), np.empty(width, np.float32)
    half, one, none = np.float32(0.5), np.float32(1), np.float32(0)
    for i in order:
        z, px, py, a, b, c, opacity, rx, ry = splats[i]
        faintest = np.float32(math.log(MIN_ALPHA / opacity))
        inverse = one / z
        square = inverse * inverse
        x0, x1 = max(0, math.ceil(px - rx)), min(width - 1, math.floor(px + rx))
        y0, y1 = max(0, math.ceil(py - ry)), min(height - 1, math.floor(py + ry))
        n = x1 - x0 + 1
        for row in range(y0, y1 + 1):
            dx, dy = np.float32(x0) - px, np.float32(row - py)
            slope, offset, total = b * dy, half * c * dy * dy, none
            shines = through[row, x0 : x1 + 1]
            for j in range(n):
                x = dx + np.float32(np.int32(j))
                power = -(half * a * x + slope) * x - offset
                u = max(power, faintest) * np.float32(0.125)
                e = E0 + u * (E1 + u * (E2 + u * (E3 + u * (E4 + u * E5))))
                e = e * e
                e = e * e
                alpha = min(np.float32(MAX_ALPHA), opacity * e * e)
                alpha = alpha if power >= faintest else none
                before = shines[j]
                after = before * (one - alpha)
                opaque = after <= np.float32(MIN_TRANSMITTANCE)  # then nothing is blended, nor anything behind
                weight = none if opaque else before - after
                shines[j] = none if opaque else after
                weights[j] = weight
                total += weight
            if total == 0:
                continue
            for k in range(channels):
                value = features[visible[i], k]
                plane = image[k, row, x0 : x1 + 1]
                for j in range(n):
                    plane[j] += weights[j] * value
            plane, squares, alphas = (
                image[channels, row, x0 : x1 + 1],
                image[channels + 1, row, x0 : x1 + 1],
                image[channels + 2, row, x0 : x1 + 1],
            )
            for j in range(n):
                plane[j] += weights[j] * inverse
            for j in range(n):
                squares[j] += weights[j] * square
            for j in range(n):
                alphas[j] += weights[j]


@njit(fastmath=True, cache=True)
def _covariance(
    q: Floats, s: Floats, T: Floats, scale_x: float, scale_y: float, tx: float, ty: float
) -> tuple[float, float, float]:
    """Projected covariance xx, xy, yy in square pixels, at the linearisation point (tx, ty, 1) z."""
    w, i, j, k = q[0], q[1], q[2], q[3]
    xx, xy, yy = EPS2D, 0.0, EPS2D
    for axis in range(3):
        if axis == 0:
            ax, ay, az = 1 - 2 * (j * j + k * k), 2 * (i * j + w * k), 2 * (i * k - w * j)
        elif axis == 1:
            ax, ay, az = 2 * (i * j - w * k), 1 - 2 * (i * i + k * k), 2 * (j * k + w * i)
        else:
            ax, ay, az = 2 * (i * k + w * j), 2 * (j * k - w * i), 1 - 2 * (i * i + j * j)
        cz = T[2, 0] * ax + T[2, 1] * ay + T[2, 2] * az
        u = s[axis] * scale_x * (T[0, 0] * ax + T[0, 1] * ay + T[0, 2] * az - tx * cz)
        v = s[axis] * scale_y * (T[1, 0] * ax + T[1, 1] * ay + T[1, 2] * az - ty * cz)
        xx += u * u
        xy += u * v
        yy += v * v
    return xx, xy, yy
