# SPDX-License-Identifier: Apache-2.0
"""research/draw_contacts.py: a vehicle that drives into LiDAR returns which the scene does not show."""

from __future__ import annotations

import sys

import numpy as np
from support.paths import REPOSITORY, shared_path

from pixel4d_ros.datasets.open import open_clips
from pixel4d_ros.evaluation.clearance import measured_distances, probe_paths
from pixel4d_ros.evaluation.windows import cut

sys.path.insert(0, str(REPOSITORY / "research"))
import draw_contacts


def test_returns_are_touched_on_a_path_of_distance_zero_and_marked_in_the_image() -> None:
    miss = draw_contacts.MISSES[0]
    clip = next(iter(open_clips(str(shared_path(f"logs/{miss.log}.mcap")))))
    window = cut(clip, np.arange(miss.image, miss.image + draw_contacts.FRAMES))
    paths = probe_paths(window.times - window.times[0])
    returns, touched = draw_contacts.touched_returns(window, paths[miss.path])
    assert measured_distances(window, paths)[miss.path].min() == 0 and touched.any() and not touched.all()
    picture = draw_contacts.marked(window, returns, touched)
    assert (picture == draw_contacts.RED).all(-1).sum() > touched.sum()
