"""Probabilities that come true, and ids that last."""

from __future__ import annotations

import numpy as np
import pytest

from pixel4d_ros.evaluation.calibration import Event, brier_score, reliability
from pixel4d_ros.evaluation.id_metrics import TrackedFrame, score_ids
from pixel4d_ros.evaluation.plots import reliability_diagram


def frame(true: dict[int, float], predicted: dict[int, float]) -> TrackedFrame:
    """Objects by id, at places along one line, metres."""

    def arrays(things: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
        return np.array([*things], np.int64), np.array([[x, 0.0, 0.0] for x in things.values()]).reshape(-1, 3)

    return TrackedFrame(*arrays(true), *arrays(predicted))


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
    score = score_ids([frame({1: t, 2: 20 - t}, {7: t + 0.5, 8: 20.2 - t}) for t in range(10)])
    assert (score.objects, score.lasting, score.switches, score.missed) == (2, 2, 0, 0)
    assert score.lasting_share == 1


def test_an_id_that_changes_is_a_switch_also_after_a_gap() -> None:
    seen, gone = frame({1: 0.0}, {7: 0.0}), frame({1: 0.0}, {})
    score = score_ids([seen, seen, gone, frame({1: 0.0}, {9: 0.1})])
    assert (score.switches, score.lasting, score.objects, score.missed) == (1, 0, 1, 1)


def test_a_pair_stays_together_while_another_comes_nearer() -> None:
    first = frame({1: 0.0}, {7: 0.0})
    crossing = frame({1: 0.0}, {7: 1.0, 8: 0.1})  # what moves by is nearer for a moment
    assert score_ids([first, crossing, first]).switches == 0
    far = frame({1: 0.0}, {7: 50.0})
    assert score_ids([first, far]).matched == 1
