# SPDX-License-Identifier: Apache-2.0
"""Make the weights that the surface branch is trained from, out of two earlier networks.

Static and dynamic branches come from one file; encoder and static decoder of the other become the surface branch.

    git show f9695a2:weights/pixel4d.safetensors > static.safetensors     # network 3
    git show c2d872f:weights/pixel4d.safetensors > sharp.safetensors      # network 4, run P of docs/lab/training_log.md
    python research/start_surface.py static.safetensors sharp.safetensors start.safetensors

Both hold tensors of other networks than this version's, so they are taken by name and shape.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from pixel4d_ros.predictor.checkpoint import save_weights
from pixel4d_ros.predictor.heads import SURFACE_MAPS
from pixel4d_ros.predictor.network import Network


def static_tensors(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a network 3, whose static head has more maps: depth and mobility are left."""
    kept = [0, 11]
    return {name: t[kept] if name.startswith("static.head.") else t for name, t in given.items()}


def surface_tensors(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The surface branch's tensors from those of a network 4, whose static head begins with SURFACE_MAPS."""
    tensors = {}
    for name, tensor in given.items():
        if name.startswith("encoder."):
            tensors[f"surface.{name}"] = tensor
        elif name.startswith("static.head."):
            tensors[f"surface.decoder.{name.removeprefix('static.')}"] = tensor[: sum(SURFACE_MAPS.values())]
        elif name.startswith("static.") and not name.startswith("static.coarse_depth."):
            tensors[f"surface.decoder.{name.removeprefix('static.')}"] = tensor
    return tensors


def start(static: Path, sharp: Path) -> Network:
    """A network of both. Raises RuntimeError naming the tensors that are missing or do not fit."""
    network = Network()
    given = static_tensors(load_file(static))
    given.update(surface_tensors(load_file(sharp)))
    network.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in given.items()})
    return network


def main(given: Sequence[str] | None = None) -> None:
    """Read both files and write the new one."""
    p = argparse.ArgumentParser(description="Weights from which the surface branch is trained.")
    p.add_argument("static", type=Path, help="weights of network 3")
    p.add_argument("sharp", type=Path, help="weights of network 4")
    p.add_argument("out", type=Path)
    a = p.parse_args(given)
    save_weights(start(a.static, a.sharp), a.out)


if __name__ == "__main__":
    main()
