# SPDX-License-Identifier: Apache-2.0
"""Gaussians as 3DGS files store them, and the PLY file of the reference implementation (Kerbl et al. 2023).

Neither gsply (no normals) nor plyfile (GPL) can write this file for an Apache-2.0 package: docs/lab/decisions.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SH_C0 = 0.28209479177387814  # zeroth spherical harmonic: 3DGS files store (color - 0.5) / SH_C0
SH_REST = 45  # coefficients of degrees 1 to 3, all zero: the colours here do not depend on the view
# The reference viewer reads records of exactly these fields in this order, normals included.
FIELDS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
    *(f"f_rest_{i}" for i in range(SH_REST)),
    *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class StoredGaussians:
    """N Gaussians in the units of 3DGS files."""

    means: Floats  # (N, 3) metres
    log_scales: Floats  # (N, 3) natural logarithm of standard deviations in metres
    quaternions: Floats  # (N, 4) wxyz
    logit_opacities: Floats  # (N,)
    sh0: Floats  # (N, 3) coefficients of the zeroth spherical harmonic, of RGB

    @staticmethod
    def of(means: Tensor, quaternions: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor) -> StoredGaussians:
        """Convert the fields of DynamicGaussians of these names. Opacities of 0 and 1 and scales of 0 stay finite."""
        log_scales = scales.clamp(min=1e-9).log()
        columns = means, log_scales, quaternions, torch.logit(opacities, eps=1e-6), (colors - 0.5) / SH_C0
        return StoredGaussians(*(np.ascontiguousarray(c.detach().float().cpu().numpy()) for c in columns))


def write_ply(path: str | Path, gaussians: StoredGaussians) -> None:
    """Write a binary little endian PLY with FIELDS, which splat viewers read."""
    g, n = gaussians, len(gaussians.means)
    normals, rest = np.zeros((n, 3), np.float32), np.zeros((n, SH_REST), np.float32)
    columns = g.means, normals, g.sh0, rest, g.logit_opacities[:, None], g.log_scales, g.quaternions
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {n}"]
    header += [f"property float {name}" for name in FIELDS] + ["end_header", ""]
    Path(path).write_bytes("\n".join(header).encode() + np.concatenate(columns, 1).astype("<f4").tobytes())
