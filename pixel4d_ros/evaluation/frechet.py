# SPDX-License-Identifier: Apache-2.0
"""The Frechet distance between two sets of features, of which FVD is one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pixel4d_ros.evaluation.scoring import ScoredWindow
from pixel4d_ros.geometry.rotations import FloatArray


def frechet_distance(a: FloatArray, b: FloatArray) -> float:
    """Squared Frechet distance of Gaussians fitted to features a (n, D) and b (m, D), two or more rows each.

    |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), D. Dowson and B. Landau, 1982; with I3D features of videos it
    is FVD (T. Unterthiner et al., 2018). Covariances are unbiased, as in the reference implementations. The trace of
    the root is the sum of the singular values of A^T B, where S = A A^T: no root of an indefinite product is taken.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a Frechet distance needs two or more samples on each side, got {len(a)} and {len(b)}")
    x, y = (np.asarray(f, np.float64) for f in (a, b))
    mean = x.mean(0) - y.mean(0)
    x, y = ((f - f.mean(0)) / np.sqrt(len(f) - 1) for f in (x, y))  # rows are columns of A^T: S = x^T x
    overlap = float(np.linalg.svd(x @ y.T, compute_uv=False).sum())
    return float(mean @ mean + (x * x).sum() + (y * y).sum() - 2 * overlap)


@dataclass(frozen=True)
class FeaturePool:
    """Video features over all clips: FVD compares sets of videos, so it is not a mean over clips."""

    forecast: list[FloatArray] = field(default_factory=list)
    repeat: list[FloatArray] = field(default_factory=list)
    truth: list[FloatArray] = field(default_factory=list)

    def add(self, scored: ScoredWindow) -> None:
        """Add the features of one source image's videos, if it has any."""
        score = scored.score
        for features, found in (
            (self.forecast, score.futures[0].features),
            (self.repeat, score.repeat.features),
            (self.truth, score.truth_features),
        ):
            if found is not None:
                features.append(found)

    def describe(self) -> list[str]:
        """FVD over all videos added, as a sentence; empty for fewer than two videos."""
        if len(self.truth) < 2:
            return []
        truth = np.stack(self.truth)
        values = [frechet_distance(np.stack(videos), truth) for videos in (self.forecast, self.repeat)]
        return [f"FVD over all {len(truth)} videos: forecast {values[0]:.1f}, image repeated {values[1]:.1f}"]
