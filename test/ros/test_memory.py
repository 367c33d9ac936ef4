# SPDX-License-Identifier: Apache-2.0
"""What garbage collection is spared while the node works, and that giving the GPU back ends that."""

from __future__ import annotations

import gc
import weakref

import pytest

pytest.importorskip("rclpy")

from pixel4d_ros.ros.memory import free_gpu, freeze_gc

pytestmark = pytest.mark.ros


class Loop:
    """Something that only garbage collection frees."""

    def __init__(self) -> None:
        self.me = self


def test_collection_is_spared_what_is_there_until_the_gpu_is_given_back():
    gc.unfreeze()  # what other tests' nodes left so
    kept = Loop()
    seen = weakref.ref(kept)
    try:
        freeze_gc()
        assert gc.get_freeze_count() > 1000
        del kept
        gc.collect()
        assert seen() is not None
    finally:
        free_gpu()
    assert seen() is None and gc.get_freeze_count() == 0
