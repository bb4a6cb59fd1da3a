"""Decisions from scores: against numpy's formulas, and on scores where the right answer is known."""

import numpy as np
import pytest

from autoseg.evaluation.selection import choose_product, choose_single, choose_volumes, compare, compute_mean, judge_change


def make(**columns):
    """Case → class → score, from one column of scores for each class."""
    return {f"case{place}": dict(zip(columns, row)) for place, row in enumerate(zip(*columns.values()))}


def test_a_comparison_is_the_mean_of_paired_differences_and_its_standard_error():
    generator = np.random.default_rng(0)
    own, base = generator.random((2, 2, 30))
    found = compare(make(x=own[0], y=own[1]), make(x=base[0], y=base[1]))
    expected = (own - base).mean(axis=0)
    assert found.difference == pytest.approx(expected.mean(), abs=1e-12)
    assert found.error == pytest.approx(expected.std(ddof=1) / np.sqrt(30), abs=1e-12)
    assert found.cases == 30
    assert compare(make(x=own[0], y=own[1]), make(x=base[0], y=base[1]), "y").difference == pytest.approx((own[1] - base[1]).mean())


def test_what_is_undefined_in_both_says_nothing_and_a_right_silence_counts_as_one():
    assert compare(make(x=[0.9, None]), make(x=[0.7, None])).cases == 1
    assert compare(make(x=[0.9, None]), make(x=[0.7, None])).error is None
    assert compare(make(x=[None]), make(x=[0.0])).difference == 1.0
    assert compare(make(x=[None]), make(x=[None])).difference is None
    assert not compare(make(x=[0.9]), make(x=[0.1])).is_gain  # one case has no standard error


def test_the_mean_is_over_class_means():
    assert compute_mean(make(x=[1.0, 0.5, None], y=[0.0, None, None], z=[None] * 3)) == pytest.approx((0.75 + 0) / 2)
    assert compute_mean(make(x=[None])) is None


def test_an_ensemble_must_be_better_than_the_best_single_by_more_than_the_noise():
    singles = {"a": make(x=[0.5, 0.6, 0.7, 0.8]), "b": make(x=[0.6, 0.6, 0.7, 0.8])}
    noisy, sure = make(x=[0.9, 0.4, 0.7, 0.8]), make(x=[0.62, 0.61, 0.72, 0.81])
    assert compute_mean(noisy) > compute_mean(singles["b"])
    kept = choose_product(singles, {"a + b": noisy})
    assert (kept.winner, kept.single) == ("b", "b")
    assert choose_product(singles, {"a + b": noisy, "a + c": sure}).winner == "a + c"
    assert kept.comparisons["a + b"].difference == pytest.approx(0.025)
    assert kept.comparisons["b"].difference == pytest.approx(0.025)


def test_of_near_equals_the_finer_score_decides():
    near = {"a": make(x=[0.8, 0.6, 0.7]), "b": make(x=[0.7, 0.8, 0.59])}
    finer = {"a": make(x=[0.3] * 3), "b": make(x=[0.4] * 3)}
    assert choose_single(near) == "a"
    assert choose_single(near, finer) == "b"
    assert choose_single({"a": make(x=[0.8, 0.81, 0.8]), "b": make(x=[0.7, 0.7, 0.7])}, finer) == "a"
    assert choose_single({"a": near["a"], "b": near["a"]}) == "a"


def test_an_ensemble_may_also_win_by_the_finer_score_where_it_is_not_worse():
    singles, same = {"a": make(x=[0.8, 0.6, 0.7])}, make(x=[0.7, 0.8, 0.6])
    finer = {"a": make(x=[0.3, 0.31, 0.32]), "a + b": make(x=[0.4, 0.41, 0.42])}
    assert choose_product(singles, {"a + b": same}).winner == "a"
    assert choose_product(singles, {"a + b": same}, finer).winner == "a + b"
    assert choose_product(singles, {"a + b": make(x=[0.7, 0.79, 0.6])}, finer).winner == "a"
    assert choose_product(singles, {"a + b": same}, {**finer, "a + b": finer["a"]}).winner == "a"


def test_a_change_is_kept_only_where_it_gains_and_no_class_falls():
    before = make(x=[0.5, 0.6, 0.5], y=[0.9, 0.9, 0.9])
    assert judge_change(make(x=[0.7, 0.7, 0.7], y=[0.9, 0.9, 0.9]), before, "x", ["x", "y"])[1]
    assert not judge_change(make(x=[0.7, 0.7, 0.7], y=[0.9, 0.9, 0.89]), before, "", ["x", "y"])[1]
    assert not judge_change(make(x=[0.9, 0.5, 0.5], y=[0.9, 0.9, 0.9]), before, "x", ["x", "y"])[1]
    assert not judge_change(before, before, "", ["x", "y"])[1]


def test_volumes_come_from_the_references():
    assert choose_volumes([], 1.0) == ()
    assert choose_volumes(list(range(4, 105)), 1.0) == (2.0, 5.0, 9.0)
    assert choose_volumes(list(range(4, 105)), 2.0) == (5.0, 9.0)
