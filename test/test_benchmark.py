# SPDX-License-Identifier: Apache-2.0
"""`pixel4d benchmark`: its sums, a tiny run on the CPU, what it refuses, and on a GPU the lower_bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.coarse_predictions import coarse_predictions

from pixel4d_ros.benchmark import plots
from pixel4d_ros.benchmark.lower_bounds import task_views
from pixel4d_ros.benchmark.report import describe
from pixel4d_ros.benchmark.results import Agreement, Benchmark, ForecastTimes, LowerBounds
from pixel4d_ros.benchmark.source_image import (
    candidate_poses,
    forecast_times,
    source_image,
    straight_path,
)
from pixel4d_ros.benchmark.stages import MOTION, PREDICT, STAGES, Task, staged_forecast, whole_forecast
from pixel4d_ros.benchmark.statistics import Spread, course
from pixel4d_ros.benchmark.stopwatch import Effort, Stopwatch, measure_laps, measure_wall
from pixel4d_ros.cli import main
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.two_view.two_images import MeasuredFlow

CPU = torch.device("cpu")
WIDTH, HEIGHT = 96, 32


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small picture file, larger than what is measured."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 12, 3), np.uint8)
    path = tmp_path_factory.mktemp("benchmark") / "photo.png"
    assert cv2.imwrite(str(path), cv2.resize(noise, (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_CUBIC))
    return path


@pytest.fixture(scope="module")
def written(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JSON of a tiny run through the command."""
    path = tmp_path_factory.mktemp("benchmark") / "times.json"
    sizes = ["--sizes", f"{WIDTH}x{HEIGHT}", "--frames", "3", "2", "--samples", "1", "2", "--candidates", "1", "3"]
    options = ["--runs", "2", "--warm-up", "0", "--device", "cpu", "--image", str(photo), "--json", str(path)]
    with coarse_predictions():
        assert main(["benchmark", *sizes, *options]) == 0
    return path


@pytest.fixture
def measured(written: Path) -> Benchmark:
    return Benchmark.read(written)


def test_spread_of_known_times() -> None:
    spread = Spread.of(np.arange(101.0))
    assert (spread.p50, spread.p99, spread.worst, spread.runs) == (50, 99, 100, 101)
    assert Spread.of([3.0]) == Spread(3, 3, 3, 1)
    assert spread.per(10) == Spread(5, 9.9, 10, 101)


@pytest.mark.parametrize("times", [[], [1.0, float("nan")], [float("inf")], [-1.0]])
def test_times_that_cannot_be_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match=r"nothing was measured|negative or not finite"):
        Spread.of(times)


def test_the_course_of_a_run_tells_its_growth() -> None:
    assert course([1, 1, 1, 5, 9, 2, 4, 4, 4], parts=3) == (1, 5, 4)
    assert course([7.0] * 30) == (7.0,) * 6
    assert course([1, 2]) == ()


def test_a_stopwatch_tells_which_lap_took_long() -> None:
    def run(watch: Stopwatch) -> None:
        sum(range(300_000))
        watch.restart()  # what came before does not count
        watch.lap("nothing")
        sum(range(300_000))
        watch.lap("work")

    laps = measure_laps(run, CPU, Effort(5, 1), "laps")
    assert list(laps) == ["nothing", "work"] and laps["work"].runs == 5
    assert laps["nothing"].p50 < laps["work"].p50 / 10


def test_warm_up_runs_are_not_counted() -> None:
    calls: list[None] = []
    spread = measure_wall(lambda: calls.append(None), CPU, Effort(4, 3), "wall")
    assert len(calls) == 7 and spread.runs == 4


@pytest.mark.parametrize(("runs", "warm_up"), [(0, 1), (-1, 0), (1, -1)])
def test_effort_needs_runs(runs: int, warm_up: int) -> None:
    with pytest.raises(ValueError, match="--runs must be at least 1"):
        Effort(runs, warm_up)


def test_candidates_differ_and_start_at_the_image() -> None:
    times = forecast_times(5)
    poses = candidate_poses(16, times)
    assert poses.shape == (16, 5, 4, 4)
    np.testing.assert_allclose(poses[:, 0], np.broadcast_to(np.eye(4), (16, 4, 4)), atol=1e-9)
    ends = poses[:, -1, :3, 3]
    assert min(np.linalg.norm(a - b) for i, a in enumerate(ends) for b in ends[:i]) > 0.01
    np.testing.assert_allclose(candidate_poses(1, times)[0], straight_path(times).at(times))


def test_a_picture_is_resized_with_its_camera(photo: Path) -> None:
    source = source_image(photo, (WIDTH, HEIGHT), CPU)
    assert source.pixels.shape == (HEIGHT, WIDTH, 3) and source.pixels.dtype == np.uint8
    whole = source_image(photo, (2 * WIDTH, 2 * HEIGHT), CPU)
    np.testing.assert_allclose(source.camera.K[0, 0], whole.camera.K[0, 0] / 2)
    assert "resized" in source.origin and "resized" not in whole.origin


def test_the_street_is_a_scene_and_not_a_flat_picture() -> None:
    source = source_image(None, (WIDTH, HEIGHT), CPU)
    assert source.pixels.shape == (HEIGHT, WIDTH, 3)
    assert source.pixels.std() > 20 and len(np.unique(source.pixels.reshape(-1, 3), axis=0)) > 500


def test_stages_are_those_of_a_forecast(photo: Path) -> None:
    """What is timed step by step makes the frames that a whole forecast makes."""
    forecaster = Forecaster.load(device="cpu")
    task = Task(source_image(photo, (WIDTH, HEIGHT), CPU), 30, 2)  # more frames than are rendered at once
    watch = Stopwatch(CPU)
    pin_memory = staged_forecast(forecaster, task, watch)
    assert tuple(watch.laps()) == STAGES
    np.testing.assert_array_equal(pin_memory, whole_forecast(forecaster, task).frames)


def test_the_reference_image_shows_the_same_street() -> None:
    source = source_image(None, (416, 128), CPU, with_reference=True)
    assert source.reference is not None
    flow = MeasuredFlow.of(source.pixels, source.reference).flow
    assert flow.agrees.mean() > 0.3  # of another street 0.05


def test_with_an_earlier_image_motion_from_flow_is_a_stage() -> None:
    task = Task(source_image(None, (208, 64), CPU, with_reference=True), 3, 1)
    forecaster, watch = Forecaster.load(device="cpu"), Stopwatch(CPU)
    pin_memory = staged_forecast(forecaster, task, watch)
    laps = list(watch.laps())
    assert laps.index(MOTION) == laps.index(PREDICT) + 1 and set(laps) == {*STAGES, MOTION}
    np.testing.assert_array_equal(pin_memory, whole_forecast(forecaster, task).frames)


def test_the_rasterizers_floor_has_all_gaussians_and_frames(photo: Path) -> None:
    task = Task(source_image(photo, (WIDTH, HEIGHT), CPU), 3, 2)
    scene = Forecaster.load(device="cpu").predict(task.source.pixels, task.source.camera.K)
    views = task_views(task, scene)
    assert views.means.shape == (6, len(scene), 3) and len(views.T_camera_world) == 6
    torch.testing.assert_close(views.T_camera_world[3:], views.T_camera_world[:3])


def test_json_of_a_run(written: Path) -> None:
    found = json.loads(written.read_text())
    assert set(found) == {"machine", "path", "weights", "sizes", "nodes", "notes"}
    assert found["path"] == "eager, float32" and found["machine"]["cuda"] is None
    assert len(found["weights"]) == 64 and found["machine"]["cores"] >= 1
    (size,) = found["sizes"]
    assert size["size"] == [WIDTH, HEIGHT] and size["gaussians"] > WIDTH * HEIGHT
    assert [(f["frames"], f["samples"]) for f in size["forecasts"]] == [(3, 1), (3, 2), (2, 1)]
    for times in size["forecasts"]:
        assert list(times["stages"]) == list(STAGES)
        assert times["total"]["runs"] == 2 and 0 < times["total"]["p50"] <= times["total"]["worst"]
        assert times["render_per_frame"]["p50"] < times["stages"]["render"]["p50"]
        assert times["agreement"]["worst_frame"] > 90  # on the CPU both paths are one
    assert [c["candidates"] for c in size["candidates"]] == [1, 3]


@pytest.mark.skipif(torch.cuda.is_available(), reason="lower_bounds are there on CUDA")
def test_floors_are_left_out_without_cuda_and_it_is_said(measured: Benchmark) -> None:
    assert all(f.lower_bounds is None and f.ratio is None and f.memory is None for f in measured.sizes[0].forecasts)
    assert "lower bounds are measured on CUDA only" in describe(measured)


def test_json_is_read_as_it_was_written(measured: Benchmark, written: Path, tmp_path: Path) -> None:
    measured.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == written.read_text()
    assert measured.sizes[0].size == (WIDTH, HEIGHT)


def test_numbers_are_printed_again_and_drawn(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib to draw")
    picture = tmp_path / "times.png"
    assert main(["benchmark", "--read", str(written), "--plot", str(picture), "--markdown"]) == 0
    assert "| 2 samples of 3 frames" in capsys.readouterr().out
    drawn = cv2.imread(str(picture))
    assert drawn is not None and drawn.shape[1] > 1000 and drawn.std() > 10


def test_plots_show_what_was_measured(measured: Benchmark) -> None:
    size = measured.sizes[0]
    assert [x for x, _ in plots.frame_points(size)] == [2, 3]
    assert [x for x, _ in plots.sample_points(size)] == [1, 2]
    assert [x for x, _ in plots.candidate_points(size)] == [1, 3]
    parts = plots.stage_parts(size.forecasts[0])
    assert sum(parts.values()) >= size.forecasts[0].total.p50 * 0.999


def test_ratio_to_the_floors(measured: Benchmark) -> None:
    lower_bounds = LowerBounds(Spread(2, 3, 4, 9), Spread(3, 3, 3, 9))
    times = replace(measured.sizes[0].forecasts[0], total=Spread(8, 9, 9, 9), lower_bounds=lower_bounds)
    assert times.ratio == 1.6
    text = describe(with_forecast(measured, times))
    assert "lower bound: encoders alone" in text and "1.60" in text


def test_frames_that_differ_from_eager_ones_are_an_error(
    measured: Benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = replace(measured.sizes[0].forecasts[0], agreement=Agreement(39.9, 60.0))
    path = tmp_path / "bad.json"
    with_forecast(measured, times).write(path)
    assert main(["benchmark", "--read", str(path)]) == 1
    assert "worst frame 39.9 dB from eager float32, at least 40 dB are asked for" in capsys.readouterr().err


def with_forecast(measured: Benchmark, times: ForecastTimes) -> Benchmark:
    return replace(measured, sizes=(replace(measured.sizes[0], forecasts=(times,)),))


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What the command says when it refuses."""
    try:
        code = main(["benchmark", *options])
    except SystemExit as error:
        code = error.code
    assert code in (1, 2)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--runs", "0"], "--runs must be at least 1"),
        (["--sizes", "10x10"], "'10x10' is not a size: write WIDTHxHEIGHT"),
        (["--sizes", "small"], "'small' is not a size"),
        (["--sizes", "64x9000"], "from 32 to 8192 pixels"),
        (["--frames", "0"], "'0' is not a number of at least 1"),
        (["--samples", "one"], "'one' is not a number of at least 1"),
        (["--candidates", "-1"], "not a number of at least 1|expected"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--weights", "no/such.safetensors"], "does not exist"),
        (["--image", "no/such.png"], "no/such.png cannot be read"),
        (["--json", "no/such/folder/a.json"], "the folder no/such/folder does not exist"),
        (["--plot", "times.txt"], "name a file that ends in .png"),
        (["--plot", "no/such/folder/a.png"], "there is no folder no/such/folder"),
        (["--read", "no/such.json"], "is not a file that `pixel4d benchmark --json` wrote"),
        (["--node", "0"], "--node and --rate must be positive"),
        (["--node", "3", "--rate", "-1"], "--node and --rate must be positive"),
        (["--node", "3", "--plot", "a.png"], "omit --node"),
        (["--node", "3", "--motion-from-flow"], "omit --node"),
        (["--image", "drive.mcap", "--motion-from-flow"], "leave --image away"),
        (["--node", "3", "--candidates", "30", "65"], "--candidates 65: the node takes 64 in one request at most"),
    ],
)
def test_bad_input_is_refused(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    if options[0] == "--node":
        pytest.importorskip("rclpy", reason="needs ROS 2")
    if options[-2] == "--plot":
        pytest.importorskip("matplotlib", reason="needs matplotlib to draw")
    small = ["--sizes", f"{WIDTH}x{HEIGHT}"] if "--sizes" not in options else []
    text = refused(capsys, *small, *options)
    assert any(words in text for words in said.split("|")), text


def test_other_json_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"sizes": []}')
    assert "is not a file that `pixel4d benchmark --json` wrote (KeyError: 'machine')" in refused(
        capsys, "--read", str(path)
    )


def test_a_text_is_no_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image.png"
    path.write_text("no image")
    assert "is no whole image" in refused(capsys, "--sizes", f"{WIDTH}x{HEIGHT}", "--image", str(path))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_run_on_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    options = ["--sizes", "400x120", "--frames", "3", "--samples", "1", "2", "--candidates", "2", "--runs", "3"]
    assert main(["benchmark", *options, "--device", "cuda", "--json", str(path)]) == 0
    found = Benchmark.read(path)
    for times in found.sizes[0].forecasts:
        assert times.lower_bounds is not None and times.ratio is not None and times.ratio > 0.5
        assert times.memory is not None and 0 < times.memory.allocated <= times.memory.reserved
        assert times.agreement.good
    assert found.machine.gsplat is not None and not found.notes
