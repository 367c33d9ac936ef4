# SPDX-License-Identifier: Apache-2.0
"""A small batch as training makes them."""

from __future__ import annotations

import torch

from pixel4d_ros.training.batch import Batch, moves, no_reference

SIZE = (64, 32)


def sample_batch(objects: int = 1) -> Batch:
    """One sample of 64 x 32 pixels in two views; object k is a square that drives at k m/s to the right."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 2, 3, 32, 64, generator=generator)
    ids = torch.zeros(1, 32, 64, dtype=torch.long)
    motions = torch.zeros(1, objects + 1, 4, 3)
    for k in range(1, objects + 1):
        ids[0, 8:20, 20 * k : 20 * k + 12] = k
        motions[0, k, 0, 0] = k
    K = torch.tensor([[60.0, 0, 32], [0, 60, 16], [0, 0, 1]]).expand(1, 2, 3, 3)
    depth = torch.full((1, 32, 64), 8.0)
    centroids = torch.zeros(1, objects + 1, 3)
    return Batch(
        images=images,
        K=K,
        T_source_camera=torch.eye(4).expand(1, 2, 4, 4),
        times=torch.tensor([[0.0, 0.5]]),
        depth=depth,
        matched=torch.zeros_like(depth),
        hidden_depth=torch.zeros_like(depth),
        object_ids=ids,
        motions=motions,
        centroids=centroids,
        moving=moves(motions),
        flow=torch.zeros(1, 2, 32, 64),
        speed=torch.zeros(1),
        metric=torch.ones(1, dtype=torch.bool),
        **no_reference(images, K),
    )
