# SPDX-License-Identifier: Apache-2.0
"""Rotations: quaternions (w, x, y, z), matrices and rotation vectors say the same thing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from pixel4d_ros.geometry.quaternions import (
    axis_angle_to_quaternion,
    matrix_to_quaternion,
    quaternion_multiply,
    quaternion_rotate,
    quaternion_to_matrix,
)
from pixel4d_ros.geometry.rotations import (
    rigid,
    rigid_from_xyzw,
    rigid_inverse,
    rotation_matrix,
    rotation_vector,
    xyzw_from_matrix,
)

often = settings(max_examples=40, deadline=None)
component = st.floats(-3.1, 3.1).map(lambda x: 0.0 if abs(x) < 1e-9 else x)
vectors = st.tuples(component, component, component).map(lambda v: np.array(v))


@st.composite
def quaternions(draw: st.DrawFn) -> Tensor:
    """Unit quaternions, those of half turns and of no turn at all included."""
    values = draw(st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.3, -0.7, 1e-4]), min_size=4, max_size=4).filter(any))
    return torch.nn.functional.normalize(torch.tensor(values, dtype=torch.float64), dim=0)


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    q = axis_angle_to_quaternion(torch.tensor([0.0, 0.0, math.pi / 2], dtype=torch.float64))
    assert torch.allclose(q, torch.tensor([math.sqrt(0.5), 0, 0, math.sqrt(0.5)], dtype=torch.float64))
    turned = quaternion_rotate(q, torch.tensor([1.0, 0, 0], dtype=torch.float64))
    assert torch.allclose(turned, torch.tensor([0.0, 1, 0], dtype=torch.float64))


def test_one_vector_is_turned_by_many_quaternions() -> None:
    turns = axis_angle_to_quaternion(torch.tensor([[0.0, 0.0, math.pi / 2], [0.0, 0.0, math.pi]]))
    turned = quaternion_rotate(turns, torch.tensor([1.0, 0, 0]))
    assert torch.allclose(turned, torch.tensor([[0.0, 1, 0], [-1, 0, 0]]), atol=1e-6)


@often
@given(quaternions())
def test_quaternion_to_matrix_and_back(q: Tensor) -> None:
    back = matrix_to_quaternion(quaternion_to_matrix(q))
    assert torch.allclose(back * torch.sign((back * q).sum()), q, atol=1e-9)


@often
@given(quaternions(), quaternions(), vectors)
def test_a_product_turns_by_its_second_factor_first(a: Tensor, b: Tensor, v: NDArray[np.float64]) -> None:
    vector = torch.from_numpy(v)
    product = quaternion_multiply(a, b)
    assert torch.allclose(quaternion_rotate(product, vector), quaternion_rotate(a, quaternion_rotate(b, vector)))
    assert torch.allclose(quaternion_to_matrix(product), quaternion_to_matrix(a) @ quaternion_to_matrix(b))
    assert torch.allclose(quaternion_rotate(a, vector), quaternion_to_matrix(a) @ vector)


@often
@given(vectors)
def test_torch_and_numpy_agree_on_rotation_vectors(r: NDArray[np.float64]) -> None:
    from_quaternion = quaternion_to_matrix(axis_angle_to_quaternion(torch.from_numpy(r)))
    np.testing.assert_allclose(from_quaternion.numpy(), rotation_matrix(r), atol=1e-9)


@often
@given(vectors)
def test_rotation_matrix_to_vector_and_back(r: NDArray[np.float64]) -> None:
    R = rotation_matrix(r)
    back = rotation_vector(R)
    assert np.linalg.norm(back) <= math.pi + 1e-9
    np.testing.assert_allclose(rotation_matrix(back), R, atol=1e-7)


@pytest.mark.parametrize("angle", [0.0, 1e-10, 1e-5])
def test_axis_angle_is_smooth_through_zero(angle: float) -> None:
    r = torch.tensor([angle, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    axis_angle_to_quaternion(r)[1].backward()
    assert r.grad is not None
    assert torch.allclose(r.grad, torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64))


@often
@given(vectors, vectors, vectors)
def test_rigid_transforms_and_their_inverses(
    r: NDArray[np.float64], p: NDArray[np.float64], x: NDArray[np.float64]
) -> None:
    T_a_b = rigid(rotation_matrix(r), p)
    in_a = T_a_b[:3, :3] @ x + p
    T_b_a = rigid_inverse(T_a_b)
    np.testing.assert_allclose(T_b_a[:3, :3] @ in_a + T_b_a[:3, 3], x, atol=1e-9)
    np.testing.assert_allclose(
        rigid_inverse(np.stack([T_a_b, T_b_a])) @ np.stack([T_a_b, T_b_a]), [np.eye(4)] * 2, atol=1e-9
    )


def test_a_rigid_transform_from_a_quaternion() -> None:
    T = rigid([math.sqrt(0.5), 0, 0, math.sqrt(0.5)], [1, 2, 3])
    np.testing.assert_allclose(T @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-12)


def test_conversions_are_scipy_s() -> None:
    turns = [Rotation.random(200, random_state=0), Rotation.from_rotvec(np.pi * np.eye(3)), Rotation.identity(1)]
    expected = Rotation.concatenate(turns)
    R, q = expected.as_matrix(), expected.as_quat(canonical=True)
    np.testing.assert_allclose(rigid_from_xyzw(1.05 * q, np.zeros((len(q), 3)))[:, :3, :3], R, atol=1e-12)
    np.testing.assert_allclose(Rotation.from_quat(xyzw_from_matrix(R)).as_matrix(), R, atol=1e-12)
    assert (xyzw_from_matrix(R)[:, 3] >= 0).all()
    np.testing.assert_allclose(rotation_matrix(expected.as_rotvec()), R, atol=1e-12)
    np.testing.assert_allclose(rotation_matrix(rotation_vector(R)), R, atol=1e-7)


def test_no_rotations_are_turned_into_none() -> None:
    assert xyzw_from_matrix(np.zeros((0, 3, 3))).shape == (0, 4)
    assert rotation_matrix(np.zeros((0, 3))).shape == (0, 3, 3)
    assert rotation_vector(np.zeros((2, 0, 3, 3))).shape == (2, 0, 3)
