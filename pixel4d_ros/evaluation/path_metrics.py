# SPDX-License-Identifier: Apache-2.0
"""Predicted paths of objects and their probabilities, against the ways that labelled objects went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixel4d_ros.evaluation.tables import Table
from pixel4d_ros.geometry.rotations import FloatArray


@dataclass(frozen=True)
class PathSample:
    """One object of one image: how it may move on, and how it does. Metres over ground since the image."""

    moved: FloatArray  # (K, T, 2) along the K predicted paths
    probabilities: FloatArray  # (K,)
    truth: FloatArray  # (T, 2)


@dataclass(frozen=True)
class PathScore:
    """Means over samples. Errors are of the displacement, so that a wrong position now does not count."""

    samples: int
    likely_ade: float  # metres: error of the most likely path, mean over the times
    likely_fde: float  # metres: the same at the last time
    min_ade: float  # metres: least mean error of the K paths
    min_fde: float  # metres: least error at the last time
    brier: float  # sum over the paths of (probability - 1 if it is the closest else 0)^2; 0 is best


def score_paths(samples: Sequence[PathSample]) -> PathScore | None:
    """Scores as in Argoverse (M.-F. Chang et al., 2019); the closest path has the least mean error. None: no path."""
    if not samples:
        return None
    rows = []
    for sample in samples:
        errors = np.linalg.norm(sample.moved - sample.truth, axis=-1)  # (K, T)
        average, final = errors.mean(1), errors[:, -1]
        likely, closest = sample.probabilities.argmax(), average.argmin()
        brier = np.square(sample.probabilities - np.eye(len(average))[closest]).sum()
        rows.append((average[likely], final[likely], average.min(), final.min(), brier))
    return PathScore(len(samples), *(float(mean) for mean in np.mean(rows, 0)))


def paths_table(name: str, score: PathScore | None, seconds: float) -> Table:
    """The score as a table, of paths that last some seconds."""
    if score is None:
        return [f"{name}, paths", ""], [[f"labelled moving objects with {seconds:.1f} s of future", "0"]]
    return [f"{name}, paths over {seconds:.1f} s", ""], [
        ["tracked labelled moving objects, image by image", str(score.samples)],
        ["most likely path: mean and last error, m", f"{score.likely_ade:.2f}, {score.likely_fde:.2f}"],
        ["closest path: mean and last error (minADE, minFDE), m", f"{score.min_ade:.2f}, {score.min_fde:.2f}"],
        ["Brier score of the probabilities (equal ones: 0.83)", f"{score.brier:.2f}"],
    ]
