# SPDX-License-Identifier: Apache-2.0
"""The network's inputs and outputs: per-pixel maps, and how metric quantities are encoded in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

SENSOR_CHANNELS = 2  # measured depth, and where there is any
SPEED_CHANNELS = 2  # the camera's forward speed, and whether it is known
STATIC_STARTS: dict[str, tuple[float, ...]] = {  # maps of the static branch, and what each channel starts as
    "depth": (0.8,),  # logit of log depth between the limits
    "mobility": (-4.0,),  # logit: moves on its own
}
STATIC_MAPS = {name: len(starts) for name, starts in STATIC_STARTS.items()}
SURFACE_STARTS: dict[str, tuple[float, ...]] = {  # the maps, and what each channel starts as
    "depth": (0.8, 1.2),  # logits of log depth between the limits, one per mode
    "depth_spread": (-1.5, -1.5),  # each mode's scale, before softplus
    "depth_choice": (2.0,),  # logit of the first mode's weight
    "size": (-1.0,),  # logit of the visible Gaussian's size in pixels
    "opacity": (3.0,),
    "border_color": (0.0, 0.0, 0.0),  # correction of the mirrored colours in the padding
    "hidden_depth": (1.4,),  # logit of the log depth of the surface behind, between the same limits
    "hidden_opacity": (0.0,),
    "hidden_color": (0.0, 0.0, 0.0),
}
SURFACE_MAPS = {name: len(starts) for name, starts in SURFACE_STARTS.items()}
LEAST_SPREAD = 0.01  # of a mode of log depth
OBJECT_MAPS = {  # at a quarter of the resolution
    "center": 1,  # logit: an object's centre
    "offset": 2,  # vote for it
    "mobility": 1,  # adds to the logit at full resolution, whose edges are sharper
}
MOVABLE_MAPS = {  # at a quarter of the finer view
    "movable": 1,  # logit: part of a vehicle or a person, moving or not
    "center": 1,  # as in OBJECT_MAPS
    "offset": 2,
    "distance": 1,  # logit of log depth, as in SURFACE_MAPS; means something on vehicles and people only
    "distance_spread": 1,  # its mean absolute error, before softplus
}
MOTION_CHANNELS = 12  # v, a, w, a_w
LATENT_CHANNELS = MOTION_CHANNELS  # how many standard deviations each part of the motion is off its mode
MIN_DEPTH, MAX_DEPTH = 0.5, 250.0  # canonical metres
LOG_DEPTH_MEAN, LOG_DEPTH_SPREAD = 2.5, 1.3  # of scenes, for inputs of about unit size
SPEED_SCALE = 10.0  # m/s
# Of log depth: corrections with a larger error, as of skies and thickets, do more harm than good. The step there is
# soft, so that rendered views can teach the error: SURENESS is its slope.
SURE, SURENESS = 0.2, 8.0


@dataclass(frozen=True)
class DepthModes:
    """Per pixel, log depth as a mixture of two Laplace distributions (SMD-Nets, Tosi et al. 2021).

    At a depth edge the two modes are the two sides. A mean of them would lie on neither.
    """

    log_depth: Tensor  # (B, 2, H, W) natural logarithm of canonical metres
    scale: Tensor  # (B, 2, H, W) mean absolute deviation of each mode
    log_weight: Tensor  # (B, 2, H, W) log of each mode's share

    @staticmethod
    def of(maps: Mapping[str, Tensor]) -> DepthModes:
        """From SURFACE_MAPS."""
        choice = maps["depth_choice"]
        log_weight = F.logsigmoid(torch.cat((choice, -choice), 1))
        return DepthModes(decode_log_depth(maps["depth"]), decode_spread(maps["depth_spread"]), log_weight)

    def shifted(self, shift: Tensor) -> DepthModes:
        """With shift (B, 1, H, W) added to the log depth, within the limits of depth."""
        low, high = math.log(MIN_DEPTH), math.log(MAX_DEPTH)
        return DepthModes((self.log_depth + shift).clamp(low, high), self.scale, self.log_weight)

    def log_density(self, log_depth: Tensor) -> Tensor:
        """Log density (B, H, W) of log depths (B, H, W)."""
        distance = (log_depth[:, None] - self.log_depth).abs() / self.scale
        return torch.logsumexp(self.log_weight - torch.log(2 * self.scale) - distance, 1)

    def most_likely(self) -> tuple[Tensor, Tensor]:
        """Log depth (B, 1, H, W) of the mode whose density is higher, and that mode's scale.

        The choice is hard, so that no depth lies between two surfaces. Its gradient is that of the soft choice.
        """
        peak = self.log_weight - torch.log(self.scale)
        first = peak[:, :1] - peak[:, 1:]
        near, far = torch.split(self.log_depth, 1, 1)
        scale = torch.where(first > 0, self.scale[:, :1], self.scale[:, 1:])
        if not first.requires_grad:
            return torch.where(first > 0, near, far), scale
        soft = torch.sigmoid(first)
        share = (first > 0).to(soft.dtype) + soft - soft.detach()
        return far + share * (near - far), scale


@dataclass(frozen=True)
class SurfaceMaps:
    """What the scene's layers are made of, float32; fine maps (B, C, H, W) are as large as the surface branch's input.

    The hidden layer's maps are as large as the input view.
    """

    modes: DepthModes  # of the visible surface
    depth: Tensor  # (B, 1, H, W) canonical metres of the visible surface
    size: Tensor  # (B, 1, H, W) logit
    opacity: Tensor  # (B, 1, H, W) logit
    border_color: Tensor  # (B, 3, H, W)
    hidden_depth: Tensor  # (B, 1, h, w) canonical metres of the surface behind
    hidden_opacity: Tensor  # (B, 1, h, w) logit
    hidden_color: Tensor  # (B, 3, h, w)
    depth_correction: Tensor | None = None  # (B, 1, H, W) of log depth, what a reference image changed


@dataclass(frozen=True)
class DepthCorrection:
    """What the comparison with a reference image says of the depth that one image tells."""

    base: Tensor  # (B, 1, h, w) log of the canonical depth that is corrected, at a quarter of the finer view
    shift: Tensor  # (B, 1, h, w) of log depth, to be added; 0 where there is no reference image
    scale: Tensor  # (B, 1, h, w) its mean absolute error, as predicted; infinite without a reference image

    @property
    def sure(self) -> Tensor:
        """(B, 1, h, w) 0..1: how far the correction counts, half at an error of SURE."""
        return torch.sigmoid(SURENESS * (math.log(SURE) - torch.log(self.scale)))

    def applied(self, log_depth: Tensor) -> Tensor:
        """Log depth (B, 1, H, W), corrected as far as that is sure, within the limits of depth."""
        shift = F.interpolate(self.shift * self.sure, log_depth.shape[-2:], mode="bilinear", align_corners=False)
        return (log_depth + shift).clamp(math.log(MIN_DEPTH), math.log(MAX_DEPTH))


@dataclass(frozen=True)
class PixelMaps:
    """Network outputs in the input view (B images, S samples); motion in the network's precision, the rest float32."""

    static: dict[str, Tensor]  # (B, C, H, W) each, of STATIC_MAPS
    surface: SurfaceMaps
    objects: dict[str, Tensor]  # (B, C, H/4, W/4) each, of OBJECT_MAPS
    motion: Tensor  # (B, S, 12, H/4, W/4)
    mode: Tensor  # (B, 12, H/4, W/4): the likeliest motion
    spread: Tensor  # the same shape: mean absolute deviation from it
    movable: dict[str, Tensor]  # (B, C, h/4, w/4) each, of MOVABLE_MAPS; h x w is the size of the finer view
    nearest_center_ids: Tensor | None = None  # the object maps as the network's `group` argument transforms them
    correction: DepthCorrection | None = None  # by the reference image

    def float(self) -> PixelMaps:
        """The same with all in float32."""
        return replace(self, motion=self.motion.float(), mode=self.mode.float(), spread=self.spread.float())


@dataclass(frozen=True)
class NetworkInput:
    """The network's inputs for B images, in their input views."""

    image: Tensor  # (B, 3, H, W) float 0..1
    inside: Tensor  # (B, 1, H, W): 1 where the camera saw, 0 in the padding
    rays: Tensor  # (B, 2, H, W): x / z and y / z, in canonical units
    sensor: Tensor | None  # (B, 2, H, W): scaled log of measured depth, 0 where unknown; and 1 where known
    speed: Tensor  # (B, 2): forward speed in units of SPEED_SCALE, 0 where unknown; and 1 where known

    def to(self, dtype: torch.dtype) -> NetworkInput:
        """The same in another precision and with channels last, which makes convolutions faster."""
        image, inside, rays = (channels_last(maps, dtype) for maps in (self.image, self.inside, self.rays))
        sensor = None if self.sensor is None else channels_last(self.sensor, dtype)
        return NetworkInput(image, inside, rays, sensor, self.speed.to(dtype))


@dataclass(frozen=True)
class ReferenceInput:
    """Reference images of B sources, in an input view of the same size as the finer view of the source."""

    image: Tensor  # (B, 3, H, W) float 0..1
    K: Tensor  # (B, 3, 3) in pixels of that view
    source_K: Tensor  # (B, 3, 3) of the source in the finer view
    T_reference_source: Tensor  # (B, 3, 4), canonical metres
    known: Tensor  # (B,) bool: which sources have a reference image


def channels_last(maps: Tensor, dtype: torch.dtype) -> Tensor:
    """Maps (B, C, H, W) in another precision, and so in memory."""
    return maps.to(dtype, memory_format=torch.channels_last)


def named_maps(maps: Tensor, channels: Mapping[str, int]) -> dict[str, Tensor]:
    """The head's output (B, C, H, W), split into its maps: float32 and channels first, in one step for all of them."""
    maps = maps.to(torch.float32, memory_format=torch.contiguous_format)
    return dict(zip(channels, torch.split(maps, list(channels.values()), 1)))


def decode_log_depth(logit: Tensor) -> Tensor:
    """Log of canonical depth between the limits, linear in the logit's sigmoid: relative errors count alike."""
    low, high = math.log(MIN_DEPTH), math.log(MAX_DEPTH)
    return low + (high - low) * torch.sigmoid(logit)


def decode_spread(raw: Tensor) -> Tensor:
    """Mean absolute error of log depth, LEAST_SPREAD at least."""
    return LEAST_SPREAD + F.softplus(raw)


def decode_depth(logit: Tensor) -> Tensor:
    """Canonical depth between the limits."""
    return torch.exp(decode_log_depth(logit))


def encode_sensor(depth: Tensor, depth_scale: Tensor) -> Tensor:
    """Measured depth (B, H, W) in metres, 0 or not finite where unknown -> the network's input (B, 2, H, W).

    depth_scale (B,) metres per canonical metre.
    """
    canonical = depth / depth_scale[:, None, None]
    known = (canonical > MIN_DEPTH / 2) & (canonical < MAX_DEPTH)  # which what is not finite never is
    log_depth = torch.log(torch.where(known, canonical, 1.0))
    return torch.stack(((log_depth - LOG_DEPTH_MEAN) / LOG_DEPTH_SPREAD * known, known.to(depth.dtype)), 1)


def encode_speed(speed: Tensor) -> Tensor:
    """Forward speeds (B,) in m/s, NaN where unknown -> the network's input (B, 2)."""
    known = torch.isfinite(speed)
    return torch.stack((torch.where(known, speed / SPEED_SCALE, torch.zeros_like(speed)), known.to(speed.dtype)), 1)


def known_speed(speed: float | None) -> Tensor:
    """encode_speed of one speed, None where unknown: (1, 2) on the host."""
    return encode_speed(torch.tensor([math.nan if speed is None else speed]))


def latent_shape(width: int, height: int) -> tuple[int, int, int]:
    """Shape (C, H/32, W/32) of one latent for an input view of width x height pixels."""
    return LATENT_CHANNELS, height // 32, width // 32
