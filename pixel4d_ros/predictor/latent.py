# SPDX-License-Identifier: Apache-2.0
"""The posterior of the motion latent, given a later frame. Used in training only.

Its input is the optical flow to the later frame, minus the flow of a static scene at the predicted depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.predictor.encoder import FEATURE_CHANNELS
from pixel4d_ros.predictor.objects import pixel_grid

STRIDE = 4  # of the features and of the flow
RATE_SCALE = 40.0  # pixels per second
LARGEST_RATE = 10.0  # in units of RATE_SCALE: faster flow is more often an error
_WIDTHS = (64, 96, 96)


@dataclass(frozen=True)
class Latent:
    """Diagonal Gaussian over the latent (B, C, H/32, W/32)."""

    mean: Tensor
    log_variance: Tensor

    def draw(self) -> Tensor:
        """One sample (B, C, H/32, W/32)."""
        return self.mean + torch.randn_like(self.mean) * (0.5 * self.log_variance).exp()


@dataclass(frozen=True)
class Later:
    """What is known of a frame `time` after each of B sources."""

    flow: Tensor  # (B, 2, H, W) pixels of the input view from the source to it; NaN where unknown
    time: Tensor  # (B,) seconds
    T_later_source: Tensor  # (B, 4, 4), translation in canonical metres
    K: Tensor  # (B, 3, 3) pixels of the input view


class Posterior(nn.Module):
    """The source's features and depth, and the flow to a later frame -> Latent."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Of unit size, as the encoder's features are not: they would drown the flow.
        self.features = nn.Sequential(nn.Conv2d(FEATURE_CHANNELS[1], 16, 1), nn.GroupNorm(4, 16))
        layers: list[nn.Module] = []
        inputs = 16 + 4
        for width in _WIDTHS:
            layers += [nn.Conv2d(inputs, width, 3, 2, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
            inputs = width
        last = nn.Conv2d(inputs, 2 * channels, 3, padding=1)
        with torch.no_grad():
            last.weight.mul_(0.1)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, features: Tensor, depth: Tensor, later: Later) -> Latent:
        """Features (B, C, H/4, W/4) and depth (B, 1, H, W), canonical metres, of the source."""
        middle = slice(STRIDE // 2, None, STRIDE)
        near, flow = depth[:, 0, middle, middle], later.flow[..., middle, middle]
        known = torch.isfinite(flow).all(1, keepdim=True)
        residual = torch.nan_to_num(flow) - static_flow(near, later)
        rate = residual / (RATE_SCALE * later.time.clamp(min=0.05))[:, None, None, None]
        rate = rate.clamp(-LARGEST_RATE, LARGEST_RATE) * known
        evidence = torch.cat((self.features(features), rate, known.float(), torch.log(near)[:, None] - 2.5), 1)
        mean, log_variance = self.layers(evidence.to(features.dtype)).float().chunk(2, 1)
        return Latent(mean, (log_variance - 3).clamp(-8, 2))


def static_flow(depth: Tensor, later: Later) -> Tensor:
    """Flow (B, 2, h, w) to the later frame in pixels of the input view if nothing moved; depth (B, h, w) at STRIDE."""
    height, width = depth.shape[-2:]
    pixels = pixel_grid(height, width, depth.device).flatten(0, 1) * STRIDE + STRIDE // 2
    homogeneous = F.pad(pixels, (0, 1), value=1.0)
    rays = homogeneous @ torch.linalg.inv_ex(later.K).inverse.transpose(1, 2)  # inv would wait for the device
    points = (rays * depth.flatten(1)[..., None]) @ later.T_later_source[:, :3, :3].transpose(1, 2)
    seen = (points + later.T_later_source[:, None, :3, 3]) @ later.K.transpose(1, 2)
    flow = seen[..., :2] / seen[..., 2:].clamp(min=0.05) - pixels
    return torch.unflatten(flow.transpose(1, 2), 2, (height, width))
