"""The forecaster on a GPU: its fast path agrees with the slow one and with the CPU, and fails gracefully."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dataset_samples import Photo, street_photo

from pixel4d_ros import CameraPath, Forecaster
from pixel4d_ros.errors import DeviceError
from pixel4d_ros.evaluation.metrics import psnr

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

TIMES = np.array([0.0, 0.3, 0.6])
AHEAD = CameraPath.constant_twist([0, 0, 5.0], [0, 0.05, 0], 1.0)


@pytest.fixture(scope="module")
def photo() -> Photo:
    return street_photo((208, 64))


def test_a_gpu_forecasts_what_the_cpu_forecasts(photo: Photo) -> None:
    forecast = Forecaster.load(device="cpu").forecast(photo.image, photo.K, AHEAD, TIMES)
    on_gpu = Forecaster.load(device="cuda").forecast(photo.image, photo.K, AHEAD, TIMES)
    assert on_gpu.scene.means.is_cuda
    for one, other in zip(on_gpu.frames[0], forecast.frames[0]):
        assert psnr(one, other) > 35


@pytest.mark.parametrize("with_depth", [False, True])
def test_the_fast_path_forecasts_what_the_slow_one_does(photo: Photo, with_depth: bool) -> None:
    fast, slow = Forecaster.load(device="cuda"), Forecaster.load(device="cuda", fast=False)
    assert slow.path == "eager, float32"
    depth = np.full((32, 52), 9.0, np.float32) if with_depth else None
    again = None
    for _ in range(2):  # recorded, then replayed
        one = fast.forecast(photo.image, photo.K, AHEAD, TIMES, num_samples=2, seed=3, depth=depth)
        again = one if again is None else again
    other = slow.forecast(photo.image, photo.K, AHEAD, TIMES, num_samples=2, seed=3, depth=depth)
    assert fast.path == "CUDA graph, float16"
    assert np.array_equal(one.frames, again.frames)
    assert psnr(one.frames, other.frames) > 45


def test_a_scene_stays_when_the_next_is_predicted(photo: Photo) -> None:
    fast = Forecaster.load(device="cuda")
    scene = fast.predict(photo.image, photo.K)
    means = scene.means.clone()
    fast.predict(255 - photo.image, photo.K)
    assert torch.equal(scene.means, means)


def test_cameras_may_take_turns(photo: Photo) -> None:
    fast = Forecaster.load(device="cuda")
    zoomed = photo.K * [[1.5, 1, 1], [1, 1.5, 1], [1, 1, 1]]
    first = fast.predict(photo.image, photo.K).means
    fast.predict(photo.image, zoomed)
    torch.cuda.empty_cache()
    torch.full((1 << 26,), torch.nan, device="cuda")  # what nobody holds any more is overwritten
    assert torch.equal(fast.predict(photo.image, photo.K).means, first)


def test_views_in_many_parts_are_what_they_are_in_one(photo: Photo) -> None:
    forecaster = Forecaster.load(device="cuda")
    scene = forecaster.predict(photo.image, photo.K)
    times = np.arange(8) * 0.1
    paths = [CameraPath.constant_twist([0, 0, 5.0], [0, turn, 0], 1.0).at(times) for turn in np.linspace(-0.2, 0.2, 6)]
    together = forecaster.views(scene, np.stack(paths), times)
    for k, path in enumerate(paths):
        alone = forecaster.views(scene, path, times)
        assert psnr(together.frames[k], alone.frames) > 60
        np.testing.assert_allclose(together.confidence[k], alone.confidence, atol=1e-3)


def test_without_cuda_graphs_the_forecast_goes_on(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr("pixel4d_ros.predictor.graphs.record", broken)
    forecaster = Forecaster.load(device="cuda")
    with pytest.warns(UserWarning, match="go on slower, eager, float32"):
        forecaster.predict(photo.image, photo.K)
    assert forecaster.path == "eager, float32"
    forecaster.predict(photo.image, photo.K)


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="torch sees"):
        Forecaster.load(device="cuda:99")
