"""Means over cases and classes; what is undefined is left out and counted."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.evaluation.overlap import count_joint, score_case
from autoseg.evaluation.summary import compute_interval, summarise
from autoseg.records.dataset import ClassLabel
from autoseg.records.scores import METRICS, SizeRecall

CLASSES = tuple(ClassLabel(name=name, values=(number,)) for number, name in enumerate(("liver", "tumour", "cyst"), 1))
values = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12)


def score(case, prediction, reference):
    return score_case(case, count_joint(np.array(prediction), np.array(reference), 3), CLASSES, 1.0)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(values)
def test_the_mean_is_over_defined_values_only_and_lies_within_its_interval(numbers):
    interval = compute_interval(numbers)
    defined = [number for number in numbers if number is not None]
    assert interval.n == len(defined)
    if not defined:
        assert (interval.mean, interval.low, interval.high) == (None, None, None)
        return
    assert interval.mean == pytest.approx(sum(defined) / len(defined))
    assert min(defined) - 1e-9 <= interval.low <= interval.mean + 1e-9
    assert interval.mean - 1e-9 <= interval.high <= max(defined) + 1e-9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_interval_is_close_to_the_normal_one_of_many_cases(seed):
    sample = np.random.default_rng(seed).normal(0.8, 0.1, 200)
    interval = compute_interval(sample.tolist())
    half = 1.96 * sample.std() / np.sqrt(200)
    assert interval.low == pytest.approx(sample.mean() - half, abs=0.15 * half)
    assert interval.high == pytest.approx(sample.mean() + half, abs=0.15 * half)


def test_the_interval_is_the_same_every_time():
    values = np.random.default_rng(5).random(20).tolist()
    assert compute_interval(values) == compute_interval(values)


def test_one_case_has_an_interval_of_no_width():
    interval = compute_interval([None, 0.25])
    assert (interval.mean, interval.low, interval.high, interval.n) == (0.25, 0.25, 0.25, 1)


def test_classes_are_averaged_over_their_cases_and_then_over_classes():
    rows = score("a", [1, 1, 0, 2], [1, 0, 0, 2]) + score("b", [1, 0, 0, 0], [1, 0, 0, 0])
    scores = summarise(rows, CLASSES)
    assert scores.cases == tuple(rows)
    assert list(scores.classes) == ["liver", "tumour", "cyst"]
    assert scores.classes["liver"]["dice"].mean == pytest.approx((2 / 3 + 1) / 2)
    assert scores.classes["liver"]["dice"].n == 2
    assert (scores.classes["tumour"]["dice"].mean, scores.classes["tumour"]["dice"].n) == (1, 1)  # absent from case b
    assert (scores.classes["cyst"]["dice"].mean, scores.classes["cyst"]["dice"].n) == (None, 0)
    assert scores.mean["dice"] == pytest.approx((5 / 6 + 1) / 2)  # the class that never occurs is left out
    assert set(scores.mean) == set(METRICS) == set(scores.classes["liver"])


def test_unit_and_tolerance_are_told_and_lesions_added_up():
    part = SizeRecall(low_ml=0.0, high_ml=0.1, lesions=2, found=1)
    rows = [msgspec.structs.replace(row, lesion_recall=(part,)) for case in "ab" for row in score(case, [1, 0], [1, 0])[:1]]
    scores = summarise(rows, CLASSES, "px", 2.0)
    assert (scores.unit, scores.nsd_tolerance) == ("px", 2.0)
    assert scores.lesion_recall == {"liver": (SizeRecall(low_ml=0.0, high_ml=0.1, lesions=4, found=2),), "tumour": (), "cyst": ()}


def test_no_defined_value_at_all_gives_no_mean():
    assert summarise([], CLASSES).mean == dict.fromkeys(METRICS)
