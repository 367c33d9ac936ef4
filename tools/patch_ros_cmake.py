# SPDX-License-Identifier: Apache-2.0
"""Make the CMake files inside the ROS wheels name this machine's include folders.

The wheels were built in a container, and the exported targets `<package>__rosidl_generator_py` still name that
container's folders for Python.h and numpy. CMake refuses such a target ("includes non-existent path"), so before the
first colcon build they are replaced by the folders of the interpreter that runs this script.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

FOREIGN_INCLUDE = re.compile(r"/opt/python/[^\";]*?/include/python3\.\d+")
FOREIGN_NUMPY = re.compile(r"/opt/python/[^\";]*?/site-packages/numpy/_?core/include")


def patched(text: str, python_include: str, numpy_include: str) -> str:
    """The CMake file with the build container's include folders replaced by the given ones."""
    text = FOREIGN_NUMPY.sub(lambda _: numpy_include, text)
    return FOREIGN_INCLUDE.sub(lambda _: python_include, text)


def patch_tree(share: Path, python_include: str, numpy_include: str) -> list[Path]:
    """Patch every exported target below `share` (a prefix's share/ folder) in place; returns the files that changed."""
    changed = []
    for path in sorted(share.glob("*/cmake/*.cmake")):
        before = path.read_text()
        after = patched(before, python_include, numpy_include)
        if after != before:
            path.write_text(after)
            changed.append(path)
    return changed


def main() -> None:
    import numpy as np

    share = Path(sys.prefix) / "share"
    changed = patch_tree(share, sysconfig.get_path("include"), np.get_include())
    print(f"{len(changed)} CMake files under {share} now name this machine's include folders")


if __name__ == "__main__":
    main()
