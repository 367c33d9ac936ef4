# SPDX-License-Identifier: Apache-2.0
"""Requirements of setup on the machine, checked before any download, and the cure for each missing one."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
import sysconfig
from pathlib import Path

OLDEST, NEWEST = (3, 10), (3, 13)
NEEDED_BYTES = 3 * 1024**3

# Cures for error messages of pip, CMake or colcon. The first match is printed.
KNOWN_ERRORS = [
    (
        r"No space left on device",
        "The disk is full: setup needs about 3 GB in this folder and in the temporary folder.",
    ),
    (r"fatal error: Python\.h", "Python's headers are missing: sudo apt install python3-dev"),
    (r"CMAKE_CXX_COMPILER|CMAKE_C_COMPILER", "CMake found no compiler: sudo apt install g++"),
    (
        r"No matching distribution found for (\S+)",
        "No build of this package fits this Python and processor, or the package index cannot be reached.",
    ),
    (
        r"Temporary failure in name resolution|Failed to establish a new connection|ProxyError|Read timed out",
        "The package index cannot be reached: look at the network and pip's proxy settings, then run make setup again.",
    ),
    (r"do not match the hashes", "A download was damaged: run make setup again (pip cache purge where it stays so)."),
    (r"[Pp]ermission denied", "Files here belong to another user: run setup as the owner of this checkout."),
]


class MissingRequirement(RuntimeError):
    """The machine lacks something; the message names it and the cure."""


def check_machine(repository: Path, ros_prefix: Path | None) -> None:
    """Raise MissingRequirement for the first unmet requirement."""
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        raise MissingRequirement(
            f"{sys.executable} is Python {version[0]}.{version[1]}, but 3.10 to 3.13 is needed.\n"
            "Name another one: make setup PYTHON=python3.12"
        )
    if ros_prefix is None and (sys.platform != "linux" or platform.machine() != "x86_64"):
        raise MissingRequirement(
            f"ROS 2 wheels exist for Linux on x86-64, not for {sys.platform} on {platform.machine()}.\n"
            "Install ROS 2 Jazzy as packages (ros-jazzy-ros-base): setup then uses /opt/ros/jazzy."
        )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        package = f"python{version[0]}.{version[1]}-venv"
        raise MissingRequirement(f"Python's venv module is missing: sudo apt install {package} (or python3-venv)")
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "c++", "g++", "clang++")):
        raise MissingRequirement("A C++ compiler is missing (for the message types): sudo apt install g++")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        package = f"python{version[0]}.{version[1]}-dev"
        raise MissingRequirement(f"Python's headers are missing: sudo apt install {package} (or python3-dev)")
    if not os.access(repository, os.W_OK):
        raise MissingRequirement(f"{repository} cannot be written: run setup as its owner, or clone it elsewhere.")
    free = shutil.disk_usage(repository).free
    if not (repository / ".venv").exists() and free < NEEDED_BYTES:
        raise MissingRequirement(f"{repository} has {free / 1e9:.1f} GB free, but setup needs about 3 GB.")


def explanation(output: str) -> str:
    """Cause and cure of a failed command, from its output."""
    for pattern, cure in KNOWN_ERRORS:
        match = re.search(pattern, output)
        if match:
            return f"Cause: {match.group(0)}\nCure:  {cure}"
    return "Cause: see the lines above."
