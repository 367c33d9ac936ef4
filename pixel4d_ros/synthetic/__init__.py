# SPDX-License-Identifier: Apache-2.0
"""Synthetic streets and rooms: exact images, depth, object ids and motion, rendered on demand on any device."""

from __future__ import annotations

from pathlib import Path

from pixel4d_ros.synthetic.views import WorldViews, sample_views, street_clip

__all__ = ["WorldViews", "sample_views", "street_clip", "write_street_log"]


def write_street_log(
    path: Path, seed: int = 0, frames: int = 100, size: tuple[int, int] = (416, 128), progress: bool = True
) -> None:
    """Write a driving log of the synthetic street; see `pixel4d_ros.synthetic.log`, which needs the log libraries."""
    from pixel4d_ros.synthetic.log import write_street_log as write

    write(path, seed, frames, size, progress)
