# SPDX-License-Identifier: Apache-2.0
"""research/average_weights.py: a mean of networks is a network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from support.paths import REPOSITORY

from pixel4d_ros.predictor.checkpoint import load_weights, save_weights
from pixel4d_ros.predictor.network import Network

sys.path.insert(0, str(REPOSITORY / "research"))
import average_weights


def made(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_weights(Network(), path)
    return path


def test_a_mean_lies_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, out = (
        made(tmp_path / "a.safetensors", 0),
        made(tmp_path / "b.safetensors", 1),
        tmp_path / "c.safetensors",
    )
    monkeypatch.setattr("sys.argv", ["average_weights.py", str(out), "0.25", str(one), "0.75", str(other)])
    assert average_weights.main() == 0
    networks = [Network() for _ in range(3)]
    for network, path in zip(networks, (one, other, out)):
        load_weights(network, path)
    for a, b, mean in zip(*(n.state_dict().values() for n in networks)):
        torch.testing.assert_close(mean.float(), 0.25 * a.float() + 0.75 * b.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("shares", "said"), [((0.5, 0.6), "add up to 1"), ((1.0,), "two or more")])
def test_shares_that_are_no_mean_are_refused(tmp_path: Path, shares: tuple[float, ...], said: str) -> None:
    path = made(tmp_path / "a.safetensors", 0)
    with pytest.raises(ValueError, match=said):
        average_weights.average([(share, path) for share in shares])
