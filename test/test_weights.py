# SPDX-License-Identifier: Apache-2.0
"""Weights files: saved and loaded, and refused with the reason when they are not what they should be."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pixel4d_ros.errors import WeightsError
from pixel4d_ros.predictor import Predictor
from pixel4d_ros.predictor.checkpoint import load_weights, save_weights
from pixel4d_ros.predictor.network import Network


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network()


@pytest.fixture(scope="module")
def saved(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_weights(network, path, {"steps": "0"})
    return path


def test_weights_come_back_as_they_were_saved(network: Network, saved: Path) -> None:
    other = Network()
    assert load_weights(other, saved) == hashlib.sha256(saved.read_bytes()).hexdigest()
    for (name, one), two in zip(network.state_dict().items(), other.state_dict().values()):
        torch.testing.assert_close(two.float(), one.float(), atol=1e-3, rtol=1e-3, msg=name)


def rewritten(saved: Path, path: Path, change, metadata: dict[str, str] | None = None) -> None:
    """A copy of a weights file after change(tensors); metadata None keeps its own."""
    with safe_open(str(saved), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        kept = file.metadata()
    change(tensors)
    save_file(tensors, str(path), metadata=kept if metadata is None else metadata)


def missing(saved: Path, path: Path) -> None:
    path.unlink(missing_ok=True)


def empty(saved: Path, path: Path) -> None:
    path.touch()


def truncated(saved: Path, path: Path) -> None:
    path.write_bytes(saved.read_bytes()[:-1000])


def text(saved: Path, path: Path) -> None:
    path.write_text("<html>404: not found</html>")


def pickled(saved: Path, path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, path)


def folder(saved: Path, path: Path) -> None:
    path.mkdir()


def other_format(saved: Path, path: Path) -> None:
    rewritten(saved, path, lambda tensors: None, {"format": "pixel4d_network_0"})


def no_format(saved: Path, path: Path) -> None:
    rewritten(saved, path, lambda tensors: None, {})


def other_shapes(saved: Path, path: Path) -> None:
    rewritten(saved, path, lambda tensors: tensors.update({"static.head.bias": torch.zeros(3)}))


def tensor_missing(saved: Path, path: Path) -> None:
    rewritten(saved, path, lambda tensors: tensors.pop("static.head.bias"))


def not_finite(saved: Path, path: Path) -> None:
    rewritten(saved, path, lambda tensors: tensors["static.head.bias"].fill_(torch.nan))


def integers(saved: Path, path: Path) -> None:
    rewritten(saved, path, lambda tensors: tensors.update({"static.head.bias": tensors["static.head.bias"].to(int)}))


def broken_off(saved: Path, path: Path) -> None:
    data = saved.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing, "does not exist: give the path"),
        (folder, "does not exist: give the path"),
        (empty, "damaged or not safetensors"),
        (truncated, "damaged or not safetensors"),
        (text, "damaged or not safetensors"),
        (pickled, "damaged or not safetensors"),
        (other_format, "holds pixel4d_network_0, but this version needs"),
        (no_format, "holds unknown tensors, but this version needs"),
        (other_shapes, "another network: 1 tensors differ, static.head.bias first"),
        (tensor_missing, "another network: 1 tensors differ, static.head.bias first"),
        (not_finite, "NaN or Inf in static.head.bias"),
        (integers, "another network: 1 tensors differ, static.head.bias first"),
        (broken_off, "holds nothing but zeros in .*: copy or download it again"),
    ],
)
def test_bad_weights_are_refused_with_the_reason(damage, message: str, saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    damage(saved, path)
    with pytest.raises(WeightsError, match=message) as caught:
        Predictor.load(path, torch.device("cpu"))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_name_of_a_weights_file_does_not_matter(saved: Path, tmp_path: Path) -> None:
    shutil.copy(saved, tmp_path / "best")
    assert len(Predictor.load(tmp_path / "best", torch.device("cpu")).weights_hash) == 64
