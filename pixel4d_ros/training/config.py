"""Everything that a training run is made of, in one place; each field is an option of `pixel4d train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainingConfig:
    """One training run."""

    out: Path = _option(Path("out/train/weights.safetensors"), "where the EMA weights go")
    weights: Path | None = _option(None, "weights to go on from")
    backbone: Path | None = _option(None, "ImageNet weights of EfficientNet-Lite2 (.pth) to start from")
    stereo: Path | None = _option(None, "folder of stereo pairs (left/, right/, disparity/)")
    validate: Path | None = _option(None, "a log to judge the EMA weights by; never trained on")
    steps: int = _option(20_000, "optimiser steps")
    minutes: float = _option(0.0, "stop after this time though steps remain (0: no limit)")
    batch: int = _option(8, "real samples per step")
    synthetic_batch: int = _option(4, "synthetic samples per step")
    synthetic_pool: int = _option(96, "synthetic batches kept; old ones are replaced as training goes on")
    targets: int = _option(3, "views per sample besides the source")
    rate: float = _option(6e-4, "peak learning rate of the decoders; the encoder's is a tenth")
    rate_from: float = _option(1.0, "share of the peak rate at the start")
    rate_to: float = _option(0.02, "share of the peak rate at the end")
    widen: float = _option(3.0, "how much wider Gaussians are at the start; 1 for runs that go on")
    weight_decay: float = _option(0.02, "AdamW weight decay")
    ema: float = _option(0.999, "decay of the weight average that is judged and shipped")
    depth_weight: float = _option(0.5, "weight of the log depth loss")
    seed: int = _option(0, "random seed")
    device: str = _option("auto", "auto, cpu, cuda or cuda:N")
