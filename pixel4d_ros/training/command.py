"""`pixel4d train`: train the predictor on driving logs, stereo pairs and the synthetic worlds."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, fields
from pathlib import Path

from pixel4d_ros.training.config import TrainingConfig

_TYPES = {"Path": Path, "Path | None": Path, "int": int, "float": float, "str": str}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option for each field of TrainingConfig."""
    parser.add_argument("logs", nargs="*", type=Path, help="driving logs to train on")
    for f in fields(TrainingConfig):
        default = None if f.default is MISSING else f.default
        parser.add_argument(
            f"--{f.name.replace('_', '-')}",
            type=_TYPES[str(f.type)],
            default=default,
            help=f"{f.metadata['help']} (default: {default})",
        )


def run(args: argparse.Namespace) -> int:
    """Train; raises ValueError when there is nothing to train on."""
    from pixel4d_ros.training.loop import train

    config = TrainingConfig(**{f.name: getattr(args, f.name) for f in fields(TrainingConfig)})
    if not args.logs and not config.stereo and not config.synthetic_batch:
        raise ValueError("nothing to train on: name driving logs, a stereo folder, or a synthetic batch above 0")
    train(config, args.logs)
    return 0
