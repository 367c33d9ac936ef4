# SPDX-License-Identifier: Apache-2.0
"""Rotations and rigid transforms of camera poses, with numpy; those of Gaussians are in quaternions.py.

Quaternions are (w, x, y, z) and unit, except where a name contains xyzw (the order of ROS messages and of scipy). Rigid
transforms are 4x4 matrices T_a_b with p_a = T_a_b p_b. The few conversions are written out, as importing scipy.spatial
takes a fifth of the node's start (docs/lab/decisions.md); a test compares them with scipy's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
FARTHEST_M = 1e9  # largest coordinate of a pose: those on the Earth and in simulators are far smaller
UNIT_TOLERANCE = 0.1  # of the length of a message's quaternion


def rigid(rotation: ArrayLike, translation: ArrayLike) -> FloatArray:
    """A 4x4 rigid transform from a 3x3 rotation matrix, or a wxyz quaternion, and a translation (3,)."""
    R = np.asarray(rotation, np.float64)
    T = np.eye(4)
    T[:3, :3] = _matrix_from_xyzw(R[[1, 2, 3, 0]]) if R.shape == (4,) else R
    T[:3, 3] = translation
    return T


def rigid_from_xyzw(rotations: ArrayLike, translations: ArrayLike) -> FloatArray:
    """Rigid transforms (..., 4, 4) of quaternions (..., 4) in the order x, y, z, w and translations (..., 3).

    Raises ValueError if a number is not finite, a translation exceeds FARTHEST_M or a quaternion is not a unit
    quaternion.
    """
    q, p = np.asarray(rotations, np.float64), np.asarray(translations, np.float64)
    if not q.size:
        return np.zeros((0, 4, 4))
    norms = np.linalg.norm(q, axis=-1)
    if not (np.isfinite(norms).all() and np.isfinite(p).all()):
        raise ValueError("pose contains NaN or Inf")
    if (abs(p) > FARTHEST_M).any():
        raise ValueError(f"pose is {abs(p).max():.3g} m from its frame's origin: positions must be in metres")
    if (abs(norms - 1) > UNIT_TOLERANCE).any():
        worst = norms.flat[abs(norms - 1).argmax()]
        raise ValueError(f"pose has a quaternion of length {worst:.3g}: it must be a unit quaternion")
    T = np.zeros((*q.shape[:-1], 4, 4))
    T[..., :3, :3] = _matrix_from_xyzw(q)
    T[..., :3, 3], T[..., 3, 3] = p, 1
    return T


def _matrix_from_xyzw(q: FloatArray) -> FloatArray:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4) in the order x, y, z, w, of any length but 0."""
    x, y, z, w = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def xyzw_from_matrix(R: ArrayLike) -> FloatArray:
    """Unit quaternions (..., 4) in the order x, y, z, w, with w >= 0, of rotation matrices (..., 3, 3).

    Each row of the symmetric matrix 4 q q^T is a multiple of the quaternion q; that with the largest diagonal element
    is the most accurate (S. W. Shepperd, "Quaternion from rotation matrix", 1978).
    """
    R = np.asarray(R, np.float64)
    squares = np.empty((*R.shape[:-2], 4, 4))
    trace = np.trace(R, axis1=-2, axis2=-1)
    squares[..., :3, :3] = R + np.swapaxes(R, -1, -2) + (1 - trace)[..., None, None] * np.eye(3)
    difference = R - np.swapaxes(R, -1, -2)
    squares[..., :3, 3] = np.stack((difference[..., 2, 1], difference[..., 0, 2], difference[..., 1, 0]), -1)
    squares[..., 3, :3] = squares[..., :3, 3]
    squares[..., 3, 3] = 1 + trace
    largest = np.diagonal(squares, axis1=-2, axis2=-1).argmax(-1)
    q = np.take_along_axis(squares, largest[..., None, None], -2)[..., 0, :]
    unit: FloatArray = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(unit[..., 3:] < 0, -unit, unit)


def rigid_inverse(T: ArrayLike) -> FloatArray:
    """Inverse of rigid transforms (..., 4, 4)."""
    T = np.asarray(T, np.float64)
    R_t = np.swapaxes(T[..., :3, :3], -1, -2)
    out = np.zeros_like(T)
    out[..., :3, :3] = R_t
    out[..., :3, 3:] = -R_t @ T[..., :3, 3:]
    out[..., 3, 3] = 1
    return out


def rotation_vector(R: ArrayLike) -> FloatArray:
    """Rotation vectors (..., 3) in radians, at most pi long, of rotation matrices (..., 3, 3).

    Uses the antisymmetric part, and near pi, where that vanishes, the quaternion.
    """
    R = np.asarray(R, np.float64)
    axis = np.stack((R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]), -1) / 2
    sine, cosine = np.linalg.norm(axis, axis=-1), (np.trace(R, axis1=-2, axis2=-1) - 1) / 2
    r = np.asarray(axis / np.sinc(np.arctan2(sine, cosine) / np.pi)[..., None])
    half_turn = cosine < -0.99  # the antisymmetric part vanishes
    if half_turn.any():
        q = xyzw_from_matrix(R[half_turn])
        half_sine = np.linalg.norm(q[..., :3], axis=-1, keepdims=True)
        r[half_turn] = q[..., :3] / half_sine * (2 * np.arctan2(half_sine, q[..., 3:]))
    return r


def rotation_matrix(r: ArrayLike) -> FloatArray:
    """Rotation matrices (..., 3, 3) of rotation vectors r (..., 3), radians."""
    r = np.asarray(r, np.float64)
    half = np.linalg.norm(r, axis=-1, keepdims=True) / 2
    return _matrix_from_xyzw(np.concatenate((r / 2 * np.sinc(half / np.pi), np.cos(half)), -1))
