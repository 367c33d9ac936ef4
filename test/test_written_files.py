# SPDX-License-Identifier: Apache-2.0
"""What commands write: checked before the work, whole or not at all; one line and exit code 1 where it cannot be."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from support.kitti_sample import write_kitti
from support.log_samples import entries, write_mcap
from support.scenes import random_scene

from pixel4d_ros import cli
from pixel4d_ros.cli import main
from pixel4d_ros.datasets.driving_log import read_clip
from pixel4d_ros.datasets.image_files import DatasetError
from pixel4d_ros.datasets.posed_video import video_frames
from pixel4d_ros.evaluation.video import VideoWriter
from pixel4d_ros.evaluation.video import write_text as draw_text
from pixel4d_ros.files import check_target, provide_numba_cache, replacing, staging, write_text
from pixel4d_ros.forecaster import Forecaster
from pixel4d_ros.logs.reader import LogReader
from pixel4d_ros.logs.writer import LogWriter


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("older")

    def fail(reason: BaseException) -> None:
        with replacing(path) as part:
            part.write_text("half of a new o")
            raise reason

    for reason in (KeyboardInterrupt(), OSError(28, "No space left on device")):
        with pytest.raises(type(reason)):
            fail(reason)
        assert path.read_text() == "older"
    with pytest.raises(OSError, match="was not written: is the disk full"), replacing(path):
        pass
    write_text(path, "newer")
    assert path.read_text() == "newer"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_files_that_belong_together_are_replaced_together_or_not_at_all(tmp_path: Path) -> None:
    for name in ("report.html", "report.json"):
        (tmp_path / name).write_text("older")

    def write(reason: BaseException | None = None) -> None:
        with staging(tmp_path) as made:
            (made / "report.html").write_text("newer")
            if reason is not None:
                raise reason
            (made / "report.json").write_text("newer")

    for reason in (KeyboardInterrupt(), OSError(28, "No space left on device")):
        with pytest.raises(type(reason)):
            write(reason)
        assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["older", "older"]
    write()
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["newer", "newer"]


def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(tmp_path: Path) -> None:
    data, links = tmp_path / "data", tmp_path / "links"
    for folder in (data, links):
        folder.mkdir()
    for name in ("a.txt", "b.txt", "c.mcap"):
        (links / name).symlink_to(data / name)  # b.txt and c.mcap: the link leads nowhere yet
    (data / "a.txt").write_text("older")
    write_text(links / "a.txt", "newer")
    with staging(links) as made:
        (made / "b.txt").write_text("newer")
    write_mcap(links / "c.mcap", entries())
    assert all(path.is_symlink() for path in links.iterdir())
    assert (data / "a.txt").read_text() == (data / "b.txt").read_text() == "newer"
    with LogReader(data / "c.mcap") as log:
        assert log.topics
    assert sorted(path.name for path in data.iterdir()) == ["a.txt", "b.txt", "c.mcap"]


def test_compiled_code_has_a_private_folder_where_no_other_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only container, or a service whose user has no home."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    provide_numba_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    provide_numba_cache()
    (folder,) = tmp_path.iterdir()
    assert os.environ.pop("NUMBA_CACHE_DIR") == str(folder)
    folder.chmod(0o777)  # others could put code there
    provide_numba_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_a_device_or_pipe_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from pixel4d_ros.files import *; target = Path('/dev/stdout');"
        "print('before', flush=True); check_target(target); write_text(target, 'text\\n')"
    )
    with (tmp_path / "out.txt").open("a") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert (tmp_path / "out.txt").read_text() == "before\ntext\n"
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ValueError, match="it is a device or a pipe; name a file"):
        check_target(tmp_path / "pipe.mp4", (".mp4",))
    with pytest.raises(ValueError, match="there is no such device or pipe"):
        check_target(Path("/proc/numbers.json"))


def test_names_that_are_not_utf_8_are_refused_for_outputs_and_read_as_inputs(tmp_path: Path) -> None:
    """OpenCV and the writers of logs crash on them."""
    odd = tmp_path / "gr\udce9.mcap"
    with pytest.raises(ValueError, match="its name is not UTF-8; choose another"):
        check_target(odd)
    with pytest.raises(ValueError, match="its name is not UTF-8; choose another"):
        write_mcap(odd, entries())
    write_mcap(tmp_path / "-plain log.mcap", entries()).rename(odd)
    clip = read_clip(odd)
    assert clip.name == "gr\\udce9"
    draw_text(np.zeros((40, 200, 3), np.uint8), odd.stem, (0, 30), (255, 255, 255))
    odd.rename(tmp_path / "gr\udce9.mp4")
    with pytest.raises(DatasetError, match="its name is not UTF-8; rename it"):
        video_frames(tmp_path / "gr\udce9.mp4", (8, 8), 1)


def test_names_that_look_like_options_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-o").mkdir()
    for name in ("-o/a.mp4", "12:30.mp4", "a b.mp4"):
        with VideoWriter(name, 10) as video:
            video.add(np.zeros((16, 16, 3), np.uint8))
        assert Path(name).is_file()
    write_mcap(Path("-x y.mcap"), entries())
    assert read_clip("-x y.mcap").name == "-x y"


def test_targets_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.mp4").mkdir()
    for name, words in {
        "folder.mp4": "it is a folder",
        "nowhere/a.mp4": "nowhere does not exist; create it",
        "a.xyz": r"name it with one of the suffixes \.mp4",
    }.items():
        with pytest.raises(ValueError, match=words):
            check_target(tmp_path / name, (".mp4",))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(ValueError, match="no space left on"):
        check_target(tmp_path / "a.mp4", (".mp4",))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    return path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "nowhere/a.mp4"], "the folder nowhere does not exist"),
        (["-o", "a.xyz"], "name it with one of the suffixes .mp4"),
        (["-o", "."], "name it with one of the suffixes .mp4"),
        (["-o", "a.mp4", "--scene", "nowhere/a.safetensors"], "the folder nowhere does not exist"),
        (["-o", "a.mp4", "--ply", "a.obj"], "name it with one of the suffixes .ply"),
        (["-o", "a.mp4", "--path", "nothing.csv"], "camera path nothing.csv cannot be read"),
        (["--intrinsics", "1", "1", "0", "0"], "--intrinsics has a focal length of 1 pixels for 64x48 images"),
        (["--intrinsics", "50", "50", "320", "24"], "--intrinsics has its principal point at (320, 24), outside"),
        (["--speed", "nan"], "--speed must be at most 200 m/s"),
        (["--yaw-rate", "1e155"], "--yaw-rate at most 20 rad/s"),
        (["--path", "a.csv", "--speed", "25"], "--path gives the camera's motion: omit --speed and --yaw-rate"),
    ],
)
def test_forecast_refuses_before_the_work(
    tmp_path: Path,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    def load(*_: object) -> Forecaster:
        raise AssertionError("the weights were loaded all the same")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Forecaster, "load", load)
    assert main(["forecast", str(picture), *options]) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_no_output_replaces_an_input(tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report took the place of the log, a video that of the picture, a recording that of the log it is of."""
    log = write_mcap(tmp_path / "forecast.mcap", entries())
    link = tmp_path / "numbers.json"
    link.symlink_to(log)
    picture = picture.rename(tmp_path / "picture.mp4")
    before = log.read_bytes(), picture.read_bytes()
    for command in (
        ["evaluate", log, "--json", log],
        ["evaluate", log, "--json", link],
        ["demo", "--log", log, "--out", tmp_path],
        ["replay", log, "--score", tmp_path, "--wait-timeout", "1"],
        ["forecast", picture, "-o", picture],
        ["benchmark", "--image", log, "--json", log],
    ):
        assert main([str(word) for word in command]) == 1
        assert "it is read as input; choose another name" in capsys.readouterr().err
    assert (log.read_bytes(), picture.read_bytes()) == before


def test_forecast_counts_the_objects_that_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("wall.png", np.random.default_rng(0).integers(90, 110, (64, 128, 3), np.uint8))
    assert main(["forecast", "wall.png", "--steps", "1", "--device", "cpu"]) == 0
    assert " 0 moving objects: " in capsys.readouterr().out


def test_forecast_refuses_a_truncated_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))[1].tobytes()
    (tmp_path / "torn.jpg").write_bytes(data[: len(data) // 2])
    monkeypatch.chdir(tmp_path)
    assert main(["forecast", "torn.jpg"]) == 1
    assert "torn.jpg is no whole image" in capsys.readouterr().err


@pytest.fixture
def small_files() -> Iterator[None]:
    """No process here can write more than 20 kB to a file, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_video_that_the_disk_cut_off_is_an_error(tmp_path: Path) -> None:
    """AVI and Matroska play up to there: they were taken for whole."""
    rng = np.random.default_rng(0)
    path = tmp_path / "a.avi"

    def write() -> None:
        with replacing(path) as part, VideoWriter(part, 10) as video:
            for _ in range(8):
                video.add(rng.integers(0, 255, (96, 128, 3), np.uint8))

    with pytest.raises(OSError, match="the video is not whole: is the disk full") as caught:
        write()
    assert caught.value.filename == str(path) and not path.exists()


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_named_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"File too large: '.*a\.txt'"):
        write_text(tmp_path / "a.txt", "x" * 30_000)
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_text(Path("/dev/full"), "x" * 30_000)


def test_export_into_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = tmp_path / "scene.safetensors"
    random_scene(1).save(scene)
    assert main(["export", str(scene), str(scene)]) == 1
    assert "it is a file; name a folder" in capsys.readouterr().err


def test_convert_replaces_a_log_only_when_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drive, out = write_kitti(tmp_path), tmp_path / "out.mcap"
    out.write_bytes(b"older")
    assert main(["convert", "kitti", str(drive), str(out)]) == 1
    assert "exists: choose another name, or pass --force" in capsys.readouterr().err
    assert out.read_bytes() == b"older"
    assert main(["convert", "kitti", str(drive), str(out), "--force"]) == 0
    with LogReader(out) as log:
        assert log.topics
    assert main(["convert", "kitti", str(drive), str(tmp_path / "out.bag")]) == 1
    assert "logs are written as MCAP" in capsys.readouterr().err


def test_one_bad_clip_of_many_is_named_and_the_others_are_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drives = [write_kitti(tmp_path, f"2011_09_2{i}") for i in (6, 8, 9)]
    (drives[1] / "oxts" / "data" / "0000000001.txt").unlink()  # found when the clip is opened
    for i in (1, 2, 3):  # most of them: found when the images are read
        (drives[2] / "image_02" / "data" / f"000000000{i}.png").write_bytes(b"torn")
    out = tmp_path / "logs"
    assert main(["convert", "kitti", str(tmp_path), str(out)]) == 1
    assert [p.name for p in out.iterdir()] == [f"{drives[0].name}.mcap"]
    said = capsys.readouterr().err
    assert (
        said.count("left out: ") == 2
        and "2011_09_28_drive_0001_sync" in said
        and "3 of 4 images cannot be read, the first: " in said
    )


def test_an_interrupted_conversion_leaves_the_older_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drive, out = write_kitti(tmp_path), tmp_path / "out.mcap"
    out.write_bytes(b"older")

    write, images = LogWriter.write, []

    def write_one_image(log: LogWriter, topic: str, time_ns: int, data: bytes) -> None:
        if topic.endswith("/image_raw/compressed"):
            if images:
                raise KeyboardInterrupt
            images.append(topic)
        write(log, topic, time_ns, data)

    monkeypatch.setattr(LogWriter, "write", write_one_image)
    assert main(["convert", "kitti", str(drive), str(out), "--force"]) == 130
    assert out.read_bytes() == b"older"
    assert not list(tmp_path.glob(".out.mcap*"))


def test_a_missing_rclpy_is_one_line(tmp_path: Path) -> None:
    log = write_mcap(tmp_path / "a.mcap", entries())
    script = f"""
import sys
sys.modules["rclpy"] = None
from pixel4d_ros.cli import main
raise SystemExit(main(["replay", {str(log)!r}]))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "this command needs ROS 2" in ended.stderr and "Traceback" not in ended.stderr


def test_ctrl_c_during_imports_is_a_clean_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "import_module", interrupt)
    assert main(["forecast", "a.png"]) == 130


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "100000000"], "--steps must be 1 to 1000"),  # the frames filled the memory for minutes
        (["--step", "1e9"], "--step above 0 and at most 2 s"),
        (["--samples", "1000000"], "--samples must be 1 to 64"),
        (["--seed", "-1"], "--seed from 0"),
    ],
)
def test_numbers_of_a_forecast_that_cannot_be_meant_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert main(["forecast", "none.png", "-o", str(tmp_path / "out.mp4"), *options]) == 1
    assert words in capsys.readouterr().err
