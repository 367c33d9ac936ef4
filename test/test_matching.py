"""Two views in the network: where a reference camera sees a pixel, what matches there, and what moves beside it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.predictor.heads import NetworkInput, PixelMaps, ReferenceInput
from pixel4d_ros.predictor.input_view import InputView
from pixel4d_ros.predictor.matching import (
    PLANES,
    STRIDE,
    Projection,
    cost_volume,
    local_correlation,
    plane_log_depths,
)
from pixel4d_ros.predictor.network import Network
from pixel4d_ros.training import synthetic_data
from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.rendering import predict_maps
from pixel4d_ros.training.synthetic_data import make_batches
from pixel4d_ros.training.two_view_losses import two_view_losses


@pytest.fixture(scope="module")
def street() -> Batch:
    """Four streets, each with a reference image."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_data, "MADE_AT_ONCE", 1)
        (batch,) = make_batches(4, 2, (256, 128), np.random.default_rng(5), torch.device("cpu"), kind="street")
    return batch


def reference_of(batch: Batch) -> ReferenceInput:
    """The batch's own references, without padding, at a depth scale of 1."""
    return ReferenceInput(
        batch.reference,
        batch.K[:, 0],
        batch.reference_K,
        torch.linalg.inv(batch.T_source_reference),
        -batch.reference_time,
        torch.ones(len(batch.images)),
    )


def small(images: Tensor) -> Tensor:
    """Images (B, C, H, W) at a quarter of the resolution."""
    return F.avg_pool2d(images, STRIDE)


def test_a_still_scene_is_found_in_the_reference_image_where_its_depth_says(street: Batch) -> None:
    depth = street.depth[:, 2::4, 2::4].clamp(max=1e3)
    still = (street.object_ids[:, 2::4, 2::4] == 0) & torch.isfinite(street.depth[:, 2::4, 2::4])
    here, there = small(street.images[:, 0]), small(street.reference)
    warped, inside = Projection.of(reference_of(street), *depth.shape[1:], STRIDE).sample(there, depth[:, None])
    known = still & inside[:, 0, 0]
    assert known.float().mean() > 0.3
    error, without = ((here - seen).abs().mean(1)[known].mean() for seen in (warped[:, :, 0], there))
    assert error < 0.75 * without


def test_the_sweep_matches_best_at_the_plane_of_the_true_depth() -> None:
    torch.manual_seed(0)
    h, w, near = 24, 48, 30
    K = torch.tensor([[100.0, 0, 96], [0, 100, 48], [0, 0, 1]])[None]
    depth = plane_log_depths(torch.device("cpu"))[near].exp()
    T = torch.eye(4)[None].clone()
    T[:, 0, 3] = -8 * STRIDE / 100 * depth  # a wall at this depth is seen 8 cells to the left
    texture = F.normalize(torch.randn(1, 32, h, w + 8), dim=1)
    reference = ReferenceInput(torch.zeros(1), K, K, T, torch.ones(1), torch.ones(1))
    volume = cost_volume(texture[..., :w], texture[..., 8:], reference).sum(1)
    assert volume.shape == (1, PLANES, h, w)
    assert (volume.argmax(1)[..., 12:] == near).float().mean() > 0.99
    assert (volume[:, near, :, :7] == 0).all()  # out of the reference's view


def test_what_lies_behind_the_reference_camera_matches_nothing() -> None:
    K = torch.tensor([[100.0, 0, 32], [0, 100, 32], [0, 0, 1]])[None]
    T = torch.eye(4)[None].clone()
    T[:, 2, 3] = -10
    reference = ReferenceInput(torch.zeros(1), K, K, T, torch.ones(1), torch.ones(1))
    flat = F.normalize(torch.ones(1, 32, 16, 16), dim=1)
    volume = cost_volume(flat, flat, reference)
    behind = plane_log_depths(torch.device("cpu")) < math.log(10)
    assert (volume[:, :, behind] == 0).all() and (volume[:, :, ~behind] != 0).any()


def test_a_window_finds_what_moved() -> None:
    torch.manual_seed(0)
    features = F.normalize(torch.randn(1, 32, 20, 20), dim=1)
    moved = features.roll((1, -2), (2, 3))  # down by one, left by two
    window = local_correlation(features, moved, 3)[0, :, 5:15, 5:15]
    best = window.argmax(0)
    assert (best == (3 + 1) * 7 + (3 - 2)).all()


def test_without_a_reference_image_the_network_is_the_one_image_network() -> None:
    torch.manual_seed(0)
    network = Network().eval()
    image, inside = torch.rand(1, 3, 64, 96), torch.ones(1, 1, 64, 96)
    rays, speed = torch.zeros(1, 2, 64, 96), torch.zeros(1, 2)
    K = torch.tensor([[90.0, 0, 48], [0, 90, 32], [0, 0, 1]])[None]
    T = torch.eye(4)[None].clone()
    T[:, 0, 3] = 1

    def maps(valid: float | None) -> PixelMaps:
        reference = None
        if valid is not None:
            reference = ReferenceInput(image.flip(3), K, K, T, torch.ones(1), torch.full((1,), valid))
        with torch.inference_mode():
            return network(NetworkInput(image, inside, rays, None, speed, reference))[0]

    alone, absent, given = maps(None), maps(0.0), maps(1.0)
    for name in ("depth", "hidden_depth", "motion"):
        assert torch.equal(getattr(absent, name), getattr(alone, name)), name
    assert not torch.allclose(given.depth, alone.depth) and not torch.allclose(given.motion, alone.motion)


def test_the_true_flow_beside_a_still_scene_is_that_of_what_moves(street: Batch) -> None:
    network = Network().eval()
    with torch.no_grad():
        prediction = predict_maps(network, street)
    view, two_view = prediction.view, prediction.maps.two_view
    assert two_view is not None and prediction.source.reference is not None
    # A network that knows the depth and says that nothing moves, and an exact pose.
    T = torch.linalg.inv(street.T_source_reference)
    T[:, :3, 3] /= prediction.depth_scale[:, None]
    reference = replace(prediction.source.reference, T_reference_source=T)
    depth = F.pad(street.depth.clamp(max=200) / prediction.depth_scale[:, None, None], padding(view), value=10.0)
    maps = replace(
        two_view,
        coarse_log_depth=torch.log(depth)[:, None, 2::4, 2::4],
        residual_flow=torch.zeros_like(two_view.residual_flow),
        valid=torch.ones(len(depth)),
    )
    knowing = replace(
        prediction, source=replace(prediction.source, reference=reference), maps=replace(prediction.maps, two_view=maps)
    )
    trust = (street.depth > 0).float()
    moves = torch.gather(street.moving, 1, street.object_ids.flatten(1)).view_as(street.depth)
    still = two_view_losses(knowing, replace(street, object_ids=0 * street.object_ids), street.depth, trust)
    assert still["residual"] < math.log1p(0.2)  # nothing is beside the still scene if nothing moves
    if moves.sum() > 100:
        moved = two_view_losses(knowing, street, street.depth, trust)
        assert moved["residual"] > still["residual"]


def padding(view: InputView) -> list[int]:
    """Pixels to add at the left, right, top and bottom of a crop."""
    right, bottom = (
        view.width - view.left - view.inner.width,
        view.height - view.top - view.inner.height,
    )
    return [view.left, right, view.top, bottom]
