# SPDX-License-Identifier: Apache-2.0
"""Rotations and rigid transforms: torch for Gaussians, numpy and scipy for camera poses.

Quaternions are (w, x, y, z) and unit, except where a name says xyzw (the order of ROS messages and of scipy). Rigid
transforms are 4x4 matrices T_a_b with p_a = T_a_b p_b.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

FloatArray = NDArray[np.float64]
FARTHEST_M = 1e9  # of a pose from its frame's origin: coordinates of the Earth and of simulators stay far below
UNIT_TOLERANCE = 0.1  # how far the length of a message's quaternion may be from 1


def quaternion_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product a * b of quaternions (..., 4): rotate by b first, then by a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        (
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ),
        -1,
    )


def quaternion_rotate(q: Tensor, v: Tensor) -> Tensor:
    """Rotate vectors v (..., 3) by unit quaternions q (..., 4)."""
    w, (u, v) = q[..., :1], torch.broadcast_tensors(q[..., 1:], v)
    t = 2 * torch.linalg.cross(u, v, dim=-1)
    return v + w * t + torch.linalg.cross(u, t, dim=-1)


def quaternion_to_matrix(q: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4)."""
    w, x, y, z = q.unbind(-1)
    rows = (
        torch.stack((1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)), -1),
        torch.stack((2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)), -1),
        torch.stack((2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)), -1),
    )
    return torch.stack(rows, -2)


def matrix_to_quaternion(R: Tensor) -> Tensor:
    """Unit quaternions (..., 4) of rotation matrices (..., 3, 3).

    Picks the best conditioned of the four usual formulas per matrix (Shepperd 1978), branch free.
    """
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = R.flatten(-2).unbind(-1)
    squares = torch.stack((1 + r00 + r11 + r22, 1 + r00 - r11 - r22, 1 - r00 + r11 - r22, 1 - r00 - r11 + r22), -1)
    candidates = torch.stack(
        (
            torch.stack((squares[..., 0], r21 - r12, r02 - r20, r10 - r01), -1),
            torch.stack((r21 - r12, squares[..., 1], r10 + r01, r02 + r20), -1),
            torch.stack((r02 - r20, r10 + r01, squares[..., 2], r12 + r21), -1),
            torch.stack((r10 - r01, r02 + r20, r12 + r21, squares[..., 3]), -1),
        ),
        -2,
    )
    best = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    return torch.nn.functional.normalize(candidates.gather(-2, best).squeeze(-2), dim=-1)


def axis_angle_to_quaternion(r: Tensor) -> Tensor:
    """Unit quaternions (..., 4) of rotation vectors r (..., 3), radians; smooth through zero."""
    half = 0.5 * r.norm(dim=-1, keepdim=True)
    return torch.cat((torch.cos(half), 0.5 * r * torch.sinc(half / torch.pi)), -1)


def rigid(rotation: ArrayLike, translation: ArrayLike) -> FloatArray:
    """A 4x4 rigid transform from a 3x3 rotation matrix, or a wxyz quaternion, and a translation (3,)."""
    R = np.asarray(rotation, np.float64)
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(R[[1, 2, 3, 0]]).as_matrix() if R.shape == (4,) else R
    T[:3, 3] = translation
    return T


def rigid_from_xyzw(rotations: ArrayLike, translations: ArrayLike) -> FloatArray:
    """Rigid transforms (..., 4, 4) of quaternions (..., 4) in the order x, y, z, w and translations (..., 3).

    Raises ValueError where a number is not finite, a translation is over FARTHEST_M or a quaternion is not near unit
    length.
    """
    q, p = np.asarray(rotations, np.float64), np.asarray(translations, np.float64)
    if not q.size:
        return np.zeros((0, 4, 4))
    norms = np.linalg.norm(q, axis=-1)
    if not (np.isfinite(norms).all() and np.isfinite(p).all()):
        raise ValueError("pose contains NaN or Inf")
    if (abs(p) > FARTHEST_M).any():
        raise ValueError(f"pose lies {abs(p).max():.3g} m from its frame's origin: positions must be in metres")
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

    By the antisymmetric part, seven times faster for a thousand matrices than scipy's, which is used near half a turn.
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
