# SPDX-License-Identifier: Apache-2.0
"""Forecaster, with the weights that ship: what goes in, what comes out, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.dataset_samples import Photo, street_photo
from support.scenes import tensors

from pixel4d_ros import CameraPath, Forecast, Forecaster
from pixel4d_ros.errors import DeviceError, WeightsError
from pixel4d_ros.evaluation.metrics import psnr
from pixel4d_ros.geometry.rotations import FloatArray
from pixel4d_ros.predictor import predictor

SIZE = (208, 64)
TIMES = np.array([0.0, 0.3, 0.6])
AHEAD = CameraPath.constant_twist([0, 0, 5.0], [0, 0.05, 0], 1.0)


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster.load(device="cpu")


@pytest.fixture(scope="module")
def photo() -> Photo:
    return street_photo(SIZE)


@pytest.fixture(scope="module")
def forecast(forecaster: Forecaster, photo: Photo) -> Forecast:
    """One forecast of three sampled futures, which many tests look at."""
    return forecaster.forecast(photo.image, photo.K, AHEAD, TIMES, num_samples=3, seed=1)


def test_the_first_frame_is_the_image(forecast: Forecast, photo: Photo) -> None:
    assert psnr(forecast.frames[0, 0], photo.image) >= 30


def test_what_a_forecast_holds(forecast: Forecast) -> None:
    width, height = SIZE
    assert forecast.frames.shape == (3, 3, height, width, 3) and forecast.frames.dtype == np.uint8
    assert forecast.depth.shape == (3, 3, height, width) and forecast.depth.dtype == np.float32
    assert forecast.uncertainty.shape == (3, height, width) and forecast.uncertainty.dtype == np.float32
    assert forecast.confidence.shape == (3, 3) and forecast.confidence.dtype == np.float32
    np.testing.assert_array_equal(forecast.times, TIMES)
    np.testing.assert_allclose(forecast.T_source_camera, AHEAD.at(TIMES))
    spread = forecast.frames.astype(np.float64).std(0).mean(-1) / 255
    np.testing.assert_allclose(forecast.uncertainty, spread, atol=1e-6)
    for values in (forecast.uncertainty, forecast.confidence):
        assert values.min() >= 0 and values.max() <= 1
    assert (forecast.depth > 0).all()
    assert forecast.scene.num_samples == 3
    assert (forecast.scene.camera.width, forecast.scene.camera.height) == SIZE  # type: ignore[union-attr]


def test_the_first_frame_is_mostly_seen_and_later_ones_less(forecast: Forecast) -> None:
    # Not quite 1: what is a little transparent shows some of the guessed layer behind it.
    assert (forecast.confidence[:, 0] > 0.8).all()
    assert (forecast.confidence[:, 2] < forecast.confidence[:, 0]).all()


def test_frames_have_no_holes(forecast: Forecast) -> None:
    # A hole would be black, and farther than the sky.
    assert np.isfinite(forecast.depth).all()
    assert (forecast.frames.max(-1) > 0).mean() > 0.999


def test_the_same_seed_gives_the_same_forecast(forecaster: Forecaster, photo: Photo, forecast: Forecast) -> None:
    again = forecaster.forecast(photo.image, photo.K, AHEAD, TIMES, num_samples=3, seed=1)
    np.testing.assert_array_equal(again.frames, forecast.frames)
    np.testing.assert_array_equal(again.depth, forecast.depth)
    for one, other in zip(again.scene.futures, forecast.scene.futures):
        assert torch.equal(one.velocities, other.velocities)


def test_the_first_sample_is_the_most_likely_future(forecaster: Forecaster, photo: Photo, forecast: Forecast) -> None:
    alone = forecaster.forecast(photo.image, photo.K, AHEAD, TIMES, num_samples=1, seed=99)
    # The network may add in another order for another number of samples: the last bit of a byte may differ.
    assert psnr(alone.frames[0, 0], forecast.frames[0, 0]) > 55
    assert psnr(alone.frames[0, 2], forecast.frames[0, 2]) > 55
    assert not alone.uncertainty.any()


def test_sampled_futures_move_the_same_gaussians(forecast: Forecast) -> None:
    scene = forecast.scene
    for k in range(3):
        sample = scene.sample(k)
        assert sample.means is scene.means
        moving = sample.velocities.abs().sum(-1) > 0
        assert (sample.object_ids[moving] > 0).all()
        for i in sample.object_ids.unique():
            assert len(sample.velocities[sample.object_ids == i].unique(dim=0)) == 1


def test_a_scene_shares_no_memory_with_what_the_next_prediction_writes_over(
    forecaster: Forecaster, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, predict_parts = [], predictor.predict_parts
    monkeypatch.setattr(predictor, "predict_parts", lambda *given: made.append(predict_parts(*given)) or made[-1])
    scene = forecaster.predict(photo.image, photo.K, num_samples=2)
    parts = [*made[0].layers, made[0].objects, made[0]]
    used = [value for part in parts for value in vars(part).values() if isinstance(value, torch.Tensor)]
    assert len(used) == 3 * 5 + 3 + 3
    assert not {t.untyped_storage().data_ptr() for t in used} & {
        t.untyped_storage().data_ptr() for t in tensors(scene).values()
    }


def test_measured_depth_is_used_where_it_is_known(forecaster: Forecaster, photo: Photo) -> None:
    guessed = forecaster.forecast(photo.image, photo.K, CameraPath.still(), [0.0]).depth[0, 0]
    measured = np.where(np.arange(SIZE[1])[:, None] > SIZE[1] // 2, 1.4 * guessed, 0).astype(np.float32)
    told = forecaster.forecast(photo.image, photo.K, CameraPath.still(), [0.0], depth=measured).depth[0, 0]
    known = measured > 0
    error = [np.median(np.abs(d[known] / measured[known] - 1)) for d in (guessed, told)]
    assert error[1] < 0.7 * error[0]
    nothing = forecaster.predict(photo.image, photo.K, depth=np.zeros((9, 9)))
    torch.testing.assert_close(nothing.means, forecaster.predict(photo.image, photo.K).means)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"depth": np.zeros((4, 4), np.uint16)}, "floating point metres"),
        ({"depth": np.zeros((4, 4, 1))}, r"depth must be \(h, w\)"),
        ({"speed": float("nan")}, "the speed must be a number"),
    ],
)
def test_bad_measurements_are_refused(
    forecaster: Forecaster, photo: Photo, extra: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        forecaster.predict(photo.image, photo.K, **extra)


def test_render_takes_the_source_cameras_view_unless_told_otherwise(
    forecaster: Forecaster, photo: Photo, forecast: Forecast
) -> None:
    eye = np.eye(4)[None]
    source = forecaster.render(forecast.scene, eye, [0.0])
    np.testing.assert_array_equal(source[0], forecast.frames[0, 0])
    np.testing.assert_array_equal(forecaster.render(forecast.scene, eye, [0.0], photo.K, SIZE), source)
    small = forecaster.render(forecast.scene, eye, [0.0], size=(104, 32))
    assert small.shape == (1, 32, 104, 3)
    assert psnr(small[0], cv2.resize(photo.image, (104, 32), interpolation=cv2.INTER_AREA)) > 22
    # The left half alone, by its own K: what the whole view shows there.
    half = forecaster.render(forecast.scene, eye, [0.0], photo.K, (104, 64))
    # (But for the edges, where a narrower view cuts off Gaussians that reach in from outside.)
    assert psnr(half[0, 8:, :96], source[0, 8:, :96]) > 38
    unknown = replace(forecast.scene, camera=None)
    with pytest.raises(ValueError, match="give K and size"):
        forecaster.render(unknown, eye, [0.0])


def test_many_views_are_rendered_in_parts(
    forecaster: Forecaster, forecast: Forecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = forecaster.render(forecast.scene, AHEAD.at(TIMES), TIMES)
    monkeypatch.setattr("pixel4d_ros.rendering.host_rendering.VIEWS_PER_CALL", 2)
    np.testing.assert_array_equal(forecaster.render(forecast.scene, AHEAD.at(TIMES), TIMES), whole)
    np.testing.assert_array_equal(whole, forecast.frames[0])


def test_frames_of_another_size_than_the_image(forecaster: Forecaster, photo: Photo) -> None:
    small = forecaster.forecast(photo.image, photo.K, CameraPath.still(), [0.0], size=(156, 48))
    assert small.frames.shape == (1, 1, 48, 156, 3)
    assert psnr(small.frames[0, 0], cv2.resize(photo.image, (156, 48), interpolation=cv2.INTER_AREA)) > 22


@pytest.mark.parametrize(
    ("width", "height", "focal"), [(640, 480, 500.0), (97, 61, 80.0), (32, 200, 150.0), (320, 32, 900.0)]
)
def test_any_image_size_and_focal_length(
    forecaster: Forecaster, photo: Photo, width: int, height: int, focal: float
) -> None:
    image = cv2.resize(photo.image, (width, height), interpolation=cv2.INTER_CUBIC)
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    forecast = forecaster.forecast(image, K, AHEAD, [0.0, 0.5])
    assert forecast.frames.shape == (1, 2, height, width, 3)
    assert psnr(forecast.frames[0, 0], image) >= 30


IMAGE, GOOD_K = np.zeros((64, 208, 3), np.uint8), np.array([[121.0, 0, 104], [0, 121, 32], [0, 0, 1]])


@pytest.mark.parametrize(
    ("image", "K", "message"),
    [
        (IMAGE.astype(np.float32), GOOD_K, r"must be \(H, W, 3\) uint8 RGB, got \(64, 208, 3\) float32"),
        (IMAGE[..., 0], GOOD_K, r"must be \(H, W, 3\) uint8 RGB, got \(64, 208\) uint8"),
        (np.zeros((64, 208, 4), np.uint8), GOOD_K, r"must be \(H, W, 3\) uint8 RGB"),
        (IMAGE[:31], GOOD_K, "at least 32 pixels on each side, got 208x31"),
        (IMAGE, np.zeros((3, 3)), "focal lengths must be positive"),
        (IMAGE, np.full((3, 3), np.nan), "NaN or Inf"),
        (IMAGE, np.eye(4), "must be 3x3"),
        (IMAGE, GOOD_K.T, "K is no camera matrix"),
        (IMAGE, 2 * GOOD_K, "K is no camera matrix"),
        (IMAGE[:, :100], GOOD_K, r"principal point at \(104, 32\), outside the 100x64 image"),
    ],
)
def test_bad_images_and_intrinsics_are_refused(
    forecaster: Forecaster, image: NDArray[np.generic], K: FloatArray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        forecaster.predict(image, K)


def test_intrinsics_of_another_image_size_are_named_once(
    forecaster: Forecaster, photo: Photo, caplog: pytest.LogCaptureFixture
) -> None:
    height, width = photo.image.shape[:2]
    half = cv2.resize(photo.image, (int(width / 1.7), int(height / 1.7)))
    for _ in range(2):
        forecaster.predict(half, photo.K)
    assert caplog.text.count("K seems to be in pixels of about") == 1


def test_bad_requests_are_refused(forecaster: Forecaster, photo: Photo, forecast: Forecast) -> None:
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        forecaster.predict(photo.image, photo.K, num_samples=0)
    with pytest.raises(ValueError, match="NaN or Inf"):
        forecaster.render(forecast.scene, np.full((1, 4, 4), np.nan), [0.0])
    with pytest.raises(ValueError, match="shape"):
        forecaster.render(forecast.scene, np.eye(4), [0.0])
    with pytest.raises(ValueError, match="one pose per time, got 2 poses and 1 times"):
        forecaster.render(forecast.scene, np.stack([np.eye(4)] * 2), [0.0])
    with pytest.raises(ValueError, match="finite"):
        forecaster.forecast(photo.image, photo.K, AHEAD, [np.nan])
    with pytest.raises(ValueError, match="finite number of seconds, got nan"):
        forecast.scene.at(float("nan"))


def test_a_batch_of_paths_is_rendered_as_each_of_them(forecaster: Forecaster, forecast: Forecast) -> None:
    turns = [CameraPath.constant_twist([0, 0, 6.0], [0, turn, 0], 1.0) for turn in (-0.3, 0.0, 0.3)]
    times = np.linspace(0, 0.9, 10)  # 30 views: more than one call renders
    poses = np.stack([turn.at(times) for turn in turns])
    together = forecaster.views(forecast.scene, poses, times, size=(104, 32))
    assert together.frames.shape == (3, 10, 32, 104, 3) and together.depth.shape == (3, 10, 32, 104)
    for k, path in enumerate(poses):
        alone = forecaster.views(forecast.scene, path, times, size=(104, 32))
        np.testing.assert_array_equal(together.frames[k], alone.frames)
        np.testing.assert_array_equal(together.depth[k], alone.depth)
        np.testing.assert_array_equal(together.confidence[k], alone.confidence)
    assert together.confidence.shape == (3, 10) and not np.array_equal(together.frames[0], together.frames[2])
    np.testing.assert_array_equal(forecaster.render(forecast.scene, poses, times, size=(104, 32)), together.frames)
    with pytest.raises(ValueError, match="one pose per time, got 10 and 3 times"):
        forecaster.render(forecast.scene, poses, times[:3])
    with pytest.raises(ValueError, match="at least one camera pose"):
        forecaster.render(forecast.scene, poses[:0], times)


def test_missing_weights_are_reported() -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        Forecaster.load("no/such/weights.safetensors", device="cpu")


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "mps", "meta"])
def test_unknown_devices_are_refused(device: str) -> None:
    with pytest.raises(DeviceError, match=f"unknown device '{device}': use auto, cpu, cuda or cuda:N"):
        Forecaster.load(device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_is_not_there() -> None:
    with pytest.raises(DeviceError, match="no CUDA GPU: use device auto or cpu"):
        Forecaster.load(device="cuda")
    assert Forecaster.load(device="auto").device.type == "cpu"


@pytest.mark.parametrize(
    "place", ["pixel4d_ros.predictor.predictor.visible_layer", "pixel4d_ros.rendering.host_rendering.render"]
)
def test_too_little_gpu_memory_is_reported_with_the_cure(
    forecaster: Forecaster, photo: Photo, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*arguments: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(place, exhausted)
    with pytest.raises(DeviceError, match="not enough memory on cpu: use smaller images"):
        forecaster.forecast(photo.image, photo.K, AHEAD, TIMES)
    monkeypatch.undo()
    assert forecaster.forecast(photo.image, photo.K, AHEAD, [0.0]).frames.any()
