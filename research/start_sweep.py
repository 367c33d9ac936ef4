# SPDX-License-Identifier: Apache-2.0
"""Make the weights that the plane sweep is trained from: those of network 5, and an untrained plane sweep.

git show 9029dd7:weights/pixel4d.safetensors > network5.safetensors
python research/start_sweep.py network5.safetensors start.safetensors
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from pixel4d_ros.predictor.checkpoint import save_weights
from pixel4d_ros.predictor.network import Network


def start(weights: Path, seed: int) -> Network:
    """A network of the weights' tensors, whose plane sweep is untrained. Raises RuntimeError for other tensors."""
    torch.manual_seed(seed)
    network = Network()
    given = {name: t.float() if t.is_floating_point() else t for name, t in load_file(weights).items()}
    fresh = {name: t for name, t in network.state_dict().items() if name.startswith("sweep.")}
    network.load_state_dict({**fresh, **given})
    return network


def main(given: Sequence[str] | None = None) -> None:
    """Read the file and write the new one."""
    p = argparse.ArgumentParser(description="Weights from which the plane sweep is trained.")
    p.add_argument("weights", type=Path, help="weights of network 5")
    p.add_argument("out", type=Path)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args(given)
    save_weights(start(a.weights, a.seed), a.out)


if __name__ == "__main__":
    main()
