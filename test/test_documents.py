# SPDX-License-Identifier: Apache-2.0
"""The documentation is true: its commands exist, its examples run, its tables are those of the code."""

from __future__ import annotations

import argparse
import itertools
import re
import shlex
from importlib import import_module

import cv2
import numpy as np
import pytest
from support.documents import Command, commands, first_cells, pages, python_examples, section
from support.paths import REPOSITORY

from pixel4d_ros.cli import COMMANDS
from pixel4d_ros.ros import launch_arguments
from pixel4d_ros.ros.parameter_documents import to_markdown
from pixel4d_ros.ros.parameters import Parameters, parameter_name

TOPICS = {"image", "camera_info", "trajectory", "odometry", "depth"}
NOT_RUN = first_cells(section("docs/commands.md", "not run"))


def check_pixel4d(words: list[str]) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    import_module(COMMANDS[words[0]][0]).add_arguments(parser)
    parser.parse_args(words[1:])  # exits, which fails the test, at an unknown option


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets)


def check_python(words: list[str]) -> None:
    if words[0] == "-m":
        import_module(words[1].partition(":")[0]) if words[1].startswith("pixel4d_ros") else None
        if words[1].endswith("forecast_node"):
            check_node(words[2:])
    else:
        assert (REPOSITORY / words[0]).is_file()


def check_launch(words: list[str]) -> None:
    assert words[:2] == ["pixel4d_ros", "forecast.launch.py"]
    names = {word.split(":=")[0] for word in words[2:] if not word.startswith("--")}
    assert names <= {argument.name for argument in launch_arguments.ARGUMENTS}


def check_node(words: list[str]) -> None:
    from dataclasses import fields

    known = {parameter_name(f.name) for f in fields(Parameters)} | {"use_sim_time"}
    for flag, word in itertools.pairwise(words):
        if flag == "-p":
            assert word.split(":=")[0] in known
        if flag == "-r":
            assert word.split(":=")[0] in TOPICS


def is_listed(command: Command) -> bool:
    """Whether the documentation says itself that the tests do not run it."""
    return any(command.text.split()[: len(entry.split())] == entry.split() for entry in NOT_RUN)


@pytest.mark.parametrize("command", commands(), ids=str)
def test_command_is_one_that_the_package_has(command):
    words = [word for word in command.words if not re.fullmatch(r"[A-Z0-9_]+=.*", word) or command.words[0] == "make"]
    if words[0] == "pixel4d":
        check_pixel4d(words[1:])
    elif words[0] == "make":
        check_make(words[1:])
    elif words[0] == "python":
        check_python(words[1:])
    elif words[:2] == ["ros2", "launch"]:
        check_launch(words[2:])
    elif words[:3] == ["ros2", "run", "pixel4d_ros"]:
        assert (REPOSITORY / "scripts" / words[3]).is_file()
        check_node(words[4:])
    else:
        assert is_listed(command), f"{command}: neither checked here nor listed in docs/commands.md as not run"


def test_every_command_of_the_package_is_documented():
    shown = {c.words[1] for c in commands() if c.page == "commands.md" and c.words[0] == "pixel4d"}
    assert shown == set(COMMANDS)


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_python_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = np.random.default_rng(0).integers(0, 255, (120, 400, 3), np.uint8)  # the size of the K shown
    cv2.imwrite("image.png", cv2.GaussianBlur(picture, (9, 9), 3))
    (code,) = python_examples(page)
    names: dict[str, object] = {}
    exec(compile(code, page, "exec"), names)
    assert names["forecast"].frames.shape == (4, 14, 120, 400, 3)


def test_parameters_are_those_of_the_node():
    assert section("docs/parameters.md", "parameters") == to_markdown()


def test_launch_arguments_are_those_of_the_launch_file():
    assert section("docs/ros.md", "launch") == launch_arguments.to_markdown()


def test_cloud_fields_are_those_published():
    pytest.importorskip("sensor_msgs")
    from pixel4d_ros.ros.messages.pointcloud import COMPACT, FIELD_NAMES

    assert first_cells(section("docs/ros.md", "cloud")) == list(FIELD_NAMES)
    assert first_cells(section("docs/ros.md", "compact_cloud")) == list(COMPACT.names or ())


@pytest.mark.parametrize("page", [*pages(), *sorted((REPOSITORY / "docs/lab").glob("*.md"))], ids=lambda p: p.name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        if heading:
            assert heading in headings(linked.read_text()), target


def headings(text: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    lines = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def test_readme_is_short():
    text = (REPOSITORY / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert len(text.split()) <= 900
    assert (REPOSITORY / "docs/forecast.webp").stat().st_size < 4_000_000


def test_pasted_commands_of_the_results_exist():
    pasted = re.findall(r"<!-- \$ (.+?) -->", (REPOSITORY / "docs/lab/results.md").read_text())
    assert len(pasted) >= 5
    for line in pasted:
        words = shlex.split(line)
        assert words[:2] == ["pixel4d", "evaluate"]
        check_pixel4d(words[1:])


def test_the_architecture_page_names_the_functions_that_an_image_passes():
    page = (REPOSITORY / "docs/architecture.md").read_text().partition("## Where a message becomes an array")[2]
    rows = [line.split("|")[2:4] for line in page.splitlines() if line.startswith("|") and ".py" in line]
    assert len(rows) >= 8
    for functions, files in rows:
        code = "".join((REPOSITORY / "pixel4d_ros" / f).read_text() for f in re.findall(r"`(\S+\.py)`", files))
        for function in re.findall(r"`(?:\w+\.)?(\w+)`", functions):
            assert f"def {function}(" in code, f"{function} is not in {files}"
