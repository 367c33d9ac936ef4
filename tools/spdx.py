# SPDX-License-Identifier: Apache-2.0
"""Every source file begins with its SPDX line: `python tools/spdx.py` names those that do not, `--fix` adds it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINE = "SPDX-License-Identifier: Apache-2.0"
PATTERNS = ("*.py", "*.msg", "*.srv", "*.action", "CMakeLists.txt", "scripts/*", "*.sh", ".ci/run")
EMPTY = ("__init__.py",)  # may be empty: nothing to license


def source_files() -> list[Path]:
    """The source files that git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z", *PATTERNS], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [file for file in files if file.is_file() and not (file.name in EMPTY and not file.read_text().strip())]


def with_line(text: str) -> str:
    """The text with the SPDX line at its top, below the interpreter's line if there is one."""
    first, _, rest = text.partition("\n")
    return f"{first}\n# {LINE}\n{rest}" if first.startswith("#!") else f"# {LINE}\n{text}"


def main(arguments: list[str]) -> int:
    """Check or fix; returns the exit status."""
    missing = [file for file in source_files() if LINE not in "\n".join(file.read_text().splitlines()[:3])]
    for file in missing:
        if "--fix" in arguments:
            file.write_text(with_line(file.read_text()))
        else:
            print(f"{file.relative_to(ROOT)}: no SPDX line; `python tools/spdx.py --fix` adds it")
    return 0 if "--fix" in arguments or not missing else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
