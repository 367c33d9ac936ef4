"""The CPU rasterizer: one compiled loop over Gaussians, front to back; views in parallel. No gradients.

Golden reference: torch_rasterizer. The projection follows projection.py step by step.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from pixel4d_ros.rendering.rasterizer import EPS2D, MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, NEAR, Rendering

Floats = NDArray[np.float32]


def rasterize_numba(
    means: Tensor,
    quaternions: Tensor,
    scales: Tensor,
    opacities: Tensor,
    features: Tensor,
    T_camera_world: Tensor,
    K: Tensor,
    size: tuple[int, int],
) -> Rendering:
    """Render on the CPU in float32; see `rasterize` for the shapes. The first call compiles for some seconds."""
    arrays = [t.detach().numpy().astype(np.float32, copy=False) for t in (means, quaternions, scales, opacities, features)]
    order = np.empty(means.shape[:2], np.int32)
    # The third row of T_camera_world gives the depth of each mean.
    depths = (means @ T_camera_world[:, 2, :3, None])[..., 0] + T_camera_world[:, 2, 3:]
    order[:] = torch.argsort(depths, dim=1).numpy()
    width, height = size
    out = np.zeros((len(means), height, width, features.shape[2] + 2), np.float32)
    _render_views(*arrays, T_camera_world.numpy().astype(np.float32), K.numpy().astype(np.float32), order, out)
    image = torch.from_numpy(out)
    alpha = image[..., -1]
    return Rendering(image[..., :-2], alpha / image[..., -2], alpha)


@njit(parallel=True, fastmath=True, cache=True)
def _render_views(
    means: Floats,
    quaternions: Floats,
    scales: Floats,
    opacities: Floats,
    features: Floats,
    T: Floats,
    K: Floats,
    order: NDArray[np.int32],
    out: Floats,
) -> None:
    for v in prange(len(means)):
        _render_view(means[v], quaternions[v], scales[v], opacities[v], features[v], T[v], K[v], order[v], out[v])


@njit(fastmath=True, cache=True)
def _render_view(
    means: Floats,
    quaternions: Floats,
    scales: Floats,
    opacities: Floats,
    features: Floats,
    T: Floats,
    K: Floats,
    order: NDArray[np.int32],
    out: Floats,
) -> None:
    height, width = out.shape[0], out.shape[1]
    channels = features.shape[1]
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    x_high, x_low = (width - cx - 0.5 + 0.15 * width) / fx, -(cx + 0.5 + 0.15 * width) / fx
    y_high, y_low = (height - cy - 0.5 + 0.15 * height) / fy, -(cy + 0.5 + 0.15 * height) / fy
    through = np.ones((height, width), np.float32)
    for g in order:
        m = means[g]
        z = T[2, 0] * m[0] + T[2, 1] * m[1] + T[2, 2] * m[2] + T[2, 3]
        opacity = opacities[g]
        if z <= NEAR or opacity < MIN_ALPHA:
            continue
        x = (T[0, 0] * m[0] + T[0, 1] * m[1] + T[0, 2] * m[2] + T[0, 3]) / z
        y = (T[1, 0] * m[0] + T[1, 1] * m[1] + T[1, 2] * m[2] + T[1, 3]) / z
        px, py = fx * x + cx, fy * y + cy
        xx, xy, yy = _covariance(
            quaternions[g], scales[g], T, fx / z, fy / z, min(max(x, x_low), x_high), min(max(y, y_low), y_high)
        )
        reach = math.sqrt(2 * math.log(opacity / MIN_ALPHA))
        rx, ry = reach * math.sqrt(xx), reach * math.sqrt(yy)
        if not (px + rx >= 0 and px - rx <= width - 1 and py + ry >= 0 and py - ry <= height - 1):
            continue
        x0, x1 = max(0, math.ceil(px - rx)), min(width - 1, math.floor(px + rx))
        y0, y1 = max(0, math.ceil(py - ry)), min(height - 1, math.floor(py + ry))
        determinant = xx * yy - xy * xy
        a, b, c = yy / determinant, -xy / determinant, xx / determinant
        for row in range(y0, y1 + 1):
            dy = row - py
            for column in range(x0, x1 + 1):
                t = through[row, column]
                if t <= MIN_TRANSMITTANCE:
                    continue
                dx = column - px
                alpha = min(MAX_ALPHA, opacity * math.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy))
                if alpha < MIN_ALPHA:
                    continue
                if t * (1 - alpha) <= MIN_TRANSMITTANCE:
                    through[row, column] = 0  # opaque: nothing behind is blended
                    continue
                weight = alpha * t
                through[row, column] = t - weight
                pixel = out[row, column]
                for k in range(channels):
                    pixel[k] += weight * features[g, k]
                pixel[channels] += weight / z
                pixel[channels + 1] += weight


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
