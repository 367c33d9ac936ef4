"""The README's tables and commands are those of the code."""

from __future__ import annotations

import argparse
import re
import shlex
from importlib import import_module

import pytest
from support.paths import REPOSITORY

from pixel4d_ros.cli import COMMANDS
from pixel4d_ros.ros.parameter_documents import to_markdown

README = (REPOSITORY / "README.md").read_text()


def section(name: str) -> str:
    """The text between <!-- name --> and <!-- /name -->."""
    return README.split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0]


def first_cells(table: str) -> list[str]:
    """Names in backticks in the first column of a table."""
    return [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]


def commands() -> list[list[str]]:
    """The `pixel4d ...` lines of the README, as words after `pixel4d`."""
    lines = (line.strip() for line in README.splitlines() if line.lstrip().startswith("pixel4d "))
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_parameters_are_those_of_the_node():
    assert section("parameters") == to_markdown()


def test_launch_arguments_are_those_of_the_launch_file():
    # Read as text: the launch system is not on PyPI, and this table must be right without it too.
    declared = re.findall(r'declare\(\s*"(\w+)"', (REPOSITORY / "launch/forecast.launch.py").read_text())
    assert first_cells(section("launch")) == declared


def test_cloud_fields_are_those_published():
    pytest.importorskip("sensor_msgs")
    from pixel4d_ros.ros.messages.pointcloud import FIELD_NAMES

    assert first_cells(section("cloud")) == list(FIELD_NAMES)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_have_these_options(words):
    parser = argparse.ArgumentParser()
    import_module(COMMANDS[words[0]][0]).add_arguments(parser)
    parser.parse_args(words[1:])  # exits, which fails the test, at an unknown option


def test_every_command_but_the_demo_is_shown():
    assert {words[0] for words in commands()} == set(COMMANDS) - {"demo"}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([\w./]+)\)", README))))
def test_files_linked_to_exist(target):
    assert (REPOSITORY / target).is_file()
