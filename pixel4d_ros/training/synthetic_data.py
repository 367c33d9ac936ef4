# SPDX-License-Identifier: Apache-2.0
"""Synthetic batches with exact depth, object ids and motion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from pixel4d_ros.datasets.splits import FIRST_TRAINING_SEED
from pixel4d_ros.predictor.objects import pixel_grid
from pixel4d_ros.scene import Motion, moved_gaussians
from pixel4d_ros.synthetic import WorldViews, sample_views
from pixel4d_ros.synthetic.assets import Assets
from pixel4d_ros.training.augmentation import change_colors
from pixel4d_ros.training.batch import Batch

STEP = 0.1  # seconds between frames
LONGEST_STEP = 13
LONGEST_REFERENCE = 5  # steps from the reference image to the source
SOON = 3  # steps after the source at most for view 1
MADE_AT_ONCE = 4  # batches: many worlds cost little more than a few, since each is little work for a GPU


def make_batches(
    count: int,
    views: int,
    size: tuple[int, int],
    rng: Generator,
    device: torch.device,
    kind: str = "mixed",
    assets: Assets | None = None,
) -> list[Batch]:
    """MADE_AT_ONCE batches of count samples with `views` views at size (width, height); kind, assets: see sample_views.

    The reference image is one step before the source, sometimes up to LONGEST_REFERENCE steps.
    """
    total = count * MADE_AT_ONCE
    steps = torch.from_numpy(rng.integers(1, LONGEST_STEP + 1, (total, views + 1)))
    steps[:, 0] = 0
    steps[:, 1] = torch.from_numpy(rng.integers(1, SOON + 1, total))
    ago = rng.integers(2, LONGEST_REFERENCE + 1, total)
    steps[:, views] = -torch.from_numpy(np.where(rng.random(total) < 0.6, 1, ago))
    seeds = [int(s) for s in rng.integers(FIRST_TRAINING_SEED, 1 << 31, total)]
    scenes = sample_views(seeds, steps * STEP, size, device, kind=kind, hidden=True, camera=True, assets=assets)
    assert scenes.hidden_depth is not None
    T, times = scenes.T_source_camera.float(), scenes.times.float().to(device)
    images = scenes.rgb.permute(0, 1, 4, 2, 3)
    K = scenes.K[:, None].expand(-1, views, -1, -1)
    made = Batch(
        images=images[:, :views],
        K=K,
        T_source_camera=T[:, :views],
        times=times[:, :views],
        depth=scenes.depth[:, 0],
        matched=torch.zeros_like(scenes.depth[:, 0]),
        hidden_depth=scenes.hidden_depth,
        object_ids=scenes.object_ids[:, 0],
        motions=scenes.motions.float(),
        centroids=scenes.centroids.float(),
        moving=scenes.moving.float(),
        flow=exact_flow(scenes),
        speed=T[:, 1, 2, 3] / times[:, 1],
        metric=torch.ones(total, dtype=torch.bool, device=times.device),
        reference=images[:, views],
        reference_K=scenes.K,
        T_source_reference=T[:, views],
        reference_time=times[:, views],
    )
    return [made.part(i * count, (i + 1) * count) for i in range(MADE_AT_ONCE)]


def varied(batch: Batch, rng: Generator) -> Batch:
    """The batch with other colours, and mirrored half of the time."""
    batch = _recolored(batch, rng)
    return mirrored(batch) if rng.random() < 0.5 else batch


def _recolored(batch: Batch, rng: Generator) -> Batch:
    """The source, its targets and its reference change their colours alike."""
    together = torch.cat((batch.images, batch.reference[:, None]), 1)
    *images, reference = change_colors(together, rng).unbind(1)
    reference = reference * batch.has_reference[:, None, None, None]
    return replace(batch, images=torch.stack(images, 1), reference=reference)


def mirrored(batch: Batch) -> Batch:
    """The mirrored batch: x changes its sign, and so do rotations about y and z."""
    K, reference_K, device = batch.K.clone(), batch.reference_K.clone(), batch.K.device
    for intrinsics in (K, reference_K):
        intrinsics[..., 0, 2] = batch.images.shape[-1] - 1 - intrinsics[..., 0, 2]
    point, turn = torch.tensor([-1.0, 1, 1], device=device), torch.tensor([1.0, -1, -1], device=device)
    mirror = torch.diag(torch.tensor([-1.0, 1, 1, 1], device=device))
    return replace(
        batch,
        images=batch.images.flip(-1),
        K=K,
        T_source_camera=mirror @ batch.T_source_camera @ mirror,
        depth=batch.depth.flip(-1),
        matched=batch.matched.flip(-1),
        hidden_depth=batch.hidden_depth.flip(-1),
        object_ids=batch.object_ids.flip(-1),
        motions=batch.motions * torch.stack((point, point, turn, turn)),
        centroids=batch.centroids * point,
        flow=batch.flow.flip(-1) * point[:2, None, None],
        reference=batch.reference.flip(-1),
        reference_K=reference_K,
        T_source_reference=mirror @ batch.T_source_reference @ mirror,
    )


def exact_flow(scenes: WorldViews) -> Tensor:
    """Flow (B, 2, H, W) in pixels from view 0 to view 1 of everything that view 0 shows; NaN in the sky."""
    depth, ids, K = scenes.depth[:, 0], scenes.object_ids[:, 0].flatten(1), scenes.K
    b, height, width = depth.shape
    pixels = pixel_grid(height, width, depth.device).flatten(0, 1)
    rays = torch.cat((pixels, torch.ones_like(pixels[:, :1])), 1) @ torch.linalg.inv(K).transpose(1, 2)
    points = rays * torch.where(torch.isinf(depth), torch.nan, depth).flatten(1)[..., None]
    index = torch.arange(b, device=depth.device)[:, None]
    motion = Motion(*scenes.motions.float()[index, ids].unbind(2))
    upright = torch.tensor([1.0, 0, 0, 0], device=depth.device).expand(*points.shape[:2], 4)
    moment = scenes.times[:, 1].float().to(depth.device)[:, None, None]
    moved, _ = moved_gaussians(points, upright, scenes.centroids.float()[index, ids], motion, moment)
    T = torch.linalg.inv(scenes.T_source_camera[:, 1].float())
    seen = (moved @ T[:, :3, :3].transpose(1, 2) + T[:, None, :3, 3]) @ K.transpose(1, 2)
    flow = torch.where(seen[..., 2:] > 0.1, seen[..., :2] / seen[..., 2:], torch.nan) - pixels
    return torch.unflatten(flow.transpose(1, 2), 2, (height, width))
