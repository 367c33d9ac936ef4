# SPDX-License-Identifier: Apache-2.0
"""Mix weights that stem from one another: the mean may beat all of them at some things.

    python research/average_weights.py OUT.safetensors 0.3 OLD.safetensors 0.7 NEW.safetensors

The shares must add up to 1; one may be negative, which extrapolates (Ilharco et al. 2023).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from pixel4d_ros.predictor.checkpoint import load_weights, save_weights
from pixel4d_ros.predictor.network import Network


def average(parts: list[tuple[float, Path]]) -> tuple[Network, dict[str, str]]:
    """The weighted mean of networks, and what to note in the file. Raises ValueError, and WeightsError."""
    total = sum(share for share, _ in parts)
    if len(parts) < 2 or abs(total - 1) > 1e-6:
        raise ValueError(f"needs two or more files whose shares add up to 1, got {len(parts)} and {total:g}")
    mixed = Network()
    sums = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in mixed.state_dict().items()}
    hashes = []
    for share, path in parts:
        network = Network()
        hashes.append(f"{share:g} {load_weights(network, path)}")
        for name, value in network.state_dict().items():
            sums[name] += share * value
    state = mixed.state_dict()
    mixed.load_state_dict({name: value.to(state[name].dtype) for name, value in sums.items()})
    return mixed, {"mean of": ", ".join(hashes)}


def main() -> int:
    """Write the mean; returns the exit status."""
    arguments = sys.argv[1:]
    if len(arguments) < 5 or len(arguments) % 2 == 0:
        print(__doc__)
        return 2
    out, given = Path(arguments[0]), arguments[1:]
    try:
        network, note = average([(float(s), Path(p)) for s, p in zip(given[::2], given[1::2])])
    except ValueError as error:  # WeightsError among them
        print(f"average_weights: {error}", file=sys.stderr)
        return 2
    save_weights(network, out, note)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
