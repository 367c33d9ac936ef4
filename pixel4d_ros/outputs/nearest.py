# SPDX-License-Identifier: Apache-2.0
"""The point of many that is closest to a footprint at each of many poses, found from coarse to fine.

A footprint's distance changes by at most as much as the point moves. So the distance of the middle of a group of points
bounds those of all of them, and only groups that can hold the closest point are looked at point by point.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixel4d_ros.geometry.rotations import FloatArray

# Distances computed at once: bounds memory. A GPU waits for each launch, so it is given more of them (30 paths of 14
# poses among 27,000 points on an H200: 10 ms, 43 ms with as many as on the CPU).
PAIRS, GPU_PAIRS = 1 << 21, 1 << 26
ROUNDING = 1e-3  # metres by which bounds may be wrong in float32


def seen_from(poses: Tensor, places: Tensor) -> Tensor:
    """Places (..., n, 2) as seen from poses (..., 3) of x, y (metres) and yaw, in float32."""
    pose = poses.float()[..., None, :]
    (x, y), cos, sin = (places.float() - pose[..., :2]).unbind(-1), pose[..., 2].cos(), pose[..., 2].sin()
    return torch.stack((cos * x + sin * y, cos * y - sin * x), -1)


def closest_places(
    distances: Callable[[Tensor], Tensor], poses: FloatArray, places: Tensor, groups: Tensor
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Distances (P, F) in metres of the closest of n places from a footprint at poses (P, F, 3), and which one it is.

    distances: of points (..., 2) of the footprint's frame from it. places (F, n, 2), or (1, n, 2) where none of them
    moves. groups (n,) int64: places that lie together. Without places the distances are inf.
    """
    paths, count = poses.shape[:2]
    number = places.shape[1]
    if number == 0:
        return np.full((paths, count), np.inf), np.zeros((paths, count), np.int64)
    where = torch.as_tensor(poses, dtype=torch.float32, device=places.device)
    grouped = _Groups(places.float(), groups)
    at_once = max(1, (GPU_PAIRS if places.is_cuda else PAIRS) // (count * number))
    parts = [grouped.closest(distances, some) for some in torch.split(where, at_once)]
    return (
        torch.cat([nearest for nearest, _ in parts]).double().cpu().numpy(),
        torch.cat([which for _, which in parts]).cpu().numpy(),
    )


class _Groups:
    """Places (F or 1, n, 2) in groups with their bounding circles."""

    def __init__(self, places: Tensor, groups: Tensor) -> None:
        self._places = places
        numbers, own, self._sizes = torch.unique(groups, return_inverse=True, return_counts=True)
        self._members = own.argsort()  # those of the first group, then of the second and so on
        self._first = self._sizes.cumsum(0) - self._sizes
        index = own[None, :, None].expand_as(places)
        nothing = places.new_zeros(len(places), len(numbers), 2)
        low, high = (nothing.scatter_reduce(1, index, places, way, include_self=False) for way in ("amin", "amax"))
        self._centers = (low + high) / 2
        self._radii = (high - low).norm(dim=-1) / 2 + ROUNDING

    def closest(self, distances: Callable[[Tensor], Tensor], poses: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (P, F) of the closest of the places from a footprint at poses (P, F, 3), and which one it is."""
        coarse = distances(seen_from(poses, self._centers[None]))  # (P, F, G)
        closest_bound = (coarse + self._radii).amin(-1, keepdim=True)
        path, time, group = torch.nonzero(coarse - self._radii <= closest_bound).unbind(1)
        sizes = self._sizes[group]
        pair = torch.repeat_interleave(sizes)  # one for each member of each group
        before = sizes.cumsum(0) - sizes
        member = self._members[(self._first[group] - before)[pair] + torch.arange(len(pair), device=pair.device)]
        path, time = path[pair], time[pair]
        place = self._places[time if len(self._places) > 1 else 0, member]
        exact = distances(seen_from(poses[path, time], place[:, None]))[:, 0]
        slot = path * poses.shape[1] + time
        nearest = exact.new_full((poses.shape[0] * poses.shape[1],), torch.inf)
        nearest.scatter_reduce_(0, slot, exact, "amin")
        best = exact == nearest[slot]
        which = torch.full_like(nearest, self._places.shape[1], dtype=torch.long)
        which.scatter_reduce_(0, slot[best], member[best], "amin")
        return nearest.view(poses.shape[:2]), which.view(poses.shape[:2])
