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
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation import command
from pixel4d_ros.evaluation.intervals import bootstrap
from pixel4d_ros.evaluation.judging import Setting, SourceScore, evaluate, score_video
from pixel4d_ros.evaluation.metrics import PSNR_CEILING, depth_errors, psnr, ssim
from pixel4d_ros.evaluation.protocol import Protocol, choose_sequences, find_sequences
from pixel4d_ros.evaluation.results import Evaluation, Subject
from pixel4d_ros.evaluation.runner import evaluate_clip
from pixel4d_ros.evaluation.summary import best_future, summarise
from pixel4d_ros.evaluation.tables import describe
from pixel4d_ros.evaluation.windows import clip_windows, resized
from pixel4d_ros.scene import DynamicGaussians

RANDOM = np.random.default_rng(7)


def noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.clip(image + RANDOM.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def drive(frames: int = 20, size: tuple[int, int] = (48, 32), interval: float = 0.1) -> Clip:
    """A camera that goes forward at 10 m/s through noise, all of it 8 m away."""
    images = RANDOM.integers(0, 256, (frames, size[1], size[0], 3), dtype=np.uint8)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = np.arange(frames)
    K = np.array([[40.0, 0, 23.5], [0, 40, 15.5], [0, 0, 1]])
    depth = np.full(images.shape[:3], 8, np.float32)
    return Clip("drive", images, K, poses, np.float64(100) + interval * np.arange(frames), depth)


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
        self, image: np.ndarray, K: np.ndarray, num_samples: int, seed: int, speed: float | None = None
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
    (first, *_) = evaluate(forecaster, clip_windows(clip, protocol), protocol, setting)
    return first.score


def summary(forecaster: Any, clip: Clip, protocol: Protocol) -> Evaluation:
    scores = [found.score for found in evaluate(forecaster, clip_windows(clip, protocol), protocol)]
    return summarise(scores, protocol, Subject("drive", (48, 32), "0" * 64, "cpu", "1"))


def test_psnr_and_ssim_agree_with_scikit_image() -> None:
    for sigma in (2, 20, 80):
        a = noisy(np.full((40, 60, 3), 128), 50)
        b = noisy(a, sigma)
        expected = structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2
        )
        assert ssim(a, b) == pytest.approx(expected, abs=1e-4)
        assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-4)
        x, y = (a / 255).astype(np.float32), (b / 255).astype(np.float32)
        assert ssim(x, y) == pytest.approx(expected, abs=1e-4)
        assert psnr(x, y) == pytest.approx(psnr(a, b), abs=1e-4)


def test_masked_psnr_sees_only_the_mask() -> None:
    a = np.full((20, 20, 3), 100, np.uint8)
    b = a.copy()
    b[:10] = 110
    mask = np.zeros((20, 20), bool)
    mask[:10] = True
    assert psnr(a, b, mask) == pytest.approx(20 * np.log10(255 / 10))
    assert psnr(a, b, ~mask) == PSNR_CEILING
    assert np.isnan(psnr(a, b, np.zeros_like(mask)))
    with pytest.raises(ValueError, match="mask"):
        psnr(a, b, mask[:5])


def test_images_that_cannot_be_compared_are_refused() -> None:
    a = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match="different size"):
        psnr(a, a[:10])
    with pytest.raises(ValueError, match="different type"):
        ssim(a, a.astype(np.float32))
    with pytest.raises(ValueError, match="11x11"):
        ssim(a[:8], a[:8])


@given(st.floats(0.3, 3.0))
@settings(max_examples=20, deadline=None)
def test_depth_errors_of_a_scaled_truth(scale: float) -> None:
    truth = np.array([[2.0, 5, 10], [20, 0, 40]])
    errors, aligned = depth_errors(scale * truth, truth), depth_errors(scale * truth, truth, median_scaled=True)
    assert errors is not None
    assert aligned is not None
    assert errors.pixels == 5
    assert errors.abs_rel == pytest.approx(abs(scale - 1), abs=1e-9)
    assert errors.delta1 == (1.0 if max(scale, 1 / scale) < 1.25 else 0.0)
    assert aligned.abs_rel == pytest.approx(0, abs=1e-9)
    assert aligned.delta1 == 1


def test_depth_errors_without_sensor_values_are_none() -> None:
    assert depth_errors(np.ones((2, 2)), np.zeros((2, 2))) is None


def test_sequences_step_over_lost_frames_and_decimate_fast_cameras() -> None:
    times = np.delete(0.1035 * np.arange(40), 20)  # KITTI's real rate, one frame lost
    sequences = find_sequences(times, 14, 0.1)
    starts = [int(s[0]) for s in sequences]
    assert starts == [*range(7), *range(20, 26)]
    assert all(len(s) == 14 and np.ptp(np.diff(times[s])) < 1e-9 for s in sequences)
    fast = find_sequences(np.arange(90) / 30, 14, 0.1)
    assert list(fast[0]) == list(range(0, 42, 3))
    assert len(fast) == 90 - 39


def test_short_logs_use_what_there_is_and_hopeless_ones_say_so() -> None:
    (only,) = find_sequences(0.1 * np.arange(5), 14, 0.1)
    assert list(only) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="at least 2 images"):
        find_sequences(np.zeros(1), 14, 0.1)
    with pytest.raises(ValueError, match="--step"):
        find_sequences(np.arange(9.0), 14, 0.1)


def test_the_default_stride_gives_about_twenty_sources() -> None:
    times = 0.1 * np.arange(801)
    assert 15 <= len(choose_sequences(times, Protocol())) <= 25
    assert len(choose_sequences(times, Protocol(stride=1))) == 801 - 13
    assert [int(s[0]) for s in choose_sequences(times[:30], Protocol(stride=4))] == [0, 4, 8, 12, 16]


def test_the_papers_protocol_scores_the_middle_of_256_rows() -> None:
    paper = Protocol.paper(samples=2)
    assert (paper.frames, paper.step, paper.samples) == (14, 0.1, 2)
    assert paper.image_size(1242, 375) == (832, 256)  # KITTI
    assert paper.image_size(640, 360) == (455, 256)  # RealEstate10K
    assert paper.image_size(1080, 1920) == (256, 455)  # DL3DV, held upright
    assert Protocol.paper(size=(400, 120)).image_size(1242, 375) == (400, 120)
    assert Protocol().image_size(1242, 375) == (1242, 375)
    assert paper.scored(832, 256) == (slice(0, 256), slice(288, 544))
    truth = RANDOM.integers(0, 256, (2, 256, 832, 3), dtype=np.uint8)
    frames = truth.copy()
    frames[:, :, :288] = frames[:, :, 544:] = 0
    assert score_video(frames, truth, None, paper, Setting()).psnr[0] == PSNR_CEILING
    assert score_video(frames, truth, None, Protocol(), Setting()).psnr[0] < 12
    assert "256x256 centre" in paper.describe()


def test_clips_are_averaged_alike_and_unevaluable_ones_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    short = replace(drive(2), name="short", times=np.array([0.0, 5.0]))
    clips = [replace(drive(15), name="a"), short, replace(drive(20), name="b")]
    opener = SimpleNamespace(open_clips=lambda *_, **__: iter(clips))
    forecaster = SimpleNamespace(Forecaster=SimpleNamespace(load=lambda *_: Repeater()))
    monkeypatch.setitem(sys.modules, "pixel4d_ros.datasets.open", opener)
    monkeypatch.setitem(sys.modules, "pixel4d_ros.forecaster", forecaster)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    torch.jit.script(Means()).save(str(tmp_path / "i3d.pt"))
    assert command.run(parser.parse_args([str(tmp_path), "--json", "--fvd", str(tmp_path / "i3d.pt")])) == 0
    out = capsys.readouterr()
    numbers = json.loads(out.out)
    assert [e["sources"] for e in numbers["clips"]] == [2, 7]
    assert "short was left out: no two images are 0.1 s apart" in numbers["notes"][0]
    assert "FVD over all 9 videos" in numbers["notes"][1]
    assert numbers["clips"][0]["methods"]["forecast"]["fvd"] > 0
    (mean,) = (line for line in out.err.splitlines() if line.startswith("mean over clips"))
    frames = [e["methods"]["forecast"]["psnr"]["mean"] for e in numbers["clips"]]
    assert f"{np.mean(frames):.2f}" in mean
    clips[:] = [short]
    with pytest.raises(ValueError, match="no two images"):
        command.run(parser.parse_args([str(tmp_path)]))


def test_bad_protocols_are_refused() -> None:
    bad: list[dict[str, Any]] = [
        {"frames": 1},
        {"step": 0},
        {"stride": 0},
        {"samples": 0},
        {"size": (4, 4)},
        {"align": "x"},
    ]
    for arguments in bad:
        with pytest.raises(ValueError, match=f"--{next(iter(arguments))}"):
            Protocol(**arguments)


def test_resizing_keeps_rays_and_sparse_depth() -> None:
    clip = resized(drive(3), (24, 16))
    assert clip.images.shape == (3, 16, 24, 3)
    assert clip.depth is not None
    assert clip.depth.shape == (3, 16, 24)
    assert set(np.unique(clip.depth)) == {8}
    np.testing.assert_allclose(clip.K, np.array([[20, 0, 11.5], [0, 20, 7.5], [0, 0, 1]]))


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


def test_the_command_prints_a_table_and_writes_all_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    opener = SimpleNamespace(open_clips=lambda *_, **__: iter([drive(6)]))
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
