# SPDX-License-Identifier: Apache-2.0
"""The report of a replay: a small log, and a recording whose forecasts are known beforehand."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from support.paths import REPOSITORY, shared_path

from pixel4d_ros.evaluation import video
from pixel4d_ros.evaluation.metrics import PSNR_CEILING
from pixel4d_ros.evaluation.node_record import rate
from pixel4d_ros.evaluation.plots import Series, histogram, line_chart, nice_ticks
from pixel4d_ros.evaluation.recording import FORECAST_TYPE, Truth
from pixel4d_ros.evaluation.report import write_report
from pixel4d_ros.evaluation.video import VideoWriter
from pixel4d_ros.logs.reader import LogError, LogReader
from pixel4d_ros.logs.writer import LogWriter

START = 1_700_000_000_000_000_000
PERIOD = 100_000_000
FRAMES, STEPS = 40, 14
SIZE = (96, 48)

types = get_typestore(Stores.ROS2_JAZZY)
types.register(get_types_from_msg((REPOSITORY / "msg/ForecastSequence.msg").read_text(), FORECAST_TYPE))
T = types.types


def picture(i: int) -> np.ndarray:
    """Smooth waves that move to the left as i grows."""
    x, y = np.meshgrid(np.arange(SIZE[0]) + 2.0 * i, np.arange(SIZE[1]))
    waves = [np.sin(x / 7), np.sin(x / 11 + y / 5), np.cos(y / 9 - x / 13)]
    return (128 + 100 * np.stack(waves, -1)).astype(np.uint8)


def header(stamp: int) -> Any:
    time = T["builtin_interfaces/msg/Time"](stamp // 10**9, stamp % 10**9)
    return T["std_msgs/msg/Header"](time, "camera")


def image(stamp: int, pixels: np.ndarray) -> Any:
    h, w = pixels.shape[:2]
    return T["sensor_msgs/msg/Image"](header(stamp), h, w, "rgb8", 0, 3 * w, pixels.reshape(-1))


def camera_info(stamp: int) -> Any:
    none = np.zeros(0)
    roi = T["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    K = np.array([50.0, 0, 48, 0, 50, 24, 0, 0, 1])
    return T["sensor_msgs/msg/CameraInfo"](
        header(stamp), SIZE[1], SIZE[0], "plumb_bob", none, K, np.eye(3).ravel(), np.zeros(12), 0, 0, roi
    )


def forecast(stamp: int, frames: list[np.ndarray], sample: int = 0, samples: int = 1) -> Any:
    duration, pose = T["builtin_interfaces/msg/Duration"], T["geometry_msgs/msg/Pose"]
    here = pose(T["geometry_msgs/msg/Point"](0.0, 0.0, 0.0), T["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0))
    return T[FORECAST_TYPE](
        header(stamp),
        camera_info(stamp),
        [duration(i // 10, i % 10 * PERIOD) for i in range(len(frames))],
        [here] * len(frames),
        [image(stamp, f) for f in frames],
        sample,
        samples,
        np.linspace(1, 0.8, len(frames)).astype(np.float32),
    )


def diagnostics(stamp: int, dropped: int) -> Any:
    status, pair = T["diagnostic_msgs/msg/DiagnosticStatus"], T["diagnostic_msgs/msg/KeyValue"]
    values = {
        "latency p50 (ms)": "210.5",
        "latency p99 (ms)": "350.0",
        "received frames": "40",
        "dropped frames": dropped,
    }
    pairs = [pair(key, str(value)) for key, value in values.items()]
    statuses = [
        status(0, "another_node", "fine", "", []),
        status(1, "forecast_node: forecast", "<no plan>", "cpu", pairs),
    ]
    return T["diagnostic_msgs/msg/DiagnosticArray"](header(stamp), statuses)


def make_log(path: Path, start: int = START) -> Path:
    with LogWriter(path) as log:
        for i in range(FRAMES):
            stamp = start + i * PERIOD
            log.write("/camera/image_raw", stamp, image(stamp, picture(i)))
            log.write("/camera/camera_info", stamp, camera_info(stamp))
    return path


def make_recording(
    path: Path, every: int = 4, size: tuple[int, int] = SIZE, samples: int = 1, repeats: bool = False
) -> Path:
    """Forecasts that are the truth (or repeat the image) for every every-th image, each 0.2 s after its image."""
    definition = types.generate_msgdef(FORECAST_TYPE, ros_version=2)[0]
    with LogWriter(path) as log:
        log.add_topic("/forecast_node/forecast", FORECAST_TYPE, definition)
        for i in range(0, FRAMES, every):
            stamp = START + i * PERIOD
            frames = [cv2.resize(picture(i if repeats else i + k), size) for k in range(STEPS)]
            for sample in range(samples):
                log.write("/forecast_node/forecast", stamp + 2 * PERIOD, forecast(stamp, frames, sample, samples))
            log.write("/diagnostics", stamp + 2 * PERIOD, diagnostics(stamp, i))
    return path


def described(path: Path) -> str:
    """What ffmpeg says about a video."""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    return subprocess.run([ffmpeg, "-i", str(path)], capture_output=True, text=True, check=False).stderr


class Page(HTMLParser):
    """Counts tags, and checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "line", "circle", "rect", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "circle", "rect", "polyline"):
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_log(tmp_path_factory.mktemp("log") / "drive.mcap")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Perfect forecasts."""
    return make_recording(tmp_path_factory.mktemp("recording") / "forecast.mcap")


@pytest.fixture(scope="module")
def out(log: Path, recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of perfect forecasts, at which many tests look."""
    folder = tmp_path_factory.mktemp("report")
    assert write_report(log, recording, folder) == json.loads((folder / "report.json").read_text())
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> Any:
    return json.loads((out / "report.json").read_text())


@pytest.fixture
def small_video(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at numbers only: drawing and encoding the usual size take five seconds of CPU time."""
    monkeypatch.setattr(video, "PANEL_WIDTH", SIZE[0])


def test_a_perfect_forecast_gets_full_marks(report: Any) -> None:
    assert report["forecasts"] == report["scored"] == 10
    assert report["size"] == list(SIZE)
    assert report["psnr"]["mean"] == PSNR_CEILING
    assert report["gain"]["mean"] == pytest.approx(PSNR_CEILING - report["repeat_psnr"]["mean"])
    assert 5 < report["repeat_psnr"]["mean"] < 40
    steps = report["steps"]
    assert [s["time"] for s in steps] == pytest.approx([0.1 * i for i in range(STEPS)])
    # 40 images at 10 Hz, forecasts from 0, 4 .. 36: those from 28, 32 and 36 see the end of the log.
    assert [steps[i]["count"] for i in (0, 3, 4, 13)] == [10, 10, 9, 7]
    assert steps[1]["repeat_psnr"] > steps[3]["repeat_psnr"]
    assert steps[13]["confidence"] == pytest.approx(0.8)


def test_the_node_is_described_by_what_it_published(report: Any) -> None:
    node = report["node"]
    assert node["latency_ms"] == {"p50": 210.5, "p99": 350.0}
    assert (node["received"], node["dropped"], node["published"]) == (40, 36, None)
    assert node["age_s"]["p50"] == pytest.approx(0.2)
    assert node["forecast_hz"] == pytest.approx(2.5)
    assert node["states"] == {"WARN": 10}
    assert {t["name"]: t["count"] for t in node["topics"]} == {"/diagnostics": 10, "/forecast_node/forecast": 10}


@pytest.mark.usefixtures("small_video")
def test_repeating_the_image_gains_nothing(log: Path, tmp_path: Path) -> None:
    recording = make_recording(tmp_path / "forecast.mcap", repeats=True)
    assert write_report(log, recording, tmp_path / "out")["gain"]["mean"] == 0


@pytest.mark.usefixtures("small_video")
def test_a_smaller_forecast_is_judged_at_its_own_size(log: Path, tmp_path: Path) -> None:
    recording = make_recording(tmp_path / "forecast.mcap", size=(48, 24), samples=2)
    report = write_report(log, recording, tmp_path / "out")
    assert report["size"] == [48, 24]
    assert report["samples"] == 2
    assert report["forecasts"] == 10
    assert report["gain"]["mean"] > 5


def test_the_page_is_whole_and_needs_no_other_file(out: Path) -> None:
    text = (out / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    sources = [a["src"] or "" for _, a in page.seen if "src" in a]
    assert len([s for s in sources if s.startswith("data:image/jpeg;base64,")]) == 4 * 5
    assert len([s for s in sources if s.startswith("data:video/mp4;base64,")]) == 1
    assert len(sources) == 21
    assert not re.search(r"(href|src)=['\"](?!data:)|url\(", text)
    assert [tag for tag, _ in page.seen].count("svg") == 3
    assert "&lt;no plan&gt;" in text
    assert "<no plan>" not in text


def test_the_video_is_h264_that_plays_everywhere(out: Path) -> None:
    path = out / "forecast.mp4"
    assert "h264" in described(path)
    assert "yuv420p" in described(path)
    frames, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
    # Ten forecasts, of which those from images 28, 32 and 36 end with the log; each is held for 5 frames.
    assert frames == 7 * 14 + 12 + 8 + 4 + 10 * 5


def test_a_video_refuses_a_change_of_size_and_makes_odd_ones_even(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "video.mp4", 10) as writer:
        writer.add(np.zeros((33, 65, 3), np.uint8))
        with pytest.raises(ValueError, match="one size"):
            writer.add(np.zeros((48, 64, 3), np.uint8))
    assert "64x32" in described(tmp_path / "video.mp4")
    with VideoWriter(tmp_path / "empty.mp4", 10):
        pass
    assert not (tmp_path / "empty.mp4").exists()


def test_recordings_that_do_not_fit_say_so(log: Path, recording: Path, tmp_path: Path) -> None:
    other = make_log(tmp_path / "other.mcap", start=START + 10**12)
    with pytest.raises(LogError, match="stamps differ"):
        write_report(other, recording, tmp_path / "out")
    with pytest.raises(LogError, match="holds no forecasts"):
        write_report(log, log, tmp_path / "out")


def test_truth_is_found_again_when_the_replay_loops(log: Path) -> None:
    with LogReader(log) as reader:
        truth = Truth(reader, "/camera/image_raw")
        for i in (5, 20, 21, 3, 39):
            truth.start_at(START + i * PERIOD)
            for k in (0, 2):
                found = truth.at(START + (i + k) * PERIOD + 20_000_000)
                if i + k < FRAMES:
                    assert found is not None
                    np.testing.assert_array_equal(found, picture(i + k))
                else:
                    assert found is None
        assert truth.at(START - PERIOD) is None


def test_a_real_camera_has_an_image_for_every_step() -> None:
    # KITTI's camera runs at 9.7 Hz: its 13th image after a source is 45 ms away from +1.3 s.
    with LogReader(shared_path("logs/val/kitti_0002.mcap")) as log:
        truth = Truth(log, "/camera/left/image_raw/compressed")
        truth.start_at(truth.first_stamp)
        images = [truth.at(truth.first_stamp + i * PERIOD, (200, 60)) for i in range(STEPS)]
    assert all(found is not None and found.shape == (60, 200, 3) for found in images)
    assert len({found.tobytes() for found in images if found is not None}) >= STEPS - 1


def test_rates_ignore_messages_stamped_by_another_clock() -> None:
    times = [START + i * PERIOD for i in range(11)]
    assert rate(times) == pytest.approx(10)
    assert rate([START + 10**17, *times]) == pytest.approx(10)
    assert rate(times[:1]) is None
    assert rate([]) is None


def test_ticks_are_round_and_cover_the_values() -> None:
    assert nice_ticks(0, 1.3, 7) == [0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4]
    assert nice_ticks(12.3, 27.9) == [10, 15, 20, 25, 30]
    for low, high in ((3, 3), (-1e-3, 1e-3), (0, 12345)):
        ticks = nice_ticks(low, high)
        assert ticks[0] <= low
        assert ticks[-1] >= high


def test_charts_leave_out_what_is_unknown() -> None:
    chart = line_chart([0.1, 0.2, 0.3], [Series("a<b", [1.0, float("nan"), 3.0])], "dB", "s")
    assert chart.count("<circle") == 2
    assert "a&lt;b" in chart
    assert "nan" not in chart
    assert "nothing to plot" in line_chart([0.1], [Series("a", [float("nan")])], "dB", "s")
    assert histogram([0.1, 0.1, 0.9], "s", "age").count("<rect") == 2
    assert histogram([5.0], "s", "age").count("<rect") == 1
    assert "nothing to plot" in histogram([], "s", "age")
