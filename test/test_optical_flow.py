# SPDX-License-Identifier: Apache-2.0
"""Optical flow by the network: its operations beside slow references, and the predictor's flows on every path."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros import Forecaster, ReferenceView
from pixel4d_ros.predictor.flow_estimator import ENLARGED, LARGEST_WIDTH, FlowEstimator, flows_between, network_size
from pixel4d_ros.predictor.optical_flow import (
    MULTIPLE,
    ROUNDS,
    OpticalFlow,
    convex_upsampled,
    matched_flow,
    similarities,
    swapped,
    warped,
)
from pixel4d_ros.predictor.predictor import EAGER_PATH
from pixel4d_ros.two_view.flow import FlowBothWays, flow_size
from pixel4d_ros.two_view.two_images import MeasuredFlow

CPU = torch.device("cpu")
K = np.array([[60.0, 0, 30], [0, 60, 20], [0, 0, 1]])
SIZES = [(64, 48), (67, 51), (12, 12), (421, 33), (1243, 375), (25, 90)]


def picture(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 16, 3), np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def view(image: NDArray[np.uint8], seconds: float = 0.2) -> ReferenceView:
    return ReferenceView(image, K, np.eye(4), -seconds)


@pytest.fixture(scope="module")
def network() -> OpticalFlow:
    torch.manual_seed(0)
    return OpticalFlow().eval().requires_grad_(False)


class Shift(nn.Module):
    """In place of a network: the same flow everywhere, (x, y) pixels there and the opposite back."""

    def __init__(self, x: float, y: float) -> None:
        super().__init__()
        self.there = torch.tensor([x, y])[:, None, None]

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        there = self.there.expand(len(first), 2, *first.shape[2:])
        return [torch.cat((there, -there))]


# Operations


@pytest.mark.parametrize("radius", [1, 3, 4])
@pytest.mark.parametrize("size", [(6, 9), (1, 1), (5, 2)])
def test_similarities_are_those_of_windows(radius: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    here, there = torch.randn(2, 3, 7, *size)
    side = 2 * radius + 1
    windows = F.unfold(there, side, padding=radius).view(3, 7, side * side, *size)
    torch.testing.assert_close(similarities(here, there, radius), torch.einsum("bchw,bckhw->bkhw", here, windows))


def test_gradients_of_similarities_are_those_of_windows() -> None:
    torch.manual_seed(0)
    here, there = torch.randn(2, 2, 5, 4, 6, requires_grad=True).unbind(0)
    weights = torch.randn(2, 9, 4, 6)
    fast = torch.autograd.grad((similarities(here, there, 1) * weights).sum(), (here, there), retain_graph=True)
    windows = F.unfold(there, 3, padding=1).view(2, 5, 9, 4, 6)
    slow = torch.autograd.grad((torch.einsum("bchw,bckhw->bkhw", here, windows) * weights).sum(), (here, there))
    torch.testing.assert_close(fast, slow)


def test_convex_upsampling_combines_the_neighbours_flow() -> None:
    torch.manual_seed(0)
    factor, h, w = 4, 3, 5
    flow, weights = torch.randn(2, 2, h, w), torch.randn(2, 9 * factor**2, h, w)
    found = convex_upsampled(flow, weights, factor)
    assert found.shape == (2, 2, factor * h, factor * w)
    padded = F.pad(flow, (1, 1, 1, 1)) * factor
    logits = weights.view(2, 9, factor, factor, h, w)
    for y, x in ((0, 0), (5, 9), (11, 19), (2, 17)):  # of the fine pixels
        (row, v), (column, u) = divmod(y, factor), divmod(x, factor)
        share = logits[:, :, v, u, row, column].softmax(1)
        around = padded[:, :, row : row + 3, column : column + 3].flatten(2)
        torch.testing.assert_close(found[:, :, y, x], (around * share[:, None]).sum(2))


def test_convex_upsampling_keeps_constant_flow() -> None:
    flow = torch.tensor([3.0, -1.0])[None, :, None, None].expand(1, 2, 6, 7)
    found = convex_upsampled(flow, torch.randn(1, 9 * 16, 6, 7), 4)
    torch.testing.assert_close(found[:, :, 4:-4, 4:-4], 4 * flow[:, :, :1, :1].expand(1, 2, 16, 20))


def test_distinct_places_are_found_again() -> None:
    h, w = 6, 10
    features = 40 * torch.eye(h * w).view(1, h * w, h, w)
    flow = matched_flow(features, features.roll((1, 2), (2, 3)))
    assert flow.shape == (2, 2, h, w)
    expected = torch.tensor([2.0, 1.0])[:, None, None]
    torch.testing.assert_close(flow[0, :, :-1, :-2], expected.expand(2, h - 1, w - 2))
    torch.testing.assert_close(flow[1, :, 1:, 2:], -expected.expand(2, h - 1, w - 2))


def test_warping_follows_the_flow_and_finds_nothing_outside() -> None:
    features, flow = torch.rand(1, 3, 5, 8), torch.zeros(1, 2, 5, 8)
    flow[:, 0] = 2
    found = warped(features, flow)
    torch.testing.assert_close(found[..., :-2], features[..., 2:])
    assert not found[..., -2:].any()
    assert torch.equal(swapped(torch.arange(4)), torch.tensor([2, 3, 0, 1]))


# The network


@pytest.mark.parametrize(("width", "height"), [(16, 16), (64, 32), (32, 96)])
def test_estimates_become_finer_and_swap_with_the_images(network: OpticalFlow, width: int, height: int) -> None:
    torch.manual_seed(1)
    first, second = torch.rand(2, 2, 3, height, width)
    estimates = network(first, second)
    assert len(estimates) == 2 + sum(ROUNDS)
    widths = [estimate.shape[-1] for estimate in estimates]
    assert widths == sorted(widths) and estimates[-1].shape == (4, 2, height, width)
    assert all(torch.isfinite(estimate).all() for estimate in estimates)
    torch.testing.assert_close(network(second, first)[-1], swapped(estimates[-1]), atol=1e-3, rtol=1e-3)


# Flows of the predictor


@pytest.mark.parametrize("size", SIZES)
def test_flows_have_the_size_at_which_flow_is_measured(network: OpticalFlow, size: tuple[int, int]) -> None:
    estimator = FlowEstimator(network, None, CPU)
    image, references = picture(*size), [view(picture(*size, seed)) for seed in (1, 2)]
    found = estimator.start(torch.from_numpy(image), references).result()
    width, height = flow_size(*size)
    assert len(found) == 2
    for flow, reference in zip(found, references):
        for one in (flow.there, flow.back):
            assert one.shape == (height, width, 2) and one.dtype == np.float32
        checked = MeasuredFlow.of(image, reference, flow).flow
        assert checked.flow.shape == (height, width, 2) and checked.flow.dtype == np.float32
        assert checked.agrees.shape == (height, width) and checked.agrees.dtype == np.bool_
    # Each pair is measured for itself.
    (alone,) = estimator.start(torch.from_numpy(image), references[1:]).result()
    np.testing.assert_allclose(found[1].there, alone.there, atol=1e-3)


@pytest.mark.parametrize("size", [*SIZES, (1, 1), (23, 24), (424, 40)])
def test_the_network_sees_as_much_of_the_smaller_image_as_it_can(size: tuple[int, int]) -> None:
    smaller, larger = (torch.zeros(k * size[1], k * size[0], 3, dtype=torch.uint8) for k in (1, 2))
    wide, high = network_size(larger, smaller)
    assert wide <= LARGEST_WIDTH + MULTIPLE / 2
    scale = min(ENLARGED, LARGEST_WIDTH / size[0])
    for pixels, seen in zip(size, (wide, high)):
        assert seen % MULTIPLE == 0 and seen > 0
        assert abs(seen - scale * pixels) <= max(MULTIPLE / 2, MULTIPLE - scale * pixels)


def test_flow_of_the_network_is_scaled_to_the_pixels_in_which_it_is_measured() -> None:
    size = (840, 250)  # flow of 420 x 125 pixels, seen as 832 x 240
    image, other = picture(*size), picture(*size, 1)
    flows = flows_between(Shift(4.0, 2.0), flow_size(*size), torch.from_numpy(image), torch.from_numpy(other))
    there, back = flows
    torch.testing.assert_close(there, torch.tensor([4 * 420 / 832, 2 * 125 / 240]).expand(125, 420, 2))
    torch.testing.assert_close(back, -there)


def test_refined_flow_is_nearer_to_the_truth_and_does_not_leave_the_image() -> None:
    noise = np.random.default_rng(0).uniform(0, 255, (96, 160)).astype(np.float32)
    first = np.clip((cv2.GaussianBlur(noise, (0, 0), 2) - 127) * 4 + 127, 0, 255).astype(np.uint8)
    second = np.roll(first, 3, 1)
    truth = np.array((3, 0), np.float32)
    there = truth + np.random.default_rng(1).normal(0, 0.7, (96, 160, 2)).astype(np.float32)
    given = there.copy()
    checked = FlowBothWays(there, -there).checked(first, second)
    inner = np.s_[10:-10, 10:-10]
    assert np.abs(checked.flow - truth)[inner].mean() < 0.3 * np.abs(there - truth)[inner].mean()
    assert checked.agrees[inner].mean() > 0.95 and not checked.agrees[:, -2:].any()
    np.testing.assert_array_equal(there, given)


def test_flow_that_the_way_back_contradicts_is_not_believed() -> None:
    grey, there = np.zeros((40, 60), np.uint8), np.zeros((40, 60, 2), np.float32)
    back = there.copy()
    back[10:20, 20:30] = 5
    agrees = FlowBothWays(there, back).checked(grey, grey).agrees
    assert not agrees[12:18, 22:28].any() and agrees[25:].all()


def test_a_predictor_on_the_cpu_measures_what_the_network_gives(forecaster: Forecaster) -> None:
    image, reference = picture(204, 70), view(picture(204, 70, 1))
    (found,) = forecaster.predictor.flows(torch.from_numpy(image), [reference])
    wide, high = 304, 112  # 1.5 times the image

    def seen(pixels: NDArray[np.uint8]) -> Tensor:
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        return F.interpolate(image, (high, wide), mode="bilinear", antialias=True)

    with torch.inference_mode():
        flow = forecaster.predictor.network.flow(seen(image), seen(reference.image))[-1]
        flow = F.interpolate(flow, (70, 204), mode="bilinear") * torch.tensor([204 / wide, 70 / high])[:, None, None]
    there, back = (f.permute(1, 2, 0).numpy() for f in flow)
    np.testing.assert_allclose(found.there, there, atol=1e-4)
    np.testing.assert_allclose(found.back, back, atol=1e-4)


def test_a_reference_image_may_be_kept_at_the_size_at_which_flow_is_measured(forecaster: Forecaster) -> None:
    street = picture(1020, 300)
    image, other = street[:, :1000].copy(), street[:, 20:].copy()  # what is seen moves 20 pixels to the left
    small = np.asarray(cv2.resize(other, flow_size(1000, 300), interpolation=cv2.INTER_AREA), np.uint8)
    small.setflags(write=False)
    one, both = (forecaster.predictor.flows(torch.from_numpy(image), [view(o)])[0] for o in (other, small))
    assert one.there.shape == both.there.shape
    assert np.abs(one.there - both.there).mean() < 1
    assert np.median(both.there[..., 0]) == pytest.approx(-20 * 420 / 1000, abs=0.5)


def test_images_between_which_no_flow_can_be_measured_are_refused(forecaster: Forecaster) -> None:
    with pytest.raises(ValueError, match="must be of one size"):
        forecaster.measured_flow(picture(64, 48), [view(picture(64, 47))])
    strip = picture(64, 8)
    with pytest.raises(ValueError, match="12 pixels or more"):
        forecaster.predictor.flows(torch.from_numpy(strip), [view(strip)])


def test_a_prediction_takes_the_network_for_flow(forecaster: Forecaster, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def flow_of(image: NDArray[np.uint8], reference: ReferenceView, flow: FlowBothWays | None = None) -> MeasuredFlow:
        asked.append(of(image, reference, flow))
        return asked[-1]

    of = MeasuredFlow.of
    image, reference = picture(96, 48), view(picture(96, 48, 1))
    (expected,) = forecaster.measured_flow(image, [reference])
    monkeypatch.setattr(MeasuredFlow, "of", staticmethod(flow_of))
    forecaster.predict(image, K, reference=reference)
    (given,) = asked
    np.testing.assert_array_equal(given.flow.flow, expected.flow.flow)
    np.testing.assert_array_equal(given.flow.agrees, expected.flow.agrees)


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster.load(device="cpu")


# On a GPU

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.gpu
@on_gpu
def test_a_gpu_measures_the_flow_that_the_cpu_measures(forecaster: Forecaster) -> None:
    image, references = picture(640, 200), [view(np.roll(picture(640, 200), 3 * k, 1)) for k in (1, 2)]
    pixels = torch.from_numpy(image)
    slow = Forecaster.load(device="cuda", fast=False).predictor.flows(pixels, references)
    for one, other in zip(slow, forecaster.predictor.flows(pixels, references)):
        assert np.median(np.abs(one.there - other.there)) < 0.05


@pytest.mark.gpu
@on_gpu
def test_the_graph_measures_the_flow_of_the_eager_path_for_threads_in_turn() -> None:
    fast, slow = (Forecaster.load(device="cuda", fast=f).predictor for f in (True, False))
    images = [torch.from_numpy(picture(640, 200, seed)) for seed in (0, 3)] * 8
    reference = view(np.roll(picture(640, 200), 3, 1))
    alone = [fast.flows(image, [reference])[0] for image in images[:2]]
    for one, image in zip(alone, images):
        (other,) = slow.flows(image, [reference])
        assert np.median(np.abs(one.there - other.there)) < 0.2  # half precision
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda image: fast.flows(image, [reference])[0], images))
    for i, flow in enumerate(found):
        np.testing.assert_array_equal(flow.there, alone[i % 2].there)
    later = fast.start_flows(images[0], [reference])
    fast.flows(images[1], [reference])
    np.testing.assert_array_equal(later.result()[0].there, alone[0].there)  # which the next did not write over


@pytest.mark.gpu
@on_gpu
def test_without_cuda_graphs_flow_is_measured_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    predictor = Forecaster.load(device="cuda").predictor
    image, reference = torch.from_numpy(picture(64, 48)), view(picture(64, 48, 1))
    with monkeypatch.context() as patch:
        patch.setattr("pixel4d_ros.predictor.cuda_graphs.record", broken)
        with pytest.warns(UserWarning, match=f"slower now, {EAGER_PATH}"):
            first = predictor.flows(image, [reference])[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(predictor.flows(image, [reference])[0].there, first.there)
