# SPDX-License-Identifier: Apache-2.0
"""TensorBoard entries of a run: curves, and pictures of the averaged network's output for a few fixed samples."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.predictor.network import Network
from pixel4d_ros.training.batch import Batch, halved
from pixel4d_ros.training.rendering import inside_view, predict_views

logger = logging.getLogger(__name__)


class Board:
    """Writes curves and panels to a folder; does nothing, after one warning, without TensorBoard."""

    def __init__(self, folder: Path | None, first_step: int = 0) -> None:
        """folder None: a process that writes nothing. Entries from first_step on are replaced."""
        self.samples: dict[torch.Size, list[Batch]] = {}  # by image size
        self.writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.warning("no curves: TensorBoard is not installed (pip install tensorboard)")
            return
        self.writer = SummaryWriter(str(folder), purge_step=first_step or None)

    def scalars(self, values: dict[str, float], step: int) -> None:
        """One point on each curve."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def text(self, name: str, text: str, step: int) -> None:
        """A line of text."""
        if self.writer is not None:
            self.writer.add_text(name, text, step)

    def remember(self, batch: Batch) -> None:
        """Keep a real and a synthetic sample, where there are both, of the first batch of each image size."""
        size = batch.images.shape[-2:]
        if self.writer is not None and size not in self.samples:
            self.samples[size] = [batch.part(i, i + 1) for i in sorted({0, len(batch.images) - 1})]

    def panels(self, network: Network, step: int) -> None:
        """Pictures of what a network makes of the samples remembered, the same ones all through the run."""
        if self.writer is None:
            return
        for size, samples in self.samples.items():
            for i, sample in enumerate(samples):
                name = f"{size[1]}x{size[0]}/{i}"
                self.writer.add_image(name, panel(network, sample), step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()


@torch.no_grad()
def panel(network: Network, sample: Batch) -> np.ndarray:
    """One sample as a picture (rows of H, columns of W pixels, 3) uint8 RGB, V or 4 columns.

    True views above rendered ones, and below: source, inverse depth, mobility, object centres.
    """
    use_prior = torch.ones(1, dtype=torch.bool, device=sample.images.device)
    prediction = predict_views(network, sample, halved(sample), 1.0, use_prior)
    view = prediction.fine
    inverse = 1 / inside_view(prediction.maps.surface.depth, view)[0, 0]
    mobility, centers = (
        F.interpolate(torch.sigmoid(logit), (view.height, view.width))
        for logit in (prediction.maps.static["mobility"], prediction.maps.objects["center"])
    )
    maps = (inverse / inverse.max(), inside_view(mobility, view)[0, 0], inside_view(centers, view)[0, 0])
    pictures = (
        [_picture(target) for target in sample.images[0]],
        [_picture(rendered) for rendered in prediction.views[0]],
        [_picture(sample.images[0, 0]), *map(_heat, maps)],
    )
    rows = [np.concatenate(row, 1) for row in pictures]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def _picture(image: Tensor) -> np.ndarray:
    """Image (3, H, W) in 0..1 -> (H, W, 3) uint8."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def _heat(values: Tensor) -> np.ndarray:
    """Values (H, W) in 0..1 in colours, (H, W, 3) uint8."""
    grey = (values.clamp(0, 1) * 255).round().byte().cpu().numpy()
    return np.ascontiguousarray(cv2.applyColorMap(grey, cv2.COLORMAP_TURBO)[..., ::-1])
