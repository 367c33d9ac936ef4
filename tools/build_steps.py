# SPDX-License-Identifier: Apache-2.0
"""The steps of setup that concern the package itself: colcon build, and links from the virtual environment to it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from progress import Progress

INSTALLED_FOLDERS = ("pixel4d_ros", "launch", "config", "weights")
BUILD_FILES = ("CMakeLists.txt", "package.xml", "msg/*", "srv/*", "scripts/*")

# pixel4d: started by /bin/sh, so that the path of the checkout may contain spaces and have any length.
COMMAND = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import sys

from pixel4d_ros.cli import main

sys.exit(main())
"""


def source_state(repository: Path) -> str:
    """A text that changes when colcon must build again: contents of the build files, names of the installed ones.

    Names are enough for the rest: a symlink install follows an edited file by itself.
    """
    files = [path for pattern in BUILD_FILES for path in sorted(repository.glob(pattern))]
    contents = [f"{path.name}: {path.read_text()}" for path in files]
    names = [
        str(path.relative_to(repository))
        for folder in INSTALLED_FOLDERS
        for path in sorted((repository / folder).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return "\n".join(contents + names)


def patch_wheels(venv: Path, progress: Progress) -> None:
    """Set this machine's include folders in the CMake files of the ROS wheels."""
    progress.run([venv / "bin" / "python", Path(__file__).parent / "patch_ros_cmake.py"])


def build_environment(repository: Path, ros_prefix: Path | None) -> dict[str, str]:
    """The environment of colcon: the virtual environment's programs first, its prefix for CMake."""
    venv = repository / ".venv"
    environment = dict(os.environ)
    # Exclude other workspaces and interpreters of the caller's shell from the build.
    for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH", "PYTHONPATH", "PYTHONHOME"):
        environment.pop(name, None)
    environment["PATH"] = os.pathsep.join([str(venv / "bin"), environment.get("PATH", os.defpath)])
    environment["VIRTUAL_ENV"] = str(venv)
    if ros_prefix is None:
        environment["AMENT_PREFIX_PATH"] = environment["CMAKE_PREFIX_PATH"] = str(venv)
    return environment


def build_package(repository: Path, ros_prefix: Path | None, progress: Progress) -> None:
    """colcon build with symlinks; folders left by another Python or another checkout are cleared first."""
    clear_stale_build(repository)
    python = repository / ".venv" / "bin" / "python"
    colcon = [
        *("colcon", "--log-base", "log", "build", "--paths", ".", "--packages-select", "pixel4d_ros"),
        *("--symlink-install", "--build-base", "build", "--install-base", "install"),
        *("--event-handlers", "console_direct+", "--executor", "sequential"),
        *("--cmake-args", f"-DPython3_EXECUTABLE={python}", "-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release"),
    ]
    environment = build_environment(repository, ros_prefix)
    if ros_prefix is None:
        colcon[0] = str(repository / ".venv" / "bin" / "colcon")
        progress.run([str(python), *colcon], environment)
    else:
        script = f'. "{ros_prefix}/setup.sh" && exec "$@"'
        progress.run(["sh", "-c", script, "sh", *colcon], environment)


def clear_stale_build(repository: Path) -> None:
    """Remove build/ of another checkout or interpreter, and dangling links in install/."""
    cache = repository / "build" / "pixel4d_ros" / "CMakeCache.txt"
    python = repository / ".venv" / "bin" / "python"
    if cache.exists():
        text = cache.read_text()
        if f"pixel4d_ros_SOURCE_DIR:STATIC={repository}\n" not in text or str(python) not in text:
            shutil.rmtree(repository / "build")
            shutil.rmtree(repository / "install", ignore_errors=True)
    for path in (repository / "install").rglob("*"):
        if path.is_symlink() and not path.exists():
            path.unlink()


def link_package(repository: Path, ros_prefix: Path | None, progress: Progress) -> None:
    """Install the start-up hook (venv_hook.py), the command `pixel4d`, and the ROS prefix for env.sh."""
    site_packages = next((repository / ".venv" / "lib").glob("python3.*")) / "site-packages"
    progress.detail = str(site_packages)
    shutil.copyfile(repository / "tools" / "venv_hook.py", site_packages / "_pixel4d_ros_hook.py")
    (site_packages / "pixel4d_ros.pth").write_text("import _pixel4d_ros_hook\n")
    command = repository / ".venv" / "bin" / "pixel4d"
    command.write_text(COMMAND.format(python=repository / ".venv" / "bin" / "python"))
    command.chmod(0o755)
    (repository / ".venv" / "ros_prefix").write_text(str(ros_prefix or ""))
