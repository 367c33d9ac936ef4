"""Rotations and rigid transforms: torch for Gaussians, numpy for camera poses.

Quaternions are (w, x, y, z) and unit. Rigid transforms are 4x4 matrices T_a_b with p_a = T_a_b p_b.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from transforms3d import quaternions

FloatArray = NDArray[np.float64]


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
    T[:3, :3] = quaternions.quat2mat(R) if R.shape == (4,) else R
    T[:3, 3] = translation
    return T


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
    """Rotation vectors (..., 3) in radians, at most pi long, of rotation matrices (..., 3, 3)."""
    R = np.asarray(R, np.float64)
    axis = np.stack((R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]), -1) / 2
    sine, cosine = np.linalg.norm(axis, axis=-1), (np.trace(R, axis1=-2, axis2=-1) - 1) / 2
    r = np.asarray(axis / np.sinc(np.arctan2(sine, cosine) / np.pi)[..., None])
    for i in np.argwhere(cosine < -0.99):  # near half a turn the differences vanish
        axis_angle = quaternions.quat2axangle(quaternions.mat2quat(R[tuple(i)]))
        r[tuple(i)] = np.asarray(axis_angle[0]) * ((axis_angle[1] + np.pi) % (2 * np.pi) - np.pi)
    return r


def rotation_matrix(r: ArrayLike) -> FloatArray:
    """Rotation matrices (..., 3, 3) of rotation vectors r (..., 3), radians, by Rodrigues' formula."""
    r = np.asarray(r, np.float64)
    angle = np.linalg.norm(r, axis=-1)[..., None, None]
    x, y, z = r[..., 0], r[..., 1], r[..., 2]
    zero = np.zeros_like(x)
    cross = np.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).reshape(*r.shape[:-1], 3, 3)
    first, second = np.sinc(angle / np.pi), 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.asarray(np.eye(3) + first * cross + second * (cross @ cross))
