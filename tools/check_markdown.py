# SPDX-License-Identifier: Apache-2.0
"""Check the line and paragraph lengths of the tracked Markdown files: `python tools/check_markdown.py`.

Lines have at most 120 columns and paragraphs at most five lines; tables, headings, code, pictures and lines of one
link are free.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS, LINES = 120, 5
FREE = re.compile(r"\||#|<!--|!\[|\[!\[|    |\S*\]\(\S+\)\S*$")
ITEM = re.compile(r"\s*([-*]|\d+\.)\s")


def faults(text: str) -> list[str]:
    """The faults, each with its line number."""
    found: list[str] = []
    length, fenced = 0, False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced, length = not fenced, 0
        elif fenced or not line.strip() or FREE.match(line):
            length = 0
        else:
            length = 1 if ITEM.match(line) else length + 1
            if len(line) > COLUMNS:
                found.append(f"{number}: {len(line)} columns, at most {COLUMNS}")
            if length == LINES + 1:
                found.append(f"{number}: a paragraph of more than {LINES} lines")
    return found


def main() -> int:
    """Check; returns the exit status."""
    listed = subprocess.run(["git", "ls-files", "-z", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    pages = [ROOT / name for name in listed.stdout.split("\0") if name]
    pages = [page for page in pages if page.is_file()]
    lines = [f"{page.relative_to(ROOT)}:{fault}" for page in pages for fault in faults(page.read_text())]
    print("\n".join(lines), end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
