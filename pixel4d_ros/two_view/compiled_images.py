# SPDX-License-Identifier: Apache-2.0
"""The loops over an object's pixels in two images, compiled as those of compiled.py: which velocity fits the images."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.compiled import IN_FRONT, normal_equations, solution
from pixel4d_ros.two_view.flow import Rows

SETTLED = 0.01  # m/s
TAIL = 3.0  # degrees of freedom of the prior of velocities (Student's t): some predictions are far off
NORMAL_MEDIAN = 1.48  # standard deviation of a normal distribution over the median of its absolute values


@njit(cache=True, nogil=True)
def parallax(points: FloatArray, K: FloatArray, T: FloatArray) -> float:
    """Median distance in pixels between where the reference camera sees points (n, 3), and the same infinitely far."""
    distances = np.empty(len(points))
    for i in range(len(points)):
        near_u, near_v = _seen(points[i, 0], points[i, 1], points[i, 2], K, T)
        far_u, far_v = _seen(1e4 * points[i, 0], 1e4 * points[i, 1], 1e4 * points[i, 2], K, T)
        distances[i] = math.hypot(near_u - far_u, near_v - far_v)
    return float(np.median(distances))


@njit(cache=True, nogil=True, error_model="numpy")
def mean_differences(
    here: FloatArray,
    there: NDArray[np.uint8],
    points: FloatArray,
    factors: FloatArray,
    displacement: FloatArray,
    K: FloatArray,
    T: FloatArray,
    occluded: float,
) -> tuple[FloatArray, float]:
    """Mean differences in grey levels between pixels and the reference image there (h, w), of static and moved points.

    Pixels of grey levels here (n,) show points (n, 3). (D,) of points that stand, at each factor of their distance, and
    of points that were elsewhere by displacement (3,). Larger differences count as `occluded`.
    """
    static, moved = np.zeros(len(factors)), 0.0
    places = np.empty(len(factors), np.uint32), np.empty(len(factors)), np.empty(len(factors))
    pixels, next_row = there.ravel(), np.uint64(there.shape[1])
    for i in range(len(points)):
        x, y, z = points[i]
        _enter_places(places, (x, y, z), factors, K, T, there.shape)
        for d in range(len(factors)):
            value = _bilinear(pixels, np.uint64(places[0][d]), next_row, places[1][d], places[2][d])
            static[d] += min(abs(value - here[i]), occluded) if places[2][d] >= 0 else occluded
        u, v = _seen(x - displacement[0], y - displacement[1], z - displacement[2], K, T)
        moved += min(abs(_sampled(there, u, v) - here[i]), occluded)
    return static / len(points), moved / len(points)


@njit(cache=True, nogil=True, error_model="numpy")
def _enter_places(
    places: tuple[NDArray[np.uint32], FloatArray, FloatArray],
    point: tuple[float, float, float],
    factors: FloatArray,
    K: FloatArray,
    T: FloatArray,
    shape: tuple[int, int],
) -> None:
    """Where the reference camera sees a point at each factor (D,) of its distance, in an image of a shape (h, w).

    Enters the index (D,) of the pixel to the upper left, and the distance from it along columns and rows, -1 where the
    point is not seen. As _seen, of which the depth changes but a part; without branches, so that processors compute
    several at once.
    """
    x, y, z = point
    height, width = np.int32(shape[0]), np.int32(shape[1])
    right = K[0, 0] * (T[0, 0] * x + T[0, 1] * y + T[0, 2] * z)
    down = K[1, 1] * (T[1, 0] * x + T[1, 1] * y + T[1, 2] * z)
    ahead = T[2, 0] * x + T[2, 1] * y + T[2, 2] * z
    for d in range(len(factors)):
        far = factors[d] * ahead + T[2, 3]
        u = (factors[d] * right + K[0, 0] * T[0, 3]) / far + K[0, 2]
        v = (factors[d] * down + K[1, 1] * T[1, 3]) / far + K[1, 2]
        seen = (far > IN_FRONT) & (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
        u, v = (u if seen else 0.0), (v if seen else 0.0)
        left, top = min(np.int32(u), np.int32(width - 2)), min(np.int32(v), np.int32(height - 2))
        places[0][d], places[1][d] = top * width + left, u - left
        places[2][d] = v - top if seen else -1.0


@njit(cache=True, nogil=True)
def structure(image: NDArray[np.uint8], v: Rows, u: Rows) -> tuple[float, float, float]:
    """Means of dx dx, dy dy and dx dy of an image (h, w) by Sobel's filter, in (grey levels per pixel)^2."""
    height, width = image.shape
    xx, yy, xy = 0.0, 0.0, 0.0
    for i in range(len(v)):
        above, below = abs(v[i] - 1), height - 1 - abs(height - 2 - v[i])
        before, after = abs(u[i] - 1), width - 1 - abs(width - 2 - u[i])
        dx, dy = 0.0, 0.0
        for k in range(3):
            times = 2.0 if k == 1 else 1.0
            row = above if k == 0 else (v[i] if k == 1 else below)
            column = before if k == 0 else (u[i] if k == 1 else after)
            dx += times * (np.float64(image[row, after]) - np.float64(image[row, before]))
            dy += times * (np.float64(image[below, column]) - np.float64(image[above, column]))
        xx, yy, xy = xx + dx * dx, yy + dy * dy, xy + dx * dy
    scale = 64.0 * max(len(v), 1)  # Sobel's filter is 8 times the slope
    return xx / scale, yy / scale, xy / scale


@njit(cache=True, nogil=True, error_model="numpy")
def _seen(x: float, y: float, z: float, K: FloatArray, T: FloatArray) -> tuple[float, float]:
    """Column and row in which the reference camera sees a point; far outside where it is not in front."""
    ahead = T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3]
    if ahead <= IN_FRONT:
        return -1e4, -1e4
    u = K[0, 0] * (T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3]) / ahead + K[0, 2]
    v = K[1, 1] * (T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3]) / ahead + K[1, 2]
    return u, v


@njit(cache=True, nogil=True, error_model="numpy")
def _bilinear(pixels: NDArray[np.uint8], k: np.uint64, next_row: np.uint64, a: float, b: float) -> float:
    """The image of h * w pixels at the shares a and b of the way from pixel k to its right, and to the next row.

    Unsigned indices are not checked for being negative.
    """
    below, right = k + next_row, np.uint64(1)
    upper = (1 - a) * pixels[k] + a * pixels[k + right]
    lower = (1 - a) * pixels[below] + a * pixels[below + right]
    return float((1 - b) * upper + b * lower)


@njit(cache=True, nogil=True, error_model="numpy")
def _sampled(image: NDArray[np.uint8], u: float, v: float) -> float:
    """The image (h, w) between pixels; beyond its border something unlike any grey level."""
    height, width = image.shape
    if not (0 <= u <= width - 1 and 0 <= v <= height - 1):
        return 1e4
    left, top = min(int(u), width - 2), min(int(v), height - 2)
    a, b = u - left, v - top
    upper, lower = _between(image, top, left, a), _between(image, top + 1, left, a)
    return float((1 - b) * upper + b * lower)


@njit(cache=True, nogil=True, error_model="numpy")
def displaced_error(
    points: FloatArray, grey: FloatArray, there: NDArray[np.uint8], K: FloatArray, by: FloatArray, bright: float
) -> tuple[float, float]:
    """Mean difference in grey levels, of at most 60 each, and the share of the points that the image (h, w) shows.

    Points (n, 3) in the reference camera's frame, of grey levels (n,), were elsewhere by (3,) metres and darker by
    `bright`.
    """
    height, width = np.int32(there.shape[0]), np.int32(there.shape[1])
    index, across, below = np.empty(len(points), np.uint32), np.empty(len(points)), np.empty(len(points))
    for i in range(len(points)):  # as _enter_places
        z = points[i, 2] - by[2]
        u = K[0, 0] * (points[i, 0] - by[0]) / z + K[0, 2]
        v = K[1, 1] * (points[i, 1] - by[1]) / z + K[1, 2]
        shown = (z > IN_FRONT) & (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
        u, v = (u if shown else 0.0), (v if shown else 0.0)
        column, row = min(np.int32(u), np.int32(width - 2)), min(np.int32(v), np.int32(height - 2))
        index[i], across[i], below[i] = row * width + column, u - column, (v - row if shown else -1.0)
    left, seen = 0.0, 0
    pixels, next_row = there.ravel(), np.uint64(width)
    for i in range(len(points)):
        if below[i] >= 0:
            value = _bilinear(pixels, np.uint64(index[i]), next_row, across[i], below[i])
            seen += 1
            left += min(abs(grey[i] - value - bright), 60.0)
    return left / max(seen, 1), seen / max(len(points), 1)


@njit(cache=True, nogil=True, error_model="numpy")
def aligned_velocity(
    points: FloatArray,
    grey: FloatArray,
    there: NDArray[np.uint8],
    K: FloatArray,
    path: FloatArray,
    start: FloatArray,
    prior: tuple[FloatArray, FloatArray, float],
    rounds: int,
    noise: tuple[float, float],
) -> tuple[FloatArray, float, float]:
    """The velocity (3,) by which points (n, 3) of grey levels (n,) are where the reference image shows the same.

    Points are in the reference camera's frame, in which path (3, 3) is metres per m/s. Gauss and Newton from a start
    (3,) until a step is below SETTLED, with Cauchy weights, a difference of brightness, and a prior: its mean (3,), its
    precision (3,), and how many independent errors the points have. rounds may be 0. The standard deviation of the
    images' differences is that of their median, within the bounds of noise (least, most) in grey levels: where images
    fit well the prior weighs less. Also what displaced_error says of the velocity.
    """
    velocity, bright, d = start.copy(), 0.0, np.zeros(4)
    (mean, precision, independent), errors = prior, np.empty(len(points))
    J, weight, by = np.ones((4, len(points))), np.empty(len(points)), np.empty(3)
    for k in range(rounds + 1):
        for a in range(3):
            by[a] = path[a, 0] * velocity[0] + path[a, 1] * velocity[1] + path[a, 2] * velocity[2]
        if k == rounds or (k > 0 and np.abs(d[:3]).max() < SETTLED):
            break
        seen = 0
        for i in range(len(points)):
            x, y, z = points[i, 0] - by[0], points[i, 1] - by[1], points[i, 2] - by[2]
            if z <= IN_FRONT:
                continue
            nearness = 1 / z
            x, y = x * nearness, y * nearness
            value, slope_u, slope_v = _with_slopes(there, K[0, 0] * x + K[0, 2], K[1, 1] * y + K[1, 2])
            if value > 255:
                continue
            errors[seen] = grey[i] - value - bright
            slope_u, slope_v = slope_u * K[0, 0] * nearness, slope_v * K[1, 1] * nearness
            for a in range(3):
                J[a, seen] = slope_u * (x * path[2, a] - path[0, a]) + slope_v * (y * path[2, a] - path[1, a])
            seen += 1
        if seen < 4:
            break
        outlier = min(max(NORMAL_MEDIAN * np.median(np.abs(errors[:seen])), noise[0]), noise[1])
        for i in range(seen):
            weight[i] = 1 / (1 + (errors[i] / outlier) ** 2)
        normal, right = normal_equations(J, errors, weight, seen)
        belief = outlier**2 * seen / independent * (TAIL + 3) / (TAIL + (precision * (velocity - mean) ** 2).sum())
        for a in range(3):
            normal[a, a] += belief * precision[a]
            right[a] -= belief * precision[a] * (velocity[a] - mean[a])
        normal[3, 3] += 1e-6 * seen
        d[:] = solution(normal, right)
        velocity += d[:3]
        bright += d[3]
    left, shown = displaced_error(points, grey, there, K, by, bright)
    return velocity, left, shown


@njit(cache=True, nogil=True)
def sampled_at(image: NDArray[np.uint8], v: FloatArray, u: FloatArray) -> FloatArray:
    """The image (h, w) at rows v and columns u (n,) between pixels."""
    values = np.empty(len(v))
    for i in range(len(v)):
        values[i] = _sampled(image, u[i], v[i])
    return values


@njit(cache=True, nogil=True, error_model="numpy")
def _with_slopes(image: NDArray[np.uint8], u: float, v: float) -> tuple[float, float, float]:
    """As _sampled, and grey levels per pixel along columns and rows, over two pixels; at the border, over one."""
    height, width = image.shape
    if not (1 <= u < width - 2 and 1 <= v < height - 2):
        value = _sampled(image, u, v)
        if value > 255:
            return value, 0.0, 0.0
        left, right = max(u - 1, 0.0), min(u + 1, width - 1.0)
        above, below = max(v - 1, 0.0), min(v + 1, height - 1.0)
        along = (_sampled(image, right, v) - _sampled(image, left, v)) / (right - left)
        return value, along, (_sampled(image, u, below) - _sampled(image, u, above)) / (below - above)
    x, y = int(u), int(v)
    a, b = u - x, v - y
    upper, lower = _between(image, y, x, a), _between(image, y + 1, x, a)
    right = (1 - b) * _between(image, y, x + 1, a) + b * _between(image, y + 1, x + 1, a)
    left = (1 - b) * _between(image, y, x - 1, a) + b * _between(image, y + 1, x - 1, a)
    below = (1 - b) * lower + b * _between(image, y + 2, x, a)
    above = (1 - b) * _between(image, y - 1, x, a) + b * upper
    return (1 - b) * upper + b * lower, (right - left) / 2, (below - above) / 2


@njit(cache=True, nogil=True, error_model="numpy")
def _between(image: NDArray[np.uint8], y: int, x: int, a: float) -> float:
    """The image (h, w) in row y, between columns x and x + 1, which are in it."""
    row = np.uint64(y)  # unsigned indices are not checked for being negative
    return float((1 - a) * image[row, np.uint64(x)] + a * image[row, np.uint64(x + 1)])
