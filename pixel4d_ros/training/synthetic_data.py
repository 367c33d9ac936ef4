"""Synthetic batches with exact depth, object ids and motion; a pool of them, renewed as training goes on."""

from __future__ import annotations

import torch
from numpy.random import Generator

from pixel4d_ros.training.batch import Batch

STEP = 0.1  # seconds between frames
LONGEST_STEP = 13
RENEW_EVERY = 32  # training steps between renewals
MADE_AT_ONCE = 4  # batches: many worlds cost little more than a few, since each is little work for a GPU


class SyntheticData:
    """Draws batches from a pool, since making one costs more than a training step can spare each time."""

    def __init__(
        self, count: int, views: int, size: tuple[int, int], pool: int, rng: Generator, device: torch.device
    ) -> None:
        self.count, self.views, self.size, self.limit = count, views, size, pool
        self.rng, self.device = rng, device
        self.pool: list[Batch] = []
        self.served = 0

    def batch(self) -> Batch:
        """count samples; a new batch every few calls until the pool is full and then in place of an old one."""
        if self.served % RENEW_EVERY == 0 or len(self.pool) < 2 * MADE_AT_ONCE:
            made = self._make(self.count * MADE_AT_ONCE)
            for i in range(MADE_AT_ONCE):
                batch = made.part(i * self.count, (i + 1) * self.count)
                if len(self.pool) < self.limit:
                    self.pool.append(batch)
                else:
                    self.pool[int(self.rng.integers(self.limit))] = batch
        self.served += 1
        return self.pool[int(self.rng.integers(len(self.pool)))]

    def _make(self, count: int) -> Batch:
        from pixel4d_ros.synthetic import sample_views

        steps = torch.from_numpy(self.rng.integers(1, LONGEST_STEP + 1, (count, self.views)))
        steps[:, 0] = 0
        seeds = [int(s) for s in self.rng.integers(1 << 20, 1 << 31, count)]
        views = sample_views(seeds, steps * STEP, self.size, self.device, kind="mixed")
        images = views.rgb.permute(0, 1, 4, 2, 3)
        latest = steps.argmax(1)
        return Batch(
            images=images,
            K=views.K[:, None].expand(-1, self.views, -1, -1),
            T_source_camera=views.T_source_camera.float(),
            times=views.times.float().to(self.device),
            depth=views.depth[:, 0],
            object_ids=views.object_ids[:, 0],
            motions=views.motions.float(),
            centroids=views.centroids.float(),
            later=images[torch.arange(count), latest],
        )
