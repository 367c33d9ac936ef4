# SPDX-License-Identifier: Apache-2.0
"""The node says when numba compiles, as it does for half a minute without `make setup`; and only then."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pixel4d_ros.msg", reason="the package is not built: make setup")

from support.node_in_process import node_in_process

from pixel4d_ros import Forecaster
from pixel4d_ros.compilation import BEGUN, announced_compilation

LOOPS = """
from numba import njit

@njit(cache=True)
def total(count):
    return called(count)

@njit(cache=True)
def called(count):
    return count + 1
"""


@pytest.fixture
def loops(tmp_path: Path) -> Callable[[], None]:
    """Imports and calls compiled functions, as the first call of a new process does."""
    file = tmp_path / "loops.py"
    file.write_text(LOOPS)

    def call() -> None:
        spec = importlib.util.spec_from_file_location("loops", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.total(2) == 3

    return call


def test_compiling_is_announced_once_and_loading_is_not(loops):
    said = []
    with announced_compilation(said.append):
        loops()
    begun, done = said
    assert begun == BEGUN and done.startswith("compiled in ")
    with announced_compilation(said.append):
        loops()  # from numba's cache
    assert len(said) == 2


@pytest.mark.ros
@pytest.mark.usefixtures("ros_context")
def test_the_node_says_that_it_compiles_at_its_first_start_only(loops, monkeypatch, capfd):
    monkeypatch.setattr(Forecaster, "warm_up", lambda self: loops())
    for namespace, lines in (("/first", 1), ("/second", 0)):
        with node_in_process(Forecaster.load, namespace):
            said = "".join(capfd.readouterr())
        assert said.count(BEGUN) == lines and said.count("compiled in") == lines
        assert "active: " in said
