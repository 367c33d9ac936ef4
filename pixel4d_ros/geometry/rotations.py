# SPDX-License-Identifier: Apache-2.0
"""Rotations and rigid transforms of camera poses, with numpy and scipy; those of Gaussians are in quaternions.py.

Quaternions are (w, x, y, z) and unit, except where a name contains xyzw (the order of ROS messages and of scipy). Rigid
transforms are 4x4 matrices T_a_b with p_a = T_a_b p_b.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

FloatArray = NDArray[np.float64]
FARTHEST_M = 1e9  # largest coordinate of a pose: those on the Earth and in simulators are far smaller
UNIT_TOLERANCE = 0.1  # of the length of a message's quaternion


def rigid(rotation: ArrayLike, translation: ArrayLike) -> FloatArray:
    """A 4x4 rigid transform from a 3x3 rotation matrix, or a wxyz quaternion, and a translation (3,)."""
    R = np.asarray(rotation, np.float64)
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(R[[1, 2, 3, 0]]).as_matrix() if R.shape == (4,) else R
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
    T[..., :3, :3] = Rotation.from_quat(q.reshape(-1, 4)).as_matrix().reshape(*q.shape[:-1], 3, 3)
    T[..., :3, 3], T[..., 3, 3] = p, 1
    return T


def xyzw_from_matrix(R: ArrayLike) -> FloatArray:
    """Unit quaternions (..., 4) in the order x, y, z, w of rotation matrices (..., 3, 3)."""
    R = np.asarray(R, np.float64)
    if not R.size:
        return np.zeros((*R.shape[:-2], 4))
    return np.asarray(Rotation.from_matrix(R.reshape(-1, 3, 3)).as_quat(canonical=True)).reshape(*R.shape[:-2], 4)


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

    Uses the antisymmetric part, seven times faster for a thousand matrices than scipy, which handles angles near pi.
    """
    R = np.asarray(R, np.float64)
    axis = np.stack((R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]), -1) / 2
    sine, cosine = np.linalg.norm(axis, axis=-1), (np.trace(R, axis1=-2, axis2=-1) - 1) / 2
    r = np.asarray(axis / np.sinc(np.arctan2(sine, cosine) / np.pi)[..., None])
    half_turn = cosine < -0.99  # the antisymmetric part vanishes
    if half_turn.any():
        r[half_turn] = Rotation.from_matrix(R[half_turn]).as_rotvec()
    return r


def rotation_matrix(r: ArrayLike) -> FloatArray:
    """Rotation matrices (..., 3, 3) of rotation vectors r (..., 3), radians."""
    r = np.asarray(r, np.float64)
    if not r.size:
        return np.zeros((*r.shape, 3))
    return np.asarray(Rotation.from_rotvec(r.reshape(-1, 3)).as_matrix()).reshape(*r.shape, 3)
