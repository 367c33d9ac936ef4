# SPDX-License-Identifier: Apache-2.0
"""The loops over an object's pixels, compiled: objects are many and small, so calls of numpy would take most time.

All arrays are contiguous and float64, unless said otherwise. Pixels are rows v and columns u (n,) of images (h, w). The
first call of each function compiles for some seconds; the result is kept beside this file.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.two_view.flow import Rows

IN_FRONT = 0.1  # metres: what is nearer is not seen


@njit(cache=True, nogil=True)
def unprojected(v: Rows, u: Rows, depth: NDArray[np.float32], K: FloatArray) -> FloatArray:
    """Points (n, 3) in the camera's frame, of pixels of a depth map (h, w) in metres."""
    points = np.empty((len(v), 3))
    for i in range(len(v)):
        z = np.float64(depth[v[i], u[i]])
        y = (v[i] - K[1, 2]) / K[1, 1]
        points[i, 0] = ((u[i] - K[0, 2]) - K[0, 1] * y) / K[0, 0] * z
        points[i, 1] = y * z
        points[i, 2] = z
    return points


@njit(cache=True, nogil=True)
def flow_equations(
    points: FloatArray, ends: FloatArray, K: FloatArray, T: FloatArray, seconds: float, nearest: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """What FlowEquations holds: static (2n,), velocity (2n, 3), inverse_depth (2n,), pose (2n, 6).

    points (n, 3) are seen at ends (n, 2) pixels, x and y, by the reference camera, to whose frame T (4, 4) maps them.
    Depth there below `nearest` counts as that.
    """
    count = len(points)
    static, inverse_depth = np.empty(2 * count), np.empty(2 * count)
    velocity, pose = np.empty((2 * count, 3)), np.empty((2 * count, 6))
    p = np.empty(3)
    for i in range(count):
        for k in range(3):
            p[k] = T[k, 0] * points[i, 0] + T[k, 1] * points[i, 1] + T[k, 2] * points[i, 2] + T[k, 3]
        end_v = (ends[i, 1] - K[1, 2]) / K[1, 1]
        end_u = (ends[i, 0] - K[0, 2] - K[0, 1] * end_v) / K[0, 0]
        for axis in range(2):
            end = end_u if axis == 0 else end_v
            per_metre = K[axis, axis] / max(p[2], nearest)
            row = 2 * i + axis
            static[row] = (p[axis] - end * p[2]) * per_metre
            inverse_depth[row] = (T[axis, 3] - end * T[2, 3]) * per_metre
            for k in range(3):
                velocity[row, k] = (T[axis, k] - end * T[2, k]) * seconds * per_metre
                pose[row, 3 + k] = ((1.0 if k == axis else 0.0) - (end if k == 2 else 0.0)) * per_metre
            # The displacement by a small rotation about each axis: e x p.
            pose[row, 0] = (-p[2] - end * p[1] if axis == 1 else -end * p[1]) * per_metre
            pose[row, 1] = (p[2] + end * p[0] if axis == 0 else end * p[0]) * per_metre
            pose[row, 2] = (-p[1] if axis == 0 else p[0]) * per_metre
    return static, velocity, inverse_depth, pose


@njit(cache=True, nogil=True)
def reweighted_velocity(
    still: FloatArray, J: FloatArray, belief: FloatArray, prior: FloatArray, rounds: int, outlier: float
) -> tuple[FloatArray, FloatArray, float, float]:
    """Least squares with Cauchy weights and a Gaussian prior: velocity (3,), its covariance (3, 3), two medians.

    still (2n,) = J (2n, 3) velocity; belief (3,) is the prior's precision and, as the covariance, in units of the
    equations. Residuals of `outlier` weigh half. The medians are those of |still| and of the last residuals.
    """
    weight = np.ones(len(still))  # the first round must not take the prior's residuals for outliers
    left = np.empty(len(still))
    normal, seen = np.zeros((3, 3)), np.zeros(3)
    velocity = np.zeros(3)
    for _ in range(rounds):
        normal[:], seen[:] = 0.0, belief * prior
        for k in range(3):
            normal[k, k] = belief[k]
        for i in range(len(still)):
            for a in range(3):
                by = weight[i] * J[i, a]
                seen[a] += by * still[i]
                for b in range(a + 1):
                    normal[a, b] += by * J[i, b]
        for a in range(3):
            for b in range(a):
                normal[b, a] = normal[a, b]
        velocity[:] = np.linalg.solve(normal, seen)
        for i in range(len(still)):
            left[i] = abs(still[i] - J[i, 0] * velocity[0] - J[i, 1] * velocity[1] - J[i, 2] * velocity[2])
            weight[i] = 1 / (1 + (left[i] / outlier) ** 2)
    return velocity, np.asarray(np.linalg.inv(normal)), median(np.abs(still)), median(left)


@njit(cache=True, nogil=True)
def normal_equations(X: FloatArray, y: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """X' W X (k, k) and X' W y (k,) of equations X (n, k), y (n,) with weights (n,)."""
    k = X.shape[1]
    normal, seen = np.zeros((k, k)), np.zeros(k)
    for i in range(len(y)):
        for a in range(k):
            by = weight[i] * X[i, a]
            seen[a] += by * y[i]
            for b in range(a + 1):
                normal[a, b] += by * X[i, b]
    for a in range(k):
        for b in range(a):
            normal[b, a] = normal[a, b]
    return normal, seen


@njit(cache=True, nogil=True)
def pose_equations(
    points: FloatArray, target: FloatArray, K: FloatArray, T: FloatArray, pixel: float
) -> tuple[FloatArray, FloatArray]:
    """One step of Gauss and Newton towards a pose T (4, 4) by which points (n, 3) are seen at target (n, 2) pixels.

    Normal matrix (6, 6) and right side (6,) of a small motion put before T, rotation first, in units of squared errors
    of `pixel` pixels, as means over the points. Cauchy weights: an error of that size counts half.
    """
    normal, seen, J, count = np.zeros((6, 6)), np.zeros(6), np.empty(6), 0
    for i in range(len(points)):
        x = T[0, 0] * points[i, 0] + T[0, 1] * points[i, 1] + T[0, 2] * points[i, 2] + T[0, 3]
        y = T[1, 0] * points[i, 0] + T[1, 1] * points[i, 1] + T[1, 2] * points[i, 2] + T[1, 3]
        z = T[2, 0] * points[i, 0] + T[2, 1] * points[i, 1] + T[2, 2] * points[i, 2] + T[2, 3]
        if z <= IN_FRONT:
            continue
        count += 1
        for axis in range(2):
            focal = K[axis, axis] / z
            if axis == 0:
                error = target[i, 0] - (K[0, 0] * x / z + K[0, 2])
                J[0], J[1], J[2], J[3], J[4], J[5] = -x * y / z, z + x * x / z, -y, 1.0, 0.0, -x / z
            else:
                error = target[i, 1] - (K[1, 1] * y / z + K[1, 2])
                J[0], J[1], J[2], J[3], J[4], J[5] = -z - y * y / z, x * y / z, x, 0.0, 1.0, -y / z
            weight = 1 / (1 + (error / pixel) ** 2) / pixel**2
            for a in range(6):
                by = weight * focal * J[a]
                seen[a] += by * error
                for b in range(a + 1):
                    normal[a, b] += by * focal * J[b]
    for a in range(6):
        for b in range(a):
            normal[b, a] = normal[a, b]
    count = max(count, 1)
    return normal / count, seen / count


@njit(cache=True, nogil=True)
def median(values: FloatArray | NDArray[np.float32]) -> float:
    """Median of values (n,)."""
    return float(np.median(values))


@njit(cache=True, nogil=True)
def quantile(ordered: FloatArray, share: float) -> float:
    """Quantile of values (n,) in ascending order, interpolated linearly."""
    place = share * (len(ordered) - 1)
    i = int(place)
    j = min(i + 1, len(ordered) - 1)
    return float(ordered[i] + (place - i) * (ordered[j] - ordered[i]))


@njit(cache=True, nogil=True)
def ground_height(
    depth: NDArray[np.float32], K: FloatArray, distance: float, same: float, share: float, step: int
) -> float:
    """Metres below the camera of the lowest that a depth map (h, w) shows at a distance: a quantile of heights.

    Of what is at that distance by a factor `same`, else of everything, in every `step`th column. The camera is level.
    """
    down, alike = np.empty(depth.shape[0] * (depth.shape[1] // step + 1)), 0
    for _ in range(2):
        for u in range(0, depth.shape[1], step):
            for v in range(depth.shape[0]):
                if distance / same < depth[v, u] < distance * same:
                    down[alike] = depth[v, u] * (v - K[1, 2]) / K[1, 1]
                    alike += 1
        if alike > 0:
            break
        same = np.inf
    return float(quantile(np.sort(down[:alike]), share))
