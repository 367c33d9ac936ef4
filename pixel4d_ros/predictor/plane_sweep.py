# SPDX-License-Identifier: Apache-2.0
"""Plane sweep: depth that one image tells is corrected by comparing the image with a reference image.

Where would each pixel be in the reference image if it lay at some depth around the predicted one, and does it look the
same there (Collins 1996; as a network's cost volume MVSNet, Yao et al. 2018)? A small U-Net turns these similarities,
and the features of the image, into one correction of log depth per pixel and how far to trust it. Depths are relative
to the predicted one, so that a channel means the same everywhere, and so that where nothing is to be compared (no
texture, no parallax, outside of the other image) the prediction stays.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.predictor.decoders import conv_block, upsampled
from pixel4d_ros.predictor.encoder import FEATURE_CHANNELS
from pixel4d_ros.predictor.heads import (
    LOG_DEPTH_MEAN,
    LOG_DEPTH_SPREAD,
    DepthCorrection,
    ReferenceInput,
    channels_last,
    decode_spread,
)
from pixel4d_ros.predictor.pose_refinement import with_refined_attitude
from pixel4d_ros.predictor.reference_projection import reference_places, sample_places

DESCRIBED_LEVELS = 3  # of the encoder's features, that both images are compared by
DESCRIPTOR = 32  # channels
GROUPS = 4  # of them, correlated each on its own (Guo et al. 2019)
PLANES, FARTHEST_SHIFT = 33, 1.0  # depths per pixel, and the largest shift of log depth, either way
EXTRA = 5  # channels beside the similarities: parallax, base depth, whether seen in the reference image, two of rays
LEAST_PARALLAX = 0.2  # pixels between two depths, below which the images cannot tell them apart
WIDTHS = (64, 96, 128, 128)  # at strides 4, 8, 16, 32


class Descriptor(nn.Module):
    """Encoder features at strides 2, 4 and 8 -> descriptors (B, DESCRIPTOR, H/4, W/4) of unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(FEATURE_CHANNELS[0], 32, 3, 2, padding=1)
        self.middle = nn.Conv2d(FEATURE_CHANNELS[1], 32, 3, padding=1)
        self.coarse = nn.Conv2d(FEATURE_CHANNELS[2], 32, 3, padding=1)
        self.out = nn.Conv2d(32, DESCRIPTOR, 3, padding=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """From the first DESCRIBED_LEVELS of the encoder's features; float32."""
        fine, middle, coarse = features[:DESCRIBED_LEVELS]
        x = self.fine(fine) + self.middle(middle) + upsampled(self.coarse(coarse))
        return F.normalize(self.out(F.silu(x)).float(), dim=1)


class PlaneSweep(nn.Module):
    """Features of the image and of a reference image, and predicted depth -> DepthCorrection."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptor = Descriptor()
        lateral = [FEATURE_CHANNELS[i] for i in (1, 2, 3, 4)]
        inputs = (GROUPS * PLANES + EXTRA, *WIDTHS[:-1])
        self.down = nn.ModuleList(conv_block(n + side, width) for n, side, width in zip(inputs, lateral, WIDTHS))
        self.up = nn.ModuleList(conv_block(WIDTHS[i + 1] + WIDTHS[i], WIDTHS[i]) for i in (2, 1, 0))
        self.head = nn.Conv2d(WIDTHS[0], PLANES + 1, 3, padding=1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias = nn.Parameter(torch.tensor([0.0] * PLANES + [-1.5]))

    def forward(
        self, image: Tensor, features: list[Tensor], reference: ReferenceInput, there: list[Tensor], log_depth: Tensor
    ) -> DepthCorrection:
        """Image (B, 3, H, W), its features at strides 2 to 32 and the reference's at 2 to 8; log_depth (B, 1, h, w)."""
        here, other = self.descriptor(features), self.descriptor(there)
        base = F.interpolate(log_depth.float(), here.shape[-2:], mode="bilinear", align_corners=False)
        reference = with_refined_attitude(reference, image, base)
        alike, parallax = similarities(here, other, reference, base)
        x = channels_last(alike, self.head.weight.dtype)  # the precision of all convolutions here
        levels = []
        for block, side in zip(self.down, (1, 2, 3, 4)):
            x = block(torch.cat((x if side == 1 else F.avg_pool2d(x, 2), features[side]), 1))
            levels.append(x)
        for block, beside in zip(self.up, levels[-2::-1]):
            x = block(torch.cat((upsampled(x), beside), 1))
        logits, spread = self.head(x).float().split((PLANES, 1), 1)
        shift = (torch.softmax(logits, 1) * plane_shifts(x.device)[:, None, None]).sum(1, keepdim=True)
        known = reference.known[:, None, None, None] & (self.training | (parallax > LEAST_PARALLAX))
        scale = decode_spread(spread)
        return DepthCorrection(base, torch.where(known, shift, 0.0), torch.where(known, scale, torch.inf))


def plane_shifts(device: torch.device) -> Tensor:
    """(PLANES,) shifts of log depth at which the images are compared, symmetric about 0."""
    return torch.linspace(-FARTHEST_SHIFT, FARTHEST_SHIFT, PLANES, device=device)


def similarities(here: Tensor, there: Tensor, reference: ReferenceInput, base: Tensor) -> tuple[Tensor, Tensor]:
    """How alike both images are if a pixel lies at each depth: (B, GROUPS * PLANES + EXTRA, h, w) float32.

    And by how many pixels one depth differs from the next (B, 1, h, w). here, there (B, C, h, w) descriptors; base
    (B, 1, h, w) log depth around which to look.
    """
    with torch.autocast(here.device.type, enabled=False):
        depths = (base + plane_shifts(base.device)[:, None, None]).exp()
        places, front = reference_places(reference, depths)
        sampled, inside = sample_places(there, places, front)
        alike = torch.unflatten(here[:, :, None] * sampled, 1, (GROUPS, -1)).sum(2) * (GROUPS * inside)
        middle = PLANES // 2
        parallax = (places[:, middle + 1] - places[:, middle]).norm(dim=-1)[:, None]  # pixels per plane
        extra = (
            torch.log1p(parallax.clamp(max=100.0)) * inside[:, :, middle],
            (base - LOG_DEPTH_MEAN) / LOG_DEPTH_SPREAD,
            inside[:, :, middle],
            _positions(base),
        )
        return torch.cat((alike.flatten(1, 2), *extra), 1), parallax


def _positions(base: Tensor) -> Tensor:
    """Where in the view a pixel is (B, 2, h, w), -1 to 1."""
    batch, _, height, width = base.shape
    x = torch.linspace(-1, 1, width, device=base.device).expand(batch, 1, height, width)
    y = torch.linspace(-1, 1, height, device=base.device)[:, None].expand(batch, 1, height, width)
    return torch.cat((x, y), 1)
