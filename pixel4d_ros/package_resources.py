# SPDX-License-Identifier: Apache-2.0
"""Files that come with the package, wherever it was installed from."""

from __future__ import annotations

import os
from pathlib import Path


def resource_folders(folder: str) -> list[Path]:
    """Where a folder of the package may lie: in the source tree, the pip package, or the ROS installation."""
    package = Path(__file__).resolve().parent
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    installed = [Path(prefix) / "share" / "pixel4d_ros" / folder for prefix in prefixes if prefix]
    return [package.parent / folder, package / folder, *installed]


def find_resource(folder: str, name: str) -> Path | None:
    """The file of that name; None where it was not installed."""
    return next((place / name for place in resource_folders(folder) if (place / name).is_file()), None)
