# SPDX-License-Identifier: Apache-2.0
"""Make the weights that a branch is trained from, or join branches that were trained apart.

git show 9029dd7:weights/pixel4d.safetensors > network5.safetensors
python research/start_branch.py network5.safetensors start.safetensors --fresh sweep --fresh movable
python research/start_branch.py a.safetensors joined.safetensors --take movable=b.safetensors
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from pixel4d_ros.predictor.checkpoint import save_weights
from pixel4d_ros.predictor.network import Network


def start(weights: Path, fresh: Sequence[str], taken: Mapping[str, Path], seed: int) -> Network:
    """A network of the weights' tensors, some of whose branches are untrained, or those of other weights.

    fresh names branches of Network; taken gives a weights file for each branch. Raises RuntimeError for tensors that do
    not fit.
    """
    torch.manual_seed(seed)
    network = Network()
    tensors = {name: t for name, t in network.state_dict().items() if name.split(".")[0] in fresh}
    tensors |= {name: t for name, t in _read(weights).items() if name.split(".")[0] not in fresh}
    for branch, path in taken.items():
        tensors |= {name: t for name, t in _read(path).items() if name.split(".")[0] == branch}
    network.load_state_dict(tensors)
    return network


def _read(path: Path) -> dict[str, torch.Tensor]:
    return {name: t.float() if t.is_floating_point() else t for name, t in load_file(path).items()}


def main(given: Sequence[str] | None = None) -> None:
    """Read the files and write the new one."""
    p = argparse.ArgumentParser(description="Weights from which a branch of the network is trained.")
    p.add_argument("weights", type=Path, help="weights of this or an earlier network")
    p.add_argument("out", type=Path)
    p.add_argument("--fresh", action="append", default=[], metavar="BRANCH", help="untrained: sweep, movable, ...")
    p.add_argument("--take", action="append", default=[], metavar="BRANCH=WEIGHTS", help="as in other weights")
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args(given)
    taken = {branch: Path(path) for branch, _, path in (text.partition("=") for text in a.take)}
    save_weights(start(a.weights, a.fresh, taken, a.seed), a.out)


if __name__ == "__main__":
    main()
