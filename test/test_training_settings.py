# SPDX-License-Identifier: Apache-2.0
"""What a training run is told: settings from files and options, sources and their weights."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.log_samples import entries, write_mcap
from support.paths import REPOSITORY

from pixel4d_ros import cli
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.synthetic import write_street_log
from pixel4d_ros.training import loop, sources
from pixel4d_ros.training.config import TrainingConfig, TrainingSource
from pixel4d_ros.training.config_file import plain_values, read_config_file
from pixel4d_ros.training.real_data import RealData
from pixel4d_ros.training.sources import SyntheticPool, TrainingData

SIZE = (64, 32)


# Settings


def test_a_config_file_sets_every_field(tmp_path: Path) -> None:
    wanted = TrainingConfig(
        sources=(TrainingSource(tmp_path / "a.mcap", 2.5),),
        out=tmp_path / "w.safetensors",
        steps=7,
        rate=8e-4,
        device="cpu",
    )
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(plain_values(wanted)))  # JSON is YAML
    assert TrainingConfig(**read_config_file(path)) == wanted


def test_paths_in_a_config_file_start_at_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "config" / "run.yaml"
    path.parent.mkdir()
    path.write_text(
        "out: ../out/w.safetensors\nsources:\n  - ../a.mcap\n  - {path: b, weight: 3, labels: false}\n"
        "rate: 8e-4\nweights:\n"
    )
    given = read_config_file(path)
    assert given["out"] == tmp_path / "out" / "w.safetensors"
    assert given["sources"] == (
        TrainingSource(tmp_path / "a.mcap"),
        TrainingSource(tmp_path / "config" / "b", 3.0, False),
    )
    assert given["rate"] == 8e-4 and given["weights"] is None


def test_a_new_run_does_not_replace_the_weights_of_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The default --out of two runs is the same: hours of the first were lost."""
    out = tmp_path / "weights.safetensors"
    out.write_bytes(b"hours of work")
    assert cli.main(["train", "--out", str(out), "--device", "cpu"]) == 1
    assert "exists: --resume continues its run; else name another --out, or remove it" in capsys.readouterr().err
    assert out.read_bytes() == b"hours of work"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 3", "unknown option stepz; did you mean steps?"),
        ("steps: many", "steps must be a whole number, not 'many'"),
        ("steps: 2.5", "steps must be a whole number"),
        ("steps: true", "steps must be a whole number"),
        ("rate: [1]", "rate must be a number"),
        ("rate:", "rate must be a number, not None"),
        ("out: 3", "out must be a path"),
        ("device: 0", "device must be text"),
        ("sources: a.mcap", "sources must be a list"),
        ("sources: [{weight: 2}]", r"sources\[0\] must be a path"),
        ("sources: [a, {path: b, wait: 2}]", r"sources\[1\] must be a path, or as in"),
        ("sources: [{path: a, labels: 2}]", r"sources\[0\]: labels must be true or false"),
        ("sources: [{path: a, weight: 0}]", r"sources\[0\]: the weight of source .*a must be above 0"),
        ("weight_decay: .nan", "weight_decay must be a finite number, not nan"),
        ("rate: .inf", "rate must be a finite number, not inf"),
        ("ema: 1.5", "ema must be at least 0 and below 1"),
        ("room_share: 25", "room_share must be a share of at most 1, not 25.0: 25 % are 0.25"),
        ("half_share: 80", "half_share must be a share of at most 1"),
        ("rate_to: -1", "rate_to must be at least 0"),
        ("widen: 0", "widen must be a factor above 0"),
        ("steps: 0", "steps must be at least 1, not 0"),
        ("drop_path: 1", "drop_path must be below 1"),
        ("only: sky", "only must be motion, movable, depth, static, surface, sweep, flow or nothing, not 'sky'"),
        ("only: motion", "only motion is trained: name the weights that the rest stays as"),
        ("- steps", "must hold `option: value` lines"),
        ("steps: [", "is not YAML"),
        ("steps: 1\nsteps: 2", "is not YAML: .*duplicate"),
    ],
)
def test_a_wrong_config_file_is_one_clear_line(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert cli.main(["train", "--config", str(path)]) == 1
    error = capsys.readouterr().err.strip()
    assert "run.yaml" in error and "\n" not in error
    with pytest.raises(ValueError, match=message):
        raise ValueError(error)


def test_training_a_part_needs_the_rest() -> None:
    with pytest.raises(ValueError, match="name the weights"):
        TrainingConfig(only="motion")
    with pytest.raises(ValueError, match=r"only must be motion, .*, depth, .*, sweep, flow or nothing, not 'x'"):
        TrainingConfig(only="x", weights=Path("w.safetensors"))
    with pytest.raises(ValueError, match="name the flow_teacher"):
        TrainingConfig(only="flow", weights=Path("w.safetensors"))
    assert TrainingConfig(only="motion", weights=Path("w.safetensors")).only == "motion"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "run.yaml/w.safetensors"], "cannot write into run.yaml: it is a file"),
        (["--out", "weights.pth"], "name it with one of the suffixes .safetensors"),
        (["--backbone", "run.yaml"], "backbone run.yaml is no checkpoint"),
        (["--backbone", "nowhere.pth"], "backbone nowhere.pth cannot be read: No such file"),
        (["--validate", "short.mcap"], "short.mcap has fewer than 14 images with poses"),
        (["--validate", "damaged.mcap"], "damaged.mcap has damaged images"),
        (["--validate", "nowhere.mcap"], "nowhere.mcap does not exist"),
        (["--weights", "old.safetensors", "--out", "old.safetensors"], "old.safetensors: it is read as input"),
    ],
)
def test_files_that_a_run_would_miss_late_are_checked_first(
    tmp_path: Path, options: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After hours of training, weights without a place and a validation log without images are no use."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("steps: 1")
    (tmp_path / "old.safetensors").touch()
    write_mcap(tmp_path / "short.mcap", entries(5))
    damaged = list(entries(15, compressed=True))
    next(e for e in damaged if e.topic.endswith("compressed")).message.data = np.zeros(9, np.uint8)
    write_mcap(tmp_path / "damaged.mcap", damaged)
    assert cli.main(["train", *options]) == 1
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_weights_that_cannot_be_saved_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "train", lambda *_, **__: save_file({"a": torch.zeros(9)}, str(tmp_path / "gone" / "w")))
    assert cli.main(["train", "--out", str(tmp_path / "w.safetensors")]) == 1
    error = capsys.readouterr().err.strip()
    assert "could not be written" in error and "\n" not in error


def test_nothing_to_train_on_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--synthetic-batch", "0"]) == 1
    assert "nothing to train on" in capsys.readouterr().err


# Data


def still(name: str, frames: int) -> Clip:
    images = np.zeros((frames, 40, 80, 3), np.uint8)
    K = np.array([[60.0, 0, 40], [0, 60, 20], [0, 0, 1]])
    return Clip(name, images, K, np.tile(np.eye(4), (frames, 1, 1)), np.arange(frames) * 0.1)


def test_weights_mix_clips() -> None:
    clips, rng, cpu = [still("a", 16), still("b", 4)], np.random.default_rng(0), torch.device("cpu")
    assert RealData(clips, rng, cpu).shares == pytest.approx([2 / 3, 1 / 3])
    assert RealData(clips, rng, cpu, [1, 6]).shares == pytest.approx([1 / 4, 3 / 4])


def test_a_sources_weight_reaches_its_clips(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lengths = {"a": 16, "b": 4, "indoor_c": 9}
    monkeypatch.setattr(sources, "read_clips", lambda source: [still(source.path.name, lengths[source.path.name])])
    config = TrainingConfig(
        sources=(TrainingSource(Path("a")), TrainingSource(Path("b"), 6.0), TrainingSource(Path("indoor_c"), 5.0)),
        batch=1,
        synthetic_batch=0,
        room_share=0.5,
    )
    data = TrainingData(config, 0, torch.device("cpu"), SIZE, (48, 40))
    assert data.roads.shares == pytest.approx([1 / 4, 3 / 4])
    assert data.rooms.shares == pytest.approx([1])
    assert caplog.messages == ["wide  25 %  a", "wide  75 %  b", "tall 100 %  indoor_c"]
    widths = [data.batch(step).images.shape[-1] for step in range(6)]
    assert widths == [64, 48, 64, 48, 64, 48]


def test_labels_of_a_source_may_be_left_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = replace(still("a", 2), object_ids=np.ones((2, 40, 80), np.uint8), boxes=((), ()))
    monkeypatch.setattr(sources, "open_clips", lambda path: [labelled])

    def read(labels: bool) -> Clip:
        (found,) = sources.read_sources(TrainingConfig(sources=(TrainingSource(tmp_path, labels=labels),)))
        return found.clip

    assert read(labels=True) is labelled
    assert read(labels=False).object_ids is None and read(labels=False).boxes is None


def test_a_source_may_be_a_folder_of_logs_and_counts_by_its_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        write_street_log(tmp_path / f"{name}.mcap", frames=2, size=(96, 48), progress=False)
    config = TrainingConfig(sources=(TrainingSource(tmp_path, 2.0),))
    assert [(c.clip.name, c.weight) for c in sources.read_sources(config)] == [
        ("a", pytest.approx(2**0.5)),
        ("b", pytest.approx(2**0.5)),
    ]
    assert cli.main(["train", str(tmp_path / "absent.mcap")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("pixel4d train: ") and "absent.mcap" in error


def test_a_pool_is_the_same_whether_walked_or_jumped_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "RENEW_EVERY", 3)
    made = []

    def make(rng: np.random.Generator) -> list[float]:
        made.append(rng.random())
        return [made[-1], -made[-1]]

    walked = SyntheticPool(make, 5, (7, 0))
    drawn = [walked.batch(call, np.random.default_rng(call)) for call in range(40)]
    assert len(made) == len(set(made)) == 2 + 39 // 3
    assert len(set(drawn)) > 10
    made.clear()
    jumped = SyntheticPool(make, 5, (7, 0))
    assert [jumped.batch(call, np.random.default_rng(call)) for call in range(20, 40)] == drawn[20:]
    assert len(made) == 3 + 7  # what is still in the pool, and the seven renewals after it


@pytest.mark.parametrize(("name", "only"), [("train", ""), ("motion", "motion"), ("depth", "depth")])
def test_the_config_files_that_come_along_are_valid(name: str, only: str) -> None:
    given = read_config_file(REPOSITORY / "config" / f"{name}.yaml")
    config = TrainingConfig(**{**given, "weights": Path("w.safetensors")})
    assert config.sources and config.out.is_relative_to(REPOSITORY / "out")
    assert config.only == only
