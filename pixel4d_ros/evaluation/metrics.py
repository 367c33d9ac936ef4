# SPDX-License-Identifier: Apache-2.0
"""Image metrics on numpy arrays; images are RGB, uint8 0..255 or float 0..1."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]  # (H, W, 3) uint8 0..255 or floating point 0..1

# Given to identical images, so that means stay finite; one wrong grey level in 400x120 pixels is 99.7 dB.
PSNR_CEILING = 100.0
SSIM_SIGMA = 1.5
SSIM_RADIUS = 5  # 3.5 sigma, the support that scikit-image and the SSIM authors' 11x11 window have


def psnr(image: Image, truth: Image, mask: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio in dB of two images of one size, over the pixels of mask (H, W) when given.

    Identical images give PSNR_CEILING; an empty mask gives NaN. Raises ValueError when sizes or types differ.
    """
    peak = _peak(image, truth)
    error = image.astype(np.float32) - truth.astype(np.float32)
    if mask is not None:
        if mask.shape != image.shape[:2]:
            raise ValueError(f"the mask's size {mask.shape} is not the images' size {image.shape[:2]}")
        error = error[mask]
        if error.size == 0:
            return float("nan")
    mse = float(np.mean(np.square(error), dtype=np.float64))
    return PSNR_CEILING if mse == 0 else min(PSNR_CEILING, 10 * float(np.log10(peak * peak / mse)))


def ssim(image: Image, truth: Image) -> float:
    """Mean structural similarity of two images of one size, averaged over the channels.

    Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004: Gaussian
    window of sigma 1.5, population covariance, the border of half a window left out. Equals scikit-image's
    structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False).
    Raises ValueError when sizes or types differ or the images are smaller than the 11x11 window.
    """
    peak = _peak(image, truth)
    if min(image.shape[:2]) < 2 * SSIM_RADIUS + 1:
        raise ValueError(f"SSIM needs images of at least 11x11 pixels, got {image.shape[1]}x{image.shape[0]}")
    # Variances of values centred on grey lose little to rounding, so float32 will do and takes half the time.
    grey = np.float32(peak / 2)
    x, y = image.astype(np.float32) - grey, truth.astype(np.float32) - grey
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variances = _window_mean(x * x + y * y) - mean_x * mean_x - mean_y * mean_y
    covariance = _window_mean(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + grey, mean_y + grey
    c1, c2 = np.float32((0.01 * peak) ** 2), np.float32((0.03 * peak) ** 2)
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x * mean_x + mean_y * mean_y + c1) * (variances + c2)
    return float(similarity[SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS].mean(dtype=np.float64))


def _window_mean(image: NDArray[np.float32]) -> NDArray[np.float32]:
    size = 2 * SSIM_RADIUS + 1
    return np.asarray(cv2.GaussianBlur(image, (size, size), SSIM_SIGMA, borderType=cv2.BORDER_REFLECT), np.float32)


def _peak(image: Image, truth: Image) -> float:
    if image.shape != truth.shape:
        raise ValueError(f"images of different size cannot be compared: {image.shape} and {truth.shape}")
    if image.dtype != truth.dtype:
        raise ValueError(f"images of different type cannot be compared: {image.dtype} and {truth.dtype}")
    return 255.0 if image.dtype == np.uint8 else 1.0
