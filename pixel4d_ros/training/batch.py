# SPDX-License-Identifier: Apache-2.0
"""Batch: source images, target views and what is known of the scenes, as tensors on the training device."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Batch:
    """B samples of V views each. View 0 is the source itself; view 1 comes soon after it, for the motion latent.

    Images are H x W pixels, float 0..1. An object is what can move: object_ids may include parked and waiting vehicles,
    whose motions and `moving` are 0. Each sample has one reference image, taken before the source or by the other
    camera, or none: then reference_time is NaN and the image is zero. Where metric is false, all lengths of a sample
    (translations, depths, motions, centroids) share one unknown factor.
    """

    images: Tensor  # (B, V, 3, H, W)
    K: Tensor  # (B, V, 3, 3)
    T_source_camera: Tensor  # (B, V, 4, 4)
    times: Tensor  # (B, V) seconds after the source
    depth: Tensor  # (B, H, W) metres in the source view, measured; 0 where unknown, inf for sky
    matched: Tensor  # (B, H, W) metres, found by matching stereo where nothing was measured; 0 where unknown
    hidden_depth: Tensor  # (B, H, W) metres of the first static surface behind the visible one; 0 where unknown
    object_ids: Tensor  # (B, H, W) int64: 0 static background, 1..M objects; -1 where unknown
    motions: Tensor  # (B, M + 1, 4, 3) v, a, w, a_w at the source; NaN where unknown
    centroids: Tensor  # (B, M + 1, 3)
    moving: Tensor  # (B, M + 1) 1 the object moves, 0 it stands; NaN where unknown; 0 of the background
    flow: Tensor  # (B, 2, H, W) measured, pixels from view 0 to view 1; NaN where unknown
    speed: Tensor  # (B,) m/s forward of the camera at the source; NaN where unknown
    metric: Tensor  # (B,) bool
    reference: Tensor  # (B, 3, H, W) float 0..1, the reference image; zeros where there is none
    reference_K: Tensor  # (B, 3, 3)
    T_source_reference: Tensor  # (B, 4, 4)
    reference_time: Tensor  # (B,) seconds relative to the source, 0 of the other camera; NaN: no reference

    @cached_property
    def T_camera_source(self) -> Tensor:
        """(B, V, 4, 4); torch.linalg.inv would wait for the device."""
        inverse: Tensor = torch.linalg.inv_ex(self.T_source_camera).inverse
        return inverse

    @cached_property
    def has_reference(self) -> Tensor:
        """(B,) bool."""
        return torch.isfinite(self.reference_time)

    def part(self, start: int, stop: int) -> Batch:
        """Samples start..stop (exclusive)."""
        return Batch(**{f.name: getattr(self, f.name)[start:stop] for f in fields(Batch)})

    @staticmethod
    def join(batches: list[Batch]) -> Batch:
        """One batch of several; objects are padded to the largest count."""
        most = max(b.motions.shape[1] for b in batches)

        def padded(tensor: Tensor) -> Tensor:
            extra = tensor.new_zeros(len(tensor), most - tensor.shape[1], *tensor.shape[2:])
            return torch.cat((tensor, extra), 1)

        joined = {}
        for f in fields(Batch):
            parts = [getattr(b, f.name) for b in batches]
            per_object = f.name in ("motions", "centroids", "moving")
            joined[f.name] = torch.cat([padded(p) for p in parts] if per_object else parts)
        return Batch(**joined)


def no_reference(images: Tensor, K: Tensor) -> dict[str, Tensor]:
    """The reference fields of a Batch whose samples have none: images (B, V, 3, H, W), K (B, V, 3, 3)."""
    b = len(images)
    return {
        "reference": torch.zeros_like(images[:, 0]),
        "reference_K": K[:, 0].clone(),
        "T_source_reference": torch.eye(4, device=K.device).expand(b, 4, 4).clone(),
        "reference_time": torch.full((b,), torch.nan, device=K.device),
    }


def moves(motions: Tensor) -> Tensor:
    """`moving` (B, M + 1) of objects that all move, or of which nothing is known: motions (B, M + 1, 4, 3)."""
    moving = torch.ones_like(motions[:, :, 0, 0])
    moving[:, 0] = 0
    return moving


def rescaled(batch: Batch, factor: Tensor) -> Batch:
    """The batch with all lengths of each sample multiplied by a factor (B,)."""
    maps, vectors = factor[:, None, None], factor[:, None, None]

    def moved(T: Tensor) -> Tensor:
        T = T.clone()
        T[..., :3, 3] *= factor.view(-1, *(1,) * (T.ndim - 2))
        return T

    motions = batch.motions.clone()
    motions[:, :, :2] *= factor[:, None, None, None]  # turns have no length
    return replace(
        batch,
        T_source_camera=moved(batch.T_source_camera),
        depth=batch.depth * maps,
        matched=batch.matched * maps,
        hidden_depth=batch.hidden_depth * maps,
        motions=motions,
        centroids=batch.centroids * vectors,
        speed=batch.speed * factor,
        T_source_reference=moved(batch.T_source_reference),
    )


def halved(batch: Batch) -> Batch:
    """The batch as a camera of half the resolution sees it."""

    def intrinsics(K: Tensor) -> Tensor:
        K = K.clone()
        K[..., :2, :] *= 0.5
        K[..., :2, 2] -= 0.25
        return K

    def labels(maps: Tensor) -> Tensor:
        return maps[..., ::2, ::2]

    return replace(
        batch,
        images=torch.unflatten(F.avg_pool2d(batch.images.flatten(0, 1), 2), 0, batch.images.shape[:2]),
        K=intrinsics(batch.K),
        depth=labels(batch.depth),
        matched=labels(batch.matched),
        hidden_depth=labels(batch.hidden_depth),
        object_ids=labels(batch.object_ids),
        flow=labels(batch.flow) * 0.5,
        reference=F.avg_pool2d(batch.reference, 2),
        reference_K=intrinsics(batch.reference_K),
    )
