# SPDX-License-Identifier: Apache-2.0
"""Predictions at a quarter of the network's resolution, for tests that need a forecast but not a good one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pixel4d_ros.predictor import input_view

COARSER = 4


@contextmanager
def coarse_predictions() -> Iterator[None]:
    """Within it, a forecast of a small image takes a fifth of the CPU time; frames still show the image as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(input_view, "CANONICAL_FOCAL", input_view.CANONICAL_FOCAL / COARSER)
        patch.setattr(input_view, "MIN_PIXELS", input_view.MIN_PIXELS // COARSER**2)
        patch.setattr(input_view, "FINER_FROM", float("inf"))
        yield
