# SPDX-License-Identifier: Apache-2.0
"""Forecasters with parts of their network switched off: what is each part worth?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.predictor import Predictor
from pixel4d_ros.predictor.checkpoint import load_weights, read_weights, shipped_weights
from pixel4d_ros.predictor.heads import NetworkInput, PixelMaps
from pixel4d_ros.predictor.latent import Latent
from pixel4d_ros.predictor.network import Network

PARTS = ("hidden", "padding", "motion", "latent")  # what can be left out
OFF = -30.0  # logit of what is switched off


class PartialNetwork(Network):
    """A trained network without some PARTS: nothing hidden, nothing in the padding, nothing that moves, no latent."""

    def __init__(self, without: Collection[str] = ()) -> None:
        super().__init__()
        unknown = set(without) - set(PARTS)
        if unknown:
            raise ValueError(f"unknown part {min(unknown)!r} to leave out: choose from {', '.join(PARTS)}")
        self.without = frozenset(without)

    def forward(
        self, source: NetworkInput, z: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> tuple[PixelMaps, Latent | None]:
        """As Network.forward."""
        if z is not None and "latent" in self.without:
            z = torch.zeros_like(z)
        maps, posterior = super().forward(source, z, *args, **kwargs)
        static = dict(maps.static)
        if "padding" in self.without:
            for name in ("opacity", "hidden_opacity"):
                static[name] = torch.where(source.inside > 0, static[name], OFF)
        off = {"hidden": ("hidden_opacity",), "motion": ("mobility", "object")}
        for name in (name for part, names in off.items() if part in self.without for name in names):
            static[name] = torch.full_like(static[name], OFF)
        return replace(maps, static=static), posterior


def load_forecaster(
    weights: Path | None, device: str, without: Collection[str] = ()
) -> tuple[Forecaster, tuple[str, ...]]:
    """A forecaster without these PARTS of its network, and all that it does without, in the order of PARTS.

    Parts that the weights' metadata says are missing stay off. weights None: the shipped ones. Raises WeightsError,
    DeviceError.
    """
    forecaster = Forecaster.load(weights, device)
    missing = read_weights(weights or shipped_weights())[0].get("without", "")
    without = {*without, *filter(None, missing.split(","))}
    if without:
        network = PartialNetwork(without)
        load_weights(network, weights or shipped_weights())
        forecaster = Forecaster(Predictor(network, forecaster.device, forecaster.weights_hash))
    return forecaster, tuple(part for part in PARTS if part in without)
