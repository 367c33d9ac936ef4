# SPDX-License-Identifier: Apache-2.0
"""Forecasters with parts of their network switched off: what is each part worth?"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixel4d_ros.forecaster import Forecaster


def load_forecaster(
    weights: Path | None, device: str, without: Collection[str] = ()
) -> tuple[Forecaster, tuple[str, ...]]:
    """A forecaster without these PARTS of its network, and all that it does without, in the order of PARTS.

    Parts that the weights were trained without stay off. weights None: the shipped ones. Raises WeightsError,
    DeviceError.
    """
    from pixel4d_ros.forecaster import Forecaster
    from pixel4d_ros.predictor import Predictor
    from pixel4d_ros.predictor.checkpoint import load_weights, shipped_weights
    from pixel4d_ros.predictor.network import PARTS, Network

    forecaster = Forecaster.load(weights, device)
    network = Network()
    load_weights(network, weights or shipped_weights())
    off = network.without | set(without)
    if off != network.without:
        network.without = off
        forecaster = Forecaster(Predictor(network, forecaster.device, forecaster.weights_hash))
    return forecaster, tuple(part for part in PARTS if part in off)
