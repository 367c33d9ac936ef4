# SPDX-License-Identifier: Apache-2.0
"""The package as it is installed: message, command, versions, dependency lists, the shell and the setup tool."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VENV_PYTHON = ROOT / ".venv" / "bin" / "python"

FIELDS = {
    "header": "std_msgs/Header",
    "camera_info": "sensor_msgs/CameraInfo",
    "time_from_start": "sequence<builtin_interfaces/Duration>",
    "camera_poses": "sequence<geometry_msgs/Pose>",
    "images": "sequence<sensor_msgs/Image>",
    "sample_index": "uint32",
    "sample_count": "uint32",
    "confidence": "sequence<float>",
}


@pytest.fixture
def setup_config() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def requirements(text: str) -> set[str]:
    """The requirements of a list, without comments."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {line for line in lines if line}


@pytest.mark.ros
def test_message_has_the_contracts_fields():
    messages = pytest.importorskip("pixel4d_ros.msg", reason="needs the built message: make setup")
    assert messages.ForecastSequence.get_fields_and_field_types() == FIELDS


@pytest.mark.ros
def test_message_survives_serialisation():
    messages = pytest.importorskip("pixel4d_ros.msg", reason="needs the built message: make setup")
    from rclpy.serialization import deserialize_message, serialize_message

    message = messages.ForecastSequence(sample_index=1, sample_count=4, confidence=[1.0, 0.5])
    assert deserialize_message(serialize_message(message), messages.ForecastSequence) == message


def test_versions_agree(setup_config):
    import pixel4d_ros

    version = ET.parse(ROOT / "package.xml").findtext("version")
    assert pixel4d_ros.__version__ == version
    assert setup_config["metadata"]["version"] == "attr: pixel4d_ros.__version__"
    changes = (ROOT / "CHANGELOG.rst").read_text()
    assert f"\n{version} (" in changes or "\nForthcoming\n" in changes
    assert setup_config["metadata"]["name"] == ET.parse(ROOT / "package.xml").findtext("name")


def test_entry_points_exist(setup_config):
    scripts = setup_config["options.entry_points"]["console_scripts"].strip().splitlines()
    assert [script.split("=")[0].strip() for script in scripts] == ["pixel4d"]
    for script in scripts:
        module, function = script.split("=")[1].strip().split(":")
        assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("name", ["forecast_node", "record", "replay"])
def test_executables_are_runnable_and_import_what_exists(name):
    script = ROOT / "scripts" / name
    assert script.stat().st_mode & 0o111 == 0o111
    assert f"scripts/{name}" in (ROOT / "CMakeLists.txt").read_text()
    imports = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.ImportFrom)]
    for node in imports:
        path = ROOT / (node.module.replace(".", "/") + ".py")
        defined = {n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)}
        assert {alias.name for alias in node.names} <= defined


def test_setup_installs_the_one_list_of_packages(setup_config, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from setup_environment import packages

    plain = requirements(setup_config["options"]["install_requires"])
    assert set(packages()) == {name for name in plain if not name.startswith("torch")}
    assert set(packages("gpu")) - set(packages()) == {"gsplat>=1.5,<1.6"}
    assert {path.name for path in (ROOT / "requirements").iterdir()} == {"distribution.txt", "ros.txt", "torch.txt"}


def test_forecasts_without_a_gpu_are_compiled_after_a_plain_install(setup_config):
    assert any(line.startswith("numba") for line in requirements(setup_config["options"]["install_requires"]))


def test_package_imports_without_ros():
    """A Python that finds neither rclpy nor messages still imports the library's door."""
    blocked = (
        "import sys\n"
        "for name in ('rclpy', 'sensor_msgs', 'std_msgs', 'pixel4d_ros.msg'): sys.modules[name] = None\n"
        "import pixel4d_ros; pixel4d_ros.Camera; pixel4d_ros.DynamicGaussians"
    )
    done = subprocess.run([sys.executable, "-c", blocked], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_env_sh_gives_a_shell_that_knows_the_package(tmp_path):
    if not VENV_PYTHON.exists():
        pytest.skip("needs the virtual environment: make setup")
    script = (
        f'set -eu; source "{ROOT}/env.sh"; command -v python pixel4d; echo "$AMENT_PREFIX_PATH"; '
        'python -c "import pixel4d_ros, pixel4d_ros.msg, rclpy; print(pixel4d_ros.__file__)"'
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    python, command, prefixes, module = done.stdout.splitlines()
    assert python == str(VENV_PYTHON)
    assert command == str(VENV_PYTHON.parent / "pixel4d")
    assert str(ROOT / "install" / "pixel4d_ros") in prefixes.split(":")
    assert module == str(ROOT / "pixel4d_ros" / "__init__.py")


def test_bare_interpreter_of_the_environment_finds_messages(tmp_path):
    """Without env.sh, and from a folder that has nothing to do with the checkout."""
    if not VENV_PYTHON.exists():
        pytest.skip("needs the virtual environment: make setup")
    if (ROOT / ".venv" / "ros_prefix").exists() and (ROOT / ".venv" / "ros_prefix").read_text():
        pytest.skip("ROS from a distribution: its setup script must be sourced, as env.sh does")
    code = "import pixel4d_ros.msg, rclpy.serialization as s; s.serialize_message(pixel4d_ros.msg.ForecastSequence())"
    done = subprocess.run([VENV_PYTHON, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_env_sh_says_what_is_missing(tmp_path):
    (tmp_path / "env.sh").write_text((ROOT / "env.sh").read_text())
    done = subprocess.run(["bash", "-c", "source ./env.sh"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "make setup" in done.stderr
