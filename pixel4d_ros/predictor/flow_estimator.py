# SPDX-License-Identifier: Apache-2.0
"""Optical flow between an image and reference images by the flow network, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pixel4d_ros.predictor.cuda_graphs import Graphs
from pixel4d_ros.predictor.optical_flow import MULTIPLE, OpticalFlow
from pixel4d_ros.rendering.streams import PendingCopy, pin_memory
from pixel4d_ros.two_view.flow import FlowBothWays, check_pair, flow_size
from pixel4d_ros.two_view.reference_view import ReferenceView

LARGEST_WIDTH, ENLARGED = 832, 1.5  # pixels of the images that the network sees, and by which factor at most


@dataclass(frozen=True)
class PendingFlows:
    """Flows that a GPU may still be computing."""

    flows: PendingCopy  # see flows_between

    def result(self) -> list[FlowBothWays]:
        """The flow to each reference image and back; waits for it."""
        there, back = np.split(self.flows.array(), 2)
        return [FlowBothWays(*both) for both in zip(there, back)]


class FlowEstimator:
    """Runs a flow network: `fast` as a CUDA graph unless it is None, else `network` in eager mode. Threads take turns.

    The graphs are its own, so that they and those of the predictor do not displace each other.
    """

    def __init__(self, network: OpticalFlow, fast: OpticalFlow | None, device: torch.device) -> None:
        self.device = device
        self._network, self._fast, self._graphs = network, fast, Graphs(device)
        self._turn = Lock()  # a graph's next replay writes over what is not yet being copied

    @torch.inference_mode()
    def start(self, image: Tensor, references: Sequence[ReferenceView]) -> PendingFlows:
        """Start to measure the flow from an image (H, W, 3) uint8 RGB, on host or device, to reference images.

        Raises ValueError for images of different sizes, or too small for flow.
        """
        shape = tuple(image.shape)
        for reference in references:
            check_pair(shape, reference.image.shape)
        others = [pin_memory(np.require(r.image, requirements=("C", "W")), self.device) for r in references]
        size = flow_size(shape[1], shape[0])
        with self._turn:
            return PendingFlows(PendingCopy(self._run(size, image, *others)))

    def _run(self, size: tuple[int, int], *images: Tensor) -> Tensor:
        """Use the CUDA graph; after any failure other than out-of-memory, use eager mode permanently."""
        network = self._fast
        if network is not None:
            key = ("flow", *(tuple(image.shape) for image in images))
            flows = self._graphs.attempt(key, lambda *inputs: flows_between(network, size, *inputs), *images)
            if flows is not None:
                return flows
            self._graphs, self._fast = Graphs(self.device), None
        return flows_between(self._network, size, *(image.to(self.device, non_blocking=True) for image in images))


def flows_between(network: OpticalFlow, size: tuple[int, int], image: Tensor, *others: Tensor) -> Tensor:
    """Flow from an image (H, W, 3) uint8 RGB to B others, then back, at size (w, h): (2B, h, w, 2) in pixels.

    A computation of fixed shapes that never waits for the device.
    """
    width, height = size
    wide, high = network_size(image, *others)
    first, *seconds = (_resized(pixels, wide, high) for pixels in (image, *others))
    flow = network(first.expand(len(seconds), -1, -1, -1), torch.cat(seconds))[-1]
    x, y = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False).unbind(1)
    return torch.stack((x * (width / wide), y * (height / high)), 3)


def network_size(*images: Tensor) -> tuple[int, int]:
    """Width and height, multiples of MULTIPLE, at which the network sees images (H, W, 3): by the smallest of them.

    Flow of more pixels than are wanted is more precise, so that small images are ENLARGED.
    """
    height, width = min(tuple(image.shape[:2]) for image in images)
    scale = min(ENLARGED, LARGEST_WIDTH / width)
    high, wide = (max(MULTIPLE, MULTIPLE * round(scale * pixels / MULTIPLE)) for pixels in (height, width))
    return wide, high


def _resized(pixels: Tensor, width: int, height: int) -> Tensor:
    """An image (H, W, 3) uint8 as (1, 3, height, width) from 0 to 1."""
    image = pixels.permute(2, 0, 1)[None] / 255
    return F.interpolate(image, (height, width), mode="bilinear", align_corners=False, antialias=True)
