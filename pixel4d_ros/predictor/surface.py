# SPDX-License-Identifier: Apache-2.0
"""The surface branch: sharp depth and appearance, from the image at twice the resolution of the input view.

The static branch sees the whole at a coarse resolution; this one sees edges. The surface takes its detail from this
branch, and its large structure from both (an ensemble of two networks: their errors differ).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixel4d_ros.predictor.decoders import StaticDecoder
from pixel4d_ros.predictor.encoder import FEATURE_CHANNELS, Encoder
from pixel4d_ros.predictor.heads import (
    SURFACE_MAPS,
    SURFACE_STARTS,
    DepthCorrection,
    DepthModes,
    NetworkInput,
    SurfaceMaps,
    channels_last,
    decode_log_depth,
    named_maps,
)

HIDDEN_GAP = 0.02  # of log depth between the visible and the hidden surface, at least
HIDDEN_SHARPNESS = 20.0  # of the smooth maximum of the two
STRUCTURE = 8  # input view pixels times the resolution factor (1 or 2): larger structure is both branches'
MEASURED_STRUCTURE = 4  # input view pixels: the same near measured depth, whatever the factor
CORRECTED_STRUCTURE = 4  # input view pixels: the same where a reference image is sure
# The surface branch's share of the large structure of what is near; the rest is the static branch's. It falls to none
# between these canonical metres: rendered views taught the static branch what is far (docs/lab/training_log.md, run V).
SURFACE_SHARE, SHARED_NEAR, SHARED_FAR = 0.5, 15.0, 40.0


class SurfaceNetwork(nn.Module):
    """NetworkInput at the finer resolution -> SURFACE_MAPS, and the encoder's features for the plane sweep."""

    def __init__(self) -> None:
        super().__init__()
        self.precision: torch.dtype | None = None  # of the decoder; None: the encoder's
        self.encoder = Encoder()
        self.decoder = StaticDecoder(SURFACE_STARTS, blocks=2)

    def forward(self, source: NetworkInput) -> tuple[dict[str, Tensor], list[Tensor]]:
        """One pass."""
        features = self.described(source.image)
        if self.precision is not None:
            source = source.to(self.precision)
        return named_maps(self.decoder(source, features), SURFACE_MAPS), features

    def described(self, image: Tensor, levels: int = len(FEATURE_CHANNELS)) -> list[Tensor]:
        """The encoder's features (B, C, h, w) of an image (B, 3, H, W), those of the first levels."""
        features = self.encoder(image, levels)
        return features if self.precision is None else [channels_last(f, self.precision) for f in features]


def blend_structure(
    log_depth: Tensor, maps: dict[str, Tensor], sensor: Tensor | None, share: Tensor | None = None
) -> Tensor:
    """The static branch's log depth (B, 1, h, w) with a share of its large structure from SURFACE_MAPS (B, C, H, W).

    sensor (B, 2, h, w): near measured depth the static branch's structure stays. share (B, 1, 1, 1): the same at all
    depths, as in training; None: SURFACE_SHARE of what is near.
    """
    size = log_depth.shape[-2:]
    cell = STRUCTURE * (maps["size"].shape[-1] // log_depth.shape[-1])
    difference = _structure_difference(log_depth, DepthModes.of(maps).most_likely()[0], cell, size)
    if share is None:
        share = SURFACE_SHARE * (1 - ((log_depth.exp() - SHARED_NEAR) / (SHARED_FAR - SHARED_NEAR)).clamp(0, 1))
    if sensor is not None:
        share = share * (1 - F.interpolate(_near_measured(sensor, cell), size, mode="bilinear", align_corners=False))
    return log_depth - share * difference


def surface_maps(
    maps: dict[str, Tensor],
    log_depth: Tensor,
    vehicles: Tensor,
    sensor: Tensor | None = None,
    correction: DepthCorrection | None = None,
) -> SurfaceMaps:
    """Low frequencies from blend_structure's log depth (B, 1, h, w), detail from SURFACE_MAPS (B, C, H, W).

    vehicles (B, 1, H / 4, W / 4): what is added to log depth on vehicles and people, see movable.distance_shift; not
    where more is known. sensor (B, 2, h, w): measured depth as the static branch had it. correction: of log_depth, by a
    reference image. Near what was measured, and where the correction is sure, log_depth counts finer.
    """
    factor = maps["size"].shape[-1] // log_depth.shape[-1]
    raw = DepthModes.of(maps)
    detail = raw.most_likely()[0]
    added = F.interpolate(vehicles, detail.shape[-2:], mode="bilinear", align_corners=False)
    shift = alone = _shift(log_depth, detail, added, sensor, None)
    if correction is not None:
        shift = _shift(correction.applied(log_depth), detail, added, sensor, correction.sure)
    modes = raw.shifted(shift)
    visible, _ = modes.most_likely()
    behind = decode_log_depth(maps["hidden_depth"]) + shift
    hidden = hidden_behind(F.max_pool2d(visible.detach(), factor), F.avg_pool2d(behind, factor))
    return SurfaceMaps(
        modes,
        visible.exp(),
        maps["size"],
        maps["opacity"],
        maps["border_color"],
        hidden.exp(),
        F.avg_pool2d(maps["hidden_opacity"], factor),
        F.avg_pool2d(maps["hidden_color"], factor),
        None if correction is None else shift - alone,
    )


def _shift(log_depth: Tensor, detail: Tensor, added: Tensor, sensor: Tensor | None, sure: Tensor | None) -> Tensor:
    """What log depth (B, 1, h, w) adds to the surface branch's detail (B, 1, H, W), as large as that.

    added (B, 1, H, W) besides, where neither a reference image nor measured depth tells more. Cells are finer where a
    reference image is sure (0..1, of any size), and near measured depth.
    """
    factor = detail.shape[-1] // log_depth.shape[-1]
    shift = _structure_difference(log_depth, detail, STRUCTURE * factor) + added
    finer: list[tuple[Tensor, int]] = []  # where, and the cells there
    if sure is not None:
        finer.append((sure, CORRECTED_STRUCTURE))
    if sensor is not None:
        finer.append((_near_measured(sensor, STRUCTURE * factor), MEASURED_STRUCTURE))
    for where, cell in finer:
        share = F.interpolate(where, shift.shape[-2:], mode="bilinear", align_corners=False)
        shift = torch.lerp(shift, _structure_difference(log_depth, detail, cell), share)
    return shift


def structure(values: Tensor, cell: int) -> Tensor:
    """Means over cells (B, C, H / cell, W / cell), blurred by weights 1, 2, 1."""
    means = F.pad(F.avg_pool2d(values, cell), (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(means, 2, 1), 2, 1)


def _near_measured(sensor: Tensor, cell: int) -> Tensor:
    """1 in the cells (B, 1, h / cell, w / cell) in or beside which depth was measured (sensor (B, 2, h, w)), else 0."""
    return (structure(sensor[:, 1:].float(), cell) > 0).float()


def _structure_difference(coarse: Tensor, fine: Tensor, cell: int, size: Sequence[int] | None = None) -> Tensor:
    """Structure of coarse (B, 1, h, w) less that of fine (B, 1, H, W); cell in coarse pixels; of this size (fine's)."""
    factor = fine.shape[-1] // coarse.shape[-1]
    difference = structure(coarse, cell) - structure(fine, cell * factor)
    return F.interpolate(difference, tuple(size or fine.shape[-2:]), mode="bilinear", align_corners=False)


def hidden_behind(visible: Tensor, hidden: Tensor) -> Tensor:
    """Log depth of the hidden surface: as predicted, but at least HIDDEN_GAP behind the visible one (a smooth max)."""
    least = visible + HIDDEN_GAP
    return least + F.softplus(hidden - least, beta=HIDDEN_SHARPNESS)
