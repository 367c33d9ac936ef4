# SPDX-License-Identifier: Apache-2.0
"""PSNR, SSIM and depth errors: against scikit-image, and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pixel4d_ros.evaluation.depth_metrics import boundaries, depth_edges, depth_errors, is_dense
from pixel4d_ros.evaluation.metrics import PSNR_CEILING, psnr, ssim

RANDOM = np.random.default_rng(7)


def noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.clip(image + RANDOM.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def test_psnr_and_ssim_agree_with_scikit_image() -> None:
    for sigma in (2, 20, 80):
        a = noisy(np.full((40, 60, 3), 128), 50)
        b = noisy(a, sigma)
        expected = structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2
        )
        assert ssim(a, b) == pytest.approx(expected, abs=1e-4)
        assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-4)
        x, y = (a / 255).astype(np.float32), (b / 255).astype(np.float32)
        assert ssim(x, y) == pytest.approx(expected, abs=1e-4)
        assert psnr(x, y) == pytest.approx(psnr(a, b), abs=1e-4)


def test_masked_psnr_sees_only_the_mask() -> None:
    a = np.full((20, 20, 3), 100, np.uint8)
    b = a.copy()
    b[:10] = 110
    mask = np.zeros((20, 20), bool)
    mask[:10] = True
    assert psnr(a, b, mask) == pytest.approx(20 * np.log10(255 / 10))
    assert psnr(a, b, ~mask) == PSNR_CEILING
    assert np.isnan(psnr(a, b, np.zeros_like(mask)))
    with pytest.raises(ValueError, match="mask"):
        psnr(a, b, mask[:5])


def test_images_that_cannot_be_compared_are_refused() -> None:
    a = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match="different size"):
        psnr(a, a[:10])
    with pytest.raises(ValueError, match="different type"):
        ssim(a, a.astype(np.float32))
    with pytest.raises(ValueError, match="11x11"):
        ssim(a[:8], a[:8])


@given(st.floats(0.3, 3.0))
@settings(max_examples=20, deadline=None)
def test_depth_errors_of_a_scaled_truth(scale: float) -> None:
    truth = np.array([[2.0, 5, 10], [20, 0, 40]])
    errors, aligned = depth_errors(scale * truth, truth), depth_errors(scale * truth, truth, median_scaled=True)
    assert errors is not None
    assert aligned is not None
    assert errors.pixels == 5
    assert errors.abs_rel == pytest.approx(abs(scale - 1), abs=1e-9)
    assert errors.delta1 == (1.0 if max(scale, 1 / scale) < 1.25 else 0.0)
    assert aligned.abs_rel == pytest.approx(0, abs=1e-9)
    assert aligned.delta1 == 1


def test_depth_errors_without_sensor_values_are_none() -> None:
    assert depth_errors(np.ones((2, 2)), np.zeros((2, 2))) is None


def steps(shift: int = 0, blur: int = 0) -> np.ndarray:
    """Depth (40, 60) of a near column in front of a wall, moved by columns, its outline blurred over columns."""
    depth = np.full((40, 60), 20.0)
    depth[:, 20 + shift : 40 + shift] = 10.0
    for _ in range(blur):
        depth[:, 1:-1] = (depth[:, :-2] + depth[:, 1:-1] + depth[:, 2:]) / 3
    return depth


def test_edges_are_the_pixels_around_a_jump_in_depth() -> None:
    edges = depth_edges(steps())
    assert edges[10].nonzero()[0].tolist() == [18, 19, 20, 21, 38, 39, 40, 41]
    sparse = steps()
    sparse[:, 21:] = 0
    assert not depth_edges(np.where(np.arange(60) % 9 == 0, sparse, 0)).any()  # neighbours too far apart
    errors = depth_errors(np.full((40, 60), 20.0), steps())
    assert errors is not None
    assert errors.delta1 == pytest.approx(2 / 3)
    assert errors.edge_delta1 == pytest.approx(1 / 2)
    assert errors.edge_abs_rel == pytest.approx(1 / 2)


def test_boundaries_are_found_where_they_are() -> None:
    exact = boundaries(3 * steps(), steps())  # the scale does not matter
    assert exact is not None
    # Two of the four directions have contours at all: a step up and a step down along the rows.
    assert (exact.f1, exact.precision, exact.recall) == pytest.approx((0.5, 0.5, 0.5))
    moved, blurred = boundaries(steps(1), steps()), boundaries(steps(blur=8), steps())
    assert moved is not None
    assert blurred is not None
    assert moved.f1 == 0
    assert blurred.precision < 0.3  # of many small steps few are large in truth
    assert boundaries(steps(), np.where(np.arange(60) % 3 == 0, steps(), 0)) is None
    assert is_dense(steps())
    assert not is_dense(np.zeros((4, 4)))
