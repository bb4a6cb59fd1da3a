"""Names and values of classes, typed or declared: regions come as they are painted, and what cannot be painted is refused."""

from itertools import combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autoseg.errors import InputError
from autoseg.io.classes import arrange_regions, check_painting, describe_regions, read_labels, read_typed
from autoseg.records.dataset import ClassLabel

BRATS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}


def list_pairs(classes):
    return [(label.name, label.values) for label in classes]


def test_names_alone_wait_for_the_values_found():
    typed = read_typed(("liver", "tumour"))
    assert (typed.names, typed.classes, typed.ignore_value) == (("liver", "tumour"), None, None)


def test_typed_regions_are_those_of_a_dataset_json():
    typed = read_typed(("whole=1+2+3", "core=2+3", "enhancing=3", "ignore=4"))
    assert (typed.classes, typed.ignore_value) == read_labels(BRATS, "dataset.json")
    assert list_pairs(typed.classes) == [("whole", (1, 2, 3)), ("core", (2, 3)), ("enhancing", (3,))]
    assert typed.ignore_value == 4


def test_classes_of_several_values_that_share_none_are_ordinary_ones_by_value():
    classes, ignore = read_labels({"background": 0, "b": 5, "a": [1, 7]}, "here", order=[9])
    assert list_pairs(classes) == [("a", (1, 7)), ("b", (5,))]
    assert ignore is None


def test_the_order_of_typing_does_not_matter_to_regions_within_each_other():
    classes = read_typed(("enhancing=3", "core=3+2", "whole=3+2+1")).classes
    assert list_pairs(classes) == [("whole", (1, 3, 2)), ("core", (2, 3)), ("enhancing", (3,))]
    assert describe_regions(classes).endswith("whole (1+2+3) as 1, core (2+3) as 2, enhancing (3) as 3")


def test_what_two_regions_share_must_be_a_class_of_its_own():
    with pytest.raises(InputError, match="cannot be written as one label map") as caught:
        read_typed(("a=1+2", "b=2+3"))
    assert "Value 2 is of a and b; b is painted last there, with 3" in caught.value.why
    assert "shared=2" in caught.value.todo
    assert list_pairs(read_typed(("a=1+2", "b=2+3", "shared=2")).classes) == [("a", (1, 2)), ("b", (3, 2)), ("shared", (2,))]


def test_a_region_is_painted_with_a_value_that_no_later_one_has():
    words = ("a=1+2+5", "b=1+2+4", "m=2+3", "n=3")  # 3 is of fewer regions than 2, but n paints it
    assert {label.name: label.values[0] for label in arrange_typed(words)}["m"] == 2


def arrange_typed(words):
    values = (word.partition("=") for word in words)
    return arrange_regions(tuple(ClassLabel(name=name, values=tuple(map(int, own.split("+")))) for name, _, own in values))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a", "b=2"), r"some classes \(b\) and none to others \(a\)"),
        (("a", "ignore"), "ignore needs its value"),
        (("=1",), "every class a name"),
        (("a=x",), "'a=x' is not NAME=VALUE"),
        (("a=1+",), "not NAME=VALUE"),
        (("a=1.5",), "not NAME=VALUE"),
        (("a", "a"), "a twice"),
        (("a=1", "b=1"), "a and b have the same values"),
        (("a=0+1", "b=2"), "a has the value 0, which is the background"),
        (("a=1+4", "ignore=4"), "a has the value 4, which is to be ignored"),
        (("a=1", "ignore=0"), "ignore has the value 0, which is the background"),
        (("a=1", "ignore=4+5"), r"ignore has one value, not \[4, 5\]"),
    ],
)
def test_what_is_mistyped_is_named(words, message):
    with pytest.raises(InputError, match=message) as caught:
        read_typed(words)
    assert "--classes" in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "order", "message"),
    [
        (BRATS, [1, 2], r"regions_class_order is \[1, 2\]"),
        (BRATS, 3, "regions_class_order is 3"),
        (BRATS, [1, 1, 3], "paints core with 1, which is none of"),
        (BRATS, [3, 2, 3], "cannot be written"),
        ({"a": "1"}, None, "label a is '1'"),
        ({"a": []}, None, r"label a is \[\]"),
        ({"a": [1, True]}, None, "label a is"),
    ],
)
def test_what_is_declared_wrongly_is_named(labels, order, message):
    with pytest.raises(InputError, match=message) as caught:
        read_labels(labels, "dataset.json", order)
    assert "dataset.json" in str(caught.value)


def paint(classes, value):
    """What a mask says where the truth is `value`: one region over the other."""
    painted = 0
    for label in classes:
        if value in label.values:
            painted = label.values[0]
    return painted


def list_members(classes, value):
    return [label.name for label in classes if value in label.values]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(st.frozensets(st.integers(1, 5), min_size=1), min_size=2, max_size=5, unique=True))
def test_masks_are_refused_exactly_where_a_painted_value_is_of_other_regions(sets):
    assume(any(a & b for a, b in combinations(sets, 2)))
    classes = arrange_regions(tuple(ClassLabel(name=str(sorted(values)), values=tuple(sorted(values))) for values in sets))
    values = set.union(*map(set, sets))
    faithful = all(list_members(classes, paint(classes, value)) == list_members(classes, value) for value in values)
    try:
        check_painting(classes, "here")
    except InputError:
        assert not faithful
    else:
        assert faithful
