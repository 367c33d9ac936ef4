"""Two views: features of the source and a reference image are compared, for depth and for motion.

For depth, a plane sweep: where would each pixel be in the reference image at each of some depths, and does it look the
same there (Collins 1996; as a network's cost volume in MVSNet, Yao et al. 2018, ManyDepth and SimpleRecon). For motion,
correlation windows around the place where a still scene would have each pixel (as RAFT and PWC-Net correlate, but with
the camera's own motion removed first): what matches beside that place moves.

All results are residuals to what one image gives, and zero where there is no reference image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.predictor.encoder import FEATURE_CHANNELS
from pixel4d_ros.predictor.heads import (
    LOG_DEPTH_MEAN,
    LOG_DEPTH_SPREAD,
    MAX_DEPTH,
    MIN_DEPTH,
    ReferenceInput,
    channels_last,
)
from pixel4d_ros.predictor.input_view import CANONICAL_FOCAL

STRIDE = 4  # of the finest compared features
CHANNELS = 32  # of a pixel's descriptor
GROUPS = 4  # of its channels, correlated each on its own (Guo et al. 2019)
PLANES = 48
RADII = (3, 4, 4)  # of the correlation windows at strides 4, 8 and 16, in their pixels
CONTEXT = 64
RATE_UNIT, LARGEST_RATE = 5.0, 8.0  # m/s across the view per unit of that input, and its limit
LEAST_TIME = 0.02  # seconds between the images


def plane_log_depths(device: torch.device) -> Tensor:
    """(PLANES,) logs of the canonical depths of the sweep, evenly spaced."""
    return torch.linspace(math.log(MIN_DEPTH), math.log(MAX_DEPTH), PLANES, device=device)


@dataclass(frozen=True)
class Projection:
    """How the reference camera sees pixels of the source image at a stride: a depth d at `turned` * d + shift."""

    turned: Tensor  # (B, 3, h, w)
    shift: Tensor  # (B, 3)
    stride: int

    @staticmethod
    def of(reference: ReferenceInput, height: int, width: int, stride: int) -> Projection:
        """For features of height x width pixels."""
        K, device = reference.K.float(), reference.K.device
        x = torch.arange(width, device=device) * stride + stride // 2 - K[:, 0, 2, None]
        y = torch.arange(height, device=device) * stride + stride // 2 - K[:, 1, 2, None]
        x, y = (x / K[:, 0, 0, None])[:, None, :], (y / K[:, 1, 1, None])[:, :, None]
        # Written out: autocast and TF32 would round matrix products, and pixels need more digits.
        M = (reference.reference_K.float()[:, :, :, None] * reference.T_reference_source.float()[:, None, :3]).sum(2)
        columns = M[:, :, :3, None, None].unbind(2)
        turned = columns[0] * x[:, None] + columns[1] * y[:, None] + columns[2]
        return Projection(turned, M[:, :, 3], stride)

    def places(self, depth: Tensor) -> tuple[Tensor, Tensor]:
        """Where points at canonical depths (B, D, h, w) are seen (B, D, h, w, 2), in pixels, and whether in front."""
        seen = self.turned[:, :, None] * depth[:, None] + self.shift[:, :, None, None, None]
        z = seen[:, 2]
        return torch.stack((seen[:, 0] / z.clamp(min=1e-2), seen[:, 1] / z.clamp(min=1e-2)), -1), z > 1e-2

    def sample(self, features: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """Reference features (B, C, h, w) of what the source sees at depths (B, D, h, w): (B, C, D, h, w).

        And where they exist (B, 1, D, h, w): 0 outside the reference image.
        """
        h, w = features.shape[-2:]
        d = depth.shape[1]
        places, front = self.places(depth)
        # From pixels of the image to -1..1 at the outer edges, as grid_sample has it.
        offset = 0.5 * self.stride - self.stride // 2
        x, y = ((p + offset) * (2 / (n * self.stride)) - 1 for p, n in zip(places.unbind(-1), (w, h)))
        inside = front & (x.abs() < 1) & (y.abs() < 1)
        grid = torch.where(inside[..., None], torch.stack((x, y), -1), 4.0)
        sampled = F.grid_sample(features.float(), grid.flatten(1, 2), align_corners=False)
        return sampled.unflatten(2, (d, h)), inside[:, None]


class Descriptor(nn.Module):
    """Encoder features at strides 4 and 8 -> descriptors (B, CHANNELS, H/4, W/4) of unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(FEATURE_CHANNELS[1], 48, 3, padding=1)
        self.coarse = nn.Conv2d(FEATURE_CHANNELS[2], 48, 3, padding=1)
        self.out = nn.Conv2d(48, CHANNELS, 3, padding=1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        up = F.interpolate(self.coarse(coarse), scale_factor=2, mode="bilinear", align_corners=False)
        return F.normalize(self.out(F.silu(self.fine(fine) + up)).float(), dim=1)


def _convs(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.SiLU(),
    )


def _residual(inputs: int, outputs: int) -> nn.Conv2d:
    """A small addition to features that are trained already."""
    conv = nn.Conv2d(inputs, outputs, 1)
    with torch.no_grad():
        conv.weight.mul_(0.3)
    nn.init.zeros_(conv.bias) if conv.bias is not None else None
    return conv


class PlaneSweep(nn.Module):
    """Descriptors of both images and their relative pose -> what the static decoder's features lack."""

    def __init__(self) -> None:
        super().__init__()
        self.quarter = _convs(GROUPS * PLANES, CONTEXT)
        self.logits = nn.Conv2d(CONTEXT, PLANES, 1)
        self.eighth = _convs(CONTEXT + 2, CONTEXT, 2)
        self.sixteenth = _convs(CONTEXT, CONTEXT, 2)
        widths = (CONTEXT + 2, CONTEXT, CONTEXT)
        self.residuals = nn.ModuleList(_residual(w, FEATURE_CHANNELS[i]) for i, w in zip((1, 2, 3), widths))

    def forward(self, here: Tensor, there: Tensor, reference: ReferenceInput) -> tuple[list[Tensor], Tensor]:
        """Additions to the features at strides 4, 8, 16, and the logits (B, PLANES, H/4, W/4) of the depths.

        Descriptors (B, CHANNELS, H/4, W/4) are float32; the additions have the precision of this module.
        """
        volume = cost_volume(here, there, reference).flatten(1, 2)
        x = self.quarter(_as(self.logits, volume))
        logits = self.logits(x)
        share = torch.softmax(logits.float(), 1)
        planes = plane_log_depths(x.device)[:, None, None]
        mean = ((share * planes).sum(1, keepdim=True) - LOG_DEPTH_MEAN) / LOG_DEPTH_SPREAD
        x = torch.cat((x, mean.to(x.dtype), share.amax(1, keepdim=True).to(x.dtype)), 1)
        eighth = self.eighth(x)
        levels = (x, eighth, self.sixteenth(eighth))
        return [_valid(f(level), reference) for f, level in zip(self.residuals, levels)], logits


def cost_volume(here: Tensor, there: Tensor, reference: ReferenceInput) -> Tensor:
    """How alike both images are if a pixel lies on each plane: (B, GROUPS, PLANES, h, w), 0 where it is out of view."""
    b, c, h, w = here.shape
    with torch.autocast(here.device.type, enabled=False):
        depth = plane_log_depths(here.device).exp()[None, :, None, None].expand(b, -1, h, w)
        sampled, inside = Projection.of(reference, h, w, STRIDE).sample(there, depth)
        alike = (here[:, :, None] * sampled).unflatten(1, (GROUPS, c // GROUPS)).sum(2)
        return alike * (inside * float(GROUPS))


class MotionEvidence(nn.Module):
    """What does not match where a still scene would: residuals for the dynamic decoder."""

    def __init__(self) -> None:
        super().__init__()
        windows = [(2 * r + 1) ** 2 + 1 for r in RADII]
        self.sixteenth = _convs(windows[2], CONTEXT)
        self.eighth = _convs(windows[1] + CONTEXT, CONTEXT)
        self.quarter = _convs(windows[0] + CONTEXT + 1, CONTEXT)
        self.flow = nn.Conv2d(CONTEXT, 2, 3, padding=1)  # pixels of a quarter of the resolution
        self.together = _convs(CONTEXT + 4, CONTEXT)
        outputs = (FEATURE_CHANNELS[3], FEATURE_CHANNELS[2], CONTEXT)
        self.residuals = nn.ModuleList(_residual(CONTEXT, n) for n in outputs)

    def forward(
        self, here: Tensor, there: Tensor, log_depth: Tensor, reference: ReferenceInput
    ) -> tuple[list[Tensor], Tensor]:
        """Additions to the features at strides 16, 8 and 4, and flow (B, 2, H/4, W/4) beside the still scene's.

        log_depth (B, 1, H/4, W/4) of canonical depth; the flow is in pixels of the input view.
        """
        fine, middle, coarse = _windows(here, there, log_depth, reference)
        sixteenth = self.sixteenth(_as(self.flow, coarse))
        eighth = self.eighth(torch.cat((_as(self.flow, middle), _up(sixteenth)), 1))
        depth = (log_depth.float() - LOG_DEPTH_MEAN) / LOG_DEPTH_SPREAD
        quarter = self.quarter(torch.cat((_as(self.flow, torch.cat((fine, depth), 1)), _up(eighth)), 1))
        flow = STRIDE * self.flow(quarter).float()
        seconds = reference.seconds.clamp(min=LEAST_TIME)[:, None, None, None]
        # What the flow means across the view, in metres a second: a point that moves was elsewhere before.
        rate = -flow * log_depth.float().exp() / (CANONICAL_FOCAL * RATE_UNIT * seconds)
        hints = torch.cat((rate.clamp(-LARGEST_RATE, LARGEST_RATE), depth, seconds.expand_as(depth)), 1)
        together = self.together(torch.cat((quarter, hints.to(quarter.dtype)), 1))
        levels = (sixteenth, eighth, together)
        return [_valid(f(level), reference) for f, level in zip(self.residuals, levels)], flow


def _windows(here: Tensor, there: Tensor, log_depth: Tensor, reference: ReferenceInput) -> list[Tensor]:
    """Correlation windows at strides 4, 8 and 16, each with a channel that says where there is one."""
    h, w = here.shape[-2:]
    with torch.autocast(here.device.type, enabled=False):
        warped, inside = Projection.of(reference, h, w, STRIDE).sample(there, log_depth.float().exp())
        warped, seen, windows = warped[:, :, 0], inside[:, :, 0].float(), []
        for radius in RADII:
            alike = local_correlation(here, warped, radius)
            windows.append(torch.cat((alike * seen, seen), 1))
            here, warped, seen = F.avg_pool2d(here, 2), F.avg_pool2d(warped, 2), F.avg_pool2d(seen, 2)
        return windows


def local_correlation(here: Tensor, there: Tensor, radius: int) -> Tensor:
    """Products of features (B, C, h, w) with those around the same place: (B, (2 radius + 1)^2, h, w), row by row."""
    b, c, h, w = here.shape
    side = 2 * radius + 1
    around = F.unfold(there, side, padding=radius).view(b, c, side * side, h, w)
    return (here[:, :, None] * around).sum(1)


def _up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _valid(x: Tensor, reference: ReferenceInput) -> Tensor:
    return x * reference.valid.to(x.dtype)[:, None, None, None]


def _as(module: nn.Conv2d, x: Tensor) -> Tensor:
    """x as a convolution takes it: autocast changes the rest in training."""
    return channels_last(x, module.weight.dtype)
