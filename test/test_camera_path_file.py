# SPDX-License-Identifier: Apache-2.0
"""Camera paths from files: what people write is read, and what would send the camera astray is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pixel4d_ros.camera_path_file import read_camera_path

ROWS = [[0.1 * i, 0.0, 0.0, 0.8 * i, 0.0, 0.0, 0.0, 1.0] for i in range(21)]
NAMES = ["t", "x", "y", "z", "qx", "qy", "qz", "qw"]


def written(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "path.csv"
    path.write_text(text, encoding=encoding)
    return path


def lines(rows: list[list[float]], separator: str = " ", header: str = "") -> str:
    return header + "\n".join(separator.join(f"{value:.17g}" for value in row) for row in rows) + "\n"


def with_times(times: list[float]) -> list[list[float]]:
    return [[time, *row[1:]] for time, row in zip(times, ROWS)]


@pytest.mark.parametrize(
    "text",
    [
        lines(ROWS),
        lines(ROWS, ", "),
        lines(ROWS, ";"),
        lines(ROWS, ",", "t,x,y,z,qx,qy,qz,qw\n"),
        lines(ROWS, ",", "# a comment\ntime,tx,ty,tz,qx,qy,qz,qw\n"),
        lines([[row[7], *row[:7]] for row in ROWS], ";", "qw;t;x;y;z;qx;qy;qz\n"),
        str(ROWS),
    ],
    ids=["spaces", "commas", "semicolons", "header", "names of TUM", "columns in another order", "JSON"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_what_people_write_is_read(tmp_path: Path, text: str, encoding: str) -> None:
    path = read_camera_path(written(tmp_path, text, encoding), 1.3)
    np.testing.assert_allclose(path.times, np.arange(21) * 0.1)
    np.testing.assert_allclose(path.poses[:, 2, 3], np.arange(21) * 0.8)


def test_stamps_that_are_dates_count_from_the_first(tmp_path: Path) -> None:
    path = read_camera_path(written(tmp_path, lines(with_times([1.7e9 + 0.1 * i for i in range(21)]))), 1.3)
    np.testing.assert_allclose(path.times, np.arange(21) * 0.1, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (ROWS[:5], "ends at 0.4 s, but the forecast extends to 1.3 s: add poses, or lower --steps"),
        (ROWS[:1], "ends at 0 s, but the forecast"),
        (ROWS[5:], "begins at 0.5 s, but the source image is at 0 s"),
        (with_times([100.0 * i for i in range(21)]), "100 s lie between two poses: .* divide milliseconds by 1000"),
        (with_times([1.7e12 + 100.0 * i for i in range(21)]), "divide milliseconds by 1000"),
        (with_times([1.7e18 + 1e8 * i for i in range(21)]), "nanoseconds by 1e9"),
        (
            with_times([0.0, 0.2, 0.1, *np.arange(3, 21) * 0.1]),
            "the times must increase, but pose 3 is at 0.1 after 0.2",
        ),
        (
            [[*row[:3], row[3] + 452, *row[4:]] for row in ROWS],
            r"the camera is at .*452\.0\] m at 0 s, but the frame is",
        ),
        ([[*row[:4], 0, 0, 0, 0] for row in ROWS], "quaternion of length 0"),
        ([[*row[:4], 1, 1, 0, 1] for row in ROWS], "quaternion of length 1.73: it must be a unit quaternion"),
        ([[*row[:4], float("nan"), 0, 0, 1] for row in ROWS], "contains NaN or Inf"),
    ],
)
def test_paths_that_would_lead_astray_are_refused(tmp_path: Path, rows: list[list[float]], words: str) -> None:
    with pytest.raises(ValueError, match=rf"camera path .*path\.csv: .*{words}"):
        read_camera_path(written(tmp_path, lines(rows)), 1.3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (lines(ROWS, ";").replace(".", ","), "line 2 holds semicolons and commas: write decimal points"),
        (lines([row[:7] for row in ROWS]), "line 1 has 7 numbers, 8 were expected"),
        ("t,x,y,z,roll,pitch,yaw\n" + lines(ROWS, ","), "line 1 names the columns t x y z roll pitch yaw"),
        (lines(ROWS) + "the end\n", "line 22 is 'the end': expected lines of t x y z"),
        ("", "is empty: expected lines of t x y z"),
        ("[[0, 1, 2]]", r"has shape \(1, 3\)"),
        ("[[0, 1", "or JSON of such rows"),
    ],
)
def test_files_of_another_form_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_camera_path(written(tmp_path, text), 1.3)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.csv cannot be read"):
        read_camera_path(tmp_path / "nothing.csv", 1.3)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match=r"binary\.csv cannot be read"):
        read_camera_path(binary, 1.3)


def test_other_orders_and_units_than_asked_for_are_refused(tmp_path: Path) -> None:
    scalar_first = [[*row[:4], 1.0, 0.0, 0.0, 0.0] for row in ROWS]
    with pytest.raises(
        ValueError, match="does not look where the source camera does: write quaternions as qx qy qz qw"
    ):
        read_camera_path(written(tmp_path, lines(scalar_first)), 1.3)
    millimetres = [[row[0], *(1000 * value for value in row[1:4]), *row[4:]] for row in ROWS]
    with pytest.raises(ValueError, match=r"moves at 8e[+]03 m/s: positions must be metres"):
        read_camera_path(written(tmp_path, lines(millimetres)), 1.3)
    for absurd in (1e155, -1e300):
        with pytest.raises(ValueError, match=r"m from its frame's origin|m/s"):
            read_camera_path(written(tmp_path, lines([*ROWS[:-1], [*ROWS[-1][:3], absurd, *ROWS[-1][4:]]])), 1.3)


def test_windows_line_ends_are_read_and_a_sideways_path_is_doubted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "windows.csv"
    path.write_bytes(lines(ROWS, ",").replace("\n", "\r\n").encode())
    assert read_camera_path(path, 1.3).poses[-1, 2, 3] == 16.0 and not caplog.text
    body = [[row[0], row[3], 0.0, 0.0, *row[4:]] for row in ROWS]  # x forward
    read_camera_path(written(tmp_path, lines(body)), 1.3)
    assert "leads sideways: poses must be in the optical frame" in caplog.text


@pytest.mark.parametrize("header", ["# t x y z qw qx qy qz", "# timestamp [s], tx [m], ty, tz, qw, qx, qy, qz"])
def test_a_comment_that_names_the_columns_is_a_header(tmp_path: Path, header: str) -> None:
    """It was skipped, and the columns read in another order than it said."""
    other = [[*row[:4], row[7], *row[4:7]] for row in ROWS]
    text = "# made by a planner, t in seconds\n" + header + "\n" + lines(other)
    path = read_camera_path(written(tmp_path, text), 1.3)
    np.testing.assert_allclose(path.poses, read_camera_path(written(tmp_path, lines(ROWS)), 1.3).poses)


@pytest.mark.parametrize(
    ("factor", "aside", "words"),
    [
        (-1.0, 0.0, "leads backwards: unless"),
        (1.0, 3.0, r"begins 3\.0 m away from the source camera"),
    ],
)
def test_paths_in_other_axes_or_of_another_start_are_doubted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, factor: float, aside: float, words: str
) -> None:
    rows = [[t, x + aside, y, factor * z, *q] for t, x, y, z, *q in ROWS]
    read_camera_path(written(tmp_path, lines(rows)), 1.3)
    assert re.search(words, caplog.text)


def test_a_path_that_turns_away_is_doubted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """20 degrees a second, written as 20 radians."""
    rows = [[*row[:4], 0, np.sin(row[0]), 0, np.cos(row[0])] for row in ROWS]
    read_camera_path(written(tmp_path, lines(rows)), 1.3)
    assert "turns by 149 degrees within 1.3 s: are angles in radians?" in caplog.text


@pytest.mark.parametrize(("step", "doubted"), [(0.8, True), (8.0, False)])
def test_numbers_of_frames_in_place_of_seconds_are_doubted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, step: float, doubted: bool
) -> None:
    path = tmp_path / "frames.csv"
    path.write_text("\n".join(f"{i} 0 0 {step * i} 0 0 0 1" for i in range(14)))
    read_camera_path(path, 1.3)
    assert ("are its times numbers of frames" in caplog.text) == doubted


@pytest.mark.parametrize(("turn", "doubted"), [(1.0, False), (0.0, True), (-1.0, True), (0.9, False)])
def test_a_bend_that_the_camera_does_not_follow_is_doubted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, turn: float, doubted: bool
) -> None:
    """A bend to the right of 6 m radius; turn: of the camera, times that of its motion."""
    angles = np.linspace(0, 1.5, 16)
    rows = [
        (0.1 * i, 6 * (1 - np.cos(a)), 0, 6 * np.sin(a), 0, np.sin(turn * a / 2), 0, np.cos(turn * a / 2))
        for i, a in enumerate(angles)
    ]
    path = tmp_path / "bend.csv"
    path.write_text("\n".join(" ".join(f"{value:.6f}" for value in row) for row in rows))
    read_camera_path(path, 1.3)
    assert ("at its end the camera looks" in caplog.text) == doubted


def test_a_path_that_jumps_is_doubted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    times = np.arange(16) * 0.1
    rows = [[t, 0, 0, 8 * t + 5 * (t > 0.65), 0, 0, 0, 1] for t in times.tolist()]
    read_camera_path(written(tmp_path, lines(rows)), 1.3)
    assert "the camera path jumps after 0.6 s: is it one drive, in one frame?" in caplog.text


def test_times_in_milliseconds_of_a_dense_path_are_doubted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A pose every 5 ms: as 5 s, no step is too long, and the camera stands."""
    read_camera_path(written(tmp_path, lines([[5.0 * i, 0, 0, 0.05 * i, 0, 0, 0, 1] for i in range(300)])), 1.3)
    assert "the camera path lasts 1495 s, of which 1.3 s are forecast, and moves at 0.01 m/s" in caplog.text
    caplog.clear()
    read_camera_path(written(tmp_path, lines([[0.1 * i, 0, 0, 0.8 * i, 0, 0, 0, 1] for i in range(3000)])), 1.3)
    assert not caplog.text
