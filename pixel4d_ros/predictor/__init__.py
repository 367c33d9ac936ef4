# SPDX-License-Identifier: Apache-2.0
"""The single-pass predictor: one image and its intrinsics in, dynamic Gaussians out."""

from pixel4d_ros.predictor.predictor import Predictor

__all__ = ["Predictor"]
