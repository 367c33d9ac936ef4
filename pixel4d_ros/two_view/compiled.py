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
def depths(v: Rows, u: Rows, depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values (n,) of a depth map (h, w)."""
    values = np.empty(len(v), np.float32)
    for i in range(len(v)):
        values[i] = depth[v[i], u[i]]
    return values


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
    left, by_axis = np.empty(len(still)), np.ascontiguousarray(J.T)
    normal, velocity = np.empty((3, 3)), np.zeros(3)
    for _ in range(rounds):
        normal, seen = normal_equations(by_axis, still, weight, len(still))
        for k in range(3):
            normal[k, k] += belief[k]
        velocity = solution(normal, seen + belief * prior)
        for i in range(len(still)):
            left[i] = abs(still[i] - J[i, 0] * velocity[0] - J[i, 1] * velocity[1] - J[i, 2] * velocity[2])
            weight[i] = 1 / (1 + (left[i] / outlier) ** 2)
    return velocity, np.asarray(np.linalg.inv(normal)), median(np.abs(still)), median(left)


@njit(cache=True, nogil=True, fastmath=True)
def normal_equations(X: FloatArray, y: FloatArray, weight: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """X W X' (k, k) and X W y (k,) of the first equations of X (k, n), y (n,) with weights (n,): a row per unknown."""
    k = X.shape[0]
    normal, seen, weighted = np.zeros((k, k)), np.zeros(k), np.empty(count)
    for a in range(k):
        for i in range(count):
            weighted[i] = weight[i] * X[a, i]
        total = 0.0
        for i in range(count):
            total += weighted[i] * y[i]
        seen[a] = total
        for b in range(a + 1):
            total = 0.0
            for i in range(count):
                total += weighted[i] * X[b, i]
            normal[a, b] = normal[b, a] = total
    return normal, seen


@njit(cache=True, nogil=True, error_model="numpy")
def solution(A: FloatArray, b: FloatArray) -> FloatArray:
    """The solution (k,) of A (k, k) x = b (k,) by elimination with pivots. LAPACK takes far longer for few unknowns."""
    A = A.copy()
    x: FloatArray = b.copy()
    for i in range(len(b)):
        pivot = i
        for j in range(i + 1, len(b)):
            if abs(A[j, i]) > abs(A[pivot, i]):
                pivot = j
        if A[pivot, i] == 0:
            raise np.linalg.LinAlgError("Matrix is singular to machine precision.")
        for k in range(len(b)):
            A[i, k], A[pivot, k] = A[pivot, k], A[i, k]
        x[i], x[pivot] = x[pivot], x[i]
        for j in range(i + 1, len(b)):
            share = A[j, i] / A[i, i]
            x[j] -= share * x[i]
            for k in range(i + 1, len(b)):
                A[j, k] -= share * A[i, k]
    for i in range(len(b) - 1, -1, -1):
        for k in range(i + 1, len(b)):
            x[i] -= A[i, k] * x[k]
        x[i] /= A[i, i]
    return x


@njit(cache=True, nogil=True)
def flow_of_points(
    flow: NDArray[np.float32], agrees: NDArray[np.bool_], depth: NDArray[np.float32], K: FloatArray, most: int
) -> tuple[FloatArray, FloatArray]:
    """Points (n, 3) of pixels with depth (h, w), flow (h, w, 2) and a flow that agrees (h, w), and its ends (n, 2).

    At least `most` of them, if there are so many, but less than twice as many, evenly spread.
    """
    known = agrees & (depth > 0)
    v, u = np.nonzero(known)
    step = max(1, len(v) // most)
    v, u = v[::step].copy(), u[::step].copy()
    return unprojected(v, u, depth, K), flow_ends(v, u, flow)


@njit(cache=True, nogil=True)
def flow_ends(v: Rows, u: Rows, flow: NDArray[np.float32]) -> FloatArray:
    """Where the flow (h, w, 2) of pixels ends: (n, 2), x and y."""
    ends = np.empty((len(v), 2))
    for i in range(len(v)):
        ends[i, 0] = u[i] + np.float64(flow[v[i], u[i], 0])
        ends[i, 1] = v[i] + np.float64(flow[v[i], u[i], 1])
    return ends


@njit(cache=True, nogil=True)
def refined_motion(
    points: FloatArray,
    target: FloatArray,
    K: FloatArray,
    T: FloatArray,
    pixel: float,
    prior: FloatArray,
    evidence: float,
    settled: float,
) -> FloatArray:
    """The pose (4, 4) near T by which points (n, 3) are seen at target (n, 2) pixels, by Gauss and Newton.

    Errors count in units of `pixel` pixels, as `evidence` points, with Cauchy weights: an error of one unit counts
    half. prior (6,) is the precision of a small motion put before T, rotation first. A step below `settled` is the
    last.
    """
    moved = np.zeros(6)  # by the refinement so far
    for _ in range(10):
        normal, seen = _pose_equations(points, target, K, T, pixel)
        normal *= evidence
        for a in range(6):
            normal[a, a] += prior[a]
        change = solution(normal, evidence * seen - prior * moved)
        moved += change
        T = _turned(change, T)
        if np.abs(change).max() < settled:
            break
    return T


@njit(cache=True, nogil=True)
def _turned(change: FloatArray, T: FloatArray) -> FloatArray:
    """A pose T (4, 4) and after it a rotation vector and a translation, together (6,)."""
    angle = max(np.sqrt(change[0] ** 2 + change[1] ** 2 + change[2] ** 2), 1e-12)
    sine, cosine, square = np.sin(angle) / angle, np.cos(angle), 2 * (np.sin(angle / 2) / angle) ** 2
    moved: FloatArray = T.copy()
    for i in range(3):
        one, other = (i + 1) % 3, (i + 2) % 3
        for k in range(4):
            along = change[0] * T[0, k] + change[1] * T[1, k] + change[2] * T[2, k]
            across = change[one] * T[other, k] - change[other] * T[one, k]
            moved[i, k] = cosine * T[i, k] + sine * across + square * change[i] * along
        moved[i, 3] += change[3 + i]
    return moved


@njit(cache=True, nogil=True)
def _pose_equations(
    points: FloatArray, target: FloatArray, K: FloatArray, T: FloatArray, pixel: float
) -> tuple[FloatArray, FloatArray]:
    """Normal matrix (6, 6) and right side (6,) of one step of refined_motion, as means over the points."""
    count = 0
    J, error, weight = np.zeros((6, 2 * len(points))), np.empty(2 * len(points)), np.empty(2 * len(points))
    for i in range(len(points)):
        x = T[0, 0] * points[i, 0] + T[0, 1] * points[i, 1] + T[0, 2] * points[i, 2] + T[0, 3]
        y = T[1, 0] * points[i, 0] + T[1, 1] * points[i, 1] + T[1, 2] * points[i, 2] + T[1, 3]
        z = T[2, 0] * points[i, 0] + T[2, 1] * points[i, 1] + T[2, 2] * points[i, 2] + T[2, 3]
        if z <= IN_FRONT:
            continue
        x, y, j, k = x / z, y / z, 2 * count, 2 * count + 1
        error[j], error[k] = target[i, 0] - (K[0, 0] * x + K[0, 2]), target[i, 1] - (K[1, 1] * y + K[1, 2])
        J[0, j], J[1, j], J[2, j] = -K[0, 0] * x * y, K[0, 0] * (1 + x * x), -K[0, 0] * y
        J[0, k], J[1, k], J[2, k] = -K[1, 1] * (1 + y * y), K[1, 1] * x * y, K[1, 1] * x
        J[3, j], J[5, j], J[4, k], J[5, k] = K[0, 0] / z, -K[0, 0] * x / z, K[1, 1] / z, -K[1, 1] * y / z
        for row in (j, k):
            weight[row] = 1 / (pixel**2 + error[row] ** 2)
        count += 1
    normal, seen = normal_equations(J, error, weight, 2 * count)
    return normal / max(count, 1), seen / max(count, 1)


@njit(cache=True, nogil=True)
def static_end(u: float, v: float, inverse: float, turn: FloatArray, shift: FloatArray) -> tuple[float, float]:
    """Where a pixel at an inverse depth is seen, x and y, by rigid_flow.static_flow; NaN behind the camera.

    In the precision of turn (3, 3) and shift (3,).
    """
    x = turn[0, 0] * u + (turn[0, 1] * v + turn[0, 2]) + shift[0] * inverse
    y = turn[1, 0] * u + (turn[1, 1] * v + turn[1, 2]) + shift[1] * inverse
    z = turn[2, 0] * u + (turn[2, 1] * v + turn[2, 2]) + shift[2] * inverse
    if not z > np.float32(1e-3):
        z = np.float32(np.nan)
    return x / z, y / z


@njit(cache=True, nogil=True)
def nearest_static_flow(
    bounds: tuple[NDArray[np.float32], NDArray[np.float32]],
    turn: NDArray[np.float32],
    shift: NDArray[np.float32],
    flow: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The flow (h, w, 2) nearest to the measured one of a static world at inverse depths within bounds (h, w) each.

    A point at inverse depth d is seen at turn (3, 3) times its pixel, plus d shift (3,). NaN where no depth is near. In
    single precision, as rigid_flow.static_flow.
    """
    static, ends = np.empty_like(flow), np.empty((2, 2), np.float32)
    for v in range(flow.shape[0]):
        for u in range(flow.shape[1]):
            column, row = np.float32(u), np.float32(v)
            for k in range(2):
                x, y = static_end(column, row, bounds[k][v, u], turn, shift)
                ends[k, 0], ends[k, 1] = x - column, y - row
            span_u, span_v = ends[0, 0] - ends[1, 0], ends[0, 1] - ends[1, 1]
            along = (flow[v, u, 0] - ends[1, 0]) * span_u + (flow[v, u, 1] - ends[1, 1]) * span_v
            along /= max(span_u * span_u + span_v * span_v, np.float32(1e-6))
            along = min(max(along, np.float32(0)), np.float32(1))
            static[v, u, 0], static[v, u, 1] = ends[1, 0] + along * span_u, ends[1, 1] + along * span_v
    return static


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
        for v in range(depth.shape[0]):
            for u in range(0, depth.shape[1], step):
                if distance / same < depth[v, u] < distance * same:
                    down[alike] = depth[v, u] * (v - K[1, 2]) / K[1, 1]
                    alike += 1
        if alike > 0:
            break
        same = np.inf
    # Values are many: what is below the quantile need not be in order.
    i = int(share * (alike - 1))
    ordered = np.partition(down[:alike], i)
    ordered[i:].sort()
    return float(quantile(ordered, share))
