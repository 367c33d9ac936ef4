# SPDX-License-Identifier: Apache-2.0
"""What the network is given and what it answers: per-pixel maps, and how numbers of the world are written in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

SENSOR_CHANNELS = 2  # measured depth, and where there is any
SPEED_CHANNELS = 2  # the camera's forward speed, and whether it is known
DEPTH_MODES = 2  # Laplace distributions that a pixel's log depth is a mixture of
STATIC_MAPS = {
    "depth": DEPTH_MODES,  # logits of log depth between the limits, one per mode
    "depth_spread": DEPTH_MODES,  # each mode's scale, before softplus
    "depth_choice": 1,  # logit of the first mode's weight
    "size": 1,  # logit of the visible Gaussian's size in pixels
    "opacity": 1,
    "border_color": 3,  # correction of the mirrored colours in the padding
    "hidden_depth": 1,  # logit of the log depth of the surface behind, between the same limits
    "hidden_opacity": 1,
    "hidden_color": 3,
    "mobility": 1,  # logit: moves on its own now
    "object": 1,  # logit: belongs to something that can move, whether it does or not
}
OBJECT_MAPS = {  # at a quarter of the resolution
    "center": 1,  # logit: an object's centre
    "offset": 2,  # vote for it
    "mobility": 1,  # both add to the logits of the full resolution, which knows the edges
    "object": 1,
}
MOTION_CHANNELS = 12  # v, a, w, a_w
LATENT_CHANNELS = MOTION_CHANNELS  # how many standard deviations each part of the motion is off its mode
MIN_DEPTH, MAX_DEPTH = 0.5, 250.0  # canonical metres
LEAST_SPREAD = 0.01  # of a mode of log depth
HIDDEN_GAP = 0.02  # of log depth between the visible and the hidden surface, at least
HIDDEN_SHARPNESS = 20.0  # of the smooth maximum of the two
LOG_DEPTH_MEAN, LOG_DEPTH_SPREAD = 2.5, 1.3  # of scenes, for inputs of about unit size
SPEED_SCALE = 10.0  # m/s


@dataclass(frozen=True)
class DepthModes:
    """Per pixel, log depth as a mixture of two Laplace distributions (SMD-Nets, Tosi et al. 2021).

    At a depth edge the two modes are the two sides. A mean of them would lie on neither.
    """

    log_depth: Tensor  # (B, 2, H, W) natural logarithm of canonical metres
    scale: Tensor  # (B, 2, H, W) mean absolute deviation of each mode
    log_weight: Tensor  # (B, 2, H, W) log of each mode's share

    @staticmethod
    def of(static: Mapping[str, Tensor]) -> DepthModes:
        """From STATIC_MAPS."""
        choice = static["depth_choice"]
        log_weight = F.logsigmoid(torch.cat((choice, -choice), 1))
        return DepthModes(decode_log_depth(static["depth"]), decode_spread(static["depth_spread"]), log_weight)

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
        near, far = self.log_depth.split(1, 1)
        scale = torch.where(first > 0, self.scale[:, :1], self.scale[:, 1:])
        if not first.requires_grad:
            return torch.where(first > 0, near, far), scale
        soft = torch.sigmoid(first)
        share = (first > 0).to(soft.dtype) + soft - soft.detach()
        return far + share * (near - far), scale


@dataclass(frozen=True)
class PixelMaps:
    """Network outputs on the input view (B images, S samples); motion in the network's precision, the rest float32."""

    static: dict[str, Tensor]  # (B, C, H, W) each, of STATIC_MAPS
    depth: Tensor  # (B, 1, H, W) canonical metres of the visible surface
    depth_scale: Tensor  # (B, 1, H, W) mean absolute deviation of its logarithm
    hidden_depth: Tensor  # (B, 1, H, W) canonical metres of the surface behind
    objects: dict[str, Tensor]  # (B, C, H/4, W/4) each, of OBJECT_MAPS
    motion: Tensor  # (B, S, 12, H/4, W/4)
    mode: Tensor  # (B, 12, H/4, W/4): the likeliest motion
    spread: Tensor  # the same shape: mean absolute deviation from it
    two_view: TwoViewMaps | None = None  # what the reference image says
    nearest_center_ids: Tensor | None = None  # what a `group` that the network was given made of the object maps

    def float(self) -> PixelMaps:
        """The same with all in float32."""
        return replace(self, motion=self.motion.float(), mode=self.mode.float(), spread=self.spread.float())


@dataclass(frozen=True)
class TwoViewMaps:
    """What the comparison with the reference image gives, for losses of its own."""

    plane_logits: Tensor  # (B, D, H/4, W/4) over the depths of the plane sweep
    coarse_log_depth: Tensor  # (B, 1, H/4, W/4)
    residual_flow: Tensor  # (B, 2, H/4, W/4) pixels of the input view, beside what a still scene explains
    valid: Tensor  # (B,) 1 where there is a reference image


@dataclass(frozen=True)
class ReferenceInput:
    """An earlier image of the same scene, resized and padded as the source image is."""

    image: Tensor  # (B, 3, H, W) float 0..1
    K: Tensor  # (B, 3, 3) of the source image, pixels of the input view
    reference_K: Tensor  # (B, 3, 3) of the reference image
    T_reference_source: Tensor  # (B, 4, 4), translation in canonical metres
    seconds: Tensor  # (B,) from the reference to the source image
    valid: Tensor  # (B,) 1 where there is a reference image, else 0


@dataclass(frozen=True)
class NetworkInput:
    """What the network is given of B images on their input views."""

    image: Tensor  # (B, 3, H, W) float 0..1
    inside: Tensor  # (B, 1, H, W): 1 where the camera saw, 0 in the padding
    rays: Tensor  # (B, 2, H, W): x / z and y / z, in canonical units
    sensor: Tensor | None  # (B, 2, H, W): scaled log of measured depth, 0 where unknown; and 1 where known
    speed: Tensor  # (B, 2): forward speed in units of SPEED_SCALE, 0 where unknown; and 1 where known
    reference: ReferenceInput | None = None

    def to(self, dtype: torch.dtype) -> NetworkInput:
        """The same in another precision and with its channels last, which convolutions are faster with."""
        image, inside, rays = (channels_last(maps, dtype) for maps in (self.image, self.inside, self.rays))
        sensor = None if self.sensor is None else channels_last(self.sensor, dtype)
        return NetworkInput(image, inside, rays, sensor, self.speed.to(dtype), self.reference)


def channels_last(maps: Tensor, dtype: torch.dtype) -> Tensor:
    """Maps (B, C, H, W) in another precision, and so in memory."""
    return maps.to(dtype, memory_format=torch.channels_last)


def named_maps(maps: Tensor, channels: Mapping[str, int]) -> dict[str, Tensor]:
    """The head's output (B, C, H, W), split into its maps: float32 and channels first, in one step for all of them."""
    split = maps.to(torch.float32, memory_format=torch.contiguous_format).split(list(channels.values()), 1)
    return dict(zip(channels, split))


def decode_log_depth(logit: Tensor) -> Tensor:
    """Log of canonical depth between the limits; linear in the logit's sigmoid, so that relative errors count alike."""
    low, high = math.log(MIN_DEPTH), math.log(MAX_DEPTH)
    return low + (high - low) * torch.sigmoid(logit)


def decode_spread(raw: Tensor) -> Tensor:
    """Scale of a mode of log depth."""
    return LEAST_SPREAD + F.softplus(raw)


def behind(visible: Tensor, hidden: Tensor) -> Tensor:
    """Log depth of the hidden surface: as predicted, but at least HIDDEN_GAP behind the visible one (a smooth max)."""
    least = visible + HIDDEN_GAP
    return least + F.softplus(hidden - least, beta=HIDDEN_SHARPNESS)


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
