# SPDX-License-Identifier: Apache-2.0
"""The network: one image, and perhaps a reference image, in; maps of geometry, appearance, objects and motion out.

Two U-Nets on EfficientNet-Lite2 encoders. The first sees the input view and has a static decoder (coarse depth,
mobility) and a dynamic decoder (objects and their motion: a conditional VAE as in Pixel-to-4D, arXiv 2601.00678, whose
posterior sees a later frame). The second, the surface branch (surface.py), sees the same view at up to twice the
resolution and predicts sharp depth, opacity, size and the hidden surface. The large structure of depth is both
branches'. With a reference image a plane sweep (plane_sweep.py) corrects it. The movable decoder (movable.py) finds
vehicles and people in the surface branch's features. Optical flow (optical_flow.py) is a network of its own, which the
predictor asks beside this one.
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
    MOVABLE_MAPS,
    OBJECT_MAPS,
    STATIC_MAPS,
    STATIC_STARTS,
    NetworkInput,
    PixelMaps,
    ReferenceInput,
    channels_last,
    decode_depth,
    decode_log_depth,
    named_maps,
)
from pixel4d_ros.predictor.latent import Latent, Later, Posterior
from pixel4d_ros.predictor.movable import MovableDecoder, distance_shift
from pixel4d_ros.predictor.optical_flow import OpticalFlow
from pixel4d_ros.predictor.plane_sweep import DESCRIBED_LEVELS, PlaneSweep
from pixel4d_ros.predictor.surface import SurfaceNetwork, blend_structure, surface_maps


def choose_motion(mode: Tensor, spread: Tensor, z: Tensor) -> Tensor:
    """The motions (B, S, 12, H/4, W/4) that latents z (B, S, LATENT_CHANNELS, H/32, W/32) choose.

    mode and spread (B, 12, H/4, W/4); spread is the mean absolute deviation of a Laplace distribution, whose standard
    deviation is sqrt(2) times that.
    """
    fine = F.interpolate(z.flatten(0, 1), mode.shape[-2:], mode="bilinear", align_corners=False)
    return mode[:, None] + math.sqrt(2) * spread[:, None] * torch.unflatten(fine, 0, z.shape[:2])


class Network(nn.Module):
    """Input view and finer view -> (PixelMaps, Latent or None). The prior of the latent is the unit Gaussian."""

    def __init__(self) -> None:
        super().__init__()
        self.precision: torch.dtype | None = None  # of what follows the encoder; None: the encoder's
        self.encoder = Encoder()
        self.static = StaticDecoder(STATIC_STARTS)
        self.dynamic = DynamicDecoder()
        self.posterior = Posterior(LATENT_CHANNELS)
        self.surface = SurfaceNetwork()
        self.sweep = PlaneSweep()
        self.movable = MovableDecoder()
        self.flow = OpticalFlow()

    def for_inference(self, dtype: torch.dtype, in_place: bool = False) -> Network:
        """A copy, for float32 sources, that computes the same in fewer steps; it cannot be trained.

        in_place: this network itself, which takes neither the time (0.3 s on a CPU) nor the memory of a copy.
        Everything after the encoders runs in this precision. The encoders stay in float32: their rounding errors show
        on near surfaces ten times more than those of all later layers.
        """
        quick = (self if in_place else copy.deepcopy(self)).eval()
        quick.encoder.fold()
        quick.surface.encoder.fold()
        parts: list[tuple[Any, torch.dtype]] = [
            (quick.static, dtype), (quick.dynamic, dtype), (quick.surface.decoder, dtype),
            (quick.sweep, dtype), (quick.movable, dtype), (quick.flow, dtype),
        ]  # fmt: skip
        if next(self.parameters()).device.type == "cpu":  # where that was measured: 170 to 125 ms
            parts += [(quick.encoder, torch.float32), (quick.surface.encoder, torch.float32)]
        for part, precision in parts:
            if precision != torch.float32:
                fuse_norms(part)
            part.to(precision, memory_format=torch.channels_last)
        quick.precision = quick.surface.precision = dtype
        return quick

    def coarse_depth(self, source: NetworkInput) -> Tensor:
        """Canonical depth (B, 1, H, W) of the static branch alone."""
        maps = named_maps(self.static(source, self.encoder(source.image)), STATIC_MAPS)
        return decode_depth(maps["depth"])

    def forward(
        self,
        source: NetworkInput,
        fine: NetworkInput,
        z: Tensor | None = None,
        later: Later | None = None,
        use_prior: Tensor | None = None,
        group: Callable[[dict[str, Tensor]], Tensor] | None = None,
        reference: ReferenceInput | None = None,
        disturb: Callable[[Tensor], Tensor] | None = None,
        surface_share: Tensor | None = None,
    ) -> tuple[PixelMaps, Latent | None]:
        """One pass. fine: the same image, twice as large or as it is, for the surface branch.

        reference: an earlier image, by which depth is corrected. disturb: what training does to the log depth first.
        surface_share: see blend_structure.

        z (B, S, LATENT_CHANNELS, H/32, W/32) samples the prior, without it there is one sample, the prior's mode; or a
        later frame samples the posterior (training only), which is returned. Where use_prior (B,) is true the latent is
        the prior's mode instead, so that the mode is trained too: it is the sample 0 that everybody sees. What group
        makes of the object maps it makes beside the longer work on the others.
        """
        features = self.encoder(source.image)
        if self.precision is not None:
            source, features = source.to(self.precision), [channels_last(f, self.precision) for f in features]
        sensor, depths = measured(source)
        bottleneck, quarter = self.static.coarse(source, features, depths)

        def move() -> tuple[dict[str, Tensor], Tensor | None, Tensor, Tensor]:
            maps, mode, spread = self.dynamic(bottleneck, quarter, features, source.speed)
            objects = named_maps(maps, OBJECT_MAPS)
            return objects, None if group is None else group(objects), mode, spread

        def look() -> tuple[dict[str, Tensor], list[Tensor], dict[str, Tensor]]:
            detail, fine_features = self.surface(fine)
            return detail, fine_features, named_maps(self.movable(fine_features, fine.rays), MOVABLE_MAPS)

        static, (objects, nearest_center_ids, mode, spread), (detail, fine_features, movable), there = concurrently(
            lambda: named_maps(self.static.fine(source, sensor, features, depths, quarter), STATIC_MAPS),
            move,
            look,
            lambda: None if reference is None else self.surface.described(reference.image, DESCRIBED_LEVELS),
        )
        log_depth, correction = decode_log_depth(static["depth"]), None
        log_depth = blend_structure(log_depth, detail, source.sensor, surface_share)
        log_depth = log_depth if disturb is None else disturb(log_depth)
        if reference is not None:
            correction = self.sweep(fine.image, fine_features, reference, there, log_depth)
        vehicles = distance_shift(movable, log_depth).detach()
        surface = surface_maps(detail, log_depth, vehicles, source.sensor, correction)
        size = source.image.shape[-2:]
        coarse = F.interpolate(objects["mobility"], size, mode="bilinear", align_corners=False)
        static["mobility"] = static["mobility"] + coarse
        posterior = None
        if later is not None:
            posterior = self.posterior(features[1], decode_depth(static["depth"].detach()), later)
            drawn = posterior.draw()
            if use_prior is not None:
                drawn = torch.where(use_prior[:, None, None, None], torch.zeros_like(drawn), drawn)
            z = drawn[:, None]
        if use_prior is not None:
            # The mode is trained where no latent is used; elsewhere the latent must explain the mode's error.
            mode = torch.where(use_prior[:, None, None, None], mode, mode.detach())
        motion = mode[:, None] if z is None else choose_motion(mode, spread.detach(), z)
        maps = PixelMaps(static, surface, objects, motion, mode, spread, movable, nearest_center_ids, correction)
        return maps, posterior
