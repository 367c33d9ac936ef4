"""Everything that a training run is made of, in one place; each field is an option of `pixel4d train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


def _option(default: object, text: str) -> object:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainingConfig:
    """One training run."""

    out: Path = _option(Path("out/train/weights.safetensors"), "where the EMA weights go")  # type: ignore[assignment]
    start: Path | None = _option(None, "weights to go on from")  # type: ignore[assignment]
    backbone: Path | None = _option(None, "ImageNet weights of EfficientNet-Lite2 (.pth) to start from")  # type: ignore[assignment]
    stereo: Path | None = _option(None, "folder of stereo pairs (left/, right/, disparity/)")  # type: ignore[assignment]
    validate: Path | None = _option(None, "a log to judge the EMA weights by; never trained on")  # type: ignore[assignment]
    steps: int = _option(20_000, "optimiser steps")  # type: ignore[assignment]
    minutes: float = _option(0.0, "stop after this time though steps remain (0: no limit)")  # type: ignore[assignment]
    batch: int = _option(8, "real samples per step")  # type: ignore[assignment]
    synthetic_batch: int = _option(4, "synthetic samples per step")  # type: ignore[assignment]
    synthetic_pool: int = _option(96, "synthetic batches kept; old ones are replaced as training goes on")  # type: ignore[assignment]
    targets: int = _option(3, "views per sample besides the source")  # type: ignore[assignment]
    rate: float = _option(6e-4, "peak learning rate of the decoders; the encoder's is a tenth")  # type: ignore[assignment]
    rate_from: float = _option(1.0, "share of the peak rate at the start")  # type: ignore[assignment]
    rate_to: float = _option(0.02, "share of the peak rate at the end")  # type: ignore[assignment]
    widen: float = _option(3.0, "how much wider Gaussians are at the start; 1 for runs that go on")  # type: ignore[assignment]
    weight_decay: float = _option(0.02, "AdamW weight decay")  # type: ignore[assignment]
    ema: float = _option(0.999, "decay of the weight average that is judged and shipped")  # type: ignore[assignment]
    depth_weight: float = _option(0.5, "weight of the log depth loss")  # type: ignore[assignment]
    seed: int = _option(0, "random seed")  # type: ignore[assignment]
    device: str = _option("auto", "auto, cpu, cuda or cuda:N")  # type: ignore[assignment]
