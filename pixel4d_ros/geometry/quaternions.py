# SPDX-License-Identifier: Apache-2.0
"""Quaternions of Gaussians, in torch: unit, in the order (w, x, y, z), batched and differentiable.

Apart from rotations.py, so that what handles poses only (launch files, replay, record) need not import torch.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
    t: Tensor = 2 * torch.linalg.cross(u, v, dim=-1)
    rotated: Tensor = v + w * t + torch.linalg.cross(u, t, dim=-1)
    return rotated


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
