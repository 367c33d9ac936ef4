# SPDX-License-Identifier: Apache-2.0
"""Data held out of training, for training and evaluation alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

T = TypeVar("T")
Part = Literal["all", "train", "held_out"]

HELD_OUT_EVERY = 10  # of single images and stereo pairs, by name in order, the first included
FIRST_TRAINING_SEED = 1 << 20  # synthetic worlds with a smaller seed are for evaluation only
# Logs that evaluate the weights (../shared/logs/README.md of a development checkout).
HELD_OUT_LOGS = frozenset(
    {"kitti_0002", "kitti_0052", "kitti_0056", "indoor_desk", "indoor_livingroom", "indoor_room5"}
)


def choose(items: Sequence[T], part: Part) -> list[T]:
    """All items, every HELD_OUT_EVERY-th (held_out), or the others (train). Raises ValueError for another part."""
    if part == "all":
        return list(items)
    if part not in ("train", "held_out"):
        raise ValueError(f"{part!r} is no part of a data set: choose all, train or held_out")
    return [item for i, item in enumerate(items) if (i % HELD_OUT_EVERY == 0) == (part == "held_out")]


def check_trainable(path: Path) -> None:
    """Raise ValueError for a held-out log, also behind a link of another name."""
    if {path.stem, path.resolve().stem} & HELD_OUT_LOGS:
        raise ValueError(f"{path} is held out for evaluation: leave it out of the sources of training")
