"""The network: one canvas in, per-pixel maps of geometry, appearance, objects and motion out.

A U-Net on an EfficientNet-Lite2 encoder (static branch), and a smaller decoder that turns the bottleneck and a latent
into motion (dynamic branch): a conditional VAE as in Pixel-to-4D (arXiv 2601.00678), whose posterior sees a later
frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.predictor.canvas import CANONICAL_FOCAL
from pixel4d_ros.predictor.encoder import FEATURE_CHANNELS, Encoder

LATENT_CHANNELS = 8
STATIC_MAPS = {
    "depth": 1,  # logit of log depth between the limits
    "size": 1,  # logit of the visible Gaussian's size in pixels
    "opacity": 1,
    "border_color": 3,  # correction of the mirrored colours in the padding
    "hidden_depth": 1,  # log of how far the hidden layer lies behind the visible one
    "hidden_opacity": 1,
    "hidden_color": 3,
    "mobility": 1,  # logit: moves on its own
}
OBJECT_MAPS = {"center": 1, "offset": 2}  # at a quarter of the resolution: object centres, and votes for them
MOTION_CHANNELS = 12  # v, a, w, a_w
_WIDTHS = (48, 64, 96, 128, 192)  # decoder channels at strides 2, 4, 8, 16, 32
_FULL = 32


@dataclass(frozen=True)
class PixelMaps:
    """Raw network outputs on the canvas (B images, S samples)."""

    static: dict[str, Tensor]  # (B, C, H, W) each, of STATIC_MAPS
    objects: dict[str, Tensor]  # (B, C, H/4, W/4) each, of OBJECT_MAPS
    motion: Tensor  # (B, S, 12, H/4, W/4)


@dataclass(frozen=True)
class Latent:
    """Diagonal Gaussian over the latent (B, LATENT_CHANNELS, H/32, W/32)."""

    mean: Tensor
    log_variance: Tensor

    def draw(self) -> Tensor:
        return self.mean + torch.randn_like(self.mean) * (0.5 * self.log_variance).exp()


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


def _up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class StaticDecoder(nn.Module):
    """Features and rays -> maps at full resolution, plus the inner features that the dynamic branch goes on from."""

    def __init__(self) -> None:
        super().__init__()
        self.bottleneck = _block(FEATURE_CHANNELS[4] + 2, _WIDTHS[4])
        self.levels = nn.ModuleList(_block(_WIDTHS[i + 1] + FEATURE_CHANNELS[i], _WIDTHS[i]) for i in range(3, -1, -1))
        self.full = nn.Sequential(
            nn.Conv2d(_WIDTHS[0] + 6, _FULL, 3, padding=1), nn.SiLU(), nn.Conv2d(_FULL, _FULL, 3, padding=1), nn.SiLU()
        )
        self.head = nn.Conv2d(_FULL, sum(STATIC_MAPS.values()), 3, padding=1)
        self.objects = nn.Conv2d(_WIDTHS[1], sum(OBJECT_MAPS.values()), 3, padding=1)
        _start_heads(self)

    def forward(self, image: Tensor, inside: Tensor, rays: Tensor, features: list[Tensor]) -> tuple[Tensor, ...]:
        coarse_rays = F.interpolate(rays, features[4].shape[-2:], mode="bilinear", align_corners=False)
        x = bottleneck = self.bottleneck(torch.cat((features[4], coarse_rays), 1))
        quarter = x
        for level, skip in zip(self.levels, features[3::-1]):
            x = level(torch.cat((_up(x), skip), 1))
            if skip is features[1]:
                quarter = x
        full = self.full(torch.cat((_up(x), image, inside, rays), 1))
        return self.head(full), self.objects(quarter), bottleneck, quarter


class DynamicDecoder(nn.Module):
    """Bottleneck, latent and quarter resolution features -> motion maps (B, 12, H/4, W/4)."""

    def __init__(self) -> None:
        super().__init__()
        self.static = nn.Conv2d(_WIDTHS[4], 96, 3, padding=1)
        self.latent = nn.Sequential(nn.Conv2d(LATENT_CHANNELS, 96, 3, padding=1), nn.SiLU(), nn.Conv2d(96, 96, 1))
        self.inner = _block(96, 96)
        self.quarter = _block(96 + _WIDTHS[1], 64)
        self.head = nn.Conv2d(64, MOTION_CHANNELS, 3, padding=1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)

    def forward(self, bottleneck: Tensor, quarter: Tensor, z: Tensor) -> Tensor:
        x = self.inner(_up(self.static(bottleneck) + self.latent(z)))
        x = F.interpolate(x, quarter.shape[-2:], mode="bilinear", align_corners=False)
        return self.head(self.quarter(torch.cat((x, quarter), 1)))


class Network(nn.Module):
    """Canvas (B, 3, H, W) float 0..1 -> PixelMaps. The prior of the latent is the unit Gaussian."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.static = StaticDecoder()
        self.dynamic = DynamicDecoder()
        self.posterior_head = nn.Sequential(
            nn.Conv2d(2 * FEATURE_CHANNELS[4], 128, 1), nn.SiLU(), nn.Conv2d(128, 2 * LATENT_CHANNELS, 3, padding=1)
        )

    def forward(
        self,
        image: Tensor,
        inside: Tensor,
        rays: Tensor,
        z: Tensor | None = None,
        later: Tensor | None = None,
        use_prior: Tensor | None = None,
    ) -> tuple[PixelMaps, Latent | None]:
        """One pass.

        image (B, 3, H, W); inside (B, 1, H, W): 1 where the camera saw, 0 in the padding; rays (B, 2, H, W): x / z
        and y / z. z (B, S, LATENT_CHANNELS, H/32, W/32) samples the prior; or later (B, 3, H, W), a later frame,
        samples the posterior (training only), which is returned. Where use_prior (B,) is true the latent is the
        prior's mode instead, so that the mode is trained too: it is the sample 0 that everybody sees.
        """
        features = self.encoder(image)
        posterior = None
        if later is not None:
            with torch.no_grad():
                future = self.encoder(later)[4]
            mean, log_variance = self.posterior_head(torch.cat((features[4], future), 1)).chunk(2, 1)
            posterior = Latent(mean, log_variance.clamp(-8, 8))
            drawn = posterior.draw()
            if use_prior is not None:
                drawn = torch.where(use_prior[:, None, None, None], torch.zeros_like(drawn), drawn)
            z = drawn[:, None]
        if z is None:
            raise ValueError("the network needs either latents z or a later frame")
        static, objects, bottleneck, quarter = self.static(image, inside, rays, features)
        samples = [self.dynamic(bottleneck, quarter, z[:, s]) for s in range(z.shape[1])]
        maps = PixelMaps(
            dict(zip(STATIC_MAPS, static.split(list(STATIC_MAPS.values()), 1))),
            dict(zip(OBJECT_MAPS, objects.split(list(OBJECT_MAPS.values()), 1))),
            torch.stack(samples, 1),
        )
        return maps, posterior


def latent_shape(width: int, height: int) -> tuple[int, int, int]:
    """Shape (C, H/32, W/32) of one latent for a canvas of width x height pixels."""
    return LATENT_CHANNELS, height // 32, width // 32


def canvas_rays(K: Tensor, width: int, height: int) -> Tensor:
    """Rays (B, 2, H, W) of canvas cameras K (B, 3, 3), in canonical units: a zoomed image looks like any other."""
    x = (torch.arange(width, device=K.device) - K[:, 0, 2, None]) / CANONICAL_FOCAL
    y = (torch.arange(height, device=K.device) - K[:, 1, 2, None]) / CANONICAL_FOCAL
    return torch.stack((x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)), 1)


def _start_heads(decoder: StaticDecoder) -> None:
    """Start far, opaque, still and without objects: what most pixels are."""
    starts = {"depth": 0.8, "size": -1.0, "opacity": 3.0, "hidden_depth": 0.0, "hidden_opacity": 0.0, "mobility": -4.0}
    static = [starts.get(name, 0.0) for name, channels in STATIC_MAPS.items() for _ in range(channels)]
    objects = [-4.0, 0.0, 0.0]  # no centres, no votes
    with torch.no_grad():
        for head, bias in ((decoder.head, static), (decoder.objects, objects)):
            head.weight.mul_(0.1)
            head.bias = nn.Parameter(torch.tensor(bias))
