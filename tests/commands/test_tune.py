"""Thresholds for objects: what is rated, what is chosen, and what the other half of the images says."""

import numpy as np
import pytest

from autoseg.commands.tune import LEAST_HALVES, Judge, TuningCase, list_choices, take_middle
from autoseg.inference.objects import RawProbabilities
from autoseg.records.detection import Thresholds

START = Thresholds(score=0.1, mask=0.5, seed=0.5)


def make_case(name, spots=3, empty=False):
    """Two sure squares, and faint spots that are no objects."""
    reference = np.zeros((40, 40), np.int32)
    values = np.zeros((3, 40, 40), np.float32)
    values[0] = 1.0
    if not empty:
        for number, (y, x) in enumerate(((4, 4), (4, 22)), 1):
            reference[y : y + 12, x : x + 12] = number
            values[:, y : y + 12, x : x + 12] = np.array([0.05, 0.9, 0.05])[:, None, None]
    for place in range(spots):
        values[:, 26:32, 4 + 10 * place : 10 + 10 * place] = np.array([0.4, 0.58, 0.02])[:, None, None]
    return TuningCase(name, RawProbabilities(values), reference)


def test_a_rating_is_one_only_where_everything_is_right():
    judge = Judge([make_case("a")])
    assert judge.rate(judge.cases[0], Thresholds(score=0.7)) == 1.0
    assert judge.rate(judge.cases[0], START) == pytest.approx(2 * 2 / (2 * 2 + 3))  # two found, three too many: F1 and PQ are alike


def test_nothing_found_where_nothing_is_counts_as_right():
    judge = Judge([make_case("empty", spots=0, empty=True)])
    assert judge.rate(judge.cases[0], START) == 1.0


def test_thresholds_are_chosen_that_leave_the_spots_out():
    judge = Judge([make_case("a"), make_case("b", spots=1)])
    assert judge.rate_all(judge.cases, START) < 0.8
    assert judge.rate_all(judge.cases, judge.choose(judge.cases, START)) == 1.0


def test_every_image_is_looked_at_once_for_the_same_thresholds():
    looks = []
    judge = Judge([make_case("a")], lambda: looks.append(1))
    for _ in range(3):
        judge.rate_all(judge.cases, START)
    assert len(looks) == 1


def test_halves_judge_each_other_only_where_there_are_enough_images():
    few = Judge([make_case(str(number)) for number in range(LEAST_HALVES - 1)])
    assert few.judge_halves(START) is None
    apart = [make_case(str(number), spots=0 if number % 2 else 3) for number in range(LEAST_HALVES)]
    judge = Judge(apart)
    assert judge.rate_all(apart, judge.choose(apart, START)) == 1.0
    assert judge.judge_halves(START) < 1.0  # one half has no spots to learn from


def test_sizes_are_tried_only_up_to_those_of_true_objects():
    choices = dict(list_choices([make_case("a")]))
    assert choices["smallest"] == (0.0, 144.0)
    assert dict(list_choices([make_case("empty", empty=True)]))["smallest"] == (0.0,)


def test_small_objects_are_left_out_only_where_that_helps(monkeypatch):
    monkeypatch.setattr("autoseg.commands.tune.list_choices", lambda cases: [("smallest", (0.0, 10.0, 20.0, 50.0))])
    assert Judge([make_case("a", spots=0)]).choose([make_case("a", spots=0)], START).smallest == 0
    assert Judge([make_case("b")]).choose([make_case("b")], START).smallest == 50  # more than the 36 of a spot


def test_the_middle_of_a_plateau_is_taken():
    assert take_middle((1, 2, 3), (0.2, 0.9, 0.1)) == 2
    assert take_middle((1, 2, 3, 4, 5), (0.9, 0.9, 0.9, 0.9, 0.9)) == 3
