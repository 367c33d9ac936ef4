# SPDX-License-Identifier: Apache-2.0
"""When there is time for a reference image: by the camera's period and what the last comparison took."""

from __future__ import annotations

import pytest

from pixel4d_ros.ros.reference_budget import RETRY_S, ReferenceBudget


def budget(period: float, forecast: float, comparison: float) -> ReferenceBudget:
    found = ReferenceBudget()
    for i in range(3):
        found.image(2 * i * period, 2 * i)  # every second image is dropped
    found.took(3 * period, forecast, 100 * comparison)  # the first one compiles and loads libraries
    found.took(4 * period, forecast, comparison)
    return found


@pytest.mark.parametrize(
    ("period", "forecast", "comparison", "fits"),
    [
        (1 / 30, 0.006, 0.050, False),  # a GPU at 30 Hz
        (1 / 30, 0.006, 0.020, True),
        (1 / 10, 0.006, 0.050, True),
        (1 / 10, 0.9, 0.15, True),  # a CPU, which drops images in any case
        (1 / 10, 0.2, 0.15, False),
    ],
)
def test_a_comparison_may_take_what_the_forecast_leaves(
    period: float, forecast: float, comparison: float, fits: bool
) -> None:
    refusal = budget(period, forecast, comparison).refusal(5 * period)
    assert (refusal == "") == fits
    assert fits or f"{1e3 * comparison:.0f} ms" in refusal


def test_it_is_tried_at_first_and_again_after_a_while() -> None:
    assert ReferenceBudget().refusal(0.0) == ""
    found = budget(1 / 30, 0.006, 0.050)
    assert found.refusal(RETRY_S / 2) and not found.refusal(RETRY_S + 1)


def test_the_first_comparison_does_not_count() -> None:
    found = ReferenceBudget()
    found.took(0.0, 0.1, 5.0)
    assert found.refusal(0.1) == ""
    found.took(0.1, 0.1, 5.0)
    assert "5000 ms" in found.refusal(0.2)
