# SPDX-License-Identifier: Apache-2.0
"""Scenes as SPZ files, less than a tenth of the PLY's size, through the optional package gsply."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pixel4d_ros.outputs.ply import StoredGaussians
from pixel4d_ros.scene import DynamicGaussians

# SPZ files are in OpenGL's axes (x right, y up, z backward), ours in the optical ones: half a turn about x.
HALF_TURN = np.array([1, -1, -1], np.float32)
FRACTION_BITS = 12  # of a position's 24: 0.24 mm, up to 2 km away


class SpzError(ValueError):
    """SPZ cannot be written here; the message says what to install."""


def check_spz() -> None:
    """Raise SpzError where gsply is not installed."""
    try:
        import gsply  # noqa: F401
    except ImportError:
        raise SpzError("SPZ needs the package gsply: pip install 'pixel4d_ros[spz]', or write PLY") from None


def save_spz(scene: DynamicGaussians, path: str | Path) -> None:
    """Write the scene as it is at its time: SPZ version 3, colours of degree 0. Raises SpzError without gsply.

    SPZ is lossy: 8 bits for opacity, colour and each log scale, 10 for each part of a quaternion.
    """
    check_spz()
    import gsply

    limit = 2.0 ** (23 - FRACTION_BITS) - 1  # what is farther is in the sky
    stored = StoredGaussians.of(
        scene.means.clamp(-limit, limit),
        torch.nn.functional.normalize(scene.quaternions, dim=-1),
        scene.scales,
        scene.opacities,
        scene.colors,
    )
    gaussians = gsply.GSData(
        means=stored.means * HALF_TURN,
        scales=stored.log_scales,
        quats=stored.quaternions * np.concatenate([np.ones(1, np.float32), HALF_TURN]),
        opacities=stored.logit_opacities,
        sh0=stored.sh0,
        shN=np.zeros((len(scene), 0, 3), np.float32),
    )
    gsply.write_spz(path, gaussians, version=3, fractional_bits=FRACTION_BITS)
