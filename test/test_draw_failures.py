# SPDX-License-Identifier: Apache-2.0
"""research/draw_failures.py: the model card's picture of what goes wrong."""

from __future__ import annotations

import sys

import numpy as np
from support.paths import REPOSITORY

from pixel4d_ros.evaluation.video import MARGIN
from pixel4d_ros.forecaster import Forecaster

sys.path.insert(0, str(REPOSITORY / "research"))
import draw_failures


def test_a_row_shows_source_forecast_and_truth_side_by_side() -> None:
    picture = draw_failures.row(Forecaster.load(device="cpu"), draw_failures.FAILURES[0])
    (width, height), margin = draw_failures.SIZE, MARGIN
    below = picture[-margin - height : -margin].astype(int)
    source, forecast, truth = (below[:, x : x + width] for x in (margin + i * (width + margin) for i in range(3)))
    differences = [np.abs(a - b).mean() for a, b in ((forecast, truth), (source, truth))]
    assert 0 < differences[0] < differences[1]  # a failure, but not as bad as repeating the image
