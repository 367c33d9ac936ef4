# SPDX-License-Identifier: Apache-2.0
"""The demo: what it tells the node about a log, how it watches its processes, and the whole of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.log_samples import START, camera_info, entries, header, image_message, picture, write_mcap
from support.paths import REPOSITORY
from support.ros_domain import ros_domain

import pixel4d_ros.synthetic
from pixel4d_ros.cli import main
from pixel4d_ros.commands import demo
from pixel4d_ros.geometry.rotations import rigid
from pixel4d_ros.logs.cloud import read_gaussians, save_middle_cloud
from pixel4d_ros.logs.reader import LogError, LogReader
from pixel4d_ros.logs.types import jazzy_types
from pixel4d_ros.logs.writer import LogWriter
from pixel4d_ros.ros.processes import Child, ProcessError, ros_environment

T = jazzy_types().types
MOUNT = rigid([0.5, -0.5, 0.5, -0.5], [2.0, 0.5, 1.0])  # as in log_samples


def arguments(**changes: Any) -> Any:
    import argparse

    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    args = parser.parse_args([])
    for name, value in changes.items():
        setattr(args, name, value)
    return args


def test_what_the_node_is_told_about_a_log(tmp_path: Path) -> None:
    job = demo.read_job(write_mcap(tmp_path / "a.mcap", entries(compressed=True, path=True)), None)
    assert job.base_frame == "base_link"
    np.testing.assert_allclose(job.mounting, MOUNT)
    command = demo.node_command(job, arguments(device="cpu"))
    assert command[:3] == [sys.executable, "-m", "pixel4d_ros.ros.forecast_node"]
    words = dict(word.split(":=") for word in command if ":=" in word)
    assert words["image"] == "/camera/left/image_raw/compressed"
    assert words["camera_info"] == "/camera/left/camera_info"
    assert words["trajectory"] == "/planned_path"
    assert words["odometry"] == "/odometry"
    assert words["image_transport"] == '"compressed"'
    assert json.loads(words["mounting.translation"]) == [2.0, 0.5, 1.0]
    assert json.loads(words["mounting.rotation"]) == [-0.5, 0.5, -0.5, 0.5]
    replayed = demo.replay_command(job, arguments(rate=2.0))
    assert "/camera/left/depth" not in replayed
    assert {"/odometry", "/planned_path", "--plan-from-odometry"} <= set(replayed)


def test_a_log_without_plan_gets_the_driven_one(tmp_path: Path) -> None:
    job = demo.read_job(write_mcap(tmp_path / "a.mcap", entries()), None)
    assert job.streams.path is None
    assert "trajectory:=/planned_path" in " ".join(demo.node_command(job, arguments()))
    assert 'image_transport:="raw"' in " ".join(demo.node_command(job, arguments()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rate", "0"], "--rate must be positive"),
        (["--rate", "nan"], "--rate must be positive"),
        (["--samples", "0"], "--samples at least 1"),
        (["--duration", "0"], "--duration must be positive seconds"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused_before_anything_starts(
    tmp_path: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A demo of no duration waited for a minute."""
    assert main(["demo", "--log", str(tmp_path / "none.mcap"), "--out", str(tmp_path / "out"), *options]) == 1
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_logs_the_node_could_not_use_are_refused_at_once(tmp_path: Path) -> None:
    def without(topic: str) -> Path:
        return write_mcap(tmp_path / "a.mcap", [e for e in entries() if e.topic != topic])

    with pytest.raises(LogError, match="has no CameraInfo"):
        demo.read_job(without("/camera/left/camera_info"), None)
    with pytest.raises(LogError, match=r"a\.mcap: the log has no odometry"):
        demo.read_job(without("/odometry"), None)
    with pytest.raises(LogError, match="holds no camera images"):
        demo.read_job(write_mcap(tmp_path / "b.mcap", [e for e in entries() if "image" not in e.topic]), None)


def test_ros_stays_on_this_machine_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROS_DOMAIN_ID", "ROS_LOCALHOST_ONLY", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.delenv(name, raising=False)
    private = ros_environment()
    assert 1 <= int(private["ROS_DOMAIN_ID"]) <= 100
    assert private["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    chosen = ros_environment()
    assert (chosen["ROS_DOMAIN_ID"], chosen["ROS_AUTOMATIC_DISCOVERY_RANGE"]) == ("7", "SUBNET")


def test_the_street_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def write(path: Path, seed: int, frames: int, size: tuple[int, int]) -> None:
        made.append((seed, frames, size))
        path.write_bytes(b"street")

    monkeypatch.setattr(pixel4d_ros.synthetic, "write_street_log", write, raising=False)
    for _ in range(2):
        assert demo.street(tmp_path) == tmp_path / "street.mcap"
    assert made == [(0, 100, (416, 128))]
    monkeypatch.setattr(demo, "STREET_FRAMES", 50)
    demo.street(tmp_path)
    assert made[1:] == [(0, 50, (416, 128))]


def python(tmp_path: Path, code: str, name: str = "helper") -> Child:
    command = [sys.executable, "-u", "-c", code]
    return Child.start(name, command, dict(os.environ), tmp_path / f"{name}.log")


def test_a_process_that_dies_is_reported_with_its_last_words(tmp_path: Path) -> None:
    child = python(tmp_path, "import sys; print('loading'); print('no weights found'); sys.exit(3)")
    with pytest.raises(
        ProcessError, match=r"(?s)the helper ended with code 3.*\| no weights found.*full output: .*helper\.log"
    ):
        child.wait_for_output("ready", [], 20)


def test_waiting_notices_the_death_of_another(tmp_path: Path) -> None:
    sleeper = python(tmp_path, "import time; print('up'); time.sleep(60)", "sleeper")
    try:
        assert sleeper.wait_for_output("up", [], 20)
        assert not sleeper.wait_for_output("never", [], 0.2)
        other = python(tmp_path, "raise SystemExit(1)", "other")
        with pytest.raises(ProcessError, match="the other ended with code 1"):
            sleeper.wait_for_output("never", [other], 20)
    finally:
        sleeper.end()
    assert sleeper.process.poll() is not None


def test_stopping(tmp_path: Path) -> None:
    polite = (
        "import signal, sys, time; signal.signal(signal.SIGINT, lambda *_: sys.exit(0)); print('up'); time.sleep(60)"
    )
    child = python(tmp_path, polite)
    child.wait_for_output("up", [], 20)
    child.stop()
    assert child.process.returncode == 0
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up'); time.sleep(60)"
    child = python(tmp_path, deaf, "deaf")
    child.wait_for_output("up", [], 20)
    with pytest.raises(ProcessError, match=r"the deaf did not stop within 0\.2 s"):
        child.stop(timeout=0.2)
    assert child.process.returncode is not None


CLOUD_FIELDS = (
    *("x", "y", "z", "rgb", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2"),
    *("rot_0", "rot_1", "rot_2", "rot_3", "vx", "vy", "vz", "ax", "ay", "az", "wx", "wy", "wz", "alx", "aly", "alz"),
    "object_id",
)


def cloud(points: int, names: tuple[str, ...] = CLOUD_FIELDS) -> Any:
    """A PointCloud2 as the node publishes it."""
    rng = np.random.default_rng(points)
    data = rng.uniform(0.1, 0.9, (points, len(names))).astype("<f4")
    data[:, -1] = (np.arange(points) % 3).astype("<u4").view("<f4")
    kinds = [7] * (len(names) - 1) + [6]
    described = [T["sensor_msgs/msg/PointField"](n, 4 * i, kinds[i], 1) for i, n in enumerate(names)]
    step = 4 * len(names)
    raw = data.reshape(-1).view(np.uint8)
    head = header(T, START, "camera")
    return T["sensor_msgs/msg/PointCloud2"](head, 1, points, described, False, step, step * points, raw, True)


def test_clouds_are_scenes_again() -> None:
    message = cloud(9)
    values = message.data.view("<f4").reshape(9, -1)
    scene = read_gaussians(message)
    np.testing.assert_array_equal(scene.means, values[:, :3])
    np.testing.assert_allclose(scene.colors, 0.5 + 0.28209479 * values[:, 4:7], rtol=1e-6)
    np.testing.assert_array_equal(scene.opacities, values[:, 7])
    np.testing.assert_array_equal(scene.scales, values[:, 8:11])
    np.testing.assert_array_equal(scene.quaternions, values[:, 11:15])
    np.testing.assert_array_equal(scene.angular_accelerations, values[:, 24:27])
    assert scene.object_ids.tolist() == [0, 1, 2] * 3
    torch.testing.assert_close(scene.centroids[1], scene.means[1::3].mean(0))
    assert len(read_gaussians(cloud(0))) == 0
    with pytest.raises(ValueError, match="not one of Gaussians, it lacks f_dc_0, f_dc_1, f_dc_2"):
        read_gaussians(cloud(3, ("x", "y", "z", "intensity")))


def test_ids_that_have_grown_over_hours_are_numbered_anew() -> None:
    message = cloud(9)
    message.data.view("<u4").reshape(9, -1)[:, -1] = [0, 4_000_000_000, 7] * 3
    scene = read_gaussians(message)
    assert scene.object_ids.tolist() == [0, 2, 1] * 3
    torch.testing.assert_close(scene.centroids[2], scene.means[1::3].mean(0))


def test_a_cloud_of_an_unknown_datatype_is_named() -> None:
    message = cloud(3)
    message.fields[3].datatype = 9
    with pytest.raises(ValueError, match="fields rgb of the point cloud have a datatype unknown"):
        read_gaussians(message)


def test_the_middle_cloud_becomes_a_ply_file(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "a.mcap") as log:
        for i in range(3):
            log.write("/forecast_node/gaussians", START + i, cloud(5 + i))
    assert save_middle_cloud(tmp_path / "a.mcap", "/forecast_node/gaussians", tmp_path / "a.ply") == 6
    ply = (tmp_path / "a.ply").read_bytes()
    assert b"element vertex 6\n" in ply
    assert len(ply) == ply.index(b"end_header\n") + len(b"end_header\n") + 6 * (17 + 45) * 4  # with f_rest
    with pytest.raises(LogError, match="holds no Gaussian clouds on /other"):
        save_middle_cloud(tmp_path / "a.mcap", "/other", tmp_path / "b.ply")


def run_demo(log: Path, out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pixel4d_ros.cli", "demo", "--log", str(log), "--out", str(out), "--device", "cpu"]
    private = {"ROS_DOMAIN_ID": str(ros_domain(time.monotonic_ns()))}
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **private, **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Two seconds of 128 x 96 images."""
    items = []
    for e in entries(21, path=True):
        index = (e.time_ns - START) // 100_000_000
        if e.topic.endswith("image_raw"):
            e = replace(e, message=image_message(T, e.time_ns, picture(index, scale=4)))
        elif e.topic.endswith("camera_info"):
            e = replace(e, message=camera_info(T, e.time_ns, scale=4))
        items.append(e)
    return write_mcap(tmp_path / "drive.mcap", items)


@pytest.mark.ros
@pytest.mark.slow
def test_the_whole_demo(tmp_path: Path, drive: Path) -> None:
    pytest.importorskip("pixel4d_ros.msg", reason="needs the built message: run `make test`")
    out = tmp_path / "out"
    done = run_demo(drive, out)
    assert done.returncode == 0, done.stderr
    for name in ("forecast.mp4", "gaussians.ply", "forecast.mcap", "report.json", "report.html"):
        assert (out / name).stat().st_size > 500, name
        assert name in done.stdout
    numbers = json.loads((out / "report.json").read_text())
    assert numbers["forecasts"] >= 1
    assert 0 < numbers["node"]["age_s"]["p50"] < 60
    with LogReader(drive) as log:
        began = log.start_ns  # before the first image: odometry comes earlier
    with LogReader(out / "forecast.mcap") as log:
        assert began <= log.start_ns < log.end_ns < began + 200 * 10**9  # all on the log's clock
        # Clouds keep only their newest message: on a busy machine one may be replaced before it is sent.
        forecasts, clouds = (log.topics[f"/forecast_node/{name}"].count for name in ("forecast", "gaussians"))
        assert forecasts - 1 <= clouds <= forecasts
    assert not list(out.glob(".*"))


@pytest.mark.ros
def test_a_node_that_cannot_start_ends_the_demo_with_its_reason(tmp_path: Path, drive: Path) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2: run `make test`")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    job, args = demo.read_job(drive, None), arguments(out=tmp_path, device="cpu", weights=broken)
    with pytest.raises(ProcessError, match=r"(?s)the forecast node ended with code 1.*\| .*broken\.safetensors"):
        demo.forecast(job, args, tmp_path / "forecast.mcap")
