# SPDX-License-Identifier: Apache-2.0
"""Synthetic streets and rooms as clips for evaluation, with exact depth, masks and motion."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.two_view.reference_view import AGO, ReferenceView

HELD_OUT = 900_001  # training draws its seeds from 2^20 on, so that smaller ones are never trained on
PATTERN = re.compile(r"synthetic-(street|room):([0-9]+)(?:@([0-9]+))?")


@dataclass(frozen=True)
class WorldSet:
    """`count` worlds of one kind, with the seeds from `first` on."""

    kind: str  # street or room
    count: int
    first: int = HELD_OUT
    size: tuple[int, int] = (400, 120)  # (width, height) pixels, unless the protocol sets one

    @staticmethod
    def parse(text: str) -> WorldSet | None:
        """From synthetic-KIND:COUNT[@FIRST_SEED]; None when the text is something else.

        Raises ValueError when it begins like one, or would evaluate on worlds that training may have drawn.
        """
        match = PATTERN.fullmatch(text)
        if match is None:
            if text.startswith(("synthetic-street:", "synthetic-room:")):
                raise ValueError(
                    f"{text}: write synthetic-street:COUNT or synthetic-room:COUNT, e.g. synthetic-street:8"
                )
            return None
        worlds = WorldSet(match[1], int(match[2]), int(match[3] or HELD_OUT))
        if worlds.count < 1:
            raise ValueError(f"{text}: at least one world is needed")
        if worlds.first + worlds.count > 1 << 20:
            raise ValueError(f"{text}: seeds from 2^20 = {1 << 20} on are those of training; use smaller ones")
        return worlds

    @property
    def name(self) -> str:
        """Name in tables: the kind and the seeds."""
        return f"synthetic {self.kind}s, seeds {self.first}..{self.first + self.count - 1}"

    @property
    def seeds(self) -> range:
        """The seeds of its worlds."""
        return range(self.first, self.first + self.count)


def make_clip(seed: int, kind: str, frames: int, step: float, size: tuple[int, int]) -> Clip:
    """One world as a clip; its objects are those that move, with their motion at frame 0 only, zero in the rest."""
    from pixel4d_ros.synthetic import sample_views
    from pixel4d_ros.synthetic.world import MAX_OBJECTS

    times = np.arange(frames, dtype=np.float64) * step
    views = sample_views([seed], torch.from_numpy(times)[None], size, kind=kind)
    depth = views.depth[0].numpy()
    motions = np.zeros((frames, MAX_OBJECTS + 1, 4, 3), np.float32)
    centroids = np.zeros((frames, MAX_OBJECTS + 1, 3), np.float32)
    moving = views.moving[0, : MAX_OBJECTS + 1].numpy()
    motions[0, moving] = views.motions[0, : MAX_OBJECTS + 1].numpy()[moving]
    centroids[0, moving] = views.centroids[0, : MAX_OBJECTS + 1].numpy()[moving]
    return Clip(
        f"synthetic_{kind}_{seed}",
        _as_images(views.rgb[0]),
        views.K[0].double().numpy(),
        views.T_source_camera[0].double().numpy(),
        times,
        np.where(np.isfinite(depth), depth, 0).astype(np.float32),
        torch.where(views.moving[0][views.object_ids[0]], views.object_ids[0], 0).byte().numpy(),
        motions,
        centroids,
    )


def reference_view(seed: int, kind: str, size: tuple[int, int]) -> ReferenceView:
    """The view of a world AGO seconds before the clip that make_clip makes of it."""
    from pixel4d_ros.synthetic import sample_views

    views = sample_views([seed], torch.tensor([[0.0, -AGO]], dtype=torch.float64), size, kind=kind)
    earlier = _as_images(views.rgb[0, 1:])[0]
    K, T_source_reference = views.K[0].double().numpy(), views.T_source_camera[0, 1].double().numpy()
    return ReferenceView(earlier, K, T_source_reference, -AGO)


def _as_images(rgb: Tensor) -> NDArray[np.uint8]:
    """Images (T, H, W, 3) of colours 0..1."""
    return np.asarray((rgb * 255).round().byte().numpy())
