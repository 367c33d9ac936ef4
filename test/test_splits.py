# SPDX-License-Identifier: Apache-2.0
"""What is held out of training."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.paths import REPOSITORY

from pixel4d_ros.datasets.splits import HELD_OUT_LOGS, check_trainable, choose
from pixel4d_ros.training.config import TrainingConfig, TrainingSource
from pixel4d_ros.training.config_file import read_config_file
from pixel4d_ros.training.sources import read_sources


def test_every_tenth_item_is_held_out_the_first_included() -> None:
    items = list(range(25))
    assert choose(items, "held_out") == [0, 10, 20]
    assert sorted(choose(items, "train") + choose(items, "held_out")) == choose(items, "all") == items


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(ValueError, match="'val' is no part"):
        choose([1], "val")  # type: ignore[arg-type]


def test_training_refuses_a_log_that_the_weights_are_judged_by() -> None:
    config = TrainingConfig(sources=(TrainingSource(Path("logs/train/kitti_0052.mcap")),))
    with pytest.raises(ValueError, match=r"kitti_0052\.mcap is held out"):
        read_sources(config)


def test_training_refuses_such_a_log_behind_a_link_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "mine.mcap").symlink_to("/logs/kitti_0052.mcap")
    with pytest.raises(ValueError, match=r"mine\.mcap is held out"):
        check_trainable(tmp_path / "mine.mcap")


def test_shipped_training_configs_leave_out_what_is_held_out() -> None:
    configs = sorted((REPOSITORY / "config").glob("*.yaml"))
    runs = [config for config in configs if "sources:" in config.read_text()]
    assert runs
    for config in runs:
        sources = read_config_file(config)["sources"]
        assert sources and not {source.path.stem for source in sources} & HELD_OUT_LOGS, config
        assert not any("val" in source.path.parts for source in sources), config
