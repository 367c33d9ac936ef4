# SPDX-License-Identifier: Apache-2.0
"""Shift what a surface branch answers everywhere, such as the size of Gaussians: sharpness, without more training.

    python research/shift_head_bias.py OUT.safetensors IN.safetensors size=-4 opacity=0.3

Names are those of predictor.heads.SURFACE_MAPS, shifts in their units (logits); they go into the last layer's biases.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from pixel4d_ros.predictor.checkpoint import load_weights, save_weights
from pixel4d_ros.predictor.heads import SURFACE_MAPS
from pixel4d_ros.predictor.network import Network


def shifted(path: Path, shifts: dict[str, float]) -> tuple[Network, dict[str, str]]:
    """The network of a file with shifted maps, and what to note in its file. Raises ValueError, and WeightsError."""
    unknown = [name for name in shifts if name not in SURFACE_MAPS]
    if unknown or not shifts:
        raise ValueError(f"needs name=number, with names of {', '.join(SURFACE_MAPS)}, got {unknown or 'none'}")
    network = Network()
    note = f"{load_weights(network, path)} and {', '.join(f'{name} {shift:+g}' for name, shift in shifts.items())}"
    bias = network.surface.decoder.head.bias
    assert bias is not None
    with torch.no_grad():
        bias += torch.tensor([shifts.get(name, 0.0) for name, n in SURFACE_MAPS.items() for _ in range(n)])
    return network, {"shift of": note}


def main() -> int:
    """Write the shifted network; returns the exit status."""
    if len(sys.argv) < 4:
        print(__doc__)
        return 2
    out, path, *words = sys.argv[1:]
    try:
        shifts = {name: float(number) for name, _, number in (word.partition("=") for word in words)}
        network, note = shifted(Path(path), shifts)
    except ValueError as error:  # WeightsError among them
        print(f"shift_head_bias: {error}", file=sys.stderr)
        return 2
    save_weights(network, Path(out), note)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
