"""Folds: the reference's for the same cases, patients kept together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.errors import InputError
from autoseg.planning.splits import (
    check_splits,
    describe_folds,
    drop_cases,
    extend_splits,
    list_absences,
    list_torn,
    make_labels,
    make_splits,
)
from autoseg.records.dataset import Case, ClassLabel, Dataset
from autoseg.records.splits import Fold, Splits


def describe_cases(groups):
    """A data set of one case per group given, in an order that is not sorted."""
    cases = tuple(Case(id=f"case {number:03d}", images=(), group=group) for number, group in enumerate(groups))
    classes = (ClassLabel(name="a", values=(1,)),)
    return Dataset(root="/", dimension=2, unit="px", layout="", channels=(), classes=classes, cases=cases[::-1])


@pytest.mark.parametrize("count", [5, 12, 33])
def test_folds_are_those_of_a_shuffle_of_the_sorted_cases_with_seed_12345(count):
    """What scikit-learn's KFold(5, shuffle=True, random_state=12345) does, written out: nnU-Net's folds."""
    order = np.arange(count)
    np.random.RandomState(12345).shuffle(order)
    sizes = [count // 5 + (fold < count % 5) for fold in range(5)]
    parts = np.split(order, np.cumsum(sizes)[:-1])
    splits = make_splits(describe_cases([""] * count))
    for fold, part in zip(splits.folds, parts, strict=True):
        assert fold.validation == tuple(f"case {number:03d}" for number in sorted(part))


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.sampled_from(("", "p", "q", "r", "s", "t")), min_size=2, max_size=30), st.integers(2, 6))
def test_every_case_validates_once_and_patients_are_never_torn_apart(groups, folds):
    dataset = describe_cases(groups)
    patients = {case.id: case.group or case.id for case in dataset.cases}
    splits = make_splits(dataset, folds)
    if len(set(patients.values())) > 1:
        assert len(splits.folds) == min(folds, len(set(patients.values())))
        assert sorted(case for fold in splits.folds for case in fold.validation) == sorted(patients)
    for fold in splits.folds:
        assert sorted(fold.training + fold.validation) == sorted(patients)
        assert not {patients[case] for case in fold.training} & {patients[case] for case in fold.validation}
    check_splits(splits, dataset)


@pytest.mark.parametrize("groups", [[""], ["p", "p", "p"]])
def test_one_patient_alone_trains_without_validation(groups):
    splits = make_splits(describe_cases(groups))
    assert [(len(fold.training), fold.validation) for fold in splits.folds] == [(len(groups), ())]


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ((), "no folds"),
        ((Fold(training=("case 000",), validation=("case 009",)),), "Fold 0.*not in the data set: case 009"),
        (
            (Fold(training=("case 000",), validation=()), Fold(training=("case 001",), validation=("case 001",))),
            "Fold 1.*same cases: case 001",
        ),
        ((Fold(training=(), validation=("case 001",)),), "Fold 0.*nothing"),
    ],
)
def test_splits_that_cannot_be_used_are_refused_by_fold_and_case(folds, message):
    with pytest.raises(InputError, match=message):
        check_splits(Splits(folds=folds), describe_cases(["", ""]))


def count_held(splits, cases):
    return [len(cases.intersection(fold.validation)) for fold in splits.folds]


@pytest.mark.parametrize("count", [10, 23, 40])
def test_folds_stay_nnunets_where_every_case_has_every_class(count):
    dataset = describe_cases([""] * count)
    everywhere = frozenset(case.id for case in dataset.cases)
    assert make_splits(dataset, 5, {"a": everywhere}) == make_splits(dataset)


def find_unlucky(dataset):
    """Five cases that nnU-Net's folds validate in two folds only."""
    first, second, *_ = make_splits(dataset).folds
    return frozenset((*first.validation[:3], *second.validation[:2]))


def test_rare_classes_are_shared_out_and_folds_stay_even():
    dataset = describe_cases([""] * 40)
    everywhere = frozenset(case.id for case in dataset.cases)
    rare = find_unlucky(dataset)
    common = frozenset(sorted(everywhere - rare)[:18])
    splits = make_splits(dataset, 5, {"all": everywhere, "rare": rare, "common": common})
    assert count_held(make_splits(dataset), rare) == [3, 2, 0, 0, 0]
    assert count_held(splits, rare) == [1] * 5
    assert set(count_held(splits, common)) == {3, 4}
    assert [len(fold.validation) for fold in splits.folds] == [8] * 5
    assert sorted(case for fold in splits.folds for case in fold.validation) == sorted(everywhere)
    assert splits == make_splits(dataset, 5, {"all": everywhere, "rare": rare, "common": common})


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.sampled_from(("", "p", "q", "r")), min_size=6, max_size=24), st.integers(2, 4), st.integers(0, 2**24))
def test_patients_stay_together_when_classes_are_shared_out(groups, folds, bits):
    dataset = describe_cases(groups)
    patients = {case.id: case.group or case.id for case in dataset.cases}
    rare = frozenset(case for place, case in enumerate(sorted(patients)) if bits >> place & 1)
    splits = make_splits(dataset, folds, {"rare": rare})
    assert sorted(case for fold in splits.folds for case in fold.validation) == sorted(patients)
    for fold in splits.folds:
        assert fold.validation
        assert not {patients[case] for case in fold.training} & {patients[case] for case in fold.validation}


def test_every_word_of_a_column_gets_its_share():
    dataset = describe_cases([""] * 20)
    words = {case.id: "north" if int(case.id[-3:]) < 8 else "south" for case in dataset.cases}
    labels = make_labels({}, words, 20)
    splits = make_splits(dataset, 4, labels)
    assert count_held(splits, labels["'north'"]) == [2] * 4
    assert count_held(splits, labels["'south'"]) == [3] * 4
    assert "fold 3 validates 5 cases: 'north' 2, 'south' 3" in describe_folds(splits, labels)


def test_classes_that_a_fold_cannot_learn_or_judge_are_named():
    splits = Splits(folds=(Fold(training=("a", "b"), validation=("c", "d")), Fold(training=("c", "d"), validation=("a", "b"))))
    classes = {"everywhere": frozenset("abcd"), "rare": frozenset("cd")}
    untrained, unjudged = list_absences(splits, classes)
    assert "fold 0: rare" in untrained
    assert "fold 1" not in untrained
    assert "rare (in 2 cases) of 1 folds" in unjudged
    assert list_absences(splits, {"everywhere": frozenset("abcd")}) == []


def test_torn_groups_are_told_with_their_first_fold():
    splits = Splits(folds=(Fold(training=("a", "b"), validation=("c",)), Fold(training=("b", "c"), validation=("a",))))
    assert list_torn(splits, [["a", "c"], ["b", "x"], ["a", "b"]]) == [
        "fold 0 trains on a and validates on c",
        "fold 1 trains on b and validates on a",
    ]


def test_a_case_named_twice_is_refused():
    with pytest.raises(InputError, match=r"Fold 0.*twice: case 001"):
        check_splits(Splits(folds=(Fold(training=("case 001", "case 001"), validation=()),)), describe_cases(["", ""]))


def test_new_cases_go_to_the_smallest_folds_and_patients_to_their_own():
    old = describe_cases(["p", "", "", ""])
    splits = make_splits(old, 2)
    home = next(number for number, fold in enumerate(splits.folds) if "case 000" in fold.validation)
    grown = describe_cases(["p", "", "", "", "p", "p", "", "", "", ""])
    added = {case.id for case in grown.cases} - {case.id for case in old.cases}
    extended = extend_splits(splits, grown, added)
    check_splits(extended, grown)
    assert {"case 004", "case 005"} <= set(extended.folds[home].validation)
    assert [len(fold.validation) for fold in extended.folds] == [5, 5]
    for before, after in zip(splits.folds, extended.folds, strict=True):
        assert set(before.validation) == set(after.validation) - added
        assert set(before.training) == set(after.training) - added
        assert sorted(after.training + after.validation) == sorted(case.id for case in grown.cases)


def test_one_fold_alone_trains_on_what_is_new():
    splits = Splits(folds=(Fold(training=("case 000",), validation=("case 001",)),))
    (fold,) = extend_splits(splits, describe_cases([""] * 3), {"case 002"}).folds
    assert (fold.training, fold.validation) == (("case 000", "case 002"), ("case 001",))


def test_cases_that_are_gone_leave_their_folds_but_never_an_empty_training_set():
    splits = Splits(folds=(Fold(training=("a", "b"), validation=("c",)), Fold(training=("c",), validation=("a", "b"))))
    assert drop_cases(splits, {"b"}).folds[1] == Fold(training=("c",), validation=("a",))
    with pytest.raises(InputError, match="fold 1 would train on nothing"):
        drop_cases(splits, {"c"})


def test_a_known_patient_goes_home_even_where_its_fold_is_the_largest():
    ids = [f"case {number:03d}" for number in range(4)]
    splits = Splits(folds=(Fold(training=(ids[3],), validation=tuple(ids[:3])), Fold(training=tuple(ids[:3]), validation=(ids[3],))))
    extended = extend_splits(splits, describe_cases(["p", "", "", "", "p", ""]), {"case 004", "case 005"})
    assert [fold.validation for fold in extended.folds] == [(*ids[:3], "case 004"), (ids[3], "case 005")]
