# SPDX-License-Identifier: Apache-2.0
"""research/ablation.py: parts of the network off, one at a time."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.batch_samples import SIZE, sample_batch
from support.paths import REPOSITORY

from pixel4d_ros.errors import WeightsError
from pixel4d_ros.evaluation.intervals import Interval
from pixel4d_ros.evaluation.protocol import Protocol
from pixel4d_ros.evaluation.results import Evaluation, Method, SourceResult, Subject, Timing
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.predictor.checkpoint import save_weights
from pixel4d_ros.predictor.network import Network
from pixel4d_ros.training import loop, synthetic_data
from pixel4d_ros.training.rendering import predict_views, training_view

sys.path.insert(0, str(REPOSITORY / "research"))
import ablated_network
import ablation
from ablated_network import PARTS, AblatedNetwork
from ablation import load_forecaster
from ablation_table import BASELINE, Measured, Row, cell, section, worth


def evaluation(psnrs: list[float]) -> Evaluation:
    """An evaluation whose source images have these PSNRs, 10 dB above the repeated image's mean of 10."""
    mean = sum(psnrs) / len(psnrs)
    some = Interval(mean, mean - 1, mean + 1)
    sources = tuple(SourceResult(float(i), 40.0, p, 10.0, None, None, None, 1.0, 5.0) for i, p in enumerate(psnrs))
    return Evaluation(
        Subject("drive", (48, 32), "0" * 64, "cpu", "1"), Protocol(), 14, len(psnrs),
        frame0_psnr=Interval(40.0, None, None), frame0_ssim=some, gain=replace(some, mean=mean - 10), ssim_gain=some,
        inside_gain=None, best_inside_gain=None, methods={"forecast": Method(some, some, None, None, None, None)},
        motion=None, scale=None, depth=None, shape=None, timing_ms=Timing(1, 1, 1), steps=(), per_source=sources,
    )  # fmt: skip


def row(label: str, psnrs: list[float], steps: str = "") -> Row:
    one = evaluation(psnrs)
    return Row(label, Measured(one, (evaluation(psnrs[:1]),), one), steps)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of untrained networks, one with everything and one that says it was trained without motion."""
    folder = tmp_path_factory.mktemp("ablation")
    torch.manual_seed(0)
    network = Network()
    save_weights(network, folder / "baseline.safetensors", {"steps": "7"})
    save_weights(network, folder / "without_motion.safetensors", {"steps": "8", "without": "motion"})
    return folder


def test_parts_are_off_that_were_named_or_never_trained(weights: Path) -> None:
    assert load_forecaster(weights / "baseline.safetensors", "cpu")[1] == ()
    assert load_forecaster(weights / "without_motion.safetensors", "cpu", ("hidden",))[1] == (
        "hidden",
        "motion",
    )


@pytest.mark.parametrize("part", PARTS)
def test_parts_can_be_left_out(part: str) -> None:
    torch.manual_seed(0)
    batch, use_prior = sample_batch(), torch.zeros(1, dtype=torch.bool)
    maps = predict_views(AblatedNetwork((part,)).train(), batch, batch, 1.0, use_prior).maps
    view = training_view(*SIZE)
    if part == "hidden":
        assert torch.sigmoid(maps.surface.hidden_opacity).max() < 1e-9
    elif part == "padding":
        inside = view.inside(torch.device("cpu")) > 0
        opacity = torch.sigmoid(maps.surface.opacity)[0, 0]
        assert opacity[~inside].max() < 1e-9 and opacity[inside].min() > 1e-3
    elif part == "motion":
        assert torch.sigmoid(maps.static["mobility"]).max() < 1e-9
    else:
        torch.testing.assert_close(maps.motion[:, 0], maps.mode)


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"wheels.*hidden, padding, motion, latent"):
        AblatedNetwork(("wheels",))


def test_the_package_refuses_weights_that_were_trained_without_a_part(weights: Path) -> None:
    with pytest.raises(WeightsError, match="was trained without motion: only research"):
        Forecaster.load(weights / "without_motion.safetensors", device="cpu")


def test_a_network_trained_without_a_part_names_it(weights: Path, tmp_path: Path) -> None:
    out, first = tmp_path / "without_hidden.safetensors", weights / "baseline.safetensors"
    config = tmp_path / "train.yaml"
    config.write_text("sources: []\nsynthetic_pool: 2\ntargets: 1\n")
    options = ["--config", config, "--out", out, "--weights", first, "--steps", 1, "--batch", 0, "--synthetic-batch", 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "WIDE", (64, 32))
        patch.setattr(synthetic_data, "MADE_AT_ONCE", 1)
        assert ablated_network.main(["hidden", *map(str, options), "--device", "cpu"]) == 0
    assert load_forecaster(out, "cpu")[1] == ("hidden",)
    assert ablation.steps_of(out, "hidden") == "1"


def test_without_the_second_layer_there_is_less_in_the_scene(weights: Path) -> None:
    image, K = torch.zeros(64, 96, 3, dtype=torch.uint8).numpy(), torch.eye(3).numpy() * 80
    K[2, 2], K[0, 2], K[1, 2] = 1, 47.5, 31.5

    def visible(*without: str) -> int:
        forecaster, _ = load_forecaster(weights / "baseline.safetensors", "cpu", without)
        return int((forecaster.predict(image, K).opacities > 0.01).sum())

    everything = visible()
    assert visible("hidden") < 0.9 * everything
    assert visible("latent") == everything


def test_networks_are_compared_image_by_image() -> None:
    rows = [row(BASELINE, [20.0, 30.0, 25.0]), row("without motion", [19.0, 29.0, 24.0])]
    real, streets, explained, gaps = section(rows)
    assert "| 15.00 (24.00 .. 26.00) |" in real  # the evaluator's own intervals
    assert "| 14.00 (23.00 .. 25.00) |" in streets
    assert "above 0: it helps" in explained
    assert "| 1.00 (1.00 .. 1.00) |" in gaps  # every image lost exactly 1 dB
    assert BASELINE not in gaps
    assert "steps" not in real
    assert "| 900 |" in " ".join(section([row(BASELINE, [20.0], "900"), row("x", [20.0], "950")])[0].split())
    with pytest.raises(ValueError, match="zip"):
        worth([rows[0], row("other images", [19.0])])
    assert cell(Interval(-0.001, None, None), 2) == "0.00"
    assert cell(None, 2) == ""


def test_a_folder_of_trained_networks_is_checked_before_it_is_evaluated(weights: Path, tmp_path: Path) -> None:
    assert list(ablation.find_trained(weights)) == ["baseline", "without_motion"]
    assert ablation.steps_of(weights / "without_motion.safetensors", "motion") == "8"
    with pytest.raises(WeightsError, match="was trained without motion, its name claims nothing"):
        ablation.steps_of(weights / "without_motion.safetensors", "")
    (tmp_path / "baseline.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="damaged"):
        ablation.steps_of(tmp_path / "baseline.safetensors", "")
    with pytest.raises(ValueError, match="at least one of baseline_again, without_hidden"):
        ablation.find_trained(tmp_path)


def test_what_was_not_trained_is_named_and_not_in_the_tables(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(ablation.Grounds, "measure", lambda self, label, *what, **how: row(label, [20.0, 30.0]))
    path = tmp_path / "ablation.md"
    path.write_text("# What each part is worth\n")
    assert ablation.main(["--trained", str(weights), "--worlds", "2", "--into", str(path)]) == 0
    text = path.read_text()
    assert f"<!-- $ python research/ablation.py --trained {weights} --worlds 2 -->" in text
    _, inference, trained = text.split("###")
    assert all(label in inference for label in ablation.LABELS.values())
    assert "without motion" in trained
    assert "without the second layer" not in trained
    assert "Not trained, so not in these tables: baseline_again, without_hidden" in trained
    assert ablation.main(["--into", str(path)]) == 0
    assert "Trained without" not in path.read_text()  # in place of the last tables
    assert path.read_text().count("<!-- $ python research/ablation.py") == 1
    assert ablation.main(["--trained", str(tmp_path)]) == 1
    assert "needs baseline.safetensors" in capsys.readouterr().err


def test_every_command_in_the_docs_is_one_that_the_tool_takes() -> None:
    lines = (REPOSITORY / "docs" / "lab" / "ablation.md").read_text().splitlines()
    shown = [line.partition("#")[0] for line in lines if line.startswith(f"    {ablation.COMMAND}")]
    assert len(shown) == 3
    for line in shown:
        ablation.parser().parse_args(shlex.split(line)[2:])
    named = [word for line in lines if "--out" in line for word in shlex.split(line) if "out/ablation/" in word]
    names = {Path(word).stem for word in named}
    assert names == {*ablation.TRAINED, "without_$part"} - {f"without_{part}" for part in PARTS}
