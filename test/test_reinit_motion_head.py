# SPDX-License-Identifier: Apache-2.0
"""research/reinit_motion_head.py: a network that sees as before, and has yet to learn what moves."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.network_answers import answers
from support.paths import REPOSITORY

from pixel4d_ros.predictor.checkpoint import load_weights, save_weights
from pixel4d_ros.predictor.network import Network

sys.path.insert(0, str(REPOSITORY / "research"))
import reinit_motion_head


def trained(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    save_weights(Network(), path)
    return path


def renewed(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the tool on a file; it must succeed."""
    out = path.with_name(f"renewed_{path.name}")
    monkeypatch.setattr("sys.argv", ["reinit_motion_head.py", str(out), str(path)])
    assert reinit_motion_head.main() == 0
    return out


def test_all_but_what_moves_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained(tmp_path / "in.safetensors")
    out = renewed(path, monkeypatch)
    before, after = load_file(path), load_file(out)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("dynamic."))
    was, now = answers(path), answers(out)
    for name in was.static.keys() - {"mobility", "object"}:  # to which the dynamic branch adds
        assert torch.equal(was.static[name], now.static[name]), name
    assert not torch.equal(was.mode, now.mode) and not torch.equal(was.objects["center"], now.objects["center"])
    with safe_open(str(out), "pt") as file:
        assert file.metadata()["static branch of"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_new_branch_is_the_same_whatever_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained(tmp_path / "in.safetensors")
    first = load_file(renewed(path, monkeypatch))
    again = load_file(renewed(path, monkeypatch))
    other = load_file(renewed(trained(tmp_path / "other.safetensors", seed=5), monkeypatch))
    assert all(torch.equal(first[name], again[name]) for name in first)
    dynamic = [name for name in first if name.startswith("dynamic.")]
    assert dynamic and all(torch.equal(first[name], other[name]) for name in dynamic)
    assert not torch.equal(first["static.head.weight"], other["static.head.weight"])


def test_a_file_of_the_format_before_is_renewed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained(tmp_path / "in.safetensors")
    static = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("dynamic.")}
    older = {**static, "static.objects.bias": torch.zeros(3).half(), "dynamic.head.bias": torch.zeros(24).half()}
    old = tmp_path / "old.safetensors"
    save_file(older, str(old), metadata={"format": "pixel4d_network_2", "without": ""})
    out = renewed(old, monkeypatch)
    load_weights(Network(), out)
    today, after = load_file(renewed(path, monkeypatch)), load_file(out)
    assert after.keys() == today.keys()
    assert all(torch.equal(today[name], after[name]) for name in today)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def tensor_missing(path: Path) -> None:
    tensors = load_file(path)
    del tensors["static.head.bias"]
    save_file(tensors, str(path))


def other_shape(path: Path) -> None:
    save_file({**load_file(path), "static.head.bias": torch.zeros(3)}, str(path))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncated, "damaged or not safetensors"),
        (tensor_missing, "belongs to another network: 1 tensors differ, static.head.bias first"),
        (other_shape, "belongs to another network: 1 tensors differ, static.head.bias first"),
        (Path.unlink, "No such file"),
    ],
)
def test_what_has_no_such_static_branch_is_refused(
    damage: Callable[[Path], object],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, out = trained(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    damage(path)
    monkeypatch.setattr("sys.argv", ["reinit_motion_head.py", str(out), str(path)])
    assert reinit_motion_head.main() == 2
    error = capsys.readouterr().err
    assert said in error and str(path) in error
    assert not out.exists()


def test_without_two_files_it_says_what_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["reinit_motion_head.py", "out.safetensors"])
    assert reinit_motion_head.main() == 2
    assert "OUT.safetensors IN.safetensors" in capsys.readouterr().out
