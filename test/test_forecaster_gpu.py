# SPDX-License-Identifier: Apache-2.0
"""The forecaster on a GPU: its fast path agrees with the slow one and with the CPU, and fails gracefully."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from support.dataset_samples import Photo, street_photo
from support.scenes import tensors

from pixel4d_ros import Camera, CameraPath, Forecaster, ReferenceView
from pixel4d_ros.errors import DeviceError
from pixel4d_ros.evaluation.metrics import psnr
from pixel4d_ros.predictor.predictor import EAGER_PATH, FAST_PATH

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

DEVICES = "cuda", "cpu"
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
    assert slow.path == EAGER_PATH
    depth = np.full((32, 52), 9.0, np.float32) if with_depth else None
    again = None
    for _ in range(2):  # recorded, then replayed
        one = fast.forecast(photo.image, photo.K, AHEAD, TIMES, num_samples=2, seed=3, depth=depth)
        again = one if again is None else again
    other = slow.forecast(photo.image, photo.K, AHEAD, TIMES, num_samples=2, seed=3, depth=depth)
    assert fast.path == FAST_PATH
    assert np.array_equal(one.frames, again.frames)
    assert psnr(one.frames, other.frames) > 45


def test_an_earlier_view_tells_a_gpu_what_it_tells_the_cpu(photo: Photo) -> None:
    before = photo.image.copy()
    before[20:50, 30:80] = photo.image[20:50, 34:84]  # what is there came from 4 pixels further left
    reference = ReferenceView(before, photo.K, np.eye(4), -0.2)
    one, other = (Forecaster.load(device=name).predict(photo.image, photo.K, reference=reference) for name in DEVICES)
    assert one.means.is_cuda and (other.object_ids > 0).any()
    alike = (one.object_ids.cpu() > 0) == (other.object_ids > 0)
    assert alike.float().mean() > 0.99
    torch.testing.assert_close(one.velocities.cpu()[alike], other.velocities[alike], atol=0.3, rtol=0.1)


def test_threads_may_share_a_forecaster(photo: Photo) -> None:
    fast = Forecaster.load(device="cuda")
    images = [photo.image, 255 - photo.image] * 10
    alone = [tensors(fast.predict(image, photo.K)) for image in images[:2]]
    with ThreadPoolExecutor(2) as pool:
        scenes = list(pool.map(lambda image: fast.predict(image, photo.K), images))
    for i, scene in enumerate(scenes):
        for name, tensor in tensors(scene).items():
            assert torch.equal(tensor, alone[i % 2][name]), name


@pytest.mark.parametrize(("num_samples", "with_depth"), [(1, False), (1, True), (3, False)])
def test_a_scene_stays_when_the_next_is_predicted(photo: Photo, num_samples: int, with_depth: bool) -> None:
    fast = Forecaster.load(device="cuda")
    depth = np.full((32, 52), 9.0, np.float32) if with_depth else None
    scene = fast.predict(photo.image, photo.K, num_samples, depth=depth, speed=5.0)
    before = {name: tensor.clone() for name, tensor in tensors(scene).items()}
    fast.predict(255 - photo.image, photo.K, num_samples, seed=1, depth=None if depth is None else 2 * depth)
    for name, tensor in tensors(scene).items():
        assert torch.equal(tensor, before[name]), name
    again = tensors(fast.predict(photo.image, photo.K, num_samples, depth=depth, speed=5.0))
    for name, tensor in again.items():
        assert torch.equal(tensor, before[name]), name


def test_what_a_prediction_is_given_may_be_on_either_side(photo: Photo) -> None:
    predictor = Forecaster.load(device="cuda").predictor
    camera = Camera(photo.K, photo.image.shape[1], photo.image.shape[0])
    host = torch.from_numpy(photo.image), torch.full((32, 52), 9.0)
    one = tensors(predictor.predict(host[0], camera, 2, 3, host[1], 5.0))
    other = tensors(predictor.predict(host[0].cuda(), camera, 2, 3, host[1].cuda(), 5.0))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


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

    monkeypatch.setattr("pixel4d_ros.predictor.cuda_graphs.record", broken)
    forecaster = Forecaster.load(device="cuda")
    with pytest.warns(UserWarning, match="slower now, eager, float32"):
        forecaster.predict(photo.image, photo.K)
    assert forecaster.path == "eager, float32"
    forecaster.predict(photo.image, photo.K)


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="torch sees"):
        Forecaster.load(device="cuda:99")
