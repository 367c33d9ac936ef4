# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: one safetensors file, fp16, with metadata. Never pickle."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pixel4d_ros.errors import WeightsError
from pixel4d_ros.files import find_resource, resource_folders
from pixel4d_ros.predictor.network import Network

FORMAT = "pixel4d_network_9"
SHIPPED = "pixel4d.safetensors"


def shipped_weights() -> Path:
    """The weights that come with the package. Raises WeightsError where they are missing."""
    path = find_resource("weights", SHIPPED)
    if path is None:
        raise WeightsError(
            f"the shipped weights {SHIPPED} were not found in {', '.join(map(str, resource_folders('weights')))}: "
            "reinstall the package, or name a weights file"
        )
    return path


def save_weights(network: Network, path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Write a network's weights as fp16 safetensors."""
    tensors = {name: _to_half(t).cpu().contiguous() for name, t in network.state_dict().items()}
    save_file(tensors, str(path), metadata={"format": FORMAT, **(metadata or {})})


def load_weights(network: Network, path: str | Path) -> str:
    """Fill a network from a weights file and return the file's sha256. Raises WeightsError."""
    metadata, tensors = read_weights(network, path)
    if metadata.get("without"):
        raise WeightsError(
            f"weights file {path} was trained without {metadata['without']}: only research/ablation.py can use it"
        )
    # Assigned, not copied, so that a network on the meta device, which costs nothing to make, is filled as well.
    network.load_state_dict(
        {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}, assign=True
    )
    return weights_hash(path)


def weights_hash(path: str | Path) -> str:
    """The sha256 that names a weights file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read_weights(network: Network, path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a weights file, which fit the network. Raises WeightsError."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist: give the path of a .safetensors file")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"weights file {path} is damaged or not safetensors ({error}): copy or download it again"
        ) from error
    kind = metadata.get("format")
    if kind != FORMAT:
        raise WeightsError(f"weights file {path} holds {kind or 'unknown tensors'}, but this version needs {FORMAT}")
    wanted = network.state_dict()
    wrong = sorted(n for n in wanted.keys() | tensors.keys() if _kind(wanted.get(n)) != _kind(tensors.get(n)))
    if wrong:
        raise WeightsError(
            f"weights file {path} belongs to another network: {len(wrong)} tensors differ, {wrong[0]} first"
        )
    # NaN and Inf survive in a sum; torch.isfinite takes seven times as long for half precision.
    broken = [n for n, t in tensors.items() if not torch.isfinite(t.float().sum())]
    if broken:
        raise WeightsError(f"weights file {path} contains NaN or Inf in {broken[0]}: copy or download it again")
    # Copies that broke off may have the whole length, and zeros at the end. No kernel or matrix is 0 all over.
    empty = [n for n, t in tensors.items() if t.ndim > 1 and not t.any()]
    if empty:
        raise WeightsError(f"weights file {path} holds nothing but zeros in {empty[0]}: copy or download it again")
    return metadata, tensors


def _to_half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def _kind(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else (tensor.is_floating_point(), *tensor.shape)
