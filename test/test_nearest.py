# SPDX-License-Identifier: Apache-2.0
"""The closest of many points, found from coarse to fine, is the one that looking at all of them finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixel4d_ros.outputs.clearance import Footprint
from pixel4d_ros.outputs.nearest import closest_places, seen_from

FOOTPRINTS = (
    Footprint(np.array([[3.0, 0.9], [3.0, -0.9], [-1.0, -0.9], [-1.0, 0.9]])),
    Footprint(radius=0.7),
    Footprint(),
)


@pytest.mark.parametrize("footprint", FOOTPRINTS)
@pytest.mark.parametrize("moves", [False, True])
def test_the_closest_place_is_that_of_a_look_at_all(footprint: Footprint, moves: bool) -> None:
    random = np.random.default_rng(3)
    places = random.normal(0, 12, (1, 700, 2)) + random.normal(0, 1, (9 if moves else 1, 1, 2))
    poses = random.uniform((-15, -15, -3), (15, 15, 3), (5, 9, 3))
    groups = torch.as_tensor(np.floor(places[0] / 2.0).astype(int) @ [1, 1000])
    found, which = closest_places(footprint.distances, poses, torch.as_tensor(places), groups)
    everything = footprint.distances(seen_from(torch.as_tensor(poses), torch.as_tensor(places)[None]))  # (P, F, n)
    np.testing.assert_allclose(found, everything.amin(-1), atol=1e-6)
    np.testing.assert_allclose(everything.gather(-1, torch.as_tensor(which)[..., None])[..., 0], found, atol=1e-6)


def test_without_places_nothing_is_close() -> None:
    nothing = torch.zeros(1, 0, 2)
    found, which = closest_places(Footprint().distances, np.zeros((2, 3, 3)), nothing, torch.zeros(0, dtype=torch.long))
    assert np.isinf(found).all() and which.shape == (2, 3)
