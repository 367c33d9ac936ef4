# SPDX-License-Identifier: Apache-2.0
"""GMFlow (H. Xu et al., Learning Optical Flow via Global Matching, CVPR 2022), two scales, both directions at once.

Parameter names are those of the published weights. Features are computed in half precision under autocast; matching
stays in float32, for half precision holds positions to half a pixel only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.predictor.optical_flow import convex_upsampled, matched_flow, swapped, warped

CHANNELS = 128
UPSAMPLE = 4  # from features to pixels
SPLITS = (2, 8)  # windows along each side, per scale, within which the transformer attends
MULTIPLE = 32  # pixels, of both sides of an image
RADIUS = 4  # feature pixels within which the second scale matches
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet


class FlowNetwork(nn.Module):
    """Flow between pairs of images."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _Backbone()
        self.transformer = _Transformer()
        self.feature_flow_attn = _Propagation()
        self.upsampler = nn.Sequential(
            nn.Conv2d(2 + CHANNELS, 256, 3, 1, 1), nn.ReLU(), nn.Conv2d(256, UPSAMPLE**2 * 9, 1)
        )

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Flow (B, 2, H, W) in pixels from first (B, 3, H, W; 0..1) to second, and from second to first.

        H and W are multiples of MULTIPLE.
        """
        images = torch.cat((first, second))
        mean, std = (images.new_tensor(v)[:, None, None] for v in (MEAN, STD))
        fine, coarse = self.backbone((images - mean) / std)
        a, b = coarse.chunk(2)
        a, b = self._attended(a, b, SPLITS[0])
        flow = matched_flow(a.float(), b.float())
        flow = self.feature_flow_attn.everywhere(torch.cat((a, b)), flow)
        flow = F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True) * 2
        other = warped(swapped(fine), flow)
        a, b = self._attended(fine, other, SPLITS[1])
        flow = flow + _local_flow(a.float(), b.float())
        flow = self.feature_flow_attn.around(a, flow)
        there, back = self._upsampled(flow, a).chunk(2)
        return there, back

    def _attended(self, a: Tensor, b: Tensor, splits: int) -> tuple[Tensor, Tensor]:
        position = _positions(a.shape[2] // splits, a.shape[3] // splits, a.device).to(a.dtype)
        position = position.repeat(1, splits, splits)
        a, b = self.transformer(a + position, b + position, splits)
        return a, b

    def _upsampled(self, flow: Tensor, features: Tensor) -> Tensor:
        """Each pixel's flow as a convex combination of 3 x 3 neighbours (as in RAFT)."""
        weights: Tensor = self.upsampler(torch.cat((flow.to(features.dtype), features), 1)).float()
        return convex_upsampled(flow, weights, UPSAMPLE)


class _ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm = nn.InstanceNorm2d(after)
        same = stride == 1 and before == after
        self.downsample = (
            nn.Identity() if same else nn.Sequential(nn.Conv2d(before, after, 1, stride), nn.InstanceNorm2d(after))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.conv1(x)))
        y = F.relu(self.norm(self.conv2(y)))
        return F.relu(self.downsample(x) + y)


class _SharedConv(nn.Module):
    """One kernel applied at strides 1 and 2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(CHANNELS, CHANNELS, 3, 3))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.conv2d(x, self.weight, padding=1), F.conv2d(x, self.weight, padding=1, stride=2)


class _Backbone(nn.Module):
    """Features at a quarter and at an eighth of the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.norm1 = nn.InstanceNorm2d(64)
        self.layer1 = nn.Sequential(_ResidualBlock(64, 64, 1), _ResidualBlock(64, 64, 1))
        self.layer2 = nn.Sequential(_ResidualBlock(64, 96, 2), _ResidualBlock(96, 96, 1))
        self.layer3 = nn.Sequential(_ResidualBlock(96, 128, 1), _ResidualBlock(128, 128, 1))
        self.conv2 = nn.Conv2d(128, CHANNELS, 1)
        self.trident_conv = _SharedConv()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.norm1(self.conv1(images)))
        fine, coarse = self.trident_conv(self.conv2(self.layer3(self.layer2(self.layer1(x)))))
        return fine, coarse


class _Attention(nn.Module):
    """Single-head attention from source to target, within windows; with `mlp` a feed-forward network follows."""

    def __init__(self, feed_forward: bool) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.merge = (nn.Linear(CHANNELS, CHANNELS, bias=False) for _ in "qkvm")
        self.norm1 = nn.LayerNorm(CHANNELS)
        if feed_forward:
            self.mlp = nn.Sequential(
                nn.Linear(2 * CHANNELS, 8 * CHANNELS, bias=False),
                nn.GELU(),
                nn.Linear(8 * CHANNELS, CHANNELS, bias=False),
            )
            self.norm2 = nn.LayerNorm(CHANNELS)

    def forward(self, source: Tensor, target: Tensor, splits: int, mask: Tensor | None) -> Tensor:
        """Source and target (B, H, W, C); mask (windows, L, L), if the windows are shifted by half of their size."""
        height, width = source.shape[1] // splits, source.shape[2] // splits
        shift = (height // 2, width // 2) if mask is not None else (0, 0)

        def windows(x: Tensor) -> Tensor:
            x = torch.roll(x, (-shift[0], -shift[1]), (1, 2)) if mask is not None else x
            x = x.reshape(-1, splits, height, splits, width, CHANNELS).transpose(2, 3)
            return x.flatten(3, 4).flatten(1, 2)  # (B, windows, L, C)

        query, key, value = (
            windows(p(x)) for p, x in ((self.q_proj, source), (self.k_proj, target), (self.v_proj, target))
        )
        bias = None if mask is None else mask.to(query.dtype)
        message = F.scaled_dot_product_attention(query, key, value, bias)
        message = message.view(-1, splits, splits, height, width, CHANNELS).transpose(2, 3).reshape(source.shape)
        message = torch.roll(message, shift, (1, 2)) if mask is not None else message
        message = self.norm1(self.merge(message))
        if hasattr(self, "mlp"):
            message = self.norm2(self.mlp(torch.cat((source, message), -1)))
        return source.add(message)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.cross_attn_ffn = _Attention(False), _Attention(True)


class _Transformer(nn.Module):
    """Attention within each image and between the two; every other block shifts its windows by half (Swin)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Block() for _ in range(6))

    def forward(self, a: Tensor, b: Tensor, splits: int) -> tuple[Tensor, Tensor]:
        x = torch.cat((a, b)).permute(0, 2, 3, 1)
        mask = _shift_mask(x.shape[1], x.shape[2], splits, x.device)
        for i, block in enumerate(self.layers):
            assert isinstance(block, _Block)
            shifted = mask if i % 2 else None
            other = swapped(x)
            x = block.self_attn(x, x, splits, shifted)
            x = block.cross_attn_ffn(x, other, splits, shifted)
        a, b = x.permute(0, 3, 1, 2).chunk(2)
        return a, b


class _Propagation(nn.Module):
    """Flow averaged over pixels that look alike, into what is occluded.

    The published network makes keys from queries over the whole image, and from features within windows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)

    def everywhere(self, features: Tensor, flow: Tensor) -> Tensor:
        """Over the whole image; float32 throughout."""
        h, w = flow.shape[2:]
        with torch.autocast(features.device.type, enabled=False):
            query = self.q_proj(features.float().flatten(2).transpose(1, 2))
            scores = query @ self.k_proj(query).transpose(1, 2) / CHANNELS**0.5
            spread = scores.softmax(2) @ flow.flatten(2).transpose(1, 2)
        return torch.unflatten(spread.transpose(1, 2), 2, (h, w))

    def around(self, features: Tensor, flow: Tensor) -> Tensor:
        """Over 3 x 3 pixels."""
        h, w = flow.shape[2:]
        with torch.autocast(features.device.type, enabled=False):
            tokens = features.float().flatten(2).transpose(1, 2)
            query, key = (torch.unflatten(p(tokens).transpose(1, 2), 2, (h, w)) for p in (self.q_proj, self.k_proj))
            padded = F.pad(key, (1, 1, 1, 1))
            scores = torch.stack(
                [(query * padded[:, :, y : y + h, x : x + w]).sum(1) for y in range(3) for x in range(3)], 1
            )
            weights = (scores / CHANNELS**0.5).softmax(1)
            values = F.unfold(flow, 3, padding=1).view(-1, 2, 9, h, w)
        spread: Tensor = values * weights[:, None]
        return spread.sum(2)


def _positions(height: int, width: int, device: torch.device) -> Tensor:
    """Sine encoding (C, H, W) of rows, then of columns (as in DETR)."""
    count = CHANNELS // 2
    frequency = 10000 ** (2 * (torch.arange(count, device=device) // 2) / count)

    def encoded(length: int) -> Tensor:
        angle = torch.arange(1, length + 1, device=device) / (length + 1e-6) * 2 * math.pi
        phases = angle[:, None] / frequency
        return torch.stack((phases[:, 0::2].sin(), phases[:, 1::2].cos()), 2).flatten(1).T  # (count, length)

    rows = encoded(height)[:, :, None].expand(-1, -1, width)
    columns = encoded(width)[:, None].expand(-1, height, -1)
    return torch.cat((rows, columns))


def _shift_mask(height: int, width: int, splits: int, device: torch.device) -> Tensor:
    """(windows, L, L): -100 between pixels of a shifted window that come from different ends of the image."""
    part = torch.zeros((height, width), device=device)
    h, w = height // splits, width // splits
    for i, rows in enumerate((slice(0, -h), slice(-h, -(h // 2)), slice(-(h // 2), None))):
        for j, columns in enumerate((slice(0, -w), slice(-w, -(w // 2)), slice(-(w // 2), None))):
            part[rows, columns] = 3 * i + j
    windows = part.view(splits, h, splits, w).transpose(1, 2).reshape(splits * splits, h * w)
    return torch.where(windows[:, :, None] == windows[:, None], 0.0, -100.0)


def _local_flow(a: Tensor, b: Tensor) -> Tensor:
    """Residual flow (B, 2, h, w) from a to b within RADIUS."""
    with torch.autocast(a.device.type, enabled=False):
        h, w = a.shape[2:]
        padded = F.pad(b, (RADIUS,) * 4)
        inside = F.pad(torch.ones(1, h, w, device=a.device), (RADIUS,) * 4) > 0
        steps = [(y, x) for y in range(2 * RADIUS + 1) for x in range(2 * RADIUS + 1)]
        scores = [
            (a * padded[:, :, y : y + h, x : x + w]).sum(1).masked_fill(~inside[:, y : y + h, x : x + w], -1e9)
            for y, x in steps
        ]
        weights = (torch.stack(scores, 1) / CHANNELS**0.5).softmax(1)
        offsets = torch.tensor([(x - RADIUS, y - RADIUS) for y, x in steps], device=a.device).float()
        return torch.einsum("bkhw,kc->bchw", weights, offsets)
