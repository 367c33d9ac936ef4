# SPDX-License-Identifier: Apache-2.0
"""The rules of docs/architecture.md: who may import what, one class per name, files of a readable length."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from support.paths import REPOSITORY

PACKAGE = REPOSITORY / "pixel4d_ros"
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
LONGEST, SHORTEST = 350, 30  # lines
SHORT = {
    "commands/arguments.py": "argparse types of two commands",
    "errors.py": "importable without torch",
    "logs/options.py": "shared by commands that must not import numpy",
    "ros/shared_memory.py": "must run before rclpy is imported",
}
TESTS = REPOSITORY / "test"
PRIVATE_NAMES_IN_TESTS = {
    ("ros/test_session.py", "_take_subscription"): "rclpy: the only step between a message's arrival and its callback",
    ("test_launch.py", "_Node__parameters"): "launch_ros: nothing public tells what parameters a node is given",
}


@cache
def tree(file: str) -> ast.Module:
    return ast.parse(FILES[file].read_text())


def module_name(file: str) -> str:
    return "pixel4d_ros." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_name(file): file for file in FILES}


@cache
def imported(file: str) -> set[str]:
    """Full names that a file imports at run time, also within functions."""
    types_only = {
        id(inner)
        for node in ast.walk(tree(file))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree(file)):
        if id(node) in types_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports_package(file: str, package: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for name in imported(file))


def test_imports_have_no_circles() -> None:
    graph = {
        module_name(file): {
            known for name in imported(file) for known in (name, name.rpartition(".")[0]) if known in MODULES
        }
        - {module_name(file)}
        for file in FILES
        if not file.endswith("__init__.py")
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("rclpy", ("ros/",)),
        ("gsplat", ("rendering/",)),
        ("triton", ("rendering/triton_kernels/", "predictor/")),
        ("pixel4d_ros.training", ("training/", "commands/train.py")),
        ("pixel4d_ros.commands", ("commands/",)),
        ("pixel4d_ros.benchmark", ("benchmark/", "commands/", "ros/benchmark/")),
    ],
)
def test_only_these_rooms_import(package: str, rooms: tuple[str, ...]) -> None:
    assert [file for file in FILES if imports_package(file, package) and not file.startswith(rooms)] == []


def test_one_class_name_means_one_thing() -> None:
    names = Counter(node.name for file in FILES for node in tree(file).body if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


def test_files_have_a_readable_length() -> None:
    lines = {
        file: len(path.read_text().splitlines()) for file, path in FILES.items() if Path(file).name != "__init__.py"
    }
    assert [file for file, count in lines.items() if count > LONGEST] == []
    assert {file for file, count in lines.items() if count < SHORTEST} <= SHORT.keys()


NAMED_TUPLE = {"_replace", "_asdict", "_fields"}  # public, in spite of their names


def private_names(path: Path) -> set[str]:
    """Names with one leading underscore that a file imports, patches, or takes from anything but self and cls."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("getattr", "setattr"):
            texts = (part.value for part in node.args if isinstance(part, ast.Constant))
            found |= {text.rpartition(".")[2] for text in texts if isinstance(text, str)}
    return {name for name in found - NAMED_TUPLE if name.startswith("_") and not name.startswith("__")}


def test_tests_use_public_names() -> None:
    """CONTRIBUTING.md: a test stands on the public door; where there is none, the code gives one."""
    found = {(path.relative_to(TESTS).as_posix(), name) for path in TESTS.rglob("*.py") for name in private_names(path)}
    assert found == PRIVATE_NAMES_IN_TESTS.keys()
