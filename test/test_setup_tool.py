# SPDX-License-Identifier: Apache-2.0
"""The tool behind `make setup`: what it changes in the ROS wheels, when it works again, what it says about errors."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from build_steps import clear_stale_build, source_state  # noqa: E402
from patch_ros_cmake import patch_tree  # noqa: E402
from preflight import MissingRequirement, check_machine, explanation  # noqa: E402
from progress import Progress, StepFailed  # noqa: E402

EXPORT = (
    'INTERFACE_INCLUDE_DIRECTORIES "/opt/python/cp311-cp311/include/python3.11;'
    '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include"\n'
)


def test_wheels_name_this_machines_include_folders(tmp_path):
    folder = tmp_path / "std_msgs" / "cmake"
    folder.mkdir(parents=True)
    (folder / "export.cmake").write_text(EXPORT)
    (folder / "other.cmake").write_text("nothing foreign here\n")
    changed = patch_tree(tmp_path, "/usr/include/python3.12", "/home/a b/numpy/_core/include")
    assert changed == [folder / "export.cmake"]
    expected = 'INTERFACE_INCLUDE_DIRECTORIES "/usr/include/python3.12;/home/a b/numpy/_core/include"\n'
    assert (folder / "export.cmake").read_text() == expected
    assert patch_tree(tmp_path, "/usr/include/python3.12", "/home/a b/numpy/_core/include") == []


def test_build_follows_new_modules_and_messages_but_not_edits(tmp_path):
    for name in ("pixel4d_ros/a.py", "msg/M.msg", "CMakeLists.txt", "package.xml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("one")
    before = source_state(tmp_path)
    (tmp_path / "pixel4d_ros" / "a.py").write_text("two")
    assert source_state(tmp_path) == before
    (tmp_path / "pixel4d_ros" / "b.py").write_text("")
    with_module = source_state(tmp_path)
    assert with_module != before
    (tmp_path / "msg" / "M.msg").write_text("two")
    assert source_state(tmp_path) != with_module


def test_links_to_removed_modules_go(tmp_path):
    (tmp_path / "install").mkdir()
    (tmp_path / "kept.py").write_text("")
    (tmp_path / "install" / "kept.py").symlink_to(tmp_path / "kept.py")
    (tmp_path / "install" / "gone.py").symlink_to(tmp_path / "gone.py")
    clear_stale_build(tmp_path)
    assert [path.name for path in (tmp_path / "install").iterdir()] == ["kept.py"]


def test_failed_command_leaves_its_output_in_the_log(tmp_path):
    code = "print('fatal error: Python.h: No such file'); raise SystemExit(3)"
    with closing(Progress(1, tmp_path / "log" / "setup.log")) as progress:
        progress.begin("a step")
        with pytest.raises(StepFailed) as failed:
            progress.run([sys.executable, "-c", code])
    assert "python3-dev" in explanation(failed.value.output)
    assert "fatal error: Python.h" in (tmp_path / "log" / "setup.log").read_text()


def test_unsupported_python_is_told_before_anything_is_done(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(MissingRequirement, match=r"3\.10 to 3\.13.*\n.*PYTHON="):
        check_machine(tmp_path, None)


def test_missing_compiler_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingRequirement, match=r"C\+\+ compiler.*apt install"):
        check_machine(tmp_path, None)


@pytest.mark.parametrize(
    ("output", "cure"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("CMake Error: No CMAKE_CXX_COMPILER could be found.", "g++"),
        ("ERROR: No matching distribution found for torch==2.13.0", "No build of this package"),
        ("Temporary failure in name resolution", "cannot be reached"),
    ],
)
def test_known_errors_are_explained(output, cure):
    assert cure in explanation(output)
