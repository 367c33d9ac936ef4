# SPDX-License-Identifier: Apache-2.0
"""Put an untrained dynamic branch in the place of a trained one, for `pixel4d train --only motion` to train.

    python research/reinit_motion_head.py OUT.safetensors IN.safetensors

IN may also be of format pixel4d_network_2, whose dynamic branch was another one; its other parts are the same.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pixel4d_ros.predictor.checkpoint import save_weights
from pixel4d_ros.predictor.network import Network

SEED = 1  # of the untrained branch


def renewed(path: Path) -> tuple[Network, dict[str, str]]:
    """The network of a file with another dynamic branch, and what to note in its file. Raises ValueError, OSError."""
    try:
        given = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not safetensors ({error})") from error
    torch.manual_seed(SEED)
    network = Network()
    state = network.state_dict()
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("dynamic.")}
    wrong = [name for name, tensor in kept.items() if name not in given or given[name].shape != tensor.shape]
    if wrong:
        raise ValueError(f"{path} belongs to another network: {len(wrong)} tensors differ, {wrong[0]} first")
    network.load_state_dict({**state, **{name: given[name] for name in kept}})
    return network, {"static branch of": hashlib.sha256(path.read_bytes()).hexdigest()}


def main() -> int:
    """Write the network; returns the exit status."""
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    try:
        network, note = renewed(Path(sys.argv[2]))
    except (ValueError, OSError) as error:
        print(f"reinit_motion_head: {error}", file=sys.stderr)
        return 2
    save_weights(network, Path(sys.argv[1]), note)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
