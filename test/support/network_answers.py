# SPDX-License-Identifier: Apache-2.0
"""What a weights file's network says of one made-up image."""

from __future__ import annotations

from pathlib import Path

import torch

from pixel4d_ros.predictor.checkpoint import load_weights
from pixel4d_ros.predictor.heads import NetworkInput, PixelMaps
from pixel4d_ros.predictor.network import Network


def answers(path: Path) -> PixelMaps:
    """The maps of 96 x 64 pixels of noise, always the same."""
    network = Network()
    load_weights(network, path)
    torch.manual_seed(1)
    source = NetworkInput(
        torch.rand(1, 3, 64, 96), torch.ones(1, 1, 64, 96), torch.rand(1, 2, 64, 96), None, torch.zeros(1, 2)
    )
    with torch.no_grad():
        return network.eval()(source, source)[0]
