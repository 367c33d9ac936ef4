# SPDX-License-Identifier: Apache-2.0
"""The settings of a training run; each field is an option of `pixel4d train`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

# Of the network, which can be trained alone: name -> modules. The static branch's features are the dynamic decoder's:
# depth trains both by labels, static by rendered views as well.
PARTS = {
    "motion": ("dynamic",),
    "movable": ("movable",),
    "depth": ("encoder", "static", "dynamic"),
    "static": ("encoder", "static", "dynamic", "posterior"),
    "surface": ("surface",),
    "sweep": ("sweep",),
    "flow": ("flow",),
}


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainingSource:
    """A log, a folder of logs, a data set or a folder of stereo pairs; weight: how much more often it is drawn.

    Without labels, the source's masks and boxes of moving objects are not read.
    """

    path: Path
    weight: float = 1.0
    labels: bool = True

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"the weight of source {self.path} must be above 0, not {self.weight}")


@dataclass(frozen=True)
class TrainingConfig:
    """One training run. Raises ValueError for invalid values."""

    sources: tuple[TrainingSource, ...] = _option(
        (), "what to train on; in a config file: {path: ..., weight: ..., labels: ...} each"
    )
    out: Path = _option(Path("out/train/weights.safetensors"), "where the EMA weights go")
    weights: Path | None = _option(None, "weights to start from")
    backbone: Path | None = _option(
        None, "ImageNet weights of EfficientNet-Lite2 (.pth) that the encoders trained start from"
    )
    stereo: Path | None = _option(None, "one more source: a folder of stereo pairs (left/, right/, disparity/)")
    flow_teacher: Path | None = _option(
        None, "GMFlow's published weights, which then label real clips with depth and flow (docs/training.md)"
    )
    validate: Path | None = _option(None, "a log to judge the EMA weights by; never trained on")
    steps: int = _option(20_000, "optimiser steps")
    minutes: float = _option(0.0, "stop after this time though steps remain (0: no limit)")
    batch: int = _option(8, "real samples per step")
    synthetic_batch: int = _option(4, "synthetic samples per step")
    synthetic_pool: int = _option(96, "synthetic batches kept; old ones are replaced during training")
    assets: Path | None = _option(
        None,
        "folder of textured meshes for the synthetic streets, vehicles above all (docs/training.md)",
    )
    room_share: float = _option(0.25, "share of the steps with tall crops: rooms, places outdoors, squarer cameras")
    half_share: float = _option(0.15, "share of the steps at half resolution, as cameras of few pixels see")
    targets: int = _option(3, "views per sample besides the source")
    rate: float = _option(6e-4, "peak learning rate of the decoders")
    encoder_rate: float = _option(0.1, "the encoder's, as a share of that; 0: it stays")
    rate_from: float = _option(1.0, "share of the peak rate at the start")
    rate_to: float = _option(0.02, "share of the peak rate at the end")
    widen: float = _option(3.0, "how much wider Gaussians are at the start; 1 for runs from trained weights")
    weight_decay: float = _option(0.02, "AdamW weight decay")
    drop_path: float = _option(0.0, "share of samples for which the encoder's last residual is left out")
    ema: float = _option(0.999, "decay of the weight average that is judged and shipped")
    depth_weight: float = _option(0.15, "weight of the log likelihood of depth")
    matched_weight: float = _option(0.2, "in it, of depth matched in stereo where none was measured (0: none is)")
    save_minutes: float = _option(2.0, "time between checkpoints for --resume")
    panel_every: int = _option(500, "steps between TensorBoard images (0: none)")
    only: str = _option("", f"what to train, all else stays as in --weights: {', '.join(PARTS)} (nothing: everything)")
    seed: int = _option(0, "random seed")
    device: str = _option("auto", "auto, cpu, cuda or cuda:N")

    def __post_init__(self) -> None:
        least = {
            "steps": 1,
            "minutes": 0,
            "batch": 0,
            "synthetic_batch": 0,
            "synthetic_pool": 1,
            "room_share": 0,
            "half_share": 0,
            "targets": 1,
            "rate": 0,
            "encoder_rate": 0,
            "rate_from": 0,
            "rate_to": 0,
            "weight_decay": 0,
            "drop_path": 0,
            "depth_weight": 0,
            "matched_weight": 0,
            "save_minutes": 0,
            "panel_every": 0,
            "seed": 0,
        }
        for f in fields(self):
            if f.type == "float" and not math.isfinite(getattr(self, f.name)):
                raise ValueError(f"{f.name} must be a finite number, not {getattr(self, f.name)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, not {self.ema}")
        for name, limit in least.items():
            if not getattr(self, name) >= limit:
                raise ValueError(f"{name} must be at least {limit}, not {getattr(self, name)}")
        self._check_shares()
        if self.only not in ("", *PARTS):
            raise ValueError(f"only must be {', '.join(PARTS)} or nothing, not {self.only!r}")
        if self.only and self.weights is None:
            raise ValueError(f"only {self.only} is trained: name the weights that the rest stays as")
        if self.only == "flow" and self.flow_teacher is None:
            raise ValueError("only flow is trained: name the flow_teacher that it learns from")
        if self.batch + self.synthetic_batch < 1:
            raise ValueError("batch and synthetic_batch are both 0: a step needs samples")

    def _check_shares(self) -> None:
        for name in ("room_share", "half_share", "rate_from", "rate_to"):
            if not getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share of at most 1, not {getattr(self, name)}: 25 % are 0.25")
        if not self.widen > 0:
            raise ValueError(f"widen must be a factor above 0, not {self.widen}")
        if not self.drop_path < 1:
            raise ValueError(f"drop_path must be below 1, not {self.drop_path}: nothing would be left")

    @property
    def checkpoint(self) -> Path:
        """Where `--resume` finds the run."""
        return self.out.with_suffix(".resume.safetensors")

    @property
    def curves(self) -> Path:
        """TensorBoard's folder of this run."""
        return self.out.parent / "tensorboard" / self.out.stem
