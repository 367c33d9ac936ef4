"""docs/evaluation.md: its commands exist, and its results can be pasted anew."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import REPOSITORY

from pixel4d_ros.commands import evaluate as command

TOOL = REPOSITORY / "research" / "paste_results.py"
DOC = REPOSITORY / "docs" / "evaluation.md"


def test_every_command_in_the_docs_is_one_that_evaluate_takes() -> None:
    text = DOC.read_text()
    pasted = re.findall(r"<!-- \$ (.+?) -->", text)
    shown = [line.partition("#")[0] for line in text.splitlines() if line.startswith("    pixel4d evaluate")]
    assert len(pasted) >= 5
    assert len(shown) >= 8
    for line in (*pasted, *shown):
        words = shlex.split(line)
        assert words[:2] == ["pixel4d", "evaluate"]
        parser = argparse.ArgumentParser(exit_on_error=False)
        command.add_arguments(parser)
        parser.parse_args(words[2:])


def test_results_are_pasted_below_their_commands(tmp_path: Path) -> None:
    path = tmp_path / "results.md"
    blocks = "<!-- $ echo one 1 -->\nold\n<!-- end -->\nbetween\n<!-- $ echo two -->\n<!-- end -->\n"
    path.write_text(blocks)
    subprocess.run([sys.executable, str(TOOL), str(path), "one"], check=True, capture_output=True)
    assert path.read_text() == blocks.replace("old", "one 1")
    subprocess.run([sys.executable, str(TOOL), str(path)], check=True, capture_output=True)
    assert "<!-- $ echo two -->\ntwo\n<!-- end -->" in path.read_text()


def test_a_failing_command_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "results.md"
    path.write_text("<!-- $ false -->\nkept\n<!-- end -->\n")
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run([sys.executable, str(TOOL), str(path)], check=True, capture_output=True)
    assert "kept" in path.read_text()
