# SPDX-License-Identifier: Apache-2.0
"""Probabilities that come true, and ids that last."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixel4d_ros.datasets.boxes import Box
from pixel4d_ros.datasets.clip import Clip
from pixel4d_ros.evaluation.calibration import Event, brier_score, reliability
from pixel4d_ros.evaluation.id_metrics import IdScore, TrackedFrame, match_objects, score_ids
from pixel4d_ros.evaluation.path_metrics import PathSample, PathScore, paths_table, score_paths
from pixel4d_ros.evaluation.plots import reliability_diagram
from pixel4d_ros.evaluation.track_objects import ids_table, track_clip
from pixel4d_ros.geometry.rotations import rigid
from pixel4d_ros.scene import DynamicGaussians


def frame(true: dict[int, float], predicted: dict[int, float]) -> TrackedFrame:
    """Objects by id, at places along one line, metres."""

    def arrays(things: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
        return np.array([*things], np.int64), np.array([[x, 0.0, 0.0] for x in things.values()]).reshape(-1, 3)

    return TrackedFrame(*arrays(true), *arrays(predicted))


def score_of(frames: list[TrackedFrame]) -> IdScore:
    """The score of these frames' ids."""
    return score_ids(frames, match_objects(frames))


def test_a_brier_score_is_least_for_what_comes_true() -> None:
    sure = [Event(1.0, True), Event(0.0, False)]
    assert brier_score(sure) == 0
    assert brier_score([Event(0.5, True), Event(0.5, False)]) == 0.25
    with pytest.raises(ValueError, match="at least one"):
        brier_score([])


def test_a_reliability_diagram_has_a_point_per_bin_that_holds_something() -> None:
    low, high = reliability([Event(0.11, False), Event(0.19, True), Event(1.0, True)])
    assert (low.probability, low.frequency, low.count) == (pytest.approx(0.15), 0.5, 2)
    assert (high.frequency, high.count) == (1.0, 1)
    drawing = reliability_diagram([low, high])
    assert "50% of 2 objects move" in drawing
    assert drawing.count("<circle") == 2


def test_ids_that_last_have_no_switches() -> None:
    score = score_of([frame({1: t, 2: 20 - t}, {7: t + 0.5, 8: 20.2 - t}) for t in range(10)])
    assert (score.objects, score.lasting, score.switches, score.missed) == (2, 2, 0, 0)
    assert score.lasting_share == 1


def test_an_id_that_changes_is_a_switch_also_after_a_gap() -> None:
    seen, gone = frame({1: 0.0}, {7: 0.0}), frame({1: 0.0}, {})
    score = score_of([seen, seen, gone, frame({1: 0.0}, {9: 0.1})])
    assert (score.switches, score.lasting, score.objects, score.missed) == (1, 0, 1, 1)


def test_a_pair_stays_together_while_another_comes_nearer() -> None:
    first = frame({1: 0.0}, {7: 0.0})
    crossing = frame({1: 0.0}, {7: 1.0, 8: 0.1})  # what moves by is nearer for a moment
    assert score_of([first, crossing, first]).switches == 0
    far = frame({1: 0.0}, {7: 50.0})
    assert score_of([first, far]).matched == 1


def test_a_clip_without_boxes_has_no_ids_to_compare() -> None:
    images, K = np.zeros((2, 48, 64, 3), np.uint8), np.array([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]])
    clip = Clip("bare", images, K, np.tile(np.eye(4), (2, 1, 1)), np.array([0, 0.1]))
    with pytest.raises(ValueError, match="no labelled boxes"):
        track_clip(Passing().predict, clip)


class Passing:
    """A forecaster whose scenes hold one object, 10 m ahead, that is elsewhere in every image by 1 m."""

    def __init__(self) -> None:
        self.images = 0

    def predict(self, *_: object) -> DynamicGaussians:
        self.images += 1
        n = 60
        means = torch.rand(n, 3, generator=torch.manual_seed(0)) + torch.tensor([self.images - 3.0, 0.0, 9.5])
        zeros = torch.zeros(n, 3)
        return DynamicGaussians(
            means,
            torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
            torch.full((n, 3), 0.1),
            torch.full((n,), 0.9),
            torch.full((n, 3), 0.5),
            torch.tensor([[10.0, 0, 0]]).repeat(n, 1),
            zeros,
            zeros,
            zeros,
            torch.ones(n, dtype=torch.int64),
            torch.stack((torch.zeros(3), means.mean(0))),
        )


def test_a_predicted_object_that_moves_as_labelled_keeps_its_id() -> None:
    camera = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.6], [0, 0, 0, 1.0]])  # world: x ahead, z up
    images, K = np.zeros((5, 48, 64, 3), np.uint8), np.array([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]])

    def box(t: int) -> tuple[Box, ...]:
        pose = rigid([[0, -1, 0], [0, 0, -1], [1, 0, 0]], [t - 1.5, 0.5, 10])
        return (Box(4, "Car", pose, np.ones(3) * 2, True, np.array([10.0, 0, 0]), 0),)

    boxes = tuple(box(t) for t in range(5))
    clip = Clip("passing", images, K, np.tile(camera, (5, 1, 1)), 0.1 * np.arange(5), boxes=boxes)
    score, paths = track_clip(Passing().predict, clip)
    assert paths is None  # no label lasts for 1.3 s
    assert (score.objects, score.lasting, score.switches, score.missed, score.matched) == (1, 1, 0, 0, 4)
    assert ["of these, kept one id, %", "100"] in ids_table("passing", score)[1]


def test_paths_are_scored_by_the_closest_and_by_their_probabilities() -> None:
    t = np.arange(1, 4.0)
    truth = np.stack((2 * t, 0 * t), 1)
    faster = truth + np.stack((t, 0 * t), 1)
    score = score_paths([PathSample(np.stack((faster, truth)), np.array([0.75, 0.25]), truth)])
    assert score == PathScore(1, 2.0, 3.0, 0.0, 0.0, 2 * 0.75**2)
    assert score_paths([]) is None
    assert ["labelled moving objects with 1.3 s of future", "0"] in paths_table("passing", None, 1.3)[1]
    assert ["closest path: mean and last error (minADE, minFDE), m", "0.00, 0.00"] in paths_table("a", score, 1.3)[1]


def test_paths_of_a_tracked_object_go_where_its_label_goes() -> None:
    camera = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.6], [0, 0, 0, 1.0]])
    images, K = np.zeros((16, 48, 64, 3), np.uint8), np.array([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]])
    turned = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    boxes = tuple(
        (Box(4, "Car", rigid(turned, [t - 1.5, 0.5, 10]), np.ones(3) * 2, True, np.array([10.0, 0, 0]), 0),)
        for t in range(16)
    )
    clip = Clip("passing", images, K, np.tile(camera, (16, 1, 1)), 0.1 * np.arange(16), boxes=boxes)
    score = track_clip(Passing().predict, clip)[1]
    assert score is not None and score.samples == 3
    assert score.likely_ade < 0.1 and score.min_ade < 0.1 and score.brier < 0.8
