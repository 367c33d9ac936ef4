# SPDX-License-Identifier: Apache-2.0
"""Training of the flow network by a larger one (GMFlow), on pairs of images of which no other labels are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.training.batch import Batch
from pixel4d_ros.training.flow_teacher import FlowTeacher
from pixel4d_ros.training.matched_points import is_there_and_back

HALVED = 0.3  # share of the steps at half of the teacher's resolution, at which small cameras see
REUSED, KEPT = 3, 96  # steps that a batch of the teacher's serves on average; batches that are kept
OCCLUDED = 0.2  # weight of flow that the way back contradicts: there the teacher guesses
EARLIER = 0.7  # weight of each estimate, as a share of the next finer one's
BRIGHTNESS, NOISE = 0.15, 0.02  # by which the two images of a pair differ: exposure changes, and sensors are noisy


@dataclass(frozen=True)
class FlowPairs:
    """B pairs of images and the flow between them, in pixels."""

    first: Tensor  # (B, 3, H, W) 0..1
    second: Tensor  # (B, 3, H, W)
    flow: Tensor  # (2B, 2, H, W) from first to second, then from second to first
    known: Tensor  # (2B, H, W) bool: the way back confirms it

    def mirrored(self) -> FlowPairs:
        """The pairs as a mirror shows them."""
        sign = self.flow.new_tensor([-1.0, 1.0])[:, None, None]
        return FlowPairs(
            self.first.flip(-1), self.second.flip(-1), self.flow.flip(-1) * sign, self.known.flip(-1)
        )  # fmt: skip

    def halved(self) -> FlowPairs:
        """The pairs at half of the resolution; flow is known where it was in all of a pixel's four."""
        first, second, flow = (F.avg_pool2d(x, 2) for x in (self.first, self.second, self.flow / 2))
        return FlowPairs(first, second, flow, F.avg_pool2d(self.known[:, None].float(), 2)[:, 0] == 1)


class TaughtFlow:
    """Pairs of the batches' images with the teacher's flow; each serves several steps, in other colours."""

    def __init__(self, teacher: FlowTeacher, seed: tuple[int, int]) -> None:
        self.teacher, self.rng = teacher, np.random.default_rng(seed)
        self.kept: list[FlowPairs] = []

    def pairs(self, make_batch: Callable[[int], Batch], step: int) -> FlowPairs:
        """Pairs for a step; of every REUSED-th step, make_batch(step) is called for new ones."""
        if step % REUSED == 0 or not self.kept:
            self.kept = [*self.kept[1 - KEPT :], self._taught(make_batch(step))]
        chosen = self.kept[int(self.rng.integers(len(self.kept)))]
        if self.rng.random() < 0.5:
            chosen = chosen.mirrored()
        if self.rng.random() < HALVED:
            chosen = chosen.halved()
        first, second = _as_two_cameras(chosen.first), _as_two_cameras(chosen.second)
        return FlowPairs(first, second, chosen.flow, chosen.known)

    @torch.no_grad()
    def _taught(self, batch: Batch) -> FlowPairs:
        """Source images beside their references, or beside one of the later views."""
        count = len(batch.images)
        later = torch.from_numpy(self.rng.integers(1, batch.images.shape[1], count)).to(batch.images.device)
        others = batch.images[torch.arange(count, device=later.device), later]
        beside = torch.from_numpy(self.rng.random(count) < 0.5).to(later.device) & batch.has_reference
        first = batch.images[:, 0]
        second = torch.where(beside[:, None, None, None], batch.reference, others)
        half = first.device.type == "cuda"
        with torch.autocast(first.device.type, torch.float16, enabled=half):
            there, back = self.teacher.network(first, second)
        there, back = there.float(), back.float()
        known = [is_there_and_back(a, b) for a, b in (*zip(there, back), *zip(back, there))]
        return FlowPairs(first, second, torch.cat((there, back)), torch.stack(known))


def _as_two_cameras(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) of other brightness and contrast, and with noise, drawn for each of them."""

    def drawn() -> Tensor:
        return BRIGHTNESS * (2 * torch.rand(len(images), 1, 1, 1, device=images.device) - 1)

    changed = (images.clamp(min=1e-4) ** drawn().exp() * drawn().exp()).clamp(0, 1)
    return changed + NOISE * torch.rand(len(images), 1, 1, 1, device=images.device) * torch.randn_like(images)


def flow_loss(network: nn.Module, pairs: FlowPairs) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a network (OpticalFlow) and its parts; outliers count less (Sun et al. 2018)."""
    with torch.autocast(pairs.first.device.type, torch.bfloat16, enabled=pairs.first.is_cuda):
        estimates: list[Tensor] = network(pairs.first, pairs.second)
    weight = torch.where(pairs.known, 1.0, OCCLUDED)
    weight, size = weight / weight.sum(), pairs.flow.shape[-2:]
    total, share = pairs.flow.new_zeros(()), 1.0
    for estimate in reversed(estimates):
        whole = F.interpolate(estimate.float(), size, mode="bilinear", align_corners=False)
        error = (whole * (size[1] / estimate.shape[-1]) - pairs.flow).square().sum(1).add(1e-4)
        total = total + share * (weight * error**0.35).sum()
        share *= EARLIER
    last = (estimates[-1].detach().float() - pairs.flow).norm(dim=1)
    known = pairs.known.float()
    return total, {"flow": total.detach(), "pixels": (last * known).sum() / known.sum().clamp(min=1)}
