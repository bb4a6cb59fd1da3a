"""Paired comparison against slow definitions: the signed ranks counted out, Holm's steps, and what is said of noise."""

from itertools import product

import numpy as np
import pytest
from made_up_scores import make_scores

from autoseg.evaluation.comparison import compare_rows, correct_holm, rank_differences


def count_signed_ranks(values):
    """Exact two-sided p: all signs equally likely; ranks by size, no ties."""
    ranks = np.argsort(np.argsort(np.abs(values))) + 1
    sums = [sum(rank for rank, sign in zip(ranks, signs) if sign) for signs in product((0, 1), repeat=len(values))]
    own = sum(rank for rank, value in zip(ranks, values) if value > 0)
    return min(1.0, 2 * min(np.mean(np.array(sums) <= own), np.mean(np.array(sums) >= own)))


def compare_dice(before, after, **others):
    first = make_scores(liver=[{"dice": value} for value in before], **{name: own[0] for name, own in others.items()})
    second = make_scores(liver=[{"dice": value} for value in after], **{name: own[1] for name, own in others.items()})
    return compare_rows(first.cases, second.cases, ("dice",))


@pytest.mark.parametrize("seed", range(6))
def test_p_is_that_of_all_signs_counted(seed):
    values = np.random.default_rng(seed).normal(0.3, 1, 4 + seed)
    assert rank_differences(values.tolist()) == pytest.approx(count_signed_ranks(values))
    assert rank_differences([*values.tolist(), 0.0, 0.0]) == pytest.approx(count_signed_ranks(values))


def test_p_without_any_difference_is_one_and_without_cases_undefined():
    assert rank_differences([0.0] * 7) == 1
    assert rank_differences([]) is None


@pytest.mark.parametrize("seed", range(4))
def test_holm_is_the_least_level_at_which_his_steps_reject(seed):
    values = np.random.default_rng(seed).random(5).tolist()

    def rejects(level):
        ordered = sorted(values)
        rejected = set()
        for rank, value in enumerate(ordered):
            if value > level / (len(ordered) - rank):
                break
            rejected.add(value)
        return rejected

    for value, corrected in zip(values, correct_holm(values)):
        if corrected < 1:
            assert value in rejects(corrected * (1 + 1e-9))
            assert value not in rejects(corrected * (1 - 1e-9))


def test_the_difference_is_second_less_first_over_the_cases_that_both_have():
    (one,) = compare_dice([0.5, 0.6, None, 0.8, 0.9], [0.6, 0.8, 0.7, None])
    assert (one.difference.n, one.one_sided) == (2, 2)
    assert one.difference.mean == pytest.approx(0.15)
    assert (one.first, one.second) == (pytest.approx(0.55), pytest.approx(0.7))
    assert one.judgement == "few cases"


def test_more_than_noise_is_said_of_a_steady_difference_alone():
    generator = np.random.default_rng(0)
    before = generator.uniform(0.6, 0.9, 20)
    steady = compare_dice(before.tolist(), (before + generator.normal(0.03, 0.01, 20)).tolist())
    noise = compare_dice(before.tolist(), (before + generator.normal(0.0, 0.03, 20)).tolist())
    assert (steady[0].judgement, noise[0].judgement) == ("second", "noise")
    assert compare_dice((before + 0.03).tolist(), before.tolist())[0].judgement == "first"
    assert compare_dice(before.tolist(), before.tolist())[0].judgement == "noise"


def test_smaller_distances_are_better():
    rows = [make_scores(liver=[{"hd95_mm": value + shift} for value in range(1, 13)]).cases for shift in (0.0, 1.0)]
    (one,) = compare_rows(*rows, ("hd95_mm",))
    assert one.judgement == "first"
    assert len(one.worst) == 5
    assert one.best == ()


def test_one_class_among_many_must_stand_the_correction():
    values = np.linspace(0.5, 0.8, 7)
    better = ([{"dice": v} for v in values], [{"dice": v + 0.01 * (k + 1)} for k, v in enumerate(values)])
    same = (better[0], better[0])
    (alone,) = [one for one in compare_dice(values.tolist(), better[1] and [row["dice"] for row in better[1]])]
    assert alone.p == pytest.approx(2 / 2**7)
    assert alone.judgement == "second"
    found = compare_dice(values.tolist(), [row["dice"] for row in better[1]], a=same, b=same, c=same)
    assert found[0].p_holm == pytest.approx(4 * 2 / 2**7)
    assert found[0].judgement == "noise"


def test_the_cases_that_differ_most_are_named_each_way():
    before = [0.5] * 14
    after = [0.5 + 0.01 * step for step in range(-7, 7)]
    (one,) = compare_dice(before, after)
    assert [case.case for case in one.worst] == ["c00", "c01", "c02", "c03", "c04"]
    assert [case.case for case in one.best] == ["c13", "c12", "c11", "c10", "c09"]
    assert one.best[0].difference == pytest.approx(0.06)
