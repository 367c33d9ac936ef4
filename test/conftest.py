# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all tests: a ROS context, the node and a client in it, and processes in a ROS domain of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from support.ros_domain import ros_domain

# The same examples in every run, so that CI fails for what has changed; PIXEL4D_FUZZ... searches at random.
settings.register_profile("repeatable", derandomize=True, database=None)
if not {"PIXEL4D_FUZZ", "PIXEL4D_FUZZ_SECONDS"} & set(os.environ):
    settings.load_profile("repeatable")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start what ends in & so, and programs started from here would not end at SIGINT either.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Only the test files of one shard where PIXEL4D_TEST_SHARD names it, as 2/4: CMakeLists.txt makes CTests so."""
    shard, _, shards = os.environ.get("PIXEL4D_TEST_SHARD", "").partition("/")
    if not shards or not collection_path.name.startswith("test_"):
        return None
    return zlib.crc32(collection_path.name.encode()) % int(shards) != int(shard) - 1 or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run files with slow tests first, so that all workers end at about the same time, and then mix ROS and others.

    Tests with ROS wait a lot, and others compute: where all workers waited at once, the processor would be idle.

    A test over DDS that fails runs once more, as with `colcon test --retest-until-pass 1`: discovery and schedulers of
    a shared machine are not under its control. The summary lists it as rerun. All other tests run once.
    """
    if config.pluginmanager.hasplugin("rerunfailures"):  # ament_cmake_pytest depends on it
        for item in items:
            if item.get_closest_marker("ros"):
                item.add_marker(pytest.mark.flaky(reruns=1))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    ros = {item.path for item in items if item.get_closest_marker("ros")} - slow
    files = dict.fromkeys(item.path for item in items)
    place = dict.fromkeys(slow, -1.0)
    for kind in ([path for path in files if path in ros], [path for path in files if path not in ros | slow]):
        place |= {path: i / len(kind) for i, path in enumerate(kind)}
    items.sort(key=lambda item: place[item.path])


@pytest.fixture(scope="module")
def ros_context() -> Iterator[None]:
    """rclpy, started for the tests of one file: `pytest.mark.usefixtures("ros_context")`."""
    import rclpy

    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, ros_context: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The node in a process of its own, active, with the test file's ARGUMENTS and PARAMETERS.

    Its predictions are coarse unless the test file says FINE = True.
    """
    from support.harness import running_node

    log, module = tmp_path_factory.mktemp("node") / "log.txt", request.module
    fine = getattr(module, "FINE", False)
    with running_node(log, *getattr(module, "ARGUMENTS", ()), fine=fine, **module.PARAMETERS) as process:
        yield process


@pytest.fixture(scope="module")
def client(request: pytest.FixtureRequest, node: Any) -> Iterator[Any]:
    """A client connected with that node; it listens to forecasts unless the test file says LISTEN = False."""
    from support.harness import Client

    made = Client(listen=getattr(request.module, "LISTEN", True))
    yield made.connect()
    made.destroy_node()


@pytest.fixture
def environment() -> dict[str, str]:
    """Of processes in a ROS domain that only this test uses."""
    domain = ros_domain(os.getpid() * 7 + time.monotonic_ns() // 1000)
    return {**os.environ, "ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are killed at the end if they still run."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
