"""Shared by all tests: where the real driving logs are, when they are there at all, and a ROS context."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_path(relative: str) -> Path:
    """A file or folder of the real data beside the repository, or a skip that says what is missing."""
    root = Path(os.environ.get("PIXEL4D_SHARED", REPOSITORY.parent / "shared"))
    path = root / relative
    if not path.exists():
        pytest.skip(f"needs real data: {relative} beside the repository (or set PIXEL4D_SHARED to its folder)")
    return path


@pytest.fixture(scope="module")
def ros_context() -> Iterator[None]:
    """rclpy, started for the tests of one file: `pytest.mark.usefixtures("ros_context")`."""
    import rclpy

    rclpy.init()
    yield
    rclpy.try_shutdown()
