# SPDX-License-Identifier: Apache-2.0
"""Metrics against scikit-image; the benchmark with forecasters whose scores are known beforehand."""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.dataset_samples import drive

from pixel4d_ros.cli import main
from pixel4d_ros.commands import evaluate as command
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.datasets.open import good_clips
from pixel4d_ros.evaluation.intervals import bootstrap
from pixel4d_ros.evaluation.metrics import PSNR_CEILING
from pixel4d_ros.evaluation.protocol import Protocol
from pixel4d_ros.evaluation.results import Evaluation, Subject
from pixel4d_ros.evaluation.runner import evaluate_clip
from pixel4d_ros.evaluation.scoring import Setting, SourceScore, score_windows
from pixel4d_ros.evaluation.summary import best_future, summarise
from pixel4d_ros.evaluation.tables import describe
from pixel4d_ros.evaluation.windows import clip_windows
from pixel4d_ros.scene import DynamicGaussians

RANDOM = np.random.default_rng(7)


def noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.clip(image + RANDOM.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def moving_scene() -> DynamicGaussians:
    ones, zeros = torch.ones(2, 3), torch.zeros(2, 3)
    quaternions = torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1)
    return DynamicGaussians(
        ones, quaternions, ones, torch.ones(2), ones, ones, ones, ones, zeros, torch.tensor([0, 1]), torch.zeros(2, 3)
    )


@dataclass
class Repeater:
    """A forecaster that repeats the source image, adds noise per sample, and predicts a constant depth."""

    depth: float = 8.0
    noise: tuple[float, ...] = (0.0,)
    rendered: list[tuple[DynamicGaussians, np.ndarray]] = field(default_factory=list)
    weights_hash: str = "0" * 64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def predict(
        self,
        image: np.ndarray,
        K: np.ndarray,
        num_samples: int,
        seed: int,
        depth: None = None,
        speed: float | None = None,
        earlier: None = None,
    ) -> DynamicGaussians:
        self.image, self.speed = image, speed
        scene = moving_scene()
        motions = tuple(replace(scene.motion, velocities=scene.velocities * k) for k in range(num_samples))
        return replace(scene, futures=motions).sample(0)

    def views(self, scene: DynamicGaussians, poses: np.ndarray, times: Any, *_camera: Any) -> Any:
        self.rendered.append((scene, poses))
        k = int(scene.velocities[1, 0])  # velocities tell which future is rendered
        frames = np.stack([noisy(self.image, self.noise[k]) for _ in times])
        return SimpleNamespace(frames=frames, depth=np.full(frames.shape[:3], self.depth, np.float32))

    def render(self, scene: DynamicGaussians, poses: np.ndarray, times: Any, *camera: Any) -> np.ndarray:
        return self.views(scene, poses, times, *camera).frames


@dataclass
class Halves(Repeater):
    """Another noise outside a mask than inside."""

    outside: tuple[float, ...] = (0.0,)
    inside: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def views(self, scene: DynamicGaussians, poses: np.ndarray, times: Any, *camera: Any) -> Any:
        views = super().views(scene, poses, times, *camera)
        beyond = np.stack([noisy(self.image, self.outside[int(scene.velocities[1, 0])]) for _ in times])
        views.frames = np.where(self.inside[..., None], views.frames, beyond)
        return views


class Means(torch.nn.Module):
    """Stands in for I3D: two colours' means as a video's features."""

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        return x.mean((2, 3, 4))[:, :2]


def judged(forecaster: Any, clip: Clip, protocol: Protocol, setting: Setting | None = None) -> SourceScore:
    """The score of the clip's first source."""
    (first, *_) = score_windows(forecaster, clip_windows(clip, protocol), protocol, setting)
    return first.score


def summary(forecaster: Any, clip: Clip, protocol: Protocol) -> Evaluation:
    scores = [found.score for found in score_windows(forecaster, clip_windows(clip, protocol), protocol)]
    return summarise(scores, protocol, Subject("drive", (48, 32), "0" * 64, "cpu", "1"))


def test_clips_are_averaged_alike_and_unevaluable_ones_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    short = replace(drive(2), name="short", times=np.array([0.0, 5.0]))
    clips = [replace(drive(15), name="a"), short, replace(drive(20), name="b")]
    opener = SimpleNamespace(open_clips=lambda *_, **__: iter(clips), good_clips=good_clips)
    forecaster = SimpleNamespace(Forecaster=SimpleNamespace(load=lambda *_: Repeater()))
    monkeypatch.setitem(sys.modules, "pixel4d_ros.datasets.open", opener)
    monkeypatch.setitem(sys.modules, "pixel4d_ros.forecaster", forecaster)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    torch.jit.script(Means()).save(str(tmp_path / "i3d.pt"))
    assert command.run(parser.parse_args([str(tmp_path), "--json", "--fvd", str(tmp_path / "i3d.pt")])) == 1
    out = capsys.readouterr()
    numbers = json.loads(out.out)
    assert [e["sources"] for e in numbers["clips"]] == [2, 7]
    assert "short was left out: no two images are 0.1 s apart" in numbers["notes"][0]
    assert "FVD over all 9 videos" in numbers["notes"][1]
    assert numbers["clips"][0]["methods"]["forecast"]["fvd"] > 0
    (mean,) = (line for line in out.err.splitlines() if line.startswith("mean over clips"))
    frames = [e["methods"]["forecast"]["psnr"]["mean"] for e in numbers["clips"]]
    assert f"{np.mean(frames):.2f}" in mean
    clips[:] = [replace(drive(15), name="a"), short]  # the numbers of one say what was left out as well
    assert command.run(parser.parse_args([str(tmp_path), "--json"])) == 1
    numbers = json.loads(capsys.readouterr().out)
    assert len(numbers["clips"]) == 1 and "short was left out" in numbers["notes"][0]
    clips[:] = [short]
    with pytest.raises(ValueError, match="no two images"):
        command.run(parser.parse_args([str(tmp_path)]))


def test_repeating_the_image_gains_exactly_nothing() -> None:
    result = summary(Repeater(), drive(), Protocol(stride=2))
    assert result.sources == 4
    assert result.frames == 14
    assert len(result.steps) == 14
    assert result.gain.mean == 0
    assert result.gain.low == 0
    assert result.ssim_gain.mean == 0
    assert result.frame0_psnr.mean == PSNR_CEILING
    assert result.frame0_ssim.mean == pytest.approx(1)
    assert set(result.methods) == {"forecast", "motion off", "image repeated"}
    assert 5 < result.methods["forecast"].psnr.mean < 12  # two independent noise images
    assert result.methods["motion off"].psnr == result.methods["forecast"].psnr
    assert result.depth is not None
    assert result.depth.abs_rel.mean == 0
    assert result.depth.delta1.mean == 1
    assert result.motion is None
    assert result.inside_gain is None


def test_depth_off_by_a_factor_is_only_a_metric_error() -> None:
    score = judged(Repeater(depth=12), drive(), Protocol())
    assert score.depth is not None
    assert score.scaled_depth is not None
    assert score.depth.abs_rel == pytest.approx(0.5)
    assert score.depth.delta1 == 0
    assert score.scaled_depth.abs_rel == pytest.approx(0)


def test_best_of_k_is_one_future_per_video() -> None:
    clip = replace(drive(), images=np.repeat(drive(1).images, 20, 0))
    protocol = Protocol(samples=3)
    forecaster = Repeater(noise=(30.0, 10.0, 50.0))
    score = judged(forecaster, clip, protocol)
    assert best_future(score) is score.futures[1]
    result = summary(forecaster, clip, protocol)
    best, mean = result.methods["best of 3"], result.methods["mean of 3"]
    assert result.methods["forecast"].psnr.mean < best.psnr.mean
    assert mean.psnr.mean < best.psnr.mean
    assert result.steps[5].psnr["best of 3"] > result.steps[5].psnr["forecast"]
    assert "best of 3" in describe(result)


def test_what_the_motion_is_worth_is_measured_inside_moving_objects() -> None:
    """Future 1 is the best inside, future 2 outside; without motion the forecaster's noise is that of future 0."""
    clip = replace(drive(), images=np.repeat(drive(1).images, 20, 0))
    ids = np.zeros(clip.images.shape[:3], np.uint8)
    ids[:, 8:20, 10:30] = 1
    forecaster = Halves(noise=(30.0, 10.0, 50.0), outside=(30.0, 50.0, 10.0), inside=ids[0] > 0)
    result = summary(forecaster, replace(clip, object_ids=ids), Protocol(samples=3))
    best = result.methods["best of 3"]
    assert best.inside is not None
    assert best.outside is not None
    assert best.inside.mean == pytest.approx(20 * np.log10(255 / 10), abs=1)  # sigma 10
    assert best.outside.mean == pytest.approx(20 * np.log10(255 / 10), abs=1)  # of future 2: most pixels are outside
    assert result.best_inside_gain is not None
    assert result.best_inside_gain.mean == pytest.approx(20 * np.log10(3), abs=1)
    assert result.inside_gain is not None
    assert abs(result.inside_gain.mean) < 0.5
    assert result.steps[5].inside["best of 3"] > result.steps[5].inside["forecast"] + 5
    assert "best of 3 over sample 0" in describe(result)
    assert result.motion is not None
    assert result.motion.velocity_error is None  # masks alone tell no velocities


def test_motion_off_stands_still_and_changes_nothing_else() -> None:
    forecaster = Repeater()
    score = judged(forecaster, drive(), Protocol())
    (_, moving_poses), (scene, poses) = forecaster.rendered[:2]
    assert all(not getattr(scene, name).any() for name in ("velocities", "accelerations", "angular_velocities"))
    assert torch.equal(scene.means, moving_scene().means)
    np.testing.assert_allclose(poses, moving_poses)
    np.testing.assert_allclose(poses[:, 2, 3], np.arange(14))
    assert score.scale == 1


def test_align_scale_multiplies_the_camera_path() -> None:
    forecaster: Any = Repeater(depth=4)  # half of the sensor's
    clip = drive()
    score = judged(forecaster, clip, Protocol(), Setting("image-scale"))
    assert score.scale == pytest.approx(0.5)
    np.testing.assert_allclose(forecaster.rendered[1][1][:, 2, 3], 0.5 * np.arange(14))
    assert clip.depth is not None
    depth = np.asarray(clip.depth)
    clip = replace(clip, depth=np.concatenate([np.zeros_like(depth[:1]), depth[1:]]))
    result = evaluate_clip(forecaster, clip, Protocol(stride=1, align="image-scale"), "drive")
    assert result.sources == 6
    assert "1 source images without sensor depth were left out" in result.subject.notes
    assert "one scale per source image" in describe(result)


def test_poses_without_a_metric_scale_get_one_scale_per_clip() -> None:
    forecaster: Any = Repeater(depth=4)
    result = evaluate_clip(forecaster, replace(drive(), metric=False), Protocol(), "drive")
    assert result.subject.align == "clip-scale"
    assert result.scale is not None
    assert result.scale.mean == result.scale.low == pytest.approx(0.5)
    assert "one scale per clip" in describe(result)
    assert forecaster.speed is None  # nobody knows it in metres


def test_forecasts_are_told_the_speed_as_they_are_on_a_robot() -> None:
    forecaster: Any = Repeater()
    clip = drive()
    evaluate_clip(forecaster, clip, Protocol(), "drive")
    moved = np.linalg.norm(clip.poses[1, :3, 3] - clip.poses[0, :3, 3])
    assert forecaster.speed == pytest.approx(moved / (clip.times[1] - clip.times[0]), rel=1e-3)


def test_bootstrap_covers_the_mean_and_is_seeded() -> None:
    values = RANDOM.normal(3, 1, 50)
    interval = bootstrap(values)
    assert interval == bootstrap(values)
    assert interval != bootstrap(values, seed=1)
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low < interval.mean < interval.high
    # The percentile interval of a mean is close to the normal one: +- 1.96 standard errors.
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(50), rel=0.15)
    assert bootstrap([2.0]).low is None
    with pytest.raises(ValueError, match="no source"):
        bootstrap([])


@pytest.mark.parametrize("height", ["nan", "-1", "0", "inf", "165"])
def test_a_height_of_the_camera_that_cannot_be_is_refused(height: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A column of the table would be wrong."""
    assert main(["evaluate", "drive.mcap", "--camera-height", height]) == 1
    assert "--camera-height must be 0 to 50 metres" in capsys.readouterr().err


def test_the_command_prints_a_table_and_writes_all_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    opener = SimpleNamespace(open_clips=lambda *_, **__: iter([drive(6)]), good_clips=good_clips)
    forecaster = SimpleNamespace(Forecaster=SimpleNamespace(load=lambda *_: Repeater()))
    monkeypatch.setitem(sys.modules, "pixel4d_ros.datasets.open", opener)
    monkeypatch.setitem(sys.modules, "pixel4d_ros.forecaster", forecaster)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args(["drive.mcap", "--size", "32x24", "--json"])) == 0
    out = capsys.readouterr()
    numbers = json.loads(out.out)
    assert numbers["subject"]["size"] == [32, 24]
    assert numbers["frames"] == 6
    assert numbers["gain"]["mean"] == 0
    assert "6 were used" in out.err
    assert "gain over repeating the image, dB" in out.err
    assert "robot protocol, all pixels; given poses" in out.err
    assert command.run(parser.parse_args(["drive.mcap", "--out", str(tmp_path / "seen")])) == 0
    page = (tmp_path / "seen" / "evaluation.html").read_text()
    assert "image repeated" in page
    assert "drive.mp4" in page
    assert (tmp_path / "seen" / "drive.mp4").stat().st_size > 1000
    assert json.loads((tmp_path / "seen" / "evaluation.json").read_text())["gain"]["mean"] == 0
    assert "| image repeated" in (tmp_path / "seen" / "evaluation.md").read_text()
    capsys.readouterr()
    path = tmp_path / "numbers.json"
    assert command.run(parser.parse_args(["drive.mcap", "other.mcap", "--markdown", "--json", str(path)])) == 0
    shown = capsys.readouterr().out
    assert re.search(r"\| \+0\.10 s +\|", shown)
    assert "mean over clips" in shown
    assert json.loads(path.read_text())["clips"][1]["protocol"]["frames"] == 14
    with pytest.raises(SystemExit):
        parser.parse_args(["drive.mcap", "--size", "big"])
    assert "WIDTHxHEIGHT" in capsys.readouterr().err
