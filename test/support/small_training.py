# SPDX-License-Identifier: Apache-2.0
"""Training runs that compute little, for tests that look at what a run does, not at what it learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from numpy.random import Generator

from pixel4d_ros.training import loop, sources, synthetic_data
from pixel4d_ros.training.batch import Batch


@contextmanager
def small_training(size: tuple[int, int]) -> Iterator[None]:
    """Within it, runs train on crops of `size` (width, height) at the full rate from step 1 on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "WIDE", size)
        patch.setattr(loop, "WARM_UP", 1)
        patch.setattr(synthetic_data, "MADE_AT_ONCE", 1)  # renders less
        yield


@contextmanager
def worlds_made_once() -> Iterator[None]:
    """Within it, runs that draw the same synthetic batches share them: rendering them is half of a short run."""
    made: dict[tuple[Any, ...], list[Batch]] = {}
    make = sources.make_batches

    def made_before(count: int, views: int, size: tuple[int, int], rng: Generator, *rest: Any) -> list[Batch]:
        key = (count, views, size, *rest, str(rng.bit_generator.state))
        if key not in made:
            made[key] = make(count, views, size, rng, *rest)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "make_batches", made_before)
        yield
