"""Folds: the reference's for the same cases, patients kept together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.errors import InputError
from autoseg.planning.splits import check_splits, make_splits
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
