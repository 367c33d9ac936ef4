"""The network: one canvas in, per-pixel maps of geometry, appearance, objects and motion out.

A U-Net on an EfficientNet-Lite2 encoder (static branch), and a smaller decoder that turns the bottleneck and a latent
into motion (dynamic branch): a conditional VAE as in Pixel-to-4D (arXiv 2601.00678), whose posterior sees a later
frame.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.predictor.encoder import FEATURE_CHANNELS, Encoder
from pixel4d_ros.predictor.posterior import Latent, Later, Posterior

SENSOR_CHANNELS = 2  # measured depth, and where there is any
SPEED_CHANNELS = 2  # the camera's forward speed, and whether it is known
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
PARTS = ("hidden", "padding", "motion", "latent")  # what can be left out
OFF = -30.0  # logit of what is switched off
MOTION_CHANNELS = 12  # v, a, w, a_w
LATENT_CHANNELS = MOTION_CHANNELS  # how many spreads each part of the motion is off its mode
MIN_DEPTH, MAX_DEPTH = 0.5, 250.0  # canonical metres
LOG_DEPTH_MEAN, LOG_DEPTH_SPREAD = 2.5, 1.3  # of scenes, for inputs of about unit size
SPEED_SCALE = 10.0  # m/s
_WIDTHS = (48, 64, 96, 128, 192)  # decoder channels at strides 2, 4, 8, 16, 32
_FULL = 32


@dataclass(frozen=True)
class PixelMaps:
    """Raw network outputs on the canvas (B images, S samples)."""

    static: dict[str, Tensor]  # (B, C, H, W) each, of STATIC_MAPS
    objects: dict[str, Tensor]  # (B, C, H/4, W/4) each, of OBJECT_MAPS
    motion: Tensor  # (B, S, 12, H/4, W/4)
    mode: Tensor  # (B, 12, H/4, W/4): the likeliest motion
    spread: Tensor  # the same shape: mean absolute deviation from it

    def float(self) -> PixelMaps:
        """The same in float32."""
        static, objects = ({name: t.float() for name, t in maps.items()} for maps in (self.static, self.objects))
        return PixelMaps(static, objects, self.motion.float(), self.mode.float(), self.spread.float())


@dataclass(frozen=True)
class Source:
    """What the network is given of B images on their canvases."""

    image: Tensor  # (B, 3, H, W) float 0..1
    inside: Tensor  # (B, 1, H, W): 1 where the camera saw, 0 in the padding
    rays: Tensor  # (B, 2, H, W): x / z and y / z, in canonical units
    sensor: Tensor | None  # (B, 2, H, W): scaled log of measured depth, 0 where unknown; and 1 where known
    speed: Tensor  # (B, 2): forward speed in units of SPEED_SCALE, 0 where unknown; and 1 where known

    def to(self, dtype: torch.dtype) -> Source:
        """The same in another precision."""
        sensor = None if self.sensor is None else self.sensor.to(dtype)
        return Source(self.image.to(dtype), self.inside.to(dtype), self.rays.to(dtype), sensor, self.speed.to(dtype))


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
    """Features, rays, depth -> maps at full resolution, plus the inner features that the dynamic branch goes on from.

    Measured depth enters at every level, averaged over what each of its pixels covers, so that sparse points spread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bottleneck = _block(FEATURE_CHANNELS[4] + 2 + SENSOR_CHANNELS, _WIDTHS[4])
        self.levels = nn.ModuleList(
            _block(_WIDTHS[i + 1] + FEATURE_CHANNELS[i] + SENSOR_CHANNELS, _WIDTHS[i]) for i in range(3, -1, -1)
        )
        self.full = nn.Sequential(
            nn.Conv2d(_WIDTHS[0] + 6 + SENSOR_CHANNELS, _FULL, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_FULL, _FULL, 3, padding=1),
            nn.SiLU(),
        )
        self.head = nn.Conv2d(_FULL, sum(STATIC_MAPS.values()), 3, padding=1)
        self.objects = nn.Conv2d(_WIDTHS[1], sum(OBJECT_MAPS.values()), 3, padding=1)
        _start_heads(self)

    def forward(self, source: Source, features: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        nothing = source.image.new_zeros(len(source.image), SENSOR_CHANNELS, *source.image.shape[2:])
        sensor = nothing if source.sensor is None else source.sensor
        depths = (
            [nothing[..., ::s, ::s] for s in (2, 4, 8, 16, 32)] if source.sensor is None else sensor_pyramid(sensor)
        )
        coarse_rays = F.interpolate(source.rays, features[4].shape[-2:], mode="bilinear", align_corners=False)
        x = bottleneck = self.bottleneck(torch.cat((features[4], coarse_rays, depths[4]), 1))
        quarter = x
        for level, i in zip(self.levels, range(3, -1, -1)):
            x = level(torch.cat((_up(x), features[i], depths[i]), 1))
            if i == 1:
                quarter = x
        full = self.full(torch.cat((_up(x), source.image, source.inside, source.rays, sensor), 1))
        return self.head(full), self.objects(quarter), bottleneck, quarter


class DynamicDecoder(nn.Module):
    """Bottleneck, speed and quarter resolution features -> the likeliest motion and its spread; a latent -> a choice.

    Motion maps are mode + spread * z, (B, 12, H/4, W/4). A decoder that may mix the latent in as it likes learns to do
    without it; here the latent is the only way to what the image does not tell. The camera's speed tells much about the
    traffic around it, of which one image says little.
    """

    def __init__(self) -> None:
        super().__init__()
        self.static = nn.Conv2d(_WIDTHS[4] + SPEED_CHANNELS, 96, 3, padding=1)
        self.inner = _block(96, 96)
        self.quarter = _block(96 + _WIDTHS[1], 64)
        self.head = nn.Conv2d(64, 2 * MOTION_CHANNELS, 3, padding=1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)

    def forward(self, bottleneck: Tensor, quarter: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
        """The mode and the spread of motion, (B, 12, H/4, W/4) each."""
        everywhere = speed[:, :, None, None].expand(-1, -1, *bottleneck.shape[-2:])
        x = self.inner(_up(self.static(torch.cat((bottleneck, everywhere), 1))))
        x = F.interpolate(x, quarter.shape[-2:], mode="bilinear", align_corners=False)
        mode, spread = self.head(self.quarter(torch.cat((x, quarter), 1))).chunk(2, 1)
        return mode, F.softplus(spread - 1)


def choose_motion(mode: Tensor, spread: Tensor, z: Tensor) -> Tensor:
    """The motion (B, 12, H/4, W/4) that the latent z (B, LATENT_CHANNELS, H/32, W/32) chooses."""
    return mode + spread * F.interpolate(z, mode.shape[-2:], mode="bilinear", align_corners=False)


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
        return quick if dtype == torch.float32 else quick.to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

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
        raw, objects, bottleneck, quarter = self.static(source, features)
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
        mode, spread = self.dynamic(bottleneck, quarter, source.speed)
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


def sensor_pyramid(sensor: Tensor) -> list[Tensor]:
    """Measured depth (B, 2, H, W) at strides 2, 4, ... 32: mean over the known pixels of a cell, if there are any."""
    total, share = sensor.split(1, 1)
    levels = []
    for _ in range(5):
        total, share = F.avg_pool2d(total, 2), F.avg_pool2d(share, 2)
        levels.append(torch.cat((total / share.clamp(min=1e-6), (share > 0).to(share.dtype)), 1))
    return levels


def decode_depth(logit: Tensor) -> Tensor:
    """Canonical depth between the limits; the logit is linear in log depth, so that relative errors count alike."""
    low, high = math.log(MIN_DEPTH), math.log(MAX_DEPTH)
    return torch.exp(low + (high - low) * torch.sigmoid(logit))


def encode_sensor(depth: Tensor, depth_scale: Tensor) -> Tensor:
    """Measured depth (B, H, W) in metres, 0 or not finite where unknown -> the network's input (B, 2, H, W).

    depth_scale (B,) metres per canonical metre.
    """
    canonical = depth / depth_scale[:, None, None]
    known = torch.isfinite(depth) & (canonical > MIN_DEPTH / 2) & (canonical < MAX_DEPTH)
    log_depth = torch.log(torch.where(known, canonical, torch.ones_like(canonical)))
    return torch.stack(((log_depth - LOG_DEPTH_MEAN) / LOG_DEPTH_SPREAD * known, known.to(depth.dtype)), 1)


def encode_speed(speed: Tensor) -> Tensor:
    """Forward speeds (B,) in m/s, NaN where unknown -> the network's input (B, 2)."""
    known = torch.isfinite(speed)
    return torch.stack((torch.where(known, speed / SPEED_SCALE, torch.zeros_like(speed)), known.to(speed.dtype)), 1)


def latent_shape(width: int, height: int) -> tuple[int, int, int]:
    """Shape (C, H/32, W/32) of one latent for a canvas of width x height pixels."""
    return LATENT_CHANNELS, height // 32, width // 32


def _start_heads(decoder: StaticDecoder) -> None:
    """Start far, opaque, still and without objects: what most pixels are."""
    starts = {"depth": 0.8, "size": -1.0, "opacity": 3.0, "hidden_depth": 0.0, "hidden_opacity": 0.0, "mobility": -4.0}
    static = [starts.get(name, 0.0) for name, channels in STATIC_MAPS.items() for _ in range(channels)]
    objects = [-4.0, 0.0, 0.0]  # no centres, no votes
    with torch.no_grad():
        for head, bias in ((decoder.head, static), (decoder.objects, objects)):
            head.weight.mul_(0.1)
            head.bias = nn.Parameter(torch.tensor(bias))
