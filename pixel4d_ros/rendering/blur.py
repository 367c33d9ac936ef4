"""Gaussian blur of rendered pixels, of another width in each view."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros import fused

REACH = 2.5  # standard deviations after which a Gaussian ends, in whole pixels rounded up


def blurred(features: Tensor, spread: Tensor, most: float) -> Tensor:
    """Features (V, H, W, 4) with their colours, the first three, blurred by Gaussians of spread (V,) pixels.

    Borders go on as they end; a spread of 0 changes nothing. No spread is above `most`: a number, so that nobody waits
    for the device to tell.
    """
    reach = math.ceil(REACH * most)
    if reach == 0:
        return features
    if fused.applicable(features):
        return fused.rendering.blurred(features, spread, REACH)
    colors = features[..., :3].movedim(-1, 1)
    flat = colors.reshape(1, -1, *colors.shape[2:])
    offsets = torch.arange(-reach, reach + 1, device=features.device)
    taps = torch.exp(-0.5 * (offsets / spread.clamp(min=1e-3)[:, None]).square())
    taps = taps * (offsets.abs() <= torch.ceil(REACH * spread)[:, None])
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None]
    down = F.conv2d(F.pad(flat, (0, 0, reach, reach), mode="replicate"), taps[..., None], groups=len(taps))
    across = F.conv2d(F.pad(down, (reach, reach, 0, 0), mode="replicate"), taps[:, :, None], groups=len(taps))
    return torch.cat((across.view(colors.shape).movedim(1, -1), features[..., 3:]), -1)
