# SPDX-License-Identifier: Apache-2.0
"""Results in docs/lab/results.md can be pasted anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import REPOSITORY

TOOL = REPOSITORY / "research" / "paste_results.py"


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
