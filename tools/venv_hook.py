# SPDX-License-Identifier: Apache-2.0
"""Start-up hook of the virtual environment: setup copies this file into .venv and imports it at every start of Python.

It lets `.venv/bin/python` import the package without sourcing anything:
- `pixel4d_ros` is imported from the checkout, so an edited or a new module needs no rebuild; only what colcon generates
  (`pixel4d_ros.msg`, `.srv` and their type support) comes from install/.
- The dynamic loader finds the message libraries. It reads LD_LIBRARY_PATH only when a process starts, so where that
  lacks their folders Python starts itself once more, as the ROS wheels' own hook does (which then has nothing to do).
- AMENT_PREFIX_PATH names both prefixes, so that launch files, parameters and weights are found by package name.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, List, Optional

REPOSITORY = os.path.dirname(sys.prefix)
PREFIX = os.path.join(REPOSITORY, "install", "pixel4d_ros")
PYTHON = f"python3.{sys.version_info.minor}"
# Where ament puts Python modules: the first, but for Debian's own interpreters.
MODULE_FOLDERS = [
    os.path.join(PREFIX, *folder, "pixel4d_ros")
    for folder in (
        ("lib", PYTHON, "site-packages"),
        ("lib", "python3", "dist-packages"),
        ("local", "lib", PYTHON, "dist-packages"),
    )
]
GENERATED = ("pixel4d_ros.msg", "pixel4d_ros.srv", "pixel4d_ros.pixel4d_ros_s__")


class SourceFinder:
    """Finds the package in the checkout and its generated messages in install/, whatever else sys.path names."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:
        if name == "pixel4d_ros":
            return PathFinder.find_spec(name, [REPOSITORY])
        if name.startswith(GENERATED):
            return PathFinder.find_spec(name, MODULE_FOLDERS)
        return None


def with_first(variable: str, folders: List[str]) -> str:
    """The value of a path variable with these folders in front, each once."""
    others = [folder for folder in os.environ.get(variable, "").split(os.pathsep) if folder and folder not in folders]
    return os.pathsep.join(folders + others)


def library_folders(prefixes: List[str]) -> List[str]:
    """The lib folders of the prefixes, and those that the wheels brought for the libraries of other projects."""
    site_packages = os.path.join(sys.prefix, "lib", PYTHON, "site-packages")
    vendored = sorted(name for name in os.listdir(site_packages) if name.startswith("ros_") and name.endswith(".libs"))
    own = [os.path.join(prefix, "lib") for prefix in prefixes]
    return own + [os.path.join(site_packages, name) for name in vendored]


def install_hook() -> None:
    sys.meta_path.insert(0, SourceFinder)  # type: ignore[arg-type]  # a class with find_spec is a finder
    ros_from_wheels = os.path.isdir(os.path.join(sys.prefix, "share", "rclpy"))
    prefixes = [PREFIX, sys.prefix] if ros_from_wheels else [PREFIX]
    os.environ["AMENT_PREFIX_PATH"] = with_first("AMENT_PREFIX_PATH", prefixes)
    if not ros_from_wheels:
        return  # /opt/ros/...: its setup script names the libraries, and env.sh sources it
    libraries = library_folders(prefixes)
    os.environ["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"  # the wheels' hook need not start Python again
    if not set(libraries) <= set(os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)):
        os.environ["LD_LIBRARY_PATH"] = with_first("LD_LIBRARY_PATH", libraries)
        os.execv(sys.executable, sys.orig_argv)  # from Python 3.10 on


install_hook()
