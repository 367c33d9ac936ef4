"""The network: one canvas in, per-pixel maps of geometry, appearance, objects and motion out.

A U-Net on an EfficientNet-Lite2 encoder (static branch), and a smaller decoder that turns the bottleneck and a latent
into motion (dynamic branch): a conditional VAE as in Pixel-to-4D (arXiv 2601.00678), whose posterior sees a later
frame.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.predictor.decoders import DynamicDecoder, StaticDecoder, measured, quicken_norms
from pixel4d_ros.predictor.encoder import Encoder
from pixel4d_ros.predictor.graphs import concurrently
from pixel4d_ros.predictor.maps import LATENT_CHANNELS, OBJECT_MAPS, STATIC_MAPS, PixelMaps, Source, decode_depth
from pixel4d_ros.predictor.posterior import Latent, Later, Posterior

PARTS = ("hidden", "padding", "motion", "latent")  # what can be left out
OFF = -30.0  # logit of what is switched off


def choose_motion(mode: Tensor, spread: Tensor, z: Tensor) -> Tensor:
    """The motion (B, 12, H/4, W/4) that the latent z (B, LATENT_CHANNELS, H/32, W/32) chooses.

    spread is the mean absolute deviation of a Laplace distribution, whose standard deviation is sqrt(2) times that.
    """
    return mode + math.sqrt(2) * spread * F.interpolate(z, mode.shape[-2:], mode="bilinear", align_corners=False)


class Network(nn.Module):
    """Source -> PixelMaps. The prior of the latent is the unit Gaussian.

    without names PARTS that are switched off, in training and ever after: for ablations.
    """

    def __init__(self, without: Collection[str] = ()) -> None:
        super().__init__()
        unknown = set(without) - set(PARTS)
        if unknown:
            raise ValueError(f"unknown part {sorted(unknown)[0]!r} to leave out: choose from {', '.join(PARTS)}")
        self.without = frozenset(without)
        self.encoder = Encoder()
        self.static = StaticDecoder()
        self.dynamic = DynamicDecoder()
        self.posterior = Posterior(LATENT_CHANNELS)

    def for_inference(self, dtype: torch.dtype) -> Network:
        """A copy in this precision that computes the same in fewer steps; it cannot be trained."""
        quick = copy.deepcopy(self).eval()
        quick.encoder = quick.encoder.folded()
        if dtype != torch.float32:
            quicken_norms(quick)
        return quick.to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        source: Source,
        z: Tensor | None = None,
        later: Later | None = None,
        use_prior: Tensor | None = None,
    ) -> tuple[PixelMaps, Latent | None]:
        """One pass.

        z (B, S, LATENT_CHANNELS, H/32, W/32) samples the prior; or a later frame samples the posterior (training only),
        which is returned. Where use_prior (B,) is true the latent is the prior's mode instead, so that the mode is
        trained too: it is the sample 0 that everybody sees.
        """
        features = self.encoder(source.image)
        sensor, depths = measured(source)
        bottleneck, quarter = self.static.coarse(source, features, depths)
        raw, objects, (mode, spread) = concurrently(
            lambda: self.static.fine(source, sensor, features, depths, quarter),
            lambda: self.static.objects(quarter),
            lambda: self.dynamic(bottleneck, quarter, source.speed),
        )
        static = dict(zip(STATIC_MAPS, raw.split(list(STATIC_MAPS.values()), 1)))
        posterior = None
        if later is not None:
            posterior = self.posterior(features[1], decode_depth(static["depth"].detach().float()), later)
            drawn = posterior.draw()
            if use_prior is not None:
                drawn = torch.where(use_prior[:, None, None, None], torch.zeros_like(drawn), drawn)
            z = drawn[:, None]
        if z is None:
            raise ValueError("the network needs either latents z or a later frame")
        static = self._switched_off(static, source.inside)
        if "latent" in self.without:
            z = torch.zeros_like(z)
        if use_prior is not None:
            # The mode learns where it stands alone; elsewhere the latent shall explain what the mode misses.
            mode = torch.where(use_prior[:, None, None, None], mode, mode.detach())
        samples = [choose_motion(mode, spread.detach(), z[:, s]) for s in range(z.shape[1])]
        maps = PixelMaps(
            static,
            dict(zip(OBJECT_MAPS, objects.split(list(OBJECT_MAPS.values()), 1))),
            torch.stack(samples, 1),
            mode,
            spread,
        )
        return maps, posterior

    def _switched_off(self, static: dict[str, Tensor], inside: Tensor) -> dict[str, Tensor]:
        """The maps without what is left out: nothing hidden, nothing in the padding, nothing that moves."""
        static = dict(static)
        if "padding" in self.without:
            for name in ("opacity", "hidden_opacity"):
                static[name] = torch.where(inside > 0, static[name], torch.full_like(static[name], OFF))
        for part, name in (("hidden", "hidden_opacity"), ("motion", "mobility")):
            if part in self.without:
                static[name] = torch.full_like(static[name], OFF)
        return static
