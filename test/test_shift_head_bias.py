# SPDX-License-Identifier: Apache-2.0
"""research/shift_head_bias.py: a network that answers the same, but for what is shifted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from support.network_answers import answers
from support.paths import REPOSITORY

from pixel4d_ros.predictor.checkpoint import save_weights
from pixel4d_ros.predictor.network import Network

sys.path.insert(0, str(REPOSITORY / "research"))
import shift_head_bias


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_weights(Network(), tmp_path / "in.safetensors")
    return tmp_path / "in.safetensors"


def test_only_what_is_named_is_shifted(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.safetensors"
    monkeypatch.setattr("sys.argv", ["shift_head_bias.py", str(out), str(trained), "size=-4", "hidden_color=0.5"])
    assert shift_head_bias.main() == 0
    before, after = answers(trained).surface, answers(out).surface
    shifts = {"size": -4.0, "opacity": 0.0, "border_color": 0.0, "hidden_opacity": 0.0, "hidden_color": 0.5}
    for name, shift in shifts.items():
        torch.testing.assert_close(getattr(after, name), getattr(before, name) + shift, rtol=0, atol=5e-3)


@pytest.mark.parametrize("words", [["sizes=1"], ["size"], ["size=a"], []])
def test_what_cannot_be_shifted_is_refused(trained: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out = trained.with_name("out.safetensors")
    monkeypatch.setattr("sys.argv", ["shift_head_bias.py", str(out), str(trained), *words])
    assert shift_head_bias.main() == 2
    assert not out.exists()
