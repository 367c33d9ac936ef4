# SPDX-License-Identifier: Apache-2.0
"""Run the commands named in a Markdown file and paste what they print below them.

    python research/paste_results.py docs/lab/results.md [WORD ...]

A block begins with `<!-- $ COMMAND -->` and ends with `<!-- end -->`; between the two stands what COMMAND printed last
time. With WORDs only the blocks whose command contains one of them are run. Commands run in the repository's root.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"<!-- \$ (?P<command>.+?) -->\n.*?<!-- end -->", re.DOTALL)
ROOT = Path(__file__).resolve().parent.parent


def paste(text: str, words: list[str]) -> str:
    """The text with the output of its commands; raises CalledProcessError when one of them fails."""

    def run(block: re.Match[str]) -> str:
        command = block["command"]
        if words and not any(word in command for word in words):
            return block[0]
        print(f"$ {command}", file=sys.stderr)
        done = subprocess.run(shlex.split(command), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        return format_block(command, done.stdout)

    return BLOCK.sub(run, text)


def format_block(command: str, output: str) -> str:
    """A command and what it printed, as they stand in a Markdown file."""
    return f"<!-- $ {command} -->\n{output.strip()}\n<!-- end -->"


def main() -> int:
    """Paste into the file named first; returns the exit status."""
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    path = Path(sys.argv[1])
    path.write_text(paste(path.read_text(), sys.argv[2:]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
