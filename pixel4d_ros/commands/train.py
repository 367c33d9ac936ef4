# SPDX-License-Identifier: Apache-2.0
"""`pixel4d train`: train the predictor on driving logs, stereo pairs and the synthetic worlds."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pixel4d_ros.training.config import TrainingConfig, TrainingSource

_TYPES = {"Path": Path, "Path | None": Path, "int": int, "float": float, "str": str}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option per field of TrainingConfig. Omitted options are absent, so that the config file applies."""
    what = "driving logs, folders of them, data sets, folders of stereo pairs; in place of the config file's sources"
    parser.add_argument("logs", nargs="*", type=Path, metavar="SOURCE", help=f"what to train on: {what}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of these options; options here win")
    parser.add_argument("--resume", action="store_true", help="continue the run that wrote --out, with its settings")
    for f in fields(TrainingConfig):
        if f.name != "sources":
            parser.add_argument(
                f"--{f.name.replace('_', '-')}",
                type=_TYPES[str(f.type)],
                default=argparse.SUPPRESS,
                help=f"{f.metadata['help']} (default: {f.default})",
            )


def run(args: argparse.Namespace) -> int:
    """Train. Raises ValueError without training data."""
    from safetensors import SafetensorError

    from pixel4d_ros.training.loop import train

    config = read_config(args)
    if not config.sources and not config.stereo and not config.synthetic_batch:
        raise ValueError("nothing to train on: name driving logs, a stereo folder, or a synthetic batch above 0")
    check_files(config)
    if config.out.is_file() and not args.resume:
        raise ValueError(f"{config.out} exists: --resume continues its run; else name another --out, or remove it")
    with progress_lines():
        try:
            train(config, resume=args.resume)
        except SafetensorError as error:
            raise OSError(f"weights or checkpoint in {config.out.parent} could not be written: {error}") from error
    return 0


def check_files(config: TrainingConfig) -> None:
    """Raise ValueError for files that training would miss late: its outputs, the validation log, the backbone."""
    from pixel4d_ros.datasets.damaged_images import without_damaged_images
    from pixel4d_ros.datasets.driving_log import read_clip
    from pixel4d_ros.files import check_folder, check_target
    from pixel4d_ros.predictor.encoder import load_backbone
    from pixel4d_ros.synthetic.assets import read_assets
    from pixel4d_ros.training.validation import FRAMES

    if config.assets is not None:
        read_assets(config.assets)
    check_folder(config.out.parent)
    inputs = [config.weights, config.flow_teacher, config.backbone, config.validate]
    check_target(config.out, (".safetensors",), inputs)
    if config.validate is not None:
        clip = read_clip(config.validate)
        if len(clip) < FRAMES:
            raise ValueError(f"{config.validate} has fewer than {FRAMES} images with poses: validate on a longer log")
        if len(without_damaged_images(clip)) < len(clip):
            raise ValueError(f"{config.validate} has damaged images: validate on another log")
    if config.backbone is not None:
        try:
            load_backbone(str(config.backbone))
        except OSError as error:
            raise ValueError(f"backbone {config.backbone} cannot be read: {error.strerror}") from error
        except Exception as error:  # torch.load raises many kinds
            text = " ".join(str(error).split())[:200]
            raise ValueError(f"backbone {config.backbone} is no checkpoint: {text}; download it again") from error


@contextmanager
def progress_lines() -> Iterator[None]:
    """Print what training logs as INFO, above the progress bar. Warnings go where those of every command go."""
    logger, handler = logging.getLogger("pixel4d_ros.training"), _AboveProgressBar()
    handler.addFilter(lambda record: record.levelno == logging.INFO)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _AboveProgressBar(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record))


def read_config(args: argparse.Namespace) -> TrainingConfig:
    """The run's settings, later ones win: defaults, the resumed run, the config file, the options."""
    given = {f.name: getattr(args, f.name) for f in fields(TrainingConfig) if hasattr(args, f.name)}
    if args.logs:
        given["sources"] = tuple(TrainingSource(path) for path in args.logs)
    from_file: dict[str, Any] = {}
    if args.config is not None:
        from pixel4d_ros.training.config_file import read_config_file

        from_file = read_config_file(args.config)
    before: dict[str, Any] = {}
    if args.resume:
        from pixel4d_ros.training.resume import read_settings

        before = read_settings(TrainingConfig(**{**from_file, **given}).checkpoint)
    try:
        return TrainingConfig(**{**before, **from_file, **given})
    except ValueError as error:
        raise ValueError(f"{args.config}: {error}" if from_file else str(error)) from None
