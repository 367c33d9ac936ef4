# SPDX-License-Identifier: Apache-2.0
"""The network's decoders: features -> maps of what is there (static branch) and of how it moves (dynamic branch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.predictor import fused_operations
from pixel4d_ros.predictor.encoder import FEATURE_CHANNELS
from pixel4d_ros.predictor.heads import (
    MOTION_CHANNELS,
    OBJECT_MAPS,
    SENSOR_CHANNELS,
    SPEED_CHANNELS,
    NetworkInput,
)
from pixel4d_ros.rendering import triton_kernels

_WIDTHS = (48, 64, 96, 128, 192)  # decoder channels at strides 2, 4, 8, 16, 32
_FULL = 32
_DYNAMIC_WIDTHS = (128, 128, 96, 64)  # at strides 32, 16, 8, 4


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, each with a norm and SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


class FusedGroupNormSiLU(nn.Module):
    """GroupNorm and SiLU of one image with its channels last, which torch's own would copy to channels first and back.

    Inference only.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        self.weight, self.bias = (nn.Parameter(p.view(1, norm.num_groups, -1)) for p in (norm.weight, norm.bias))

    def forward(self, x: Tensor) -> Tensor:
        if triton_kernels.is_available(x.device):
            return fused_operations.group_norm_silu(x, self.groups, self.weight, self.bias, self.eps)
        pixels = torch.unflatten(x.permute(0, 2, 3, 1), 3, (self.groups, -1))
        variance, mean = torch.var_mean(pixels, (1, 2, 4), correction=0)
        scale = self.weight * torch.rsqrt(variance + self.eps)[..., None]
        shift = torch.addcmul(self.bias, scale, mean[..., None], value=-1)
        return F.silu(torch.addcmul(shift.view(1, -1, 1, 1), x, scale.view(1, -1, 1, 1)))


def fuse_norms(module: nn.Module) -> None:
    """Put FusedGroupNormSiLU in place of every GroupNorm with a SiLU behind it."""
    for layers in list(module.modules()):
        if isinstance(layers, nn.Sequential):
            for i in range(len(layers) - 1):
                norm = layers[i]
                if isinstance(norm, nn.GroupNorm) and isinstance(layers[i + 1], nn.SiLU):
                    layers[i], layers[i + 1] = FusedGroupNormSiLU(norm), nn.Identity()


def upsampled(x: Tensor) -> Tensor:
    """Maps (B, C, H, W) at twice the resolution."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class ResidualBlock(nn.Module):
    """Two convolutions without a norm, which would mix what is near with what is far; the identity at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        with torch.no_grad():
            self.second.weight.mul_(0.1)
            nn.init.zeros_(cast(Tensor, self.second.bias))

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.second(F.silu(self.first(F.silu(x)))))


class StaticDecoder(nn.Module):
    """Features, rays, depth -> maps at full resolution, plus the inner features that the dynamic branch uses.

    Measured depth enters at every level, averaged over what each of its pixels covers, so that sparse points spread.
    maps: name -> the bias that each channel starts with; blocks: residual blocks at full resolution.
    """

    def __init__(self, maps: Mapping[str, Sequence[float]], blocks: int = 0) -> None:
        super().__init__()
        self.bottleneck = conv_block(FEATURE_CHANNELS[4] + 2 + SENSOR_CHANNELS, _WIDTHS[4])
        self.levels = nn.ModuleList(
            conv_block(_WIDTHS[i + 1] + FEATURE_CHANNELS[i] + SENSOR_CHANNELS, _WIDTHS[i]) for i in range(3, -1, -1)
        )
        self.full = nn.Sequential(
            nn.Conv2d(_WIDTHS[0] + 6 + SENSOR_CHANNELS, _FULL, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_FULL, _FULL, 3, padding=1),
            nn.SiLU(),
        )
        self.refine = nn.Sequential(*(ResidualBlock(_FULL) for _ in range(blocks)))
        biases = [bias for channels in maps.values() for bias in channels]
        self.head = nn.Conv2d(_FULL, len(biases), 3, padding=1)
        _start(self.head, biases)

    def forward(self, source: NetworkInput, features: list[Tensor]) -> Tensor:
        """The maps (B, C, H, W), one after the other, where nothing else needs what lies between."""
        sensor, depths = measured(source)
        _, quarter = self.coarse(source, features, depths)
        return self.fine(source, sensor, features, depths, quarter)

    def coarse(self, source: NetworkInput, features: list[Tensor], depths: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The bottleneck (B, C, H/32, W/32), and features at a quarter of the resolution (B, C, H/4, W/4)."""
        rays = F.interpolate(source.rays, features[4].shape[-2:], mode="bilinear", align_corners=False)
        x = bottleneck = self.bottleneck(torch.cat((features[4], rays, depths[4]), 1))
        for level, i in zip(self.levels, (3, 2, 1)):
            x = level(torch.cat((upsampled(x), features[i], depths[i]), 1))
        return bottleneck, x

    def fine(
        self, source: NetworkInput, sensor: Tensor, features: list[Tensor], depths: list[Tensor], quarter: Tensor
    ) -> Tensor:
        """The maps (B, C, H, W), one after the other."""
        x = self.levels[-1](torch.cat((upsampled(quarter), features[0], depths[0]), 1))
        full = self.full(torch.cat((upsampled(x), source.image, source.inside, source.rays, sensor), 1))
        return cast(Tensor, self.head(self.refine(full)))


class DynamicDecoder(nn.Module):
    """Features and speed -> what moves as one object, its likeliest motion and that motion's spread.

    It is separate from the static decoder, whose features it also uses, so that it can be trained alone. Motion maps
    are mode + sqrt(2) * spread * z: a decoder with the latent as an ordinary input learns to ignore it. The camera's
    speed is an input because it is correlated with that of the traffic, which one image hardly shows.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = (_WIDTHS[4] + SPEED_CHANNELS, *(FEATURE_CHANNELS[i] for i in (3, 2, 1)))
        above = (0, *_DYNAMIC_WIDTHS[:-1])
        given = (0, 0, 0, _WIDTHS[1])
        channels = zip(inputs, above, given, _DYNAMIC_WIDTHS)
        self.levels = nn.ModuleList(conv_block(sum(n), width) for *n, width in channels)
        self.motion = nn.Conv2d(_DYNAMIC_WIDTHS[-1], 2 * MOTION_CHANNELS, 3, padding=1)
        self.objects = nn.Conv2d(_DYNAMIC_WIDTHS[-1], sum(OBJECT_MAPS.values()), 3, padding=1)
        _start(self.motion, [0.0] * 2 * MOTION_CHANNELS)
        _start(self.objects, [-4.0, 0.0, 0.0, 0.0])  # no centres, no votes

    def forward(
        self, bottleneck: Tensor, quarter: Tensor, features: list[Tensor], speed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """OBJECT_MAPS (B, C, H/4, W/4), and the mode and the spread of motion, (B, 12, H/4, W/4) each."""
        everywhere = speed[:, :, None, None].expand(-1, -1, *bottleneck.shape[-2:])
        x = self.levels[0](torch.cat((bottleneck, everywhere), 1))
        for level, seen in zip(self.levels[1:], ((features[3],), (features[2],), (features[1], quarter))):
            x = level(torch.cat((upsampled(x), *seen), 1))
        mode, spread = self.motion(x).chunk(2, 1)
        return self.objects(x), mode, F.softplus(spread - 1)


def measured(source: NetworkInput) -> tuple[Tensor, list[Tensor]]:
    """Measured depth (B, 2, H, W) and its pyramid; zeros where there is none."""
    if source.sensor is not None:
        return source.sensor, sensor_pyramid(source.sensor)
    nothing = torch.zeros_like(source.rays)
    return nothing, [nothing[..., ::stride, ::stride] for stride in (2, 4, 8, 16, 32)]


def sensor_pyramid(sensor: Tensor) -> list[Tensor]:
    """Measured depth (B, 2, H, W) at strides 2, 4, ... 32: mean over the known pixels of a cell, if there are any."""
    total, share = sensor.chunk(2, 1)
    levels = []
    for _ in range(5):
        total, share = F.avg_pool2d(total, 2), F.avg_pool2d(share, 2)
        levels.append(torch.cat((total / share.clamp(min=1e-6), (share > 0).to(share.dtype)), 1))
    return levels


def _start(head: nn.Conv2d, bias: list[float]) -> None:
    """Start a head with almost constant output: its bias."""
    with torch.no_grad():
        head.weight.mul_(0.1)
        head.bias = nn.Parameter(torch.tensor(bias))
