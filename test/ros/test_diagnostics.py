# SPDX-License-Identifier: Apache-2.0
"""What diagnostics say of faults, limits and time, and the worker whose drops they count."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

from support.held_work import HeldWork

from pixel4d_ros.ros import diagnostics
from pixel4d_ros.ros.diagnostics import Condition, Faults, Measured, Statistics, exceeded, simulated_time, status
from pixel4d_ros.ros.parameters import Parameters
from pixel4d_ros.ros.worker import LatestWorker

pytestmark = pytest.mark.ros


def test_faults_are_logged_when_they_change_and_not_when_they_flicker():
    lines: list[str] = []
    faults = Faults(lines.append, lines.append)
    assert faults.report("image", "dark") and not faults.report("image", "dark")
    faults.clear("image")
    assert faults.active == {}
    assert not faults.report("image", "dark")  # again within ten seconds
    assert faults.report("image", "torn")
    assert lines == ["image: dark", "image: torn"] and faults.active == {"image": "torn"}
    assert (faults.last, faults.count) == ("torn", 4)
    for _ in range(3):  # two that take turns
        assert not faults.report("image", "dark") and not faults.report("image", "torn")
    assert faults.report("depth", "dark")  # the same words about something else
    assert lines == ["image: dark", "image: torn", "depth: dark"] and faults.count == 11


def test_a_fault_that_comes_back_later_is_logged_again(monkeypatch):
    lines: list[str] = []
    faults = Faults(lines.append, lines.append)
    monkeypatch.setattr(diagnostics, "REPEAT_S", 0.05)
    assert faults.report("image", "dark")
    time.sleep(0.1)
    assert not faults.report("image", "dark")  # it stood all the time
    faults.clear("image")
    assert faults.report("image", "dark")
    assert lines == ["image: dark"] * 2


def test_status_levels():
    faults, statistics = Faults(print, print), Statistics()

    def level(state: str = "active", wanted: bool = True, **limits: float) -> bytes:
        condition = Condition(state, statistics, faults, Parameters(**limits), 0, wanted)
        return status("name", "cpu", condition, {}).level

    assert level("inactive") == b"\x00" and level() == b"\x03"
    statistics.frame_received(dropped_one=False)
    assert level() == b"\x00"
    statistics.moved_by("standing camera", "no trajectory, no odometry")
    assert level() == b"\x01"
    statistics.moved_by("trajectory", "")
    faults.report("motion", "trajectory is empty")
    assert level() == b"\x01"
    faults.report("image", "torn")
    assert level() == b"\x02"
    faults.clear()
    assert level() == b"\x00"
    time.sleep(0.15)
    assert level(diagnostics_silence=0.1) == b"\x03"
    limits = Parameters(diagnostics_silence=0.1)
    paused = Condition("active", statistics, faults, limits, 0, True, simulated_time(True, 5, 5))
    assert "simulated time stands" in status("name", "cpu", paused, {}).message


def test_limits_that_are_exceeded_are_named():
    measured = Measured(rate=4.0, latencies=(0.1, 0.4, 0.5), age=0.7, drops=0.25)
    assert exceeded(measured, Parameters(), has_subscribers=True) == []
    limits = Parameters(
        diagnostics_min_rate=5.0, diagnostics_max_latency=0.3, diagnostics_max_age=0.6, diagnostics_max_drops=0.2
    )
    said = exceeded(measured, limits, has_subscribers=True)
    names = ("min_rate is 5", "max_latency 0.3", "max_age is 0.6", "max_drops is 20%")
    assert len(said) == 4 and all(f"diagnostics_{name}" in text for name, text in zip(names, said))
    assert len(exceeded(measured, limits, has_subscribers=False)) == 2
    unknown = Measured(rate=9.0, latencies=(np.nan,) * 3, age=np.nan, drops=0.0)
    assert exceeded(unknown, limits, has_subscribers=True) == []


def test_state_of_simulated_time():
    assert simulated_time(False, 5, 5) == "wall clock"
    assert simulated_time(True, 0, 0) == "simulated, waiting for /clock"
    assert simulated_time(True, 5, 4) == "simulated, running" and simulated_time(True, 5, 5) == "simulated, standing"


def test_worker_takes_the_newest_and_ends():
    work = HeldWork()
    worker: LatestWorker[int, None] = LatestWorker(work)
    assert not worker.offer(1)
    work.begins()
    assert [worker.offer(2), worker.offer(3), worker.offer(4)] == [False, True, True]
    work.goes_on()
    work.begins()
    worker.offer(5)
    work.goes_on()
    work.begins()
    worker.offer(6)
    with work.ends_when_awaited():
        worker.stop()
    assert work.done == [1, 4, 5]  # what was in work is finished, what waited is not begun
