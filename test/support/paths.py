# SPDX-License-Identifier: Apache-2.0
"""Where the repository, the helpers and the real driving logs are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SUPPORT = Path(__file__).resolve().parent
REPOSITORY = SUPPORT.parent.parent


def shared_path(relative: str) -> Path:
    """A file or folder of the real data beside the repository, or a skip that says what is missing."""
    root = Path(os.environ.get("PIXEL4D_SHARED", REPOSITORY.parent / "shared"))
    path = root / relative
    if not path.exists():
        pytest.skip(f"needs real data: {relative} beside the repository (or set PIXEL4D_SHARED to its folder)")
    return path
