# SPDX-License-Identifier: Apache-2.0
"""A short part of research/fuzz_readers.py: mutated logs, messages and files are read or refused, nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

from support.paths import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "research"))

from fuzz_readers import fuzz


def test_no_reader_crashes_on_mutated_input(tmp_path: Path) -> None:
    outcomes = fuzz(tmp_path, seed=7, seconds=60, rounds=6)
    assert len(outcomes) > 15
    assert sum(counts.get("refused", 0) for counts in outcomes.values()) > 20
