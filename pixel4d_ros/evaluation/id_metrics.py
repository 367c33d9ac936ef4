# SPDX-License-Identifier: Apache-2.0
"""Whether the ids that a tracker gives to objects last: identity switches as CLEAR MOT counts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from pixel4d_ros.geometry.rotations import FloatArray

GATE = 4.0  # metres: a predicted object farther from a labelled one is another thing


@dataclass(frozen=True)
class TrackedFrame:
    """Labelled and predicted objects of one image, in one frame of reference."""

    true_ids: NDArray[np.int64]  # (A,)
    true_positions: FloatArray  # (A, 3) metres
    ids: NDArray[np.int64]  # (B,) by the tracker
    positions: FloatArray  # (B, 3) metres


@dataclass(frozen=True)
class IdScore:
    """How ids last over a sequence."""

    objects: int  # labelled objects that were matched at least twice
    lasting: int  # of these, how many have one id in all images in which they are matched
    switches: int  # how often a labelled object's id differs from the one of its last match
    matched: int  # labelled objects, image by image, with a predicted one
    missed: int  # and without

    @property
    def lasting_share(self) -> float:
        """Share of objects whose id lasts as long as they are seen; NaN without objects."""
        return self.lasting / self.objects if self.objects else float("nan")


def score_ids(frames: Sequence[TrackedFrame], matches: Sequence[dict[int, int]]) -> IdScore:
    """Count how often ids of matched objects change; matches: of the same frames, by match_objects."""
    history: dict[int, list[int]] = {}
    switches = matched = missed = 0
    for frame, pairs in zip(frames, matches, strict=True):
        matched += len(pairs)
        missed += len(frame.true_ids) - len(pairs)
        for true, own in pairs.items():
            ids = history.setdefault(true, [])
            switches += bool(ids) and ids[-1] != own
            ids.append(own)
    seen = [ids for ids in history.values() if len(ids) > 1]
    return IdScore(len(seen), sum(len(set(ids)) == 1 for ids in seen), switches, matched, missed)


def match_objects(frames: Sequence[TrackedFrame]) -> list[dict[int, int]]:
    """Predicted id by labelled id, image by image.

    As CLEAR MOT (K. Bernardin and R. Stiefelhagen, 2008): a pair of the image before stays together while it is within
    GATE; the others are assigned by least total distance.
    """
    last: dict[int, int] = {}
    found = []
    for frame in frames:
        pairs = _match(frame, last)
        last |= pairs
        found.append(pairs)
    return found


def _match(frame: TrackedFrame, last: dict[int, int]) -> dict[int, int]:
    """Predicted id by labelled id."""
    if not len(frame.true_ids) or not len(frame.ids):
        return {}
    distances = np.linalg.norm(frame.true_positions[:, None] - frame.positions[None], axis=-1)
    kept = np.array([[last.get(int(t)) == int(p) for p in frame.ids] for t in frame.true_ids])
    within = distances <= GATE
    # A kept pair outweighs any sum of distances within the gate; pairs outside it cost more than being left out.
    cost = np.where(within, distances - np.where(kept, 1e3 * GATE, 0), 1e6 * GATE)
    rows, columns = linear_sum_assignment(cost)
    return {int(frame.true_ids[r]): int(frame.ids[c]) for r, c in zip(rows, columns, strict=True) if within[r, c]}
