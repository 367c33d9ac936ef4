# SPDX-License-Identifier: Apache-2.0
"""Commands, Python examples and links of the Markdown documentation."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from support.paths import REPOSITORY

FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
SHELL = ("bash", "sh", "shell")


@dataclass(frozen=True)
class Command:
    """A command line of a page, without its comment; continued lines are joined."""

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words as a shell splits them."""
        return shlex.split(self.text)

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def pages() -> list[Path]:
    """README, docs for users, and the pages of maintainers; not the history in docs/lab."""
    return [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def section(page: str, name: str) -> str:
    """The text of a page between <!-- name --> and <!-- /name -->."""
    return (REPOSITORY / page).read_text().split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0]


def first_cells(table: str) -> list[str]:
    """Names in backticks in the first column of a table."""
    return [name for row in table.splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def python_examples(page: str) -> list[str]:
    """The Python blocks of a page."""
    return [code for language, code in FENCE.findall((REPOSITORY / page).read_text()) if language == "python"]


def commands() -> list[Command]:
    """Commands of all pages: lines of shell blocks, and of indented blocks that begin with a program's name."""
    return [
        Command(path.name, line)
        for path in pages()
        if path.exists()
        for block in _shell_blocks(path.read_text())
        for line in _lines(block)
    ]


def _shell_blocks(text: str) -> list[str]:
    fenced = [code for language, code in FENCE.findall(text) if language in SHELL]
    indented = re.findall(r"(?:^|\n)\n((?:    .*\n)+)", FENCE.sub("", text))
    programs = r"\s*(pixel4d|make|python3?|ros2|docker|pip|cd|source|export|torchrun|rviz2|git|pre-commit|colcon)\b"
    return fenced + [block for block in indented if re.match(programs, block)]


def _lines(block: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", " ", block)
    lines = [re.sub(r"\s+#\s.*$", "", line).strip() for line in joined.splitlines()]
    return [part.strip() for line in lines for part in re.split(r"\s&&\s", line) if part.strip()]
