# SPDX-License-Identifier: Apache-2.0
"""A network with parts switched off: for research/ablation.py, and to train one so.

    python research/ablated_network.py PART [options of `pixel4d train`]

trains without PART from the start. PART is hidden, padding, motion or latent, or several of them with commas between.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixel4d_ros.commands.train import add_arguments, progress_lines, read_config
from pixel4d_ros.predictor.checkpoint import read_weights, save_weights
from pixel4d_ros.predictor.heads import NetworkInput, PixelMaps
from pixel4d_ros.predictor.latent import Latent
from pixel4d_ros.predictor.network import Network
from pixel4d_ros.training.loop import train

PARTS = ("hidden", "padding", "motion", "latent")
OFF = -30.0  # logit of what is switched off


class AblatedNetwork(Network):
    """Network without PARTS: nothing hidden, nothing in the padding, nothing that moves, or latents of 0."""

    def __init__(self, without: Collection[str] = ()) -> None:
        super().__init__()
        unknown = set(without) - set(PARTS)
        if unknown:
            raise ValueError(f"unknown part {sorted(unknown)[0]!r} to leave out: choose from {', '.join(PARTS)}")
        self.without = frozenset(without)

    @staticmethod
    def load(path: Path, without: Collection[str] = ()) -> AblatedNetwork:
        """A network of a weights file, without what it was trained without, and without these. Raises WeightsError."""
        network = AblatedNetwork(without)
        metadata, tensors = read_weights(network, path)
        network.load_state_dict(tensors)
        network.without |= set(filter(None, metadata.get("without", "").split(",")))
        return network

    def forward(
        self, source: NetworkInput, fine: NetworkInput, *others: Any, **named: Any
    ) -> tuple[PixelMaps, Latent | None]:
        """As Network's, with the maps of the missing parts overwritten."""
        maps, posterior = super().forward(source, fine, *others, **named)
        static, surface = dict(maps.static), maps.surface
        if "padding" in self.without:
            surface = replace(
                surface,
                opacity=inside_only(surface.opacity, fine.inside),
                hidden_opacity=inside_only(surface.hidden_opacity, source.inside),
            )
        if "hidden" in self.without:
            surface = replace(surface, hidden_opacity=torch.full_like(surface.hidden_opacity, OFF))
        if "motion" in self.without:
            static["mobility"] = torch.full_like(static["mobility"], OFF)
        motion = maps.mode[:, None].expand_as(maps.motion) if "latent" in self.without else maps.motion
        return replace(maps, static=static, surface=surface, motion=motion), posterior


def inside_only(logit: Tensor, inside: Tensor) -> Tensor:
    """Logits (B, 1, H, W), OFF in the padding."""
    return torch.where(inside > 0, logit, torch.full_like(logit, OFF))


def main(arguments: list[str] | None = None) -> int:
    """Train; returns the exit status."""
    parser = argparse.ArgumentParser(description="Train a network without some of its parts.")
    parser.add_argument("without", metavar="PART", type=lambda text: tuple(text.split(",")))
    add_arguments(parser)
    args = parser.parse_args(arguments)
    logging.basicConfig()
    try:
        config = read_config(args)
        with progress_lines():
            out = train(config, resume=args.resume, make=partial(AblatedNetwork, args.without))
        network = AblatedNetwork()
        metadata, tensors = read_weights(network, out)
        network.load_state_dict(tensors)
        save_weights(network, out, {**metadata, "without": ",".join(args.without)})
    except (ValueError, OSError) as error:
        print(f"ablated_network: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
