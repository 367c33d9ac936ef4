# SPDX-License-Identifier: Apache-2.0
"""The network: one image, and perhaps a reference image, in; maps of geometry, appearance, objects and motion out.

A U-Net on an EfficientNet-Lite2 encoder (static branch), and a smaller decoder beside it that finds objects and turns a
latent into their motion (dynamic branch): a conditional VAE as in Pixel-to-4D (arXiv 2601.00678), whose posterior sees
a later frame.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.predictor.cuda_graphs import concurrently
from pixel4d_ros.predictor.decoders import DynamicDecoder, StaticDecoder, fuse_norms, measured
from pixel4d_ros.predictor.encoder import Encoder
from pixel4d_ros.predictor.heads import (
    LATENT_CHANNELS,
    OBJECT_MAPS,
    STATIC_MAPS,
    DepthModes,
    NetworkInput,
    PixelMaps,
    TwoViewMaps,
    behind,
    channels_last,
    decode_log_depth,
    named_maps,
)
from pixel4d_ros.predictor.latent import Latent, Later, Posterior
from pixel4d_ros.predictor.matching import Descriptor, MotionEvidence, PlaneSweep

DESCRIBED_LEVELS = 3  # of the encoder's features, that the reference image is described by


def choose_motion(mode: Tensor, spread: Tensor, z: Tensor) -> Tensor:
    """The motions (B, S, 12, H/4, W/4) that latents z (B, S, LATENT_CHANNELS, H/32, W/32) choose.

    mode and spread (B, 12, H/4, W/4); spread is the mean absolute deviation of a Laplace distribution, whose standard
    deviation is sqrt(2) times that.
    """
    fine = F.interpolate(z.flatten(0, 1), mode.shape[-2:], mode="bilinear", align_corners=False)
    return mode[:, None] + math.sqrt(2) * spread[:, None] * fine.unflatten(0, z.shape[:2])


class Network(nn.Module):
    """NetworkInput -> PixelMaps. The prior of the latent is the unit Gaussian."""

    def __init__(self) -> None:
        super().__init__()
        self.precision: torch.dtype | None = None  # of what follows the encoder; None: whatever that gives
        self.encoder = Encoder()
        self.static = StaticDecoder()
        self.dynamic = DynamicDecoder()
        self.descriptor = Descriptor()
        self.sweep = PlaneSweep()
        self.evidence = MotionEvidence()
        self.posterior = Posterior(LATENT_CHANNELS)

    def for_inference(self, dtype: torch.dtype) -> Network:
        """A copy, for float32 sources, that computes the same in fewer steps; it cannot be trained.

        What follows the encoder has this precision. The encoder stays in float32: a surface that comes near shows
        what is rounded there, and all later parts together a tenth of that.
        """
        quick = copy.deepcopy(self).eval()
        quick.encoder = quick.encoder.folded()
        parts: list[tuple[Any, torch.dtype]] = [
            (part, dtype) for part in (quick.static, quick.dynamic, quick.descriptor, quick.sweep, quick.evidence)
        ]
        if next(self.parameters()).device.type == "cpu":  # where that was measured: 170 to 125 ms
            parts.append((quick.encoder, torch.float32))
        for part, precision in parts:
            if precision != torch.float32:
                fuse_norms(part)
            part.to(precision, memory_format=torch.channels_last)
        quick.precision = dtype
        return quick

    @torch.no_grad()
    def depth(self, source: NetworkInput) -> Tensor:
        """Canonical depth (B, 1, H, W) from the source image alone."""
        features = self.encoder(source.image)
        sensor, depths = measured(source)
        _, quarter = self.static.coarse(source, features, depths)
        static = named_maps(self.static.fine(source, sensor, features, depths, quarter), STATIC_MAPS)
        return DepthModes.of(static).most_likely()[0].exp()

    def forward(
        self,
        source: NetworkInput,
        z: Tensor | None = None,
        later: Later | None = None,
        use_prior: Tensor | None = None,
        group: Callable[[dict[str, Tensor]], Tensor] | None = None,
    ) -> tuple[PixelMaps, Latent | None]:
        """One pass.

        z (B, S, LATENT_CHANNELS, H/32, W/32) samples the prior, without it there is one sample, the prior's mode; or a
        later frame samples the posterior (training only), which is returned. Where use_prior (B,) is true the latent is
        the prior's mode instead, so that the mode is trained too: it is the sample 0 that everybody sees. What group
        makes of the object maps it makes beside the longer work on the others.
        """
        reference = source.reference
        features, seen = concurrently(
            lambda: self.encoder(source.image),
            lambda: None if reference is None else self.encoder(reference.image, DESCRIBED_LEVELS),
        )
        if self.precision is not None:
            source, features = source.to(self.precision), [channels_last(f, self.precision) for f in features]
            seen = None if seen is None else [channels_last(f, self.precision) for f in seen]
        sensor, depths = measured(source)
        static_features, here, there, plane_logits = features, None, None, None
        if reference is not None and seen is not None:
            here, there = self.descriptor(*features[1:3]), self.descriptor(*seen[1:3])
            added, plane_logits = self.sweep(here, there, reference)
            static_features = [features[0], *(f + a for f, a in zip(features[1:4], added)), features[4]]
        bottleneck, quarter = self.static.coarse(source, static_features, depths)

        def move() -> tuple[dict[str, Tensor], Tensor | None, Tensor, Tensor, TwoViewMaps | None]:
            evidence, two_view = None, None
            if reference is not None and here is not None and there is not None and plane_logits is not None:
                coarse = decode_log_depth(self.static.coarse_depth(quarter).float())
                evidence, flow = self.evidence(here, there, coarse.detach(), reference)
                two_view = TwoViewMaps(plane_logits.float(), coarse, flow, reference.valid)
            maps, mode, spread = self.dynamic(bottleneck, quarter, features, source.speed, evidence)
            objects = named_maps(maps, OBJECT_MAPS)
            return objects, None if group is None else group(objects), mode, spread, two_view

        static, (objects, nearest, mode, spread, two_view) = concurrently(
            lambda: named_maps(self.static.fine(source, sensor, static_features, depths, quarter), STATIC_MAPS), move
        )
        size = source.image.shape[-2:]
        for name in ("mobility", "object"):
            static[name] = static[name] + F.interpolate(objects[name], size, mode="bilinear", align_corners=False)
        log_depth, depth_scale = DepthModes.of(static).most_likely()
        depth = log_depth.exp()
        posterior = None
        if later is not None:
            posterior = self.posterior(features[1], depth.detach(), later)
            drawn = posterior.draw()
            if use_prior is not None:
                drawn = torch.where(use_prior[:, None, None, None], torch.zeros_like(drawn), drawn)
            z = drawn[:, None]
        if use_prior is not None:
            # The mode learns where it stands alone; elsewhere the latent shall explain what the mode misses.
            mode = torch.where(use_prior[:, None, None, None], mode, mode.detach())
        motion = mode[:, None] if z is None else choose_motion(mode, spread.detach(), z)
        hidden = behind(log_depth.detach(), decode_log_depth(static["hidden_depth"])).exp()
        maps = PixelMaps(static, depth, depth_scale, hidden, objects, motion, mode, spread, two_view, nearest)
        return maps, posterior
