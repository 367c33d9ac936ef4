# SPDX-License-Identifier: Apache-2.0
"""A reference image corrects depth: where it sees a pixel, how its attitude is refined, and what that is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pixel4d_ros import Forecaster
from pixel4d_ros.camera import Camera, unproject
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.geometry.rotations import FloatArray, rigid_inverse, rotation_matrix
from pixel4d_ros.predictor.heads import SURE, DepthCorrection, ReferenceInput, known_speed
from pixel4d_ros.predictor.input_constants import InputConstants
from pixel4d_ros.predictor.plane_sweep import PLANES, PlaneSweep, plane_shifts
from pixel4d_ros.predictor.pose_refinement import with_refined_attitude
from pixel4d_ros.predictor.predictor import predict_parts
from pixel4d_ros.predictor.reference_projection import STRIDE, reference_places
from pixel4d_ros.synthetic import street_clip
from pixel4d_ros.two_view.reference_view import ReferenceView

SIZE = 416, 128
small = st.floats(-0.1, 0.1)


def reference_input(K: FloatArray, T_reference_source: FloatArray, image: torch.Tensor | None = None) -> ReferenceInput:
    """A reference image of the source's own camera."""
    intrinsics = torch.tensor(K, dtype=torch.float32)[None]
    T = torch.tensor(T_reference_source[None, :3], dtype=torch.float32)
    image = torch.zeros(1, 3, SIZE[1], SIZE[0]) if image is None else image
    return ReferenceInput(image, intrinsics, intrinsics, T, torch.ones(1, dtype=torch.bool))


@pytest.fixture(scope="module")
def street() -> Clip:
    """Two images of a street, 0.1 s apart."""
    return street_clip(900_003, 2, size=SIZE)


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster.load(device="cpu")


def source_and_reference(street: Clip, turn: FloatArray) -> tuple[torch.Tensor, torch.Tensor, ReferenceInput]:
    """The later image (1, 3, H, W), log depth at STRIDE, and the earlier image, whose attitude is off by a turn."""
    later, earlier = (torch.from_numpy(np.asarray(street.images[i])).permute(2, 0, 1)[None] / 255 for i in (1, 0))
    T = rigid_inverse(street.poses[0]) @ street.poses[1]
    T[:3] = rotation_matrix(turn) @ T[:3]
    assert street.depth is not None
    depth = torch.from_numpy(np.asarray(street.depth[1]))[None, None].float()
    depth = torch.where(depth > 0, depth, 200.0)[..., STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    return later, torch.log(depth), reference_input(street.K, T, earlier)


@settings(max_examples=20, deadline=None)
@given(st.tuples(small, small, small), st.tuples(small, small, small), st.floats(2, 60))
def test_points_are_seen_where_the_reference_camera_projects_them(
    turn: tuple[float, ...], shift: tuple[float, ...], depth: float
) -> None:
    K = np.array([[240.0, 0, 200], [0, 250, 60], [0, 0, 1]])
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation_matrix(np.array(turn)), shift
    depths = torch.full((1, 1, SIZE[1] // STRIDE, SIZE[0] // STRIDE), depth)
    places, in_front = reference_places(reference_input(K, T), depths)
    row, column = 11, 70
    pixel = np.array([column, row]) * STRIDE + (STRIDE - 1) / 2
    seen = K @ (T[:3, :3] @ unproject(pixel[None], np.array([depth]), K)[0] + T[:3, 3])
    np.testing.assert_allclose(places[0, 0, row, column], seen[:2] / seen[2], atol=0.02)
    assert in_front.all()


def test_the_attitude_of_a_reference_image_is_found_on_the_images(street: Clip) -> None:
    wrong = np.radians([0.1, -0.15, 0.05])
    image, log_depth, reference = source_and_reference(street, wrong)
    refined = with_refined_attitude(reference, image, log_depth).T_reference_source[0].numpy().astype(float)
    true = rigid_inverse(street.poses[0]) @ street.poses[1]

    def degrees(T: FloatArray) -> float:
        cosine = (np.trace(T[:3, :3].T @ true[:3, :3]) - 1) / 2
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))

    assert degrees(reference.T_reference_source[0].numpy().astype(float)) > 0.18
    assert degrees(refined) < 0.08  # a third of a pixel of this small image


def test_a_source_without_a_reference_image_keeps_its_depth() -> None:
    torch.manual_seed(0)
    sweep, size = PlaneSweep(), (64, 32)
    channels = ((2, 16), (4, 24), (8, 48), (16, 120), (32, 352))
    features = [torch.rand(2, n, size[1] // s, size[0] // s) for s, n in channels]
    one = reference_input(np.diag([40.0, 40, 1]), np.eye(4))
    K, T = one.K.expand(2, -1, -1), one.T_reference_source.expand(2, -1, -1)
    both = ReferenceInput(torch.rand(2, 3, size[1], size[0]), K, K, T, torch.tensor([True, False]))
    log_depth = torch.rand(2, 1, 16, 32)
    found = sweep(torch.rand(2, 3, size[1], size[0]), features, both, features[:3], log_depth)
    assert (found.shift[0] != 0).any() and (found.shift[1] == 0).all() and torch.isinf(found.scale[1]).all()
    assert torch.equal(found.applied(log_depth)[1], log_depth[1])
    shifts = plane_shifts(torch.device("cpu"))
    assert shifts[PLANES // 2] == 0 and torch.equal(shifts, -shifts.flip(0))


def test_only_what_is_sure_counts() -> None:
    zero = torch.zeros(1, 1, 1, 2)
    correction = DepthCorrection(zero, zero + 0.5, torch.tensor([0.4, 2.5]).view(1, 1, 1, 2) * SURE)
    assert correction.applied(zero).flatten().tolist() == pytest.approx([0.5, 0.0], abs=0.002)
    unknown = DepthCorrection(zero, zero, torch.full_like(zero, torch.inf))
    assert unknown.applied(zero).flatten().tolist() == [0.0, 0.0]


def depth_error(forecaster: Forecaster, street: Clip, reference: ReferenceView | None) -> float:
    """Median error of the logarithm of depth in the later image."""
    image = np.asarray(street.images[1])
    scene = forecaster.predict(image, street.K, reference=reference, measure_motion=False)
    seen = forecaster.views(scene, np.eye(4)[None], np.zeros(1)).depth[0]
    assert street.depth is not None
    true = np.asarray(street.depth[1])
    near = (true > 0) & (true < 40)
    return float(np.median(np.abs(np.log(seen[near] / true[near]))))


def test_a_reference_image_makes_depth_better_at_half_its_size_too(forecaster: Forecaster, street: Clip) -> None:
    pose = rigid_inverse(street.poses[1]) @ street.poses[0]
    reference = ReferenceView(np.asarray(street.images[0]), street.K, pose, -0.1)
    alone, both = (depth_error(forecaster, street, view) for view in (None, reference))
    camera = Camera(street.K, *SIZE).resized(SIZE[0] // 2, SIZE[1] // 2)
    half = replace(reference, image=np.ascontiguousarray(reference.image[::2, ::2]), K=camera.K)
    assert both < 0.8 * alone and depth_error(forecaster, street, half) < alone


def test_depth_is_corrected_by_the_wider_view_where_there_is_one(forecaster: Forecaster, street: Clip) -> None:
    pose = rigid_inverse(street.poses[1]) @ street.poses[0]
    good = ReferenceView(np.asarray(street.images[0]), street.K, pose, -0.1)
    unlike = replace(good, image=np.full_like(good.image, 128))
    by_good, by_unlike = (depth_error(forecaster, street, view) for view in (good, unlike))
    assert depth_error(forecaster, street, replace(unlike, wider=good)) == by_good < by_unlike


class NothingFromTheHost(TorchFunctionMode):
    """Refuses what a CUDA graph cannot record: values that come from the host or go there."""

    REFUSED = (
        torch.tensor, torch.as_tensor, torch.from_numpy, torch.nonzero, Tensor.nonzero, Tensor.item, Tensor.tolist,
        Tensor.cpu, Tensor.numpy, Tensor.__bool__, Tensor.__float__, Tensor.__int__,
    )  # fmt: skip

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        assert func not in self.REFUSED, f"{func.__name__} waits for the device or copies to it"
        return func(*args, **(kwargs or {}))


def test_a_prediction_with_a_reference_image_can_be_recorded(forecaster: Forecaster, street: Clip) -> None:
    """As far as that shows on the CPU: the second prediction of a camera makes no tensor from numbers of the host."""
    constants = InputConstants(Camera(street.K, *SIZE), forecaster.device)
    here, there = (torch.from_numpy(np.asarray(street.images[i])) for i in (1, 0))
    T = rigid_inverse(street.poses[0]) @ street.poses[1]
    pose = torch.from_numpy(np.concatenate((constants.fine.camera.K, T[:3]), 1)[None].astype(np.float32))

    network, speed = forecaster.predictor.network, known_speed(5.0)

    def predict() -> None:
        parts = predict_parts(network, constants, here, speed, reference=there, reference_pose=pose)
        assert parts.depth_correction is not None and len(parts.depth_correction) == len(parts.observed)

    with torch.inference_mode():
        predict()
        with NothingFromTheHost():
            predict()
