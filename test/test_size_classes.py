# SPDX-License-Identifier: Apache-2.0
"""Classes guessed from the sizes of boxes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixel4d_ros.outputs.size_classes import CLASSES, MIN_PROBABILITY, class_probabilities, guess_class


@pytest.mark.parametrize(
    ("size", "label"),
    [
        ((4.0, 1.7, 1.5), "Car"),
        ((1.2, 1.7, 1.5), "Car"),  # from behind: a part of its length
        ((4.0, 0.5, 1.5), "Car"),  # from the side: a part of its width
        ((6.2, 2.5, 3.3), "Truck"),
        ((1.0, 2.4, 3.2), "Truck"),
        ((0.6, 0.6, 1.75), "Pedestrian"),
        ((1.8, 0.6, 1.75), ""),  # a cyclist as well as a part of a car
        ((0.3, 0.3, 0.4), ""),
        ((69.0, 3.0, 4.0), ""),  # nothing in traffic is as long
    ],
)
def test_a_box_has_the_class_that_its_size_suggests(size: tuple[float, float, float], label: str) -> None:
    guessed, probability = guess_class(size)
    assert guessed == label
    assert (MIN_PROBABILITY <= probability < 1) if label else probability == 0


@given(st.tuples(*[st.floats(0, 100)] * 3))
def test_probabilities_add_up_to_one(size: tuple[float, float, float]) -> None:
    probabilities = class_probabilities(size)
    assert set(probabilities) == set(CLASSES) and sum(probabilities.values()) == pytest.approx(1.0)
