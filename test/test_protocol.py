# SPDX-License-Identifier: Apache-2.0
"""Which frames of a clip are scored, and how."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.dataset_samples import drive

from pixel4d_ros.evaluation.metrics import PSNR_CEILING
from pixel4d_ros.evaluation.protocol import Protocol, choose_sequences, find_sequences
from pixel4d_ros.evaluation.scoring import Setting, score_video
from pixel4d_ros.evaluation.windows import resized

RANDOM = np.random.default_rng(7)


def test_sequences_step_over_lost_frames_and_decimate_fast_cameras() -> None:
    times = np.delete(0.1035 * np.arange(40), 20)  # KITTI's real rate, one frame lost
    sequences = find_sequences(times, 14, 0.1)
    starts = [int(s[0]) for s in sequences]
    assert starts == [*range(7), *range(20, 26)]
    assert all(len(s) == 14 and np.ptp(np.diff(times[s])) < 1e-9 for s in sequences)
    fast = find_sequences(np.arange(90) / 30, 14, 0.1)
    assert list(fast[0]) == list(range(0, 42, 3))
    assert len(fast) == 90 - 39


def test_short_logs_use_what_there_is_and_hopeless_ones_say_so() -> None:
    (only,) = find_sequences(0.1 * np.arange(5), 14, 0.1)
    assert list(only) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="at least 2 images"):
        find_sequences(np.zeros(1), 14, 0.1)
    with pytest.raises(ValueError, match="--step"):
        find_sequences(np.arange(9.0), 14, 0.1)
    with pytest.raises(ValueError, match=r"no two images are 0\.15 s apart, the log has one every 0\.1 s"):
        find_sequences(0.1 * np.arange(20), 14, 0.15)  # images 0.2 s apart would count as 0.15


def test_the_default_stride_gives_about_twenty_sources() -> None:
    times = 0.1 * np.arange(801)
    assert 15 <= len(choose_sequences(times, Protocol())) <= 25
    assert len(choose_sequences(times, Protocol(stride=1))) == 801 - 13
    assert [int(s[0]) for s in choose_sequences(times[:30], Protocol(stride=4))] == [0, 4, 8, 12, 16]


def test_the_papers_protocol_scores_the_middle_of_256_rows() -> None:
    paper = Protocol.paper(samples=2)
    assert (paper.frames, paper.step, paper.samples) == (14, 0.1, 2)
    assert paper.image_size(1242, 375) == (832, 256)  # KITTI
    assert paper.image_size(640, 360) == (455, 256)  # RealEstate10K
    assert paper.image_size(1080, 1920) == (256, 455)  # DL3DV, held upright
    assert Protocol.paper(size=(400, 120)).image_size(1242, 375) == (400, 120)
    assert Protocol().image_size(1242, 375) == (1242, 375)
    assert paper.scored(832, 256) == (slice(0, 256), slice(288, 544))
    truth = RANDOM.integers(0, 256, (2, 256, 832, 3), dtype=np.uint8)
    frames = truth.copy()
    frames[:, :, :288] = frames[:, :, 544:] = 0
    assert score_video(frames, truth, None, paper, Setting()).psnr[0] == PSNR_CEILING
    assert score_video(frames, truth, None, Protocol(), Setting()).psnr[0] < 12
    assert "256x256 centre" in paper.describe()


def test_bad_protocols_are_refused() -> None:
    bad: list[dict[str, Any]] = [
        {"frames": 1},
        {"step": 0},
        {"stride": 0},
        {"samples": 0},
        {"seed": -1},
        {"size": (4, 4)},
        {"align": "x"},
    ]
    for arguments in bad:
        with pytest.raises(ValueError, match=f"--{next(iter(arguments))}"):
            Protocol(**arguments)


def test_a_size_with_height_first_is_refused() -> None:
    with pytest.raises(ValueError, match="size 16x24 would squeeze images of 48x32: width comes first"):
        resized(drive(3), (16, 24))


def test_resizing_keeps_rays_and_sparse_depth() -> None:
    clip = resized(drive(3), (24, 16))
    assert clip.images.shape == (3, 16, 24, 3)
    assert clip.depth is not None
    assert clip.depth.shape == (3, 16, 24)
    assert set(np.unique(clip.depth)) == {8}
    np.testing.assert_allclose(clip.K, np.array([[20, 0, 11.5], [0, 20, 7.5], [0, 0, 1]]))
