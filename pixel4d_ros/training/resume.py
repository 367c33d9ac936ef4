# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run: network, average and optimiser in one safetensors file. Never pickle.

Random numbers need no state: every step draws from (seed, process, step).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pixel4d_ros.errors import WeightsError
from pixel4d_ros.predictor.network import Network
from pixel4d_ros.training.config import TrainingConfig
from pixel4d_ros.training.config_file import parse_fields, plain_values

FORMAT = "pixel4d_training_2"


@dataclass
class RunState:
    """What changes during a run."""

    network: Network
    average: Network  # EMA of network
    optimizer: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0  # spent before this start, so that a time limit holds for the whole run


def save_state(state: RunState, config: TrainingConfig, seconds: float) -> None:
    """Write config.checkpoint, in one go: the file is the old or the new one. seconds: time spent so far."""
    tensors = {
        **{f"network/{name}": t for name, t in state.network.state_dict().items()},
        **{f"average/{name}": t for name, t in state.average.state_dict().items()},
    }
    for index, values in state.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer/{index}/{name}": t for name, t in values.items()})
    settings = json.dumps(plain_values(config))
    metadata = {"format": FORMAT, "config": settings, "step": str(state.step), "seconds": repr(seconds)}
    path = config.checkpoint
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, str(part), metadata)
    part.replace(path)


def load_state(state: RunState, path: Path) -> None:
    """Fill a run's state from a checkpoint. Raises WeightsError."""
    metadata, tensors = _read(path)
    optimizer: dict[int, dict[str, Tensor]] = {}
    for key in [key for key in tensors if key.startswith("optimizer/")]:
        _, index, name = key.split("/")
        optimizer.setdefault(int(index), {})[name] = tensors.pop(key)
    try:
        for part, network in (("network", state.network), ("average", state.average)):
            network.load_state_dict({k.split("/", 1)[1]: t for k, t in tensors.items() if k.startswith(f"{part}/")})
        state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": optimizer})
    except (RuntimeError, ValueError) as error:
        raise WeightsError(
            f"checkpoint {path} belongs to another network ({str(error).splitlines()[0]}): "
            "resume with the version that wrote it, or start from its weights with --weights"
        ) from None
    state.step, state.seconds = int(metadata["step"]), float(metadata["seconds"])


def read_settings(path: Path) -> dict[str, Any]:
    """The fields of TrainingConfig that a checkpoint was written with. Raises WeightsError."""
    metadata, _ = _read(path, with_tensors=False)
    return parse_fields(json.loads(metadata["config"]), str(path), path.parent)


def _read(path: Path, with_tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise WeightsError(f"there is no checkpoint {path}: name the --out of the run to resume, or leave out --resume")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()} if with_tensors else {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"checkpoint {path} is damaged ({error}): start again without --resume") from error
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path} is no checkpoint of this version of pixel4d train: start again without --resume")
    return metadata, tensors
